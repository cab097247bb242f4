//! One question asked of one node: pure.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use egress_api::{NodeEgressStatus, NodeRoute, NodeRouteState};
use egress_routing::kernel_state::{Observed, RouteKind};
use egress_routing::prefix::{longest_match, parse_destination};
use egress_routing::wanted::WantedRoute;
use egress_routing::{Chosen, Layout, NodeView, OnNoGateway, Protected, ProtectedReason, Selection, plan};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;

use super::answer::{Answer, Through, Way};
use super::surroundings::{Surroundings, node_view, of};
use super::wanted::{Aside, machine, wanted};
use crate::view::{View, is_ready, name};

/// How it is for packets from this node. `report` is what it reports.
pub fn answer(
    address: Ipv4Addr,
    node: &Node,
    view: &View,
    surroundings: &Surroundings,
    report: Option<&NodeEgressStatus>,
) -> Answer {
    let mut asking = Asking::new(address, node, view, surroundings, report);
    asking.decide();
    let Asking { way, amiss, uncertain, why, notes, .. } = asking;
    Answer { address, way, amiss, uncertain, why, notes }
}

struct Asking<'a> {
    address: Ipv4Addr,
    view: &'a View,
    report: Option<&'a NodeEgressStatus>,
    node: NodeView,
    is_live: bool,
    /// What applies to the node and lists the address, by the agent's reading.
    wanted: Vec<WantedRoute>,
    way: Way,
    amiss: bool,
    uncertain: bool,
    why: Vec<String>,
    notes: Vec<String>,
}

impl<'a> Asking<'a> {
    fn new(
        address: Ipv4Addr,
        node: &Node,
        view: &'a View,
        surroundings: &Surroundings,
        report: Option<&'a NodeEgressStatus>,
    ) -> Self {
        let in_vpc =
            view.gateways().filter_map(|one| one.status.as_ref()).flat_map(|status| &status.gateways);
        let in_vpc = in_vpc.filter_map(|one| one.private_address.as_ref()?.parse().ok());
        let used = report.into_iter().flat_map(|report| &report.routes).flat_map(NodeRoute::gateways_in_use);
        let nodes = view.nodes.iter().flat_map(|one| of(one, &["InternalIP"]));
        let near: Vec<Ipv4Addr> =
            in_vpc.chain(used.filter_map(|text| text.parse().ok())).chain(nodes).collect();
        let mut it = Self {
            address,
            view,
            report,
            node: only(address, node_view(node, surroundings, &near)),
            is_live: is_ready(node),
            wanted: Vec::new(),
            way: Way::Unknown,
            amiss: false,
            uncertain: false,
            why: Vec::new(),
            notes: Vec::new(),
        };
        it.read(node);
        it.doubt(node, surroundings);
        it
    }

    /// Reads the StaticRoutes that list the address.
    fn read(&mut self, node: &Node) {
        let labels = node.metadata.labels.clone().unwrap_or_default();
        for route in &self.view.static_routes {
            let shown = name(route).to_owned();
            let route = match &route.0 {
                Ok(route) => route,
                Err(broken) => {
                    let words = format!(
                        "StaticRoute {shown} can't be read ({}); what the node has of it stays",
                        broken.error
                    );
                    self.notes.push(words);
                    self.uncertain = true;
                    continue;
                }
            };
            let has = entry(self.report, route.metadata.uid.as_deref().unwrap_or_default());
            let lists = || {
                let destinations = route.spec.destinations.iter();
                destinations
                    .filter_map(|one| parse_destination("", &one.0).ok())
                    .any(|one| one.contains(&self.address))
            };
            match wanted(route, self.view, &labels, has) {
                Ok(wanted) => self.wanted.extend(narrowed(self.address, wanted)),
                Err(_) if !lists() => {}
                Err(Aside::Deleted) => {
                    self.notes.push(format!("StaticRoute {shown} lists it and is being deleted"));
                }
                Err(Aside::NotSelected) => {
                    self.notes
                        .push(format!("StaticRoute {shown} lists it; its nodeSelector leaves this node out"));
                }
                Err(Aside::Unusable(error)) => {
                    self.notes.push(format!("StaticRoute {shown} lists it and can't be used: {error}; what the node has of an earlier version stays"));
                    self.uncertain = true;
                }
            }
        }
    }

