//! What the health page shows: the mirrors that every replica has anyway, the EgressGateways beside them, and what gateways say of
//! their headroom while somebody looks.
//!
//! The page is no part of the controller's work: where it cannot be served that is logged, and everything else goes on.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use egress_api::EgressGateway;
use egress_dashboard::access::Access;
use egress_dashboard::headroom::{Gauge, Headrooms};
use egress_dashboard::server::{self, Bound};
use egress_dashboard::view::{NodeObjects, Objects};
use egress_dashboard::{Board, Listen, Source};
use egress_runtime::guarded::Guarded;
use egress_runtime::kubernetes::watch_settings;
use egress_runtime::tasks::Tasks;
use futures::future::BoxFuture;
use futures::{FutureExt as _, Stream, StreamExt, stream};
use jiff::Timestamp;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::{self, Store};
use kube::{Api, Client, Resource};
use tokio::sync::watch;

use crate::health::HealthClient;
use crate::process::Mirrored;
use crate::relisting::relisted;
use crate::watches::Mirrors;

// Gateways that are asked for their headroom at a time.
const ASKED_AT_ONCE: usize = 16;

/// Takes the addresses of `--dashboard-listen`. What cannot be had is logged and left out.
pub async fn bind(listen: &Listen, client: &Client) -> Vec<Bound> {
    let mut bound = Vec::new();
    for address in &listen.0 {
        match server::bind(*address, || Access::by_token(client.clone())).await {
            Ok(server) => bound.push(server),
            Err(error) => {
                let source = std::error::Error::source(&error).map(tracing::field::display);
                tracing::error!(%error, source, "the health page is not served there");
            }
        }
    }
    bound
}

/// Serves the page from these listeners until the tasks end.
pub fn start(
    client: &Client,
    mirrored: Mirrored,
    bound: Vec<Bound>,
    health: HealthClient,
    tasks: &mut Tasks,
) {
    if bound.is_empty() {
        return;
    }
    let shutdown = tasks.shutdown();
    let (changed, gateway_changes) = watch::channel(0);
    let Mirrored { mirrors, changes } = mirrored;
    let (shown, following) = Shown::follow(client, mirrors, changed);
    let board = Board::new(shown, HeadroomOf(health));
    let news = stream::select(bursts(changes), bursts(gateway_changes));
    let (keeping, stopping) = (board.clone(), shutdown.clone());
    tasks.spawn("dashboard", async move {
        tokio::select! {
            () = keeping.keep(news, stopping.clone()) => {}
            () = following => {}
            () = stopping.cancelled() => {}
        }
        // Neither ends before the process does; if one did, the controller would still have its work to do.
        stopping.cancelled().await;
        Ok::<_, Infallible>(())
    });
    for server in bound {
        if let Ok(address) = server.local_addr() {
            tracing::info!(%address, "the health page is served");
        }
        tasks.spawn("dashboard server", server.serve(board.clone(), shutdown.clone()));
    }
}

fn bursts(changes: watch::Receiver<u64>) -> impl Stream<Item = ()> + Send {
    stream::unfold(changes, |mut changes| async move {
        changes.changed().await.ok()?;
        Some(((), changes))
    })
}

struct Shown {
    mirrors: Mirrors,
    gateways: Store<Guarded<EgressGateway>>,
    known: AtomicBool,
    heard: Arc<Heard>,
}

// Ten thousand destinations are in a StaticRoute's mirror already; the page shows one, and whether there are more.
fn trim(object: &mut Guarded<EgressGateway>) {
    object.meta_mut().managed_fields = None;
    if let Ok(gateway) = &mut object.0 {
        gateway.spec.destinations.truncate(2);
        gateway.spec.destinations.shrink_to_fit();
        gateway.spec.excluded_destinations = Vec::new();
    }
}

/// Whether the API server is heard.
#[derive(Default)]
struct Heard {
    failing_since: Mutex<Option<Timestamp>>,
}

