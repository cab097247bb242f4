//! The election at a real API server: what the fake server of the unit tests promises about conflicts must be true.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test; clippy only knows functions that carry the attribute"
)]

use std::time::{Duration, Instant};

use egress_runtime::kubernetes::{with_timeouts, within_deadline};
use egress_runtime::lease::{Claim, Elector, KubernetesLease, LeadershipLost, Timing, identity};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use testkit::ApiServer;
use tokio_util::sync::CancellationToken;

async fn client_of(server: &ApiServer) -> Client {
    let kubeconfig = Kubeconfig::read_from(server.kubeconfig()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(with_timeouts(config)).unwrap()
}

fn candidate(client: &Client) -> (Elector<KubernetesLease>, Claim) {
    let store = KubernetesLease::new(client.clone(), "default", "egress-controller");
    Elector::new(store, identity("controller").unwrap(), Timing::default())
}

async fn within<T>(limit: Duration, what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(limit, wait).await.unwrap_or_else(|_| panic!("{what} took longer than {limit:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_gives_back_and_the_other_takes_over_in_under_two_seconds() {
    let server = ApiServer::start().await.unwrap();
    let client = client_of(&server).await;
    let limit = Duration::from_secs(30);
    let namespaces: Api<Namespace> = Api::all(client.clone());
    within(limit, "namespace default", async {
        while within_deadline(namespaces.get("default")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;

    // Both begin at once, with no lease there: one of the two creates must lose.
    let ((first, mut claim), (second, mut other)) = (candidate(&client), candidate(&client));
    let (stop_first, stop_second) = (CancellationToken::new(), CancellationToken::new());
    let first = tokio::spawn(first.run(stop_first.clone()));
    let second = tokio::spawn(second.run(stop_second.clone()));
    let first_leads = within(limit, "electing", async {
        tokio::select! {
            leads = claim.acquired() => leads.map(|()| true),
            leads = other.acquired() => leads.map(|()| false),
        }
    })
    .await
    .unwrap();
    // Long enough for renewals and for the loser's reads.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((claim.check().is_ok(), other.check().is_ok()), (first_leads, !first_leads));

    let started = Instant::now();
    let (stop_leader, loser) =
        if first_leads { (&stop_first, &mut other) } else { (&stop_second, &mut claim) };
    stop_leader.cancel();
    within(limit, "taking over", loser.acquired()).await.unwrap();
    let gap = started.elapsed();
    println!("hand-over took {gap:?}");
    assert!(gap < Duration::from_secs(2), "{gap:?}");

    let leases: Api<Lease> = Api::namespaced(client, "default");
    let spec = within_deadline(leases.get("egress-controller")).await.unwrap().spec.unwrap();
    assert_eq!(spec.lease_transitions, Some(2));
    assert_eq!(spec.lease_duration_seconds, Some(15));
    stop_first.cancel();
    stop_second.cancel();
    assert_eq!((first.await.unwrap(), second.await.unwrap()), (Ok(()), Ok(())));
    for claim in [&claim, &other] {
        assert_eq!(claim.check(), Err(LeadershipLost::NotHeld));
    }
    let spec = within_deadline(leases.get("egress-controller")).await.unwrap().spec.unwrap();
    assert_eq!(spec.holder_identity, None);
}
