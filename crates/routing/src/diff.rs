//! Plan minus kernel: the changes that make the kernel hold the plan, in an order in which no packet goes astray.
//!
//! Always replace, never delete and then add. While the list is worked off, every address is looked up as before or as
//! after, never as something third:
//! - nexthop objects first, since routes need them; replacing one moves all routes on it at once;
//! - routes go in from the longest prefix to the shortest and stale ones go out from the shortest to the longest, so an
//!   exception (`throw`) is there before the range around it and leaves after it;
//! - rules go in from the lowest priority number up and out from the highest down: our table is asked only while
//!   everything that must come before it (main, the node's own address) is in force;
//! - rules that keep some packets in the main table go in before the routes and out after them: a new route must not answer for a
//!   moment what they except;
//! - main's own rule comes back after ours: the other way round, routed packets would leave with the node's own address.
//!
//! That holds while the kernel takes every change; [`crate::sequence`] keeps it where it does not.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::kernel_state::{
    Change, KernelState, MAIN_TABLE, Managed, NexthopTarget, Observed, Rule, RuleAction,
};

/// The changes from `have` to `want`; empty when there is nothing to do.
///
/// What somebody else has at a place of ours stays; the change for that place is left out.
pub fn changes(have: &Observed, want: &KernelState) -> Vec<Change> {
    let mut list = Vec::new();
    put_nexthops(have, want, &mut list);
    // BTreeSet order is by priority first.
    let present: BTreeSet<&Rule> = have.rules.iter().map(Managed::get).collect();
    let new: Vec<&Rule> = want.rules.iter().filter(|rule| !present.contains(rule)).collect();
    let old: Vec<&Managed<Rule>> =
        have.rules.iter().rev().filter(|rule| !want.rules.contains(rule.get())).collect();
    let put = |exceptions: bool| {
        let some = new.iter().filter(move |rule| keeps_in_main(rule) == exceptions);
        some.map(|rule| Change::PutRule((*rule).clone()))
    };
    let delete = |exceptions: bool| {
        let some = old.iter().filter(move |rule| keeps_in_main(rule.get()) == exceptions);
        some.map(|rule| Change::DeleteRule((*rule).clone()))
    };

    list.extend(put(true));
    put_routes(have, want, &mut list);
    list.extend(put(false));
    list.extend(want.builtin_rules.intersection(&have.lost_builtin_rules).copied().map(Change::RestoreRule));
    list.extend(delete(false));
    let mut stale: Vec<_> = have.routes.iter().filter(|(key, _)| !want.routes.contains_key(key)).collect();
    // Of one destination the guard goes first: it must never be what answers.
    stale.sort_by_key(|(key, _)| {
        (key.destination.prefix_len(), key.destination, Reverse(key.metric), key.table)
    });
    list.extend(stale.into_iter().map(|(_, route)| Change::DeleteRoute(route.clone())));
    list.extend(delete(true));

    let mut gone: Vec<_> = have.nexthops.iter().filter(|(id, _)| !want.nexthops.contains_key(id)).collect();
    gone.sort_by_key(|(id, nexthop)| (Reverse(is_group(&nexthop.get().via)), **id));
    list.extend(gone.into_iter().map(|(_, nexthop)| Change::DeleteNexthop(nexthop.clone())));
    list
}

fn put_nexthops(have: &Observed, want: &KernelState, list: &mut Vec<Change>) {
    let foreign: BTreeSet<_> = have.foreign_nexthops().collect();
    let mut puts: Vec<_> = want.nexthops.values().collect();
    puts.sort_by_key(|nexthop| (is_group(&nexthop.via), nexthop.id));
    for nexthop in puts {
        let replaces = have.nexthops.get(&nexthop.id);
        if replaces.map(Managed::get) != Some(nexthop) && !foreign.contains(&nexthop.id) {
            list.push(Change::PutNexthop { nexthop: nexthop.clone(), replaces: replaces.cloned() });
        }
    }
}

fn put_routes(have: &Observed, want: &KernelState, list: &mut Vec<Change>) {
    let foreign: BTreeSet<_> = have.foreign_routes().map(|(key, _)| key).collect();
    let mut puts: Vec<_> = want
        .routes
        .iter()
        .filter_map(|(key, route)| {
            let replaces = have.routes.get(key);
            (replaces.map(Managed::get) != Some(route) && !foreign.contains(key)).then_some((route, replaces))
        })
        .collect();
    puts.sort_by_key(|(route, _)| (Reverse(route.destination.prefix_len()), route.key()));
    list.extend(
        puts.into_iter()
            .map(|(route, replaces)| Change::PutRoute { route: route.clone(), replaces: replaces.cloned() }),
    );
}

/// Not the one for main without its default: that has its place behind the rules for the public subnet, also while an agent with
/// other numbers takes over.
pub(crate) fn keeps_in_main(rule: &Rule) -> bool {
    matches!(rule.action, RuleAction::Lookup { table: MAIN_TABLE, suppress_prefix_length: None })
}

fn is_group(target: &NexthopTarget) -> bool {
    matches!(target, NexthopTarget::Group { .. })
}

#[cfg(test)]
mod tests;