impl Heard {
    fn note(&self, heard: bool) {
        let mut since = self.failing_since.lock().unwrap_or_else(PoisonError::into_inner);
        *since = if heard { None } else { since.or_else(|| Some(Timestamp::now())) };
    }

    fn failing_since(&self) -> Option<Timestamp> {
        *self.failing_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown {
    fn follow(
        client: &Client,
        mirrors: Mirrors,
        changed: watch::Sender<u64>,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (gateways, writer) = reflector::store();
        let heard = Arc::new(Heard::default());
        let api: Api<Guarded<EgressGateway>> = Api::all(client.clone());
        let trimmed = relisted(api, watch_settings()).modify(trim);
        let noting = heard.clone();
        let following = trimmed.default_backoff().reflect(writer).for_each(move |event| {
            noting.note(event.is_ok());
            changed.send_modify(|count| *count = count.wrapping_add(1));
            std::future::ready(())
        });
        (Self { mirrors, gateways, known: AtomicBool::new(false), heard }, following)
    }
}

impl Shown {
    // What was read once is not unread again.
    fn are_known(&self) -> bool {
        let known = || self.gateways.wait_until_ready().now_or_never().is_some() && self.mirrors.are_known();
        if !self.known.load(Ordering::Relaxed) && known() {
            self.known.store(true, Ordering::Relaxed);
        }
        self.known.load(Ordering::Relaxed)
    }
}

impl Source for Shown {
    fn look(&self, look: &mut dyn FnMut(&Objects<'_>)) {
        let gateways = self.gateways.state();
        let ready: Option<BTreeSet<String>> = self.mirrors.nodes_with_ready_agents();
        let known = self.are_known();
        self.mirrors.with_reports(|reports| {
            let nodes: Vec<NodeObjects<'_>> = reports
                .iter()
                // A report without a node is of one that is gone.
                .filter_map(|node| {
                    let agent_ready = ready.as_ref().map(|ready| ready.contains(node.name));
                    Some(NodeObjects {
                        name: node.name,
                        ready: node.is_ready?,
                        agent_ready,
                        report: node.report,
                    })
                })
                .collect();
            look(&Objects {
                gateways: &gateways,
                nodes: &nodes,
                known,
                unheard_since: self.heard.failing_since(),
            });
        });
    }
}

struct HeadroomOf(HealthClient);

impl Gauge for HeadroomOf {
    fn measure(&self, gateways: Vec<Ipv4Addr>) -> BoxFuture<'_, Headrooms> {
        stream::iter(gateways)
            .map(move |address| async move { Some((address, self.0.headroom(address).await?)) })
            .buffer_unordered(ASKED_AT_ONCE)
            .filter_map(std::future::ready)
            .collect::<Headrooms>()
            .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_ten_thousand_destinations_the_page_keeps_two() {
        let destinations: Vec<String> =
            (0..10_000).map(|one| format!("198.{}.{}.7", one / 250, one % 250)).collect();
        let mut object: Guarded<EgressGateway> = serde_json::from_value(serde_json::json!({
            "apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway",
            "metadata": {"name": "demo", "managedFields": [{"manager": "kubectl"}]},
            "spec": {"destinations": destinations, "excludedDestinations": ["198.0.0.7"], "publicIP": "Ephemeral"},
        }))
        .unwrap();
        trim(&mut object);
        assert!(object.meta().managed_fields.is_none());
        let spec = object.0.unwrap().spec;
        assert_eq!((spec.destinations.len(), spec.excluded_destinations.len()), (2, 0));
    }

    #[test]
    fn since_when_the_api_server_is_not_heard_does_not_move_while_it_is_not() {
        let heard = Heard::default();
        heard.note(true);
        assert_eq!(heard.failing_since(), None);
        heard.note(false);
        let since = heard.failing_since();
        assert!(since.is_some());
        heard.note(false);
        assert_eq!(heard.failing_since(), since);
        heard.note(true);
        assert_eq!(heard.failing_since(), None);
    }
}
