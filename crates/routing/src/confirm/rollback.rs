//! An object that was rolled back: what is in force instead, and how its report says so.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;

use super::look::Target;
use super::suspect::is_switch;
use crate::kernel_state::Gateway;
use crate::node::NodeView;
use crate::report::{Failure, FailureCause, RouteProblem, RouteReport};
use crate::wanted::{Guard, OnNoGateway, WantedRoute};

/// First and longest time until something is tried again for the network's or its gateways' sake alone.
const RETRY: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

/// So many destinations are named where it is not known which of them it was.
const MOST_SUSPECTED: usize = 5;

/// An object whose latest version is not in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolledBack {
    /// The version that was tried.
    pub refused: WantedRoute,
    /// The one that is in force: without a destination when none was ever confirmed.
    pub instead: WantedRoute,
    /// What the refused one cut off.
    pub cut: Target,
    /// The node's network that it was tried in.
    pub(super) network: Network,
    /// Before this neither the network nor another list of gateways is a reason to try again.
    pub(super) not_before: Duration,
}

impl RolledBack {
    /// Says it in the object's report.
    pub fn mark(&self, report: &mut RouteReport) {
        let problem = RouteProblem::RolledBack {
            cut: self.cut,
            restored: !self.instead.destinations.is_empty(),
            guarded: self.instead.guard.is_some(),
        };
        let address = *self.cut.address.ip();
        let mut guilty: Vec<_> =
            self.refused.destinations.keys().filter(|destination| destination.contains(&address)).collect();
        guilty.sort_by_key(|destination| std::cmp::Reverse(destination.prefix_len()));
        guilty.truncate(1);
        if guilty.is_empty() {
            // The address is translated on the way: one of those that came with this version covers where it leads.
            let is_new = |destination: &&Ipv4Net| !self.instead.destinations.contains_key(*destination);
            guilty.extend(self.refused.destinations.keys().filter(is_new).take(MOST_SUSPECTED));
        }
        let failure = |destination: &Ipv4Net| Failure {
            destination: destination.to_string(),
            cause: FailureCause::RolledBack { cut: self.cut },
        };
        report.failures = guilty.into_iter().map(failure).collect();
        report.total = self.refused.destinations.len() + self.refused.invalid_destinations.len();
        report.applied = 0;
        report.problem = Some(problem);
    }

    /// Whether it stays: the object asks for what was refused, and the network is the same, or it is too early to try that again.
    ///
    /// What an EgressGateway does with its list is none of the owner's doing, and comes when a gateway dies: another order is no
    /// reason, and another list that routes the same has to wait as well. It changes one at a time; where none of the gateways is left,
    /// somebody means another way.
    pub(super) fn holds(&self, wanted: &[WantedRoute], node: &NodeView, now: Duration) -> bool {
        let Some(latest) = wanted.iter().find(|route| route.uid == self.refused.uid) else { return false };
        if !asks_for_the_same(latest, &self.refused) {
            return false;
        }
        let has_none_of_it = !latest.gateways.iter().any(|gateway| self.refused.gateways.contains(gateway));
        if has_none_of_it && !latest.gateways.is_empty() {
            return false;
        }
        let is_same = *latest == self.refused || is_switch(&self.refused, latest);
        now < self.not_before || is_same && self.network == Network::of(node, &self.refused, self.cut)
    }

    /// What is planned in the stead of `latest`: the confirmed version. What became of the list since is taken over as far as it is
    /// a switch of that version, which is never taken back: another order, and gateways that left.
    pub(super) fn in_stead_of(&self, latest: &WantedRoute) -> WantedRoute {
        let mut instead = self.instead.clone();
        let known = latest.gateways.iter().filter(|gateway| instead.gateways.contains(gateway));
        let known: Vec<Ipv4Addr> = known.copied().collect();
        if latest.gateways != self.refused.gateways && !known.is_empty() {
            instead.gateways = known;
        }
        // Its EgressGateway was deleted meanwhile, say.
        if latest.reference_fault != self.refused.reference_fault {
            instead.reference_fault.clone_from(&latest.reference_fault);
        }
        instead
    }
}

/// Whether two versions route and shut the same, through whichever gateways.
fn asks_for_the_same(one: &WantedRoute, other: &WantedRoute) -> bool {
    (&one.destinations, &one.invalid_destinations, &one.excluded, &one.refused, one.on_no_gateway)
        == (
            &other.destinations,
            &other.invalid_destinations,
            &other.excluded,
            &other.refused,
            other.on_no_gateway,
        )
}

/// How long nothing is tried again for the network's or its gateways' sake alone, after so many rollbacks before this one.
pub(super) fn wait(before: u32) -> Duration {
    RETRY.0.saturating_mul(2_u32.saturating_pow(before)).min(RETRY.1)
}

/// What of a node's network can change what became of a refused version. A node that joins and a protected name with another
/// address can't, and come all day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Network {
    /// Index, address and subnet of the VPC interface.
    vpc: Option<(u32, Ipv4Addr, Ipv4Net)>,
    public_addresses: Vec<Ipv4Net>,
    default_way: Option<Gateway>,
    /// Those that decide how the target is reached.
    main_routes: BTreeSet<Ipv4Net>,
    /// What keeps the target off the gateways.
    protected: BTreeSet<Ipv4Net>,
}

impl Network {
    pub(super) fn of(node: &NodeView, refused: &WantedRoute, cut: Target) -> Self {
        let address = *cut.address.ip();
        let destinations = || refused.destinations.keys();
        let is_within = |range: &Ipv4Net| destinations().any(|destination| destination.contains(range));
        let touches = |range: &Ipv4Net| {
            is_within(range) || destinations().any(|destination| range.contains(destination))
        };
        // What lies in a protected range never leaves through a gateway, whatever main says.
        let is_protected =
            |range: &Ipv4Net| node.protected.iter().any(|(protected, _)| protected.contains(range));
        // Else it is translated on the way, and any of what is listed may be where it leads.
        let is_listed = destinations().any(|destination| destination.contains(&address))
            && !refused.excluded.iter().any(|excluded| excluded.contains(&address))
            && !is_protected(&address.into());
        let leads_there = |route: &&Ipv4Net| {
            route.contains(&address) || !is_listed && touches(route) && !is_protected(route)
        };
        let protects = |range: &Ipv4Net, why| {
            range.contains(&address) || !is_listed && why == cut.lifeline.protected_as() && is_within(range)
        };
        let protected = node.protected.iter().filter(|(range, why)| protects(range, *why));
        Self {
            vpc: node.vpc.as_ref().map(|vpc| (vpc.index, vpc.address, vpc.subnet)),
            public_addresses: node.public_addresses.clone(),
            default_way: node.default_way,
            main_routes: node.main_routes.iter().filter(leads_there).copied().collect(),
            protected: protected.map(|(range, _)| range).collect(),
        }
    }
}

/// The confirmed version, with all that a `FailClosed` one lists shut beside it.
pub(super) fn guarded(confirmed: WantedRoute, refused: &WantedRoute) -> WantedRoute {
    let guard = Guard {
        destinations: refused.destinations.keys().copied().collect(),
        excluded: refused.excluded.clone(),
        own_mode: confirmed.on_no_gateway,
    };
    WantedRoute { guard: Some(guard), on_no_gateway: OnNoGateway::FailClosed, ..confirmed }
}
