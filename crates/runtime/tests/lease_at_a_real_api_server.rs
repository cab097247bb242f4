//! The election at a real API server: what the fake server of the unit tests promises about conflicts must be true.
//!
//! Needs Go (or a built control plane) and bash; see `tests/api-server.sh`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test; clippy only knows functions that carry the attribute"
)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use egress_runtime::kubernetes::{with_timeouts, within_deadline};
use egress_runtime::lease::{Claim, Elector, KubernetesLease, LeadershipLost, Timing, identity};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use tokio_util::sync::CancellationToken;

/// etcd and kube-apiserver; gone when dropped.
struct ApiServer {
    shell: Child,
    kubeconfig: String,
}

impl ApiServer {
    fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/api-server.sh");
        // It ends, and takes the programs along, when its standard input does: also when this process is killed.
        let body = format!(
            "set -euo pipefail; . '{}'; api_server_start >&2; echo \"$KUBECONFIG\"; read -r _ || true",
            script.display()
        );
        let mut shell = Command::new("bash")
            .args(["-c", &body])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut kubeconfig = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut kubeconfig).unwrap();
        assert!(
            !kubeconfig.trim().is_empty(),
            "the API server did not start; the reason is on standard error"
        );
        Self { shell, kubeconfig: kubeconfig.trim().to_owned() }
    }

    async fn client(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        Client::try_from(with_timeouts(config)).unwrap()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _exit_code = self.shell.wait();
    }
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
    let server = ApiServer::start();
    let client = server.client().await;
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
