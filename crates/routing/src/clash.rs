//! What of other programs is in our way on a node, and what to do about it.
//!
//! Responsibility: to find and to name it. Nothing of it is ever touched, and the plan goes around it where it can: nexthop ids
//! and probe slots that are taken are passed over, a destination whose place is taken says so in its own report.

use std::fmt;
use std::ops::RangeInclusive;

use ipnet::Ipv4Net;

use crate::kernel_state::{Foreign, MAIN_TABLE, NexthopId, Observed, PROTOCOL, Rule, RuleAction};
use crate::layout::Layout;
use crate::origin::{Author, Protocol, ROUTING_AGENT_PRIORITY, ROUTING_AGENT_TABLE, RouteOrigin};
use crate::report::{FailureCause, RouteReport};

/// The kernel's table of the node's own addresses.
const LOCAL_TABLE: u32 = 255;

/// A rule as the kernel shows it, whoever made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenRule {
    /// The rule, as far as it can be said with our words.
    pub rule: Rule,
    /// Whether it has nothing beyond that.
    pub complete: bool,
    /// Its protocol number.
    pub protocol: u8,
}

/// Something of another program in our way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clash {
    /// A rule sends every packet elsewhere before ours are asked.
    RuleAhead {
        /// Its priority.
        priority: u32,
        /// Its protocol number.
        protocol: Protocol,
    },
    /// The kernel's local table is asked after ours.
    LocalBehind {
        /// Our first priority.
        first: u32,
    },
    /// A rule among ours.
    Rule {
        /// Its priority.
        priority: u32,
        /// Its protocol number.
        protocol: Protocol,
        /// Our priorities.
        ours: (u32, u32),
    },
    /// A rule elsewhere looks up a table of ours.
    Lookup {
        /// Its priority.
        priority: u32,
        /// Its protocol number.
        protocol: Protocol,
        /// The table.
        table: u32,
    },
    /// A route in a table of ours.
    Route {
        /// Its destination.
        destination: Ipv4Net,
        /// Its metric.
        metric: u32,
        /// Its protocol number.
        protocol: Protocol,
        /// The table.
        table: u32,
        /// The flag that chooses another.
        flag: &'static str,
    },
    /// A nexthop object with an id of ours.
    Nexthop {
        /// Its id.
        id: NexthopId,
        /// Its protocol number.
        protocol: Protocol,
    },
    /// The main table has a route for exactly a listed destination.
    Destination {
        /// The destination.
        destination: Ipv4Net,
        /// Where that route comes from.
        origin: RouteOrigin,
    },
    /// The kernel may give other connections the ports of our probes.
    Ports {
        /// The ephemeral range.
        ephemeral: (u16, u16),
        /// The ports of probes.
        ours: (u16, u16),
    },
}

impl Clash {
    /// The kind in one word, for `reason` fields.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::RuleAhead { .. } => "RuleAhead",
            Self::LocalBehind { .. } => "LocalTableBehind",
            Self::Rule { .. } | Self::Lookup { .. } => "ForeignRule",
            Self::Route { .. } => "ForeignRoute",
            Self::Nexthop { .. } => "ForeignNexthop",
            Self::Destination { origin, .. } => match origin.author {
                Author::OlderOperator => "OlderOperator",
                Author::RoutingAgent => "RoutingAgent",
                Author::Other => "MainTableRoute",
            },
            Self::Ports { .. } => "EphemeralPorts",
        }
    }
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RuleAhead { priority, protocol } => write!(
                f,
                "the rule at priority {priority} ({protocol}) takes every packet before ours are asked: nothing goes through a \
                 gateway until it is removed"
            ),
            Self::LocalBehind { first } => write!(
                f,
                "no rule ahead of ours, which begin at {first}, looks up the kernel's local table (255): give the agent higher \
                 --rule-priorities, or put that rule ahead of them"
            ),
            Self::Rule { priority, protocol, ours: (first, last) } => write!(
                f,
                "the rule at priority {priority} ({protocol}) is among ours, {first} to {last}: remove it, or give the agent \
                 other --rule-priorities"
            ),
            Self::Lookup { priority, protocol, table } => write!(
                f,
                "the rule at priority {priority} ({protocol}) looks up table {table}, which is ours: remove it, or give the agent \
                 another --table and --probe-tables"
            ),
            Self::Route { destination, metric, protocol, table, flag } => write!(
                f,
                "a route to {destination} with metric {metric} ({protocol}) is in table {table}, which is ours: remove it, or give \
                 the agent another --{flag}"
            ),
            Self::Nexthop { id, protocol } => write!(
                f,
                "nexthop object {id} ({protocol}) has an id of ours: remove it, or give the agent other --nexthop-ids"
            ),
            Self::Destination { destination, origin } => {
                write!(f, "there is a route to {destination} ({origin}), which wins: ")?;
                f.write_str(match origin.author {
                    Author::OlderOperator => {
                        "remove that operator, then its routes; ours take over with no packet in between"
                    }
                    Author::RoutingAgent => {
                        "take the destination out of the routing agent's Route, or out of the StaticRoute"
                    }
                    Author::Other => "remove it, and ours takes over with no packet in between",
                })
            }
            Self::Ports { ephemeral: (first, last), ours: (start, end) } => write!(
                f,
                "the kernel gives connections ports from {first} to {last}, and the rules for probes take {start} to {end} to a \
                 gateway: end net.ipv4.ip_local_port_range below, or put them into net.ipv4.ip_local_reserved_ports"
            ),
        }
    }
}

