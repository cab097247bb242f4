//! Other programs on the node: what they have in our way, and whose it seems to be.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use egress_netlink::reading::MainRoute;
use egress_netlink::rule;
use egress_routing::Clash;
use egress_routing::clash::SeenRule;
use egress_routing::origin::RouteOrigin;
use ipnet::Ipv4Net;

use crate::concerns::Concern;

/// Another program has something in our way, or routes the same destinations.
pub const CLASH: &str = "Clash";

/// So many of one kind are named.
const MOST_OF_ONE_KIND: usize = 3;

/// The range of ephemeral ports, and the ports that the kernel gives to nobody.
const PORT_FILES: [&str; 2] =
    ["/proc/sys/net/ipv4/ip_local_port_range", "/proc/sys/net/ipv4/ip_local_reserved_ports"];

/// The rules that the kernel has, in the words of the plan.
pub fn seen_rules(rules: Vec<rule::SeenRule>) -> Vec<SeenRule> {
    let seen =
        |one: rule::SeenRule| SeenRule { rule: one.rule, complete: one.complete, protocol: one.protocol };
    rules.into_iter().map(seen).collect()
}

/// Where the routes of the main table come from, all but the default route and the kernel's own. Of several to one destination
/// the one that is used counts.
pub fn origins(
    routes: &[MainRoute],
    vpc: Option<Ipv4Net>,
    routing_agent: bool,
) -> BTreeMap<Ipv4Net, RouteOrigin> {
    let mut used: BTreeMap<Ipv4Net, &MainRoute> = BTreeMap::new();
    for route in routes.iter().filter(|route| route.destination.prefix_len() > 0) {
        let best = used.entry(route.destination).or_insert(route);
        if route.metric < best.metric {
            *best = route;
        }
    }
    let origin = |route: &MainRoute| RouteOrigin::of(route.protocol, route.gateway, vpc, routing_agent);
    used.into_iter()
        .map(|(destination, route)| (destination, origin(route)))
        .filter(|(_, origin)| !origin.is_kernels())
        .collect()
}

/// What to say of clashes: the first few of each kind, and how many more there are.
pub fn concerns(clashes: &[Clash]) -> Vec<Concern> {
    let mut concerns: Vec<Concern> = Vec::new();
    let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
    for clash in clashes {
        let count = counts.entry(clash.reason()).or_default();
        *count += 1;
        if *count <= MOST_OF_ONE_KIND {
            concerns.push(Concern { type_: CLASH, reason: clash.reason(), message: clash.to_string() });
        }
    }
    for (reason, count) in counts.into_iter().filter(|(_, count)| *count > MOST_OF_ONE_KIND) {
        let message = format!("and {} more of kind {reason}", count - MOST_OF_ONE_KIND);
        concerns.push(Concern { type_: CLASH, reason, message });
    }
    concerns
}

/// The ports that the node's own connections get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EphemeralPorts {
    /// From the first to the last.
    pub range: RangeInclusive<u16>,
    /// Those in it that the kernel keeps back.
    pub reserved: Vec<RangeInclusive<u16>>,
}

impl EphemeralPorts {
    /// Whether a connection may get that port.
    pub fn gives(&self, port: u16) -> bool {
        self.range.contains(&port) && !self.reserved.iter().any(|range| range.contains(&port))
    }
}

/// The kernel's ephemeral ports; nothing where the files can't be read.
pub fn ephemeral_ports() -> Option<EphemeralPorts> {
    let [range, reserved] = PORT_FILES.map(|file| std::fs::read_to_string(file).ok());
    Some(EphemeralPorts { range: ephemeral(&range?)?, reserved: port_list(&reserved.unwrap_or_default()) })
}

/// Two numbers with a tab between.
fn ephemeral(text: &str) -> Option<RangeInclusive<u16>> {
    let mut bounds = text.split_whitespace().map_while(|number| number.parse().ok());
    Some(bounds.next()?..=bounds.next()?)
}

/// `8080,61000-63047`.
fn port_list(text: &str) -> Vec<RangeInclusive<u16>> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use egress_routing::kernel_state::NexthopId;
    use egress_routing::origin::{Author, Protocol};

    use super::*;

    #[test]
    fn of_several_routes_to_one_destination_the_one_that_is_used_is_told() {
        let route = |destination: &str, metric, protocol| MainRoute {
            destination: destination.parse().unwrap(),
            gateway: Some(Ipv4Addr::new(10, 116, 0, 5)),
            interface: Some(3),
            source: None,
            metric,
            protocol,
            kind: 1,
        };
        let routes =
            [route("0.0.0.0/0", 0, 16), route("192.0.2.80/32", 10, 186), route("192.0.2.80/32", 0, 4)];
        let found = origins(&routes, Some("10.116.0.0/20".parse().unwrap()), false);
        assert_eq!(found.len(), 1);
        assert_eq!(found[&"192.0.2.80/32".parse().unwrap()].author, Author::OlderOperator);
    }

    #[test]
    fn a_few_of_each_kind_are_named_and_the_others_counted() {
        let nexthop = |id| Clash::Nexthop { id: NexthopId(id), protocol: Protocol(3) };
        let local = Clash::LocalBehind { first: 900 };
        let many: Vec<_> = [local].into_iter().chain((1..=10_000).map(nexthop)).collect();
        let said = concerns(&many);
        assert_eq!(said.len(), 5);
        assert_eq!(said[0].reason, "LocalTableBehind");
        assert_eq!(said[4].message, "and 9997 more of kind ForeignNexthop");
    }

    #[test]
    fn port_files_are_read_as_the_kernel_writes_them() {
        assert_eq!(ephemeral("32768\t60999\n"), Some(32_768..=60_999));
        assert_eq!(port_list("\n"), []);
        assert_eq!(port_list("8080,61000-63047\n"), [8_080..=8_080, 61_000..=63_047]);
    }
}