    /// Says what may be otherwise than it looks from here.
    fn doubt(&mut self, node: &Node, surroundings: &Surroundings) {
        self.notes.extend(surroundings.blind.iter().cloned());
        if !self.is_live {
            self.notes.push("the node is not Ready: what it reported may be old".to_owned());
            self.uncertain = true;
        }
        let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
        let boot = info.map(|info| &info.boot_id).filter(|id| !id.is_empty());
        let Some(report) = self.report else {
            self.notes.push(
                "the node reports nothing: does its agent run? What follows is what it should do".to_owned(),
            );
            self.uncertain = true;
            return;
        };
        if boot.is_some() && report.boot_id.is_some() && report.boot_id.as_ref() != boot {
            self.notes.push("the node's report is of before its last boot".to_owned());
            self.uncertain = true;
        }
        let troubles = report.conditions.iter().filter(|condition| condition.status == "True");
        self.notes.extend(troubles.map(|one| format!("the node says {}: {}", one.type_, one.message)));
    }

    fn decide(&mut self) {
        let layout = Layout::default();
        let mut passed_over = BTreeSet::new();
        // Each round takes one StaticRoute out that the node says it can't use, as its agent does.
        loop {
            let able: Vec<WantedRoute> =
                self.wanted.iter().filter(|route| !passed_over.contains(&route.uid)).cloned().collect();
            let plan = plan(&able, &self.node, &self.selection(), &Observed::default(), &layout);
            let table = plan.state.routes.values();
            let longest = table
                .filter(|route| route.table == layout.table && route.destination.contains(&self.address))
                .max_by_key(|route| (route.destination.prefix_len(), u32::MAX - route.metric));
            let winner = longest.and_then(|route| {
                let report = match route.kind {
                    RouteKind::Nexthop(id) => plan.routes.iter().find(|report| report.nexthop == Some(id))?,
                    // A guard without a route: of one that fails closed and has no gateway to use.
                    RouteKind::Blackhole => {
                        let lists = |one: &WantedRoute| {
                            one.is_fail_closed() && one.destinations.contains_key(&route.destination)
                        };
                        plan.routes.iter().zip(&able).find(|(_, wanted)| lists(wanted))?.0
                    }
                    RouteKind::Throw | RouteKind::Gateway(_) | RouteKind::Unreachable => return None,
                };
                let wanted = able.iter().find(|one| one.uid == report.uid)?;
                Some((wanted.clone(), route.destination, route.kind == RouteKind::Blackhole))
            });
            let unable = plan.routes.iter().filter(|report| report.problem.is_some());
            let unable: Vec<String> = unable
                .map(|report| {
                    let problem = report.problem.as_ref().map(ToString::to_string).unwrap_or_default();
                    format!("StaticRoute {} lists it and is not routed: {problem}", report.name)
                })
                .collect();
            let Some((route, destination, is_shut)) = winner else {
                self.amiss |= !unable.is_empty();
                self.why.extend(unable);
                return self.nobodys();
            };
            if is_shut {
                self.why.extend(unable);
                return self.dropped(&route);
            }
            if self.in_force(&route, destination) {
                return self.others(&route, destination);
            }
            passed_over.insert(route.uid);
        }
    }

    /// What the node uses of each.
    fn selection(&self) -> Selection {
        let entries = self.report.into_iter().flat_map(|report| &report.routes);
        let used = entries.map(|entry| {
            let gateways: BTreeSet<Ipv4Addr> =
                entry.gateways_in_use().filter_map(|one| one.parse().ok()).collect();
            (entry.uid.clone(), Chosen { none_works: entry.no_gateway, ..Chosen::from(gateways) })
        });
        used.filter(|(_, chosen)| chosen.none_works || !chosen.gateways.is_empty()).collect()
    }

    /// No StaticRoute has it here: why.
    fn nobodys(&mut self) {
        self.way = Way::AsWithoutGateways;
        if let Some((range, reason)) = protecting(&self.node.protected, self.address) {
            self.why.push(format!("it lies in {range}, which is protected: {reason}"));
            let claims = self
                .wanted
                .iter()
                .map(|route| format!("StaticRoute {} lists {}", route.name, list(route, self.address)));
            self.notes.extend(claims);
            return;
        }
        if self.wanted.iter().any(|route| route.gateways.contains(&self.address)) {
            self.why.push("it is a gateway itself, and gateways are reached directly".to_owned());
            return;
        }
        for route in &self.wanted {
            if let Some(exclusion) = longest_match(&route.excluded, self.address) {
                let lists = list(route, self.address);
                self.why.push(format!(
                    "StaticRoute {} lists {lists} and leaves out {exclusion} (excludedDestinations)",
                    route.name
                ));
            }
        }
        if self.why.is_empty() {
            self.why.push("no StaticRoute lists it".to_owned());
        }
    }

