//! Keeps the objects that tell what is served to the outside.
//!
//! Three watches, each of as little as there is: the pods of this node, the Services with node ports, and the EndpointSlices
//! of those Services only. What is kept of an object is what [`super::served_ports`] reads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::reflector::store::{Writer, WriterDropped};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::{OwnPod, SERVICE_NAME};
use crate::watches::{follow, take_in};

/// So many Services are named in a selector, which is part of an address of bounded length; beyond, every slice is watched
/// that belongs to a Service with an address.
const MOST_NAMED: usize = 64;

/// The stores. All are empty until [`Stores::ready`] returns.
#[derive(Clone)]
pub struct Stores {
    /// The pods of this node, without what is not read.
    pub pods: Store<OwnPod>,
    /// Services with node ports: their names.
    pub services: Store<Service>,
    /// What stands behind them: addresses and ports.
    pub slices: Store<EndpointSlice>,
}

impl Stores {
    /// Begins to follow; `changed` is notified of what is news.
    pub fn start(client: &Client, node_name: &str, changed: &Arc<Notify>, tasks: &mut JoinSet<()>) -> Self {
        let settings = egress_runtime::kubernetes::watch_settings;
        let own = format!("spec.nodeName={node_name},status.phase!=Succeeded,status.phase!=Failed");
        let pods = follow(Api::all(client.clone()), settings().fields(&own), changed, tasks, |_| {});
        let (services, services_writer) = reflector::store();
        let (slices, slices_writer) = reflector::store();
        let followed = FollowedServices { services: services_writer, slices: slices_writer, selector: None };
        tasks.spawn(followed.run(client.clone(), Arc::clone(changed)));
        Self { pods, services, slices }
    }

    /// Waits until every store has been filled once.
    pub async fn ready(self) -> Result<(), WriterDropped> {
        self.pods.wait_until_ready().await?;
        self.services.wait_until_ready().await?;
        self.slices.wait_until_ready().await
    }
}

/// Services, and the slices of exactly those.
struct FollowedServices {
    services: Writer<Service>,
    slices: Writer<EndpointSlice>,
    /// What the slices are selected by now: `None` before the first list of Services.
    selector: Option<String>,
}

type SliceEvents = BoxStream<'static, watcher::Result<watcher::Event<EndpointSlice>>>;

impl FollowedServices {
    async fn run(mut self, client: Client, changed: Arc<Notify>) {
        let with_node_ports = egress_runtime::kubernetes::watch_settings()
            .fields("spec.type!=ClusterIP,spec.type!=ExternalName");
        let mut services = watcher(Api::<Service>::all(client.clone()), with_node_ports)
            .default_backoff()
            .modify(keep_the_name)
            .boxed();
        let mut slices: SliceEvents = stream::pending().boxed();
        loop {
            tokio::select! {
                event = services.next() => match event {
                    Some(Ok(event)) => if take_in(&event, &mut self.services) {
                        if let Some(selector) = self.new_selector() {
                            slices = self.watch_slices(&client, &selector);
                        }
                        changed.notify_one();
                    }
                    Some(Err(error)) => tracing::warn!(kind = "Service", %error, "watch broke; what is in the kernel stays"),
                    None => return,
                },
                event = slices.next() => match event {
                    Some(Ok(event)) => if take_in(&event, &mut self.slices) {
                        changed.notify_one();
                    }
                    Some(Err(error)) => tracing::warn!(kind = "EndpointSlice", %error, "watch broke; what is in the kernel stays"),
                    None => return,
                },
            }
        }
    }

    /// What to select slices by, when that is something else than up to now.
    fn new_selector(&mut self) -> Option<String> {
        let services = self.services.as_reader();
        let names: BTreeSet<String> =
            services.state().iter().filter_map(|service| service.metadata.name.clone()).collect();
        let selector = selector(&names);
        (self.selector.as_ref() != Some(&selector)).then(|| {
            self.selector = Some(selector.clone());
            selector
        })
    }

    fn watch_slices(&mut self, client: &Client, selector: &str) -> SliceEvents {
        if selector.is_empty() {
            // Nobody's slices: that is known without asking.
            self.slices.apply_watcher_event(&watcher::Event::Init);
            self.slices.apply_watcher_event(&watcher::Event::InitDone);
            return stream::pending().boxed();
        }
        let settings = egress_runtime::kubernetes::watch_settings().labels(selector);
        watcher(Api::all(client.clone()), settings).default_backoff().modify(fold).boxed()
    }
}

/// Selects the slices of these Services, in whatever namespace; empty for none.
fn selector(names: &BTreeSet<String>) -> String {
    match names.len() {
        0 => String::new(),
        1..=MOST_NAMED => {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            format!("{SERVICE_NAME} in ({})", names.join(","))
        }
        _ => format!("{SERVICE_NAME},!service.kubernetes.io/headless"),
    }
}

fn name_only(metadata: &ObjectMeta) -> ObjectMeta {
    ObjectMeta { name: metadata.name.clone(), namespace: metadata.namespace.clone(), ..ObjectMeta::default() }
}

/// Of a Service: that it is there.
pub(super) fn keep_the_name(service: &mut Service) {
    *service = Service { metadata: name_only(&service.metadata), ..Service::default() };
}

/// Of a slice: its Service, its ports, and all addresses in one endpoint, each once.
pub(super) fn fold(slice: &mut EndpointSlice) {
    let labels: Option<BTreeMap<String, String>> = slice.metadata.labels.take().map(|mut labels| {
        labels.retain(|label, _| label == SERVICE_NAME);
        labels
    });
    slice.metadata = ObjectMeta { labels, ..name_only(&slice.metadata) };
    let addresses: BTreeSet<String> =
        slice.endpoints.drain(..).flat_map(|endpoint| endpoint.addresses).collect();
    let addresses = addresses.into_iter().collect();
    slice.endpoints = vec![Endpoint { addresses, ..Endpoint::default() }];
    for port in slice.ports.iter_mut().flatten() {
        *port = EndpointPort { port: port.port, protocol: port.protocol.take(), ..EndpointPort::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_selected_by_their_services_while_those_are_few() {
        let names = |count: usize| (0..count).map(|n| format!("s{n}")).collect::<BTreeSet<_>>();
        assert_eq!(selector(&names(0)), "");
        assert_eq!(selector(&names(2)), "kubernetes.io/service-name in (s0,s1)");
        assert_eq!(selector(&names(65)), "kubernetes.io/service-name,!service.kubernetes.io/headless");
    }
}
