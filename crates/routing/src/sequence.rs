//! A list of changes as the batches in which it is sent: what another change relies on is known to be in the kernel before that
//! change is sent, and where the kernel did not take it, the other waits.
//!
//! Invariant (I5): with any change refused, no packet leaves through a gateway that would not if all were taken.
//! - A range waits for what must stay out of it (`throw`), and so does taking away an exception that another one replaces.
//! - A routed destination waits for the rules that keep some packets in the main table.
//! - A rule that leads to another table waits for the rules at lower numbers that lead to main, and one for a single destination
//!   for the exceptions in it.
//! - A rule goes when those that come are there, and a nexthop object when no route is on it any more.
//!
//! What relies on nothing in the list is never held up; a batch ends with [`LONGEST`] all the same, since the list is large and a
//! batch is a copy of its part of it.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::vec::IntoIter;

use ipnet::Ipv4Net;

use crate::diff::keeps_in_main;
use crate::kernel_state::{
    Change, MAIN_TABLE, NexthopId, NexthopTarget, Route, RouteKey, RouteKind, Rule, RuleAction,
};

/// Most changes in one batch: a hundred kilobytes of ten thousand routes' three megabytes, and still eight of the kernel's messages.
const LONGEST: usize = 1024;

/// The changes that are not sent yet, and what the kernel did not take of those that were.
#[derive(Debug)]
pub struct Sequence {
    rest: Peekable<IntoIter<Change>>,
    /// Table with the routes of all StaticRoutes.
    table: u32,
    missing: ReliedOn,
    withheld: Vec<Change>,
}

impl Sequence {
    /// The batches of a list in the order of [`crate::changes`], for the routes in `table`.
    pub fn new(list: Vec<Change>, table: u32) -> Self {
        Self { rest: list.into_iter().peekable(), table, missing: ReliedOn::default(), withheld: Vec::new() }
    }

    /// The changes to send now, in this order. `None`: there are no more.
    ///
    /// Of the batch before, [`Self::miss`] was told all that the kernel is not known to have taken.
    pub fn next_batch(&mut self) -> Option<Vec<Change>> {
        let mut batch = Vec::new();
        let mut sent = ReliedOn::default();
        while batch.len() < LONGEST
            && let Some(change) = self.rest.next_if(|change| !sent.holds_up(change, self.table))
        {
            if self.missing.holds_up(&change, self.table) {
                self.missing.add(&change);
                self.withheld.push(change);
            } else {
                sent.add(&change);
                batch.push(change);
            }
        }
        (!batch.is_empty()).then_some(batch)
    }

    /// Takes note of a change that the kernel is not known to have taken.
    pub fn miss(&mut self, change: &Change) {
        self.missing.add(change);
    }

    /// What is not sent, since the kernel did not take what it relies on.
    pub fn withheld(&self) -> &[Change] {
        &self.withheld
    }
}

/// Changes that later ones of the list rely on.
#[derive(Debug, Default)]
struct ReliedOn {
    exceptions: Vec<RouteKey>,
    rules: Vec<Rule>,
    /// Nexthop objects that routes are on until they are replaced, or groups until these are gone.
    left: BTreeSet<NexthopId>,
}

impl ReliedOn {
    fn add(&mut self, change: &Change) {
        match change {
            Change::PutRoute { route, replaces } => {
                if route.is_exception() {
                    self.exceptions.push(route.key());
                }
                if let Some(RouteKind::Nexthop(id)) = replaces.as_ref().map(|old| &old.get().kind) {
                    self.left.insert(*id);
                }
            }
            Change::PutRule(rule) => self.rules.push(rule.clone()),
            Change::DeleteNexthop(nexthop) => {
                if let NexthopTarget::Group { members, .. } = &nexthop.get().via {
                    self.left.extend(members.iter().map(|member| member.id));
                }
            }
            Change::PutNexthop { .. }
            | Change::RestoreRule(_)
            | Change::DeleteRule(_)
            | Change::DeleteRoute(_) => {}
        }
    }

    fn holds_up(&self, change: &Change, table: u32) -> bool {
        match change {
            Change::PutRoute { route, .. } if !route.is_exception() => self.is_missed_by(route, table),
            // The range around it answers then, for all in it.
            Change::DeleteRoute(route) if route.get().is_exception() => self.is_missed_by(route.get(), table),
            Change::PutRule(rule) if !leads_to_main(rule) => {
                let is_in_the_way = |to: Ipv4Net| self.exceptions.iter().any(|one| meet(one.destination, to));
                self.rules.iter().any(|other| leads_to_main(other) && other.priority < rule.priority)
                    || rule.to.is_some_and(is_in_the_way)
            }
            Change::DeleteRule(_) => !self.rules.is_empty(),
            Change::DeleteNexthop(nexthop) => self.left.contains(&nexthop.get().id),
            Change::PutNexthop { .. }
            | Change::PutRoute { .. }
            | Change::PutRule(_)
            | Change::RestoreRule(_)
            | Change::DeleteRoute(_) => false,
        }
    }

    /// Whether what a change to this route opens has exceptions here, or needs rules that are here.
    fn is_missed_by(&self, route: &Route, table: u32) -> bool {
        let is_exception = |exception: &RouteKey| {
            let is_in = route.destination.contains(&exception.destination);
            // For an exception that goes since that one was to take its place.
            let is_around = route.is_exception() && exception.destination.contains(&route.destination);
            exception.table == route.table && (is_in || is_around)
        };
        self.exceptions.iter().any(is_exception)
            || route.table == table && self.rules.iter().any(keeps_in_main)
    }
}

/// Whether one of two prefixes contains the other.
fn meet(one: Ipv4Net, other: Ipv4Net) -> bool {
    one.contains(&other) || other.contains(&one)
}

fn leads_to_main(rule: &Rule) -> bool {
    matches!(rule.action, RuleAction::Lookup { table: MAIN_TABLE, .. })
}

#[cfg(test)]
mod tests;