    /// Whether the node has it in force; and if so, the way. Says why not.
    fn in_force(&mut self, route: &WantedRoute, destination: Ipv4Net) -> bool {
        let shown = &route.name;
        let generation = self
            .view
            .routes()
            .find(|one| one.metadata.uid.as_ref() == Some(&route.uid))
            .and_then(|one| one.metadata.generation);
        let Some(entry) = entry(self.report, &route.uid) else {
            if self.report.is_some() {
                self.notes
                    .push(format!("the node does not know StaticRoute {shown} yet: that is what it will do"));
            }
            self.uncertain = true;
            let most = if route.is_shared() { route.gateways.len() } else { 1 };
            self.through(route, destination, &route.gateways.iter().copied().take(most).collect::<Vec<_>>());
            return true;
        };
        if Some(entry.observed_generation) != generation {
            self.notes.push(format!("the node has another version of StaticRoute {shown} still"));
            self.uncertain = true;
        }
        let said = || {
            let message = entry.message.clone().or_else(|| entry.reason.clone()).unwrap_or_default();
            format!("StaticRoute {shown} lists it and the node says: {message}")
        };
        if entry.no_gateway {
            self.amiss = true;
            self.why.push(said());
            match route.on_no_gateway {
                OnNoGateway::FailClosed => self.way = Way::Dropped { static_route: shown.clone() },
                OnNoGateway::FailOpen if entry.gateways_in_use().next().is_none() => {
                    self.way = Way::AsWithoutGateways;
                }
                OnNoGateway::FailOpen | OnNoGateway::KeepLast => {
                    self.through(route, destination, &used(entry));
                }
            }
            return true;
        }
        let parsed = |text: &str| parse_destination("", text).ok();
        let failure = entry.failures.iter().find(|failure| parsed(&failure.destination) == Some(destination));
        if let Some(failure) = failure {
            self.amiss |= !matches!(failure.reason.as_str(), "Protected" | "Excluded");
            self.why.push(format!(
                "StaticRoute {shown} lists {destination} and the node says {}: {}",
                failure.reason, failure.message
            ));
            self.way = Way::AsWithoutGateways;
            if failure.reason == "ForeignRoute" {
                self.way = Way::Unknown;
                self.uncertain = true;
                return true;
            }
            // The main table answers first, or nothing may. The others leave the word to what is wider.
            return matches!(failure.reason.as_str(), "Shadowed" | "Protected");
        }
        if entry.state == NodeRouteState::NotApplied && (entry.reason.is_some() || entry.message.is_some()) {
            self.amiss = true;
            self.why.push(said());
            if entry.reason.as_deref() == Some("Unreadable") {
                self.way = Way::Unknown;
                self.uncertain = true;
                return true;
            }
            if entry.guarded {
                self.way = Way::Dropped { static_route: shown.clone() };
                return true;
            }
            return false;
        }
        let missing = entry.total.saturating_sub(entry.applied) as usize;
        if missing > entry.failures.len() {
            self.notes.push(format!(
                "{missing} destinations of StaticRoute {shown} are not applied on the node, and it names {} of them: this may be another",
                entry.failures.len()
            ));
            self.uncertain = true;
        }
        self.through(route, destination, &used(entry));
        if let Some(from) = &entry.draining {
            self.notes.push(format!(
                "a planned move goes on: connections that are open may still leave through {from}"
            ));
        }
        true
    }

    fn through(&mut self, route: &WantedRoute, destination: Ipv4Net, gateways: &[Ipv4Addr]) {
        if gateways.is_empty() {
            self.uncertain = true;
            self.why.push(format!(
                "StaticRoute {} lists {destination}, and the node names no gateway that it uses",
                route.name
            ));
            return;
        }
        self.why.push(format!("StaticRoute {} lists {destination}", route.name));
        let named: Vec<Through> =
            gateways.iter().map(|gateway| through(*gateway, route, self.view)).collect();
        for one in &named {
            let Some(own) = &one.egress_gateway else { continue };
            let role =
                machine(self.view, one.private_address).map(|(_, machine)| format!("{:?}", machine.role));
            let name = one.gateway.as_deref().unwrap_or_default();
            self.why.push(format!(
                "{} is gateway {name} of EgressGateway {own}, {}",
                one.private_address,
                role.unwrap_or_default()
            ));
        }
        let seen = self.report.into_iter().flat_map(|report| &report.gateways);
        for one in seen.filter(|one| gateways.iter().any(|gateway| gateway.to_string() == one.address)) {
            let trouble = [
                (!one.reachable).then_some("does not answer"),
                (one.forwards == Some(false)).then_some("does not lead outside"),
                (one.expected_source == Some(false)).then_some("is seen with another address than expected"),
                (one.full_size == Some(false)).then_some("loses large packets"),
            ];
            let trouble: Vec<&str> = trouble.into_iter().flatten().collect();
            if !trouble.is_empty() {
                let message = one.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
                self.notes.push(format!(
                    "the node finds that {} {}{message}",
                    one.address,
                    trouble.join(" and ")
                ));
            }
        }
        self.way = Way::ThroughGateway { static_route: route.name.clone(), destination, gateways: named };
        self.wide(destination);
    }

