//! StaticRoutes that vanished from the API server: deleted, or gone with their definition. Pure.
//!
//! ```text
//!              the same name is there again, or its EgressGateway is being deleted
//!            ┌───────────────────────────────────────────────────────────────────────┐
//!  vanished ─┴► asked ── definition there, no younger than the object ──► deleted ────┴─► its routes go
//!                 └───── definition going, gone, or a younger one ──────► orphaned ──────► its routes stay
//! ```
//!
//! One that belongs to an EgressGateway goes with the definition of EgressGateways too, by way of Kubernetes' garbage collector.
//!
//! An orphan is planned like any other StaticRoute, failover included, and gives way to every one that is there: it is the youngest
//! in each conflict, and what it lost once it does not take back. Where the definition is another one than the kernel's routes
//! were made under (the agent did not run meanwhile), the orphans are read back from the kernel (`docs/decisions/0014`).

use std::collections::{BTreeMap, BTreeSet};

use egress_routing::RouteReport;
use egress_routing::report::FailureCause;
use egress_routing::wanted::WantedRoute;

use crate::concerns::{Concern, ORPHANED};
use crate::definition::{Answer, Definition, Question};
use crate::objects::Objects;

/// Added to the age of an orphan: behind everything that is there, and among orphans in the old order.
const YOUNGEST: i64 = 1 << 40;

/// A condition names so many orphans at most.
const MOST_NAMES: usize = 5;

/// What is gone and still routed.
#[derive(Debug, Default)]
pub struct Departed {
    held: BTreeMap<String, Held>,
}

#[derive(Debug)]
struct Held {
    route: WantedRoute,
    generation: i64,
    owner: Option<String>,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Asked(Question),
    Orphaned,
}

impl Departed {
    /// Adds to `objects` what is gone and must stay. `previous` is what was wanted last, orphans included, and `in_force` the same
    /// as it was planned; `ask` asks for the definition anew.
    pub fn keep(
        &mut self,
        objects: &mut Objects,
        previous: &Objects,
        in_force: &[WantedRoute],
        answer: Option<&Answer>,
        ask: impl FnOnce() -> Question,
    ) {
        let vanished: Vec<&WantedRoute> = in_force
            .iter()
            .filter(|route| !objects.present.contains_key(&route.uid) && !self.held.contains_key(&route.uid))
            .collect();
        if !vanished.is_empty() {
            let fate = Fate::Asked(ask());
            for route in vanished {
                let generation = previous.generations.get(&route.uid).copied().unwrap_or_default();
                let owner = previous.owners.get(&route.uid).cloned();
                self.held.insert(route.uid.clone(), Held { route: route.clone(), generation, owner, fate });
            }
        }
        let names: BTreeSet<&String> = objects.present.values().collect();
        self.held.retain(|uid, held| {
            let is_back = objects.present.contains_key(uid) || names.contains(&held.route.name);
            let is_unwanted = held.owner.as_ref().is_some_and(|owner| objects.leaving.contains(owner));
            !is_back && !is_unwanted && !held.is_deleted(answer)
        });
        for (uid, held) in &self.held {
            objects.routes.push(held.route.clone());
            objects.generations.insert(uid.clone(), held.generation);
            objects.owners.extend(held.owner.clone().map(|owner| (uid.clone(), owner)));
            if held.route.health_checked {
                for gateway in &held.route.gateways {
                    objects.probed.entry(*gateway).or_default();
                }
            }
        }
        if !self.held.is_empty() {
            // Among them are those of gateways that only the vanished objects named.
            objects.gateway_addresses.extend(&previous.gateway_addresses);
            objects.sort();
        }
    }

    /// Holds what the kernel was found to route for objects that are gone.
    pub fn adopt(&mut self, orphans: Vec<WantedRoute>) {
        for route in orphans {
            tracing::warn!(
                name = route.name,
                destinations = route.destinations.len(),
                "orphaned; its routes stay"
            );
            let mut held = Held { route, generation: 0, owner: None, fate: Fate::Orphaned };
            held.route.created += YOUNGEST;
            self.held.insert(held.route.uid.clone(), held);
        }
    }

    /// Takes note of what others route now: an orphan lets go of that for good. True: something was let go.
    pub fn give_way(&mut self, reports: &[RouteReport]) -> bool {
        let mut changed = false;
        for report in reports {
            let Some(held) = self.held.get_mut(&report.uid) else { continue };
            let taken_over = report.failures.iter().filter(|failure| {
                held.fate == Fate::Orphaned && matches!(failure.cause, FailureCause::Conflict { .. })
            });
            for failure in taken_over {
                let before = held.route.destinations.len();
                held.route.destinations.retain(|prefix, spelling| {
                    let written =
                        egress_routing::wanted::Destination { prefix: *prefix, spelling: *spelling };
                    written.to_string() != failure.destination
                });
                changed |= held.route.destinations.len() != before;
            }
        }
        self.held.retain(|_, held| !held.route.destinations.is_empty());
        changed
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// What to say of orphans.
    pub fn concern(&self) -> Option<Concern> {
        let orphans = || self.held.values().filter(|held| held.fate == Fate::Orphaned);
        orphans().next()?;
        let all = named(orphans().map(|held| held.route.name.as_str()));
        let mut unknown = orphans().filter(|held| held.route.gateways.is_empty()).peekable();
        let dropped = match unknown.peek() {
            None => String::new(),
            Some(_) => format!(
                ". The link was down, and nobody knows the gateway of {} any more: what they list is dropped, or left alone with FailOpen",
                named(unknown.map(|held| held.route.name.as_str()))
            ),
        };
        let message = format!(
            "The definition of StaticRoutes or EgressGateways was deleted, and with it {all}: their routes stay. Apply them again to go on; to \
             have the routes removed, apply them again and delete them once they are applied, or delete the agent's DaemonSet{dropped}"
        );
        Some(Concern { type_: ORPHANED, reason: "DefinitionDeleted", message })
    }
}

/// A few of these names, and how many more there are.
fn named<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let all: Vec<&str> = names.collect();
    let few = all[..all.len().min(MOST_NAMES)].join(", ");
    match all.len().saturating_sub(MOST_NAMES) {
        0 => few,
        more => format!("{few} and {more} more"),
    }
}

impl Held {
    /// Whether the answer says so; any other answer makes it an orphan.
    fn is_deleted(&mut self, answer: Option<&Answer>) -> bool {
        let Fate::Asked(question) = self.fate else { return false };
        let Some(answer) = answer.filter(|answer| answer.to >= question) else { return false };
        // The clock of both is the API server's; within one second nobody deletes a definition, applies it again, and has made an
        // object before.
        let stands = |definition: &Definition| matches!(definition, Definition::There { created, .. } if self.route.created >= *created);
        if stands(&answer.definition) && (self.owner.is_none() || stands(&answer.of_gateways)) {
            return true;
        }
        tracing::warn!(
            name = self.route.name,
            "its definition was deleted: it is orphaned and its routes stay"
        );
        self.fate = Fate::Orphaned;
        self.route.created += YOUNGEST;
        false
    }
}

#[cfg(test)]
mod tests;
