//! What the loop reads: the API server's objects, the node, and our own state in the kernel.

use std::collections::BTreeSet;

use egress_netlink::ownership::Claim;
use egress_netlink::reading::{Interface, MainRoute};
use egress_routing::clash::{SeenRule, has_routing_agent};
use egress_routing::kernel_state::Observed;
use egress_routing::{GatewaySlot, NodeView, ProtectedReason, ServedPort};
use kube::runtime::reflector::ObjectRef;

use super::inherited::Inherited;
use super::{Configured, Reconciler};
use crate::inbound;
use crate::neighbours;
use crate::node::{self, Sources};
use crate::objects::{self, Objects};
use crate::protected_list::ProtectedList;
use crate::surroundings::Surroundings;

/// One look at the node.
pub(super) struct Look {
    pub(super) interfaces: Vec<Interface>,
    pub(super) main_routes: Vec<MainRoute>,
    pub(super) rules: Vec<SeenRule>,
    pub(super) surroundings: Surroundings,
}

impl Reconciler {
    /// While the API server has no Node of this name (it is being made anew), the last labels count on.
    pub(super) fn read_labels(&mut self) {
        let node = self.with.watches.nodes.get(&ObjectRef::new(&self.with.node_name));
        if let Some(node) = node {
            self.labels = Some(node.metadata.labels.clone().unwrap_or_default());
        }
    }

    pub(super) fn read_objects(&mut self) -> Objects {
        let routes = self.with.watches.static_routes.state();
        let answer = self.with.definitions.answer();
        let definitions = &self.with.definitions;
        let gateways = self.with.watches.egress_gateways.state();
        let gateways = self.leaving.judge(gateways, answer.as_ref(), || definitions.ask());
        let mut objects = objects::read(
            routes.iter().map(AsRef::as_ref),
            gateways.iter().map(AsRef::as_ref),
            self.labels.as_ref(),
            &self.objects,
        );
        self.keep_departed(&mut objects);
        objects
    }

    /// Reads the user's list, and has its names looked up.
    pub(super) fn read_protected_list(&mut self) {
        let object = self.with.watches.protected_list.as_ref().and_then(|store| store.state().pop());
        self.list = ProtectedList::read(object.as_deref());
        let wanted: BTreeSet<String> = self.own_names.union(&self.list.names).cloned().collect();
        self.with.names.send_if_modified(|names| {
            let is_new = names.protected != wanted;
            names.protected = wanted;
            is_new
        });
    }

    /// Ranges that are protected because somebody says so, and those of Services.
    fn configured(&self) -> Configured {
        let services = self.with.watches.service_ranges.state();
        let services = services
            .iter()
            .filter_map(|range| range.spec.as_ref())
            .flat_map(|spec| spec.cidrs.iter().flatten());
        let services =
            services.filter_map(|text| text.parse().ok()).map(|range| (range, ProtectedReason::Services));
        let listed = self.list.ranges.iter().map(|range| (*range, ProtectedReason::UserList));
        self.with.configured.iter().copied().chain(services).chain(listed).collect()
    }

    pub(super) async fn look(&mut self) -> Result<(Look, Observed), egress_netlink::Error> {
        let interfaces = self.with.kernel.interfaces().await?;
        let main_routes = self.with.kernel.main_routes().await?;
        let rules = neighbours::seen_rules(self.with.kernel.rules().await?);
        let observed = self.snapshot().await?;
        Ok((
            Look { interfaces, main_routes, rules, surroundings: self.with.surroundings.borrow().clone() },
            observed,
        ))
    }

    pub(super) fn see(&self, look: &Look, objects: &Objects) -> NodeView {
        let nodes = self.with.watches.nodes.state();
        let names = self.with.names.borrow();
        let sources = Sources {
            name: &self.with.node_name,
            interfaces: &look.interfaces,
            main_routes: &look.main_routes,
            nodes: &nodes.iter().map(AsRef::as_ref).collect::<Vec<_>>(),
            api_server: &self.with.api_server,
            surroundings: &look.surroundings,
            protected_names: &names.protected,
            own_names: &self.own_names,
            objects,
            configured: &self.configured(),
            inherited: self.inherited.as_ref().map(Inherited::addresses),
        };
        let mut view = node::view(sources, self.view.as_ref());
        let vpc = view.vpc.as_ref().map(|vpc| vpc.subnet);
        view.main_origins = neighbours::origins(&look.main_routes, vpc, has_routing_agent(&look.rules));
        view.served = self.served(&view);
        view
    }

    fn served(&self, view: &NodeView) -> BTreeSet<ServedPort> {
        let stores = &self.with.watches.inbound;
        let (pods, services, slices) = (stores.pods.state(), stores.services.state(), stores.slices.state());
        inbound::served_ports(
            pods.iter().map(AsRef::as_ref),
            services.iter().map(AsRef::as_ref),
            slices.iter().map(AsRef::as_ref),
            view,
        )
    }

    pub(super) fn claim(&self) -> Claim {
        let layout = &self.layout;
        let probe_tables = (0..layout.probe_slots).map(|slot| layout.probe_table(GatewaySlot(slot)));
        Claim {
            tables: probe_tables.chain([layout.table]).collect(),
            priorities: vec![layout.priorities()],
            nexthops: layout.nexthops(),
        }
    }
}