    /// What the main table may answer first, where only something wide is listed.
    fn wide(&mut self, destination: Ipv4Net) {
        let octets = self.address.octets();
        let is_private = self.address.is_private() || (octets[0] == 100 && octets[1] & 0xc0 == 64);
        if is_private && destination.prefix_len() < 32 {
            self.notes.push(
                "it is a private address: where the node has a route of its own to it (VPC, peering, another interface), that one wins, and only the node knows".to_owned(),
            );
            self.uncertain = true;
        }
    }

    fn dropped(&mut self, route: &WantedRoute) {
        self.amiss = true;
        self.way = Way::Dropped { static_route: route.name.clone() };
        self.why.push(format!("StaticRoute {} has onNoGateway: FailClosed", route.name));
    }

    /// Why not one of the others.
    fn others(&mut self, winner: &WantedRoute, destination: Ipv4Net) {
        let told = self.why.join(" ");
        for route in self.wanted.iter().filter(|route| route.uid != winner.uid) {
            let shown = &route.name;
            if told.contains(&format!("StaticRoute {shown} ")) {
                continue;
            }
            let Some(best) = longest_match(route.destinations.keys(), self.address) else { continue };
            let words = if let Some(exclusion) = longest_match(&route.excluded, self.address) {
                format!("StaticRoute {shown} lists {best} and leaves out {exclusion} (excludedDestinations)")
            } else if *best == destination {
                format!("StaticRoute {shown} lists {best} too, and {} is older (Conflict)", winner.name)
            } else if best.prefix_len() > destination.prefix_len() {
                format!("StaticRoute {shown} lists {best} and can't be used on this node")
            } else {
                format!("StaticRoute {shown} lists {best}, which is wider")
            };
            self.why.push(words);
        }
    }
}

/// The part of it that decides about one address.
fn narrowed(address: Ipv4Addr, mut route: WantedRoute) -> Option<WantedRoute> {
    route.destinations.retain(|destination, _| destination.contains(&address));
    route.excluded.retain(|exclusion| exclusion.contains(&address));
    route.invalid_destinations.clear();
    (!route.destinations.is_empty()).then_some(route)
}

fn only(address: Ipv4Addr, mut node: NodeView) -> NodeView {
    let mut protected = Protected::default();
    for (range, reason) in
        node.protected.iter().filter(|(range, _)| range.contains(&address) || is_for_gateways(*range))
    {
        protected.insert(range, reason);
    }
    node.protected = protected;
    node
}

// Ranges where no gateway can be count for those that are listed, whatever address is asked for.
fn is_for_gateways(range: Ipv4Net) -> bool {
    range.prefix_len() < 32 || range.addr().is_private()
}

fn protecting(protected: &Protected, address: Ipv4Addr) -> Option<(Ipv4Net, ProtectedReason)> {
    protected.iter().filter(|(range, _)| range.contains(&address)).max_by_key(|(range, _)| range.prefix_len())
}

fn list(route: &WantedRoute, address: Ipv4Addr) -> String {
    longest_match(route.destinations.keys(), address).map(ToString::to_string).unwrap_or_default()
}

fn entry<'a>(report: Option<&'a NodeEgressStatus>, uid: &str) -> Option<&'a NodeRoute> {
    report?.routes.iter().find(|entry| entry.uid == uid)
}

fn used(entry: &NodeRoute) -> Vec<Ipv4Addr> {
    entry.gateways_in_use().filter_map(|text| text.parse().ok()).collect()
}

fn through(gateway: Ipv4Addr, route: &WantedRoute, view: &View) -> Through {
    let found = machine(view, gateway);
    let own = view.routes().find(|one| one.metadata.uid.as_ref() == Some(&route.uid));
    let listed = own.map(|own| super::wanted::listed(own, view)).unwrap_or_default();
    let written = listed
        .into_iter()
        .find(|one| one.address.0 == gateway.to_string())
        .and_then(|one| one.egress_address);
    Through {
        private_address: gateway,
        gateway: found.map(|(_, machine)| machine.name.clone()),
        egress_gateway: found.map(|(gateway, _)| name(gateway).to_owned()),
        public_address: found
            .and_then(|(_, machine)| machine.public_address.clone())
            .or(written.map(|one| one.0)),
    }
}