/// Everything of others that is in our way, the worst first. `rules` are all of the node's, in the kernel's order.
pub fn clashes(
    observed: &Observed,
    rules: &[SeenRule],
    reports: &[RouteReport],
    layout: &Layout,
) -> Vec<Clash> {
    let mut found = Vec::new();
    if !reports.is_empty() {
        found.extend(rules.iter().filter(|seen| is_ahead(seen, layout)).map(|seen| Clash::RuleAhead {
            priority: seen.rule.priority,
            protocol: Protocol(seen.protocol),
        }));
        found.extend(local_behind(rules, layout));
    }
    found.extend(reports.iter().flat_map(same_destinations));
    found.extend(rules.iter().filter_map(|seen| rule_clash(seen, layout)));
    let objects = observed.foreign.iter().filter_map(|foreign| match foreign {
        Foreign::Route { key, protocol } => Some(Clash::Route {
            destination: key.destination,
            metric: key.metric,
            protocol: Protocol(*protocol),
            table: key.table,
            flag: if key.table == layout.table { "table" } else { "probe-tables" },
        }),
        Foreign::Nexthop { id, protocol } => Some(Clash::Nexthop { id: *id, protocol: Protocol(*protocol) }),
        // Told from all rules, above.
        Foreign::Rule { .. } => None,
    });
    found.extend(objects);
    found
}

/// Whether DigitalOcean's managed routing agent has set up this node.
pub fn has_routing_agent(rules: &[SeenRule]) -> bool {
    rules.iter().any(|seen| {
        seen.rule.priority == ROUTING_AGENT_PRIORITY || looks_up(&seen.rule) == Some(ROUTING_AGENT_TABLE)
    })
}

/// The clash of the kernel's ephemeral ports with those of our probes; `reserved` are those that it gives to nobody.
pub fn port_clash(
    ephemeral: &RangeInclusive<u16>,
    reserved: &[RangeInclusive<u16>],
    layout: &Layout,
) -> Option<Clash> {
    let ours = layout.all_probe_ports();
    let in_reach =
        |port: u16| ephemeral.contains(&port) && !reserved.iter().any(|range| range.contains(&port));
    ours.clone().any(in_reach).then(|| Clash::Ports {
        ephemeral: (*ephemeral.start(), *ephemeral.end()),
        ours: (*ours.start(), *ours.end()),
    })
}

fn is_ours(seen: &SeenRule) -> bool {
    seen.protocol == PROTOCOL && seen.complete
}

fn looks_up(rule: &Rule) -> Option<u32> {
    match rule.action {
        RuleAction::Lookup { table, .. } => Some(table),
        RuleAction::Unreachable | RuleAction::Blackhole => None,
    }
}

/// Whether no packet gets past this rule to ours.
fn is_ahead(seen: &SeenRule, layout: &Layout) -> bool {
    let takes_all = match seen.rule.action {
        // The main table has a default route; what another table has is not known.
        RuleAction::Lookup { table, suppress_prefix_length } => {
            table == MAIN_TABLE && suppress_prefix_length.is_none()
        }
        RuleAction::Unreachable | RuleAction::Blackhole => true,
    };
    let everybodys = Rule { action: seen.rule.action, ..Rule::lookup(seen.rule.priority, 0) };
    takes_all
        && seen.complete
        && !is_ours(seen)
        && seen.rule.priority <= layout.table_priority
        && seen.rule == everybodys
}

fn local_behind(rules: &[SeenRule], layout: &Layout) -> Option<Clash> {
    let first = *layout.priorities().start();
    let is_local = |seen: &&SeenRule| looks_up(&seen.rule) == Some(LOCAL_TABLE);
    let is_ahead = rules.iter().filter(is_local).any(|seen| seen.rule.priority < first);
    (!is_ahead).then_some(Clash::LocalBehind { first })
}

fn rule_clash(seen: &SeenRule, layout: &Layout) -> Option<Clash> {
    if is_ours(seen) {
        return None;
    }
    let (priority, protocol) = (seen.rule.priority, Protocol(seen.protocol));
    let ours = layout.priorities();
    if ours.contains(&priority) {
        return Some(Clash::Rule { priority, protocol, ours: (*ours.start(), *ours.end()) });
    }
    let table = looks_up(&seen.rule).filter(|table| layout.has_table(*table))?;
    Some(Clash::Lookup { priority, protocol, table })
}

fn same_destinations(report: &RouteReport) -> impl Iterator<Item = Clash> + '_ {
    report.failures.iter().filter_map(|failure| match &failure.cause {
        FailureCause::Shadowed { destination, route, origin: Some(origin) }
            if destination == route && !origin.is_kernels() =>
        {
            Some(Clash::Destination { destination: *route, origin: *origin })
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests;
