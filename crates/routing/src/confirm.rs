//! Commit-confirm: what a change of what is routed may not do is cut the node off from what it lives by.
//!
//! After each change somebody looks at the API server, the metadata service and the resolvers, each twice: as any program of
//! the node would reach it (through our table) and bound so that our table is not asked (around it). This module decides
//! what a look means. Pure: `now` is an argument, a look is a value.
//!
//! ```text
//!              applied(): the routes are others, or an object is
//!   Confirmed ───────────────────────────────────────────────────► Trying ◄─┐ another change joins: more suspects
//!       ▲                                                            │ │ └──┘
//!       │  a look at what is tried: nothing is cut, and everything   │ │
//!       │  that ever answered answers (see `is_proof`)               │ │ three looks in a row: a target answers around
//!       └────────────────────────────────────────────────────────────┘ │ our table and not through it
//!                                                                      ▼
//!                         a suspect's route leads there: RolledBack, its last confirmed version is in force
//!                         no suspect's: Spared, that one address is kept off the gateways
//!                         (both are changes: Trying goes on)
//! ```
//!
//! - Guilt is proven by difference. A target that answers neither way proves nothing, however long that lasts: the trial
//!   stays open, holds nobody up, and is decided when the target answers again, or at once where another of its kind answers
//!   and what is tried changes nothing for the silent one.
//! - Guilty is the object whose route leads to the target, if it changed since the last confirmed plan; where another one's
//!   change laid that way open (it gave up a destination, say), all that changed before the cut was seen are. So are they
//!   when no route leads to the target and it was there when it was last looked at: its address may be translated on the way.
//! - A `FailClosed` guard is never taken away: of a version that is rolled back everything stays shut that the confirmed one does
//!   not route, whatever that one excludes, but for the address that was cut off, which no gateway and no guard may have (I5). As
//!   long the confirmed one fails closed as well: it may route what the refused one lists. Only where the cut address
//!   is translated on the way, so that nobody can tell which destination it lies behind, the guard of the refused version goes too.
//! - An address that a guard alone cuts off is spared: there is no version to go back to.
//! - What was rolled back is tried again when its spec changes, or of the node's network what can change the verdict; for the
//!   network's or its gateways' sake alone not before a minute is over, and each further time later than the last. Another order of
//!   its gateways is no reason.
//! - A switch among the gateways of a confirmed StaticRoute is no change, nor is an object that goes.
//! - After a start nobody knows what was confirmed. What the kernel holds counts as that, but is looked at like a change:
//!   what is cut then is spared, since leaving out a whole object would let out what it routed.

mod look;
mod rollback;
mod suspect;
#[cfg(test)]
mod tests;
mod trial;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

pub use look::{Answers, Lifeline, Look, Target};
pub use rollback::RolledBack;
use rollback::{Network, guarded, wait};
use suspect::{Suspect, version_before};
use trial::Trial;

use crate::kernel_state::NexthopId;
use crate::node::NodeView;
use crate::report::RouteReport;
use crate::wanted::WantedRoute;
use crate::ways::{DROPPED, Ways};

/// Time between two looks while nothing is on trial: what answers now is compared with what answers after the next change.
const REFRESH: Duration = Duration::from_secs(300);

/// What a look means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing yet.
    Open,
    /// What the kernel holds is confirmed.
    Confirmed,
    /// These objects cut the target off: plan again, with [`Confirmation::in_force`].
    RolledBack {
        /// What was cut off.
        cut: Target,
        /// Uids.
        objects: Vec<String>,
    },
    /// Nobody's change is to blame: plan again, for [`Confirmation::protect`].
    Spared {
        /// What was cut off.
        cut: Target,
    },
}

/// The state machine.
#[derive(Debug)]
pub struct Confirmation {
    state: State,
    /// Goes up with every change.
    change: u64,
    /// The objects that changed since the last confirmed plan.
    suspects: BTreeMap<String, Suspect>,
    /// The objects were noted once: from then on a new one is a change.
    is_noted: bool,
    /// What has answered through our table since the start and is still there.
    worked: BTreeSet<Target>,
    /// What did so when it was last looked at with nothing on trial.
    lately: BTreeSet<Target>,
    rolled_back: BTreeMap<String, RolledBack>,
    rollbacks: BTreeMap<String, u32>,
    spared: BTreeMap<Ipv4Addr, Lifeline>,
}

#[derive(Debug)]
enum State {
    Confirmed { ways: Ways, next_look: Duration },
    Trying(Trial),
}

/// What leads to a target that was found cut off.
#[derive(Debug, PartialEq, Eq)]
enum Guilt {
    /// The routes of this object; `None`: of nobody who is known.
    Way(Option<String>),
    /// A guard alone.
    Guard,
    /// Nothing of ours: its address is translated on the way.
    Hidden,
}

impl Confirmation {
    /// Right after a start. `spared` are the addresses that the kernel was found to keep off the gateways: a restart must not
    /// change that before it has looked.
    pub fn after_start(spared: impl IntoIterator<Item = Ipv4Addr>) -> Self {
        Self {
            state: State::Trying(Trial::new(None, Ways::default(), 0, Duration::ZERO)),
            change: 0,
            suspects: BTreeMap::new(),
            is_noted: false,
            worked: BTreeSet::new(),
            lately: BTreeSet::new(),
            rolled_back: BTreeMap::new(),
            rollbacks: BTreeMap::new(),
            spared: spared.into_iter().map(|address| (address, Lifeline::ApiServer)).collect(),
        }
    }

    /// The number of the latest change.
    pub fn change(&self) -> u64 {
        self.change
    }

    /// When to look next.
    pub fn next_look(&self) -> Duration {
        match &self.state {
            State::Confirmed { next_look, .. } => *next_look,
            State::Trying(trial) => trial.next_look,
        }
    }

    /// Whether something is on trial.
    pub fn is_trying(&self) -> bool {
        matches!(self.state, State::Trying(_))
    }

    /// Objects of which not the latest version is in force, by uid.
    pub fn rolled_back(&self) -> &BTreeMap<String, RolledBack> {
        &self.rolled_back
    }

    /// Addresses that no gateway may carry: they were found cut off and nobody's change was to blame.
    pub fn spared(&self) -> &BTreeMap<Ipv4Addr, Lifeline> {
        &self.spared
    }

    /// The node as it is to be planned for: what is spared is protected.
    pub fn protect<'a>(&self, node: &'a NodeView) -> Cow<'a, NodeView> {
        let mut node = Cow::Borrowed(node);
        for (address, lifeline) in &self.spared {
            node.to_mut().protected.insert_address(*address, lifeline.protected_as());
        }
        node
    }

    /// The objects as they are to be planned, in the same order; `None` when that is as they are. Forgets rollbacks whose
    /// object or network is another one now.
    pub fn in_force(
        &mut self,
        wanted: &[WantedRoute],
        node: &NodeView,
        now: Duration,
    ) -> Option<Vec<WantedRoute>> {
        self.rolled_back.retain(|_, rolled_back| rolled_back.holds(wanted, node, now));
        self.rollbacks.retain(|uid, _| wanted.iter().any(|route| route.uid == *uid));
        if self.rolled_back.is_empty() {
            return None;
        }
        let version = |route: &WantedRoute| {
            self.rolled_back.get(&route.uid).map_or_else(|| route.clone(), |one| one.in_stead_of(route))
        };
        Some(wanted.iter().map(version).collect())
    }

    /// Notes which objects differ, both as they are planned: the suspects of a change.
    pub fn note(&mut self, before: &[WantedRoute], after: &[WantedRoute]) {
        let known: BTreeMap<&str, &WantedRoute> =
            before.iter().map(|route| (route.uid.as_str(), route)).collect();
        let present: BTreeSet<&str> = after.iter().map(|route| route.uid.as_str()).collect();
        self.suspects.retain(|uid, _| present.contains(uid.as_str()));
        if !std::mem::replace(&mut self.is_noted, true) {
            return;
        }
        for route in after {
            // Taken back, by its owner or by us: what is in force was confirmed.
            let confirmed = self.suspects.get(&route.uid).map(|suspect| &suspect.confirmed);
            if confirmed == Some(route) || self.rolled_back.contains_key(&route.uid) {
                self.change += u64::from(self.suspects.remove(&route.uid).is_some());
                continue;
            }
            let Some(confirmed) = version_before(known.get(route.uid.as_str()).copied(), route) else {
                continue;
            };
            self.change += 1;
            let suspect = Suspect { confirmed, since: self.change };
            self.suspects.entry(route.uid.clone()).or_insert(suspect).since = self.change;
        }
    }

    /// The kernel holds the plan that answers so.
    pub fn applied(&mut self, ways: Ways, now: Duration) {
        match &mut self.state {
            State::Confirmed { ways: confirmed, .. } if *confirmed == ways && self.suspects.is_empty() => {}
            State::Confirmed { ways: confirmed, .. } => {
                self.change += 1;
                let confirmed = std::mem::take(confirmed);
                self.state = State::Trying(Trial::new(Some(confirmed), ways, self.change, now));
            }
            State::Trying(trial) => {
                self.change += u64::from(trial.tried != ways);
                trial.joins(ways, self.change, now);
            }
        }
    }

    /// Takes a look. `reports` are those of the plan that is in the kernel, `wanted` the objects as they were planned.
    pub fn on_look(
        &mut self,
        look: &Look,
        reports: &[RouteReport],
        wanted: &[WantedRoute],
        node: &NodeView,
        now: Duration,
    ) -> Verdict {
        self.worked.retain(|target| look.answers.contains_key(target));
        self.worked.extend(look.answering());
        let trial = match &mut self.state {
            State::Confirmed { next_look, .. } => {
                *next_look = now + REFRESH;
                self.lately = look.answering();
                return Verdict::Open;
            }
            State::Trying(trial) => trial,
        };
        let owner = |nexthop: NexthopId| {
            let report = reports
                .iter()
                .find(|report| report.nexthop == Some(nexthop) || report.object == Some(nexthop));
            report.map(|report| report.uid.as_str())
        };
        let is_suspect = |nexthop| owner(nexthop).is_some_and(|uid| self.suspects.contains_key(uid));
        let is_cut = |target: &Target, said: &Answers| {
            // A name may lead to another address than before: what is behind it worked.
            let worked = self.worked.iter().any(|worked| worked.lifeline == target.lifeline);
            let address = *target.address.ip();
            let hidden = trial.tried.to(address).is_none()
                && self.lately.contains(target)
                && self.suspects.values().any(|suspect| suspect.since <= look.change);
            said.around && !said.through && (hidden || trial.made_the_way_to(address, worked, is_suspect))
        };
        let cut: BTreeSet<Target> = look
            .answers
            .iter()
            .filter(|(target, said)| is_cut(target, said))
            .map(|(target, _)| *target)
            .collect();
        trial.miss(&cut, look.change);
        if let Some((cut, change)) = trial.proven() {
            let guilt = match trial.tried.to(*cut.address.ip()) {
                None => Guilt::Hidden,
                Some(DROPPED) => Guilt::Guard,
                Some(way) => Guilt::Way(owner(way).map(str::to_owned)),
            };
            return self.condemn(cut, change, &guilt, wanted, node, now);
        }
        let is_first = trial.confirmed.is_none();
        let is_touched = |target: &Target| trial.made_the_way_to(*target.address.ip(), true, is_suspect);
        if look.change == self.change && cut.is_empty() && look.is_proof(&self.worked, is_first, is_touched) {
            let tried = std::mem::take(&mut trial.tried);
            self.confirm(tried, look, now);
            return Verdict::Confirmed;
        }
        trial.waits(now);
        Verdict::Open
    }

    fn confirm(&mut self, tried: Ways, look: &Look, now: Duration) {
        self.state = State::Confirmed { ways: tried, next_look: now + REFRESH };
        self.lately = look.answering();
        self.suspects.clear();
        self.rollbacks.retain(|uid, _| self.rolled_back.contains_key(uid));
        let asked: BTreeMap<Ipv4Addr, Lifeline> =
            look.answers.keys().map(|target| (*target.address.ip(), target.lifeline)).collect();
        self.spared.retain(|address, lifeline| match asked.get(address) {
            Some(known) => {
                *lifeline = *known;
                true
            }
            None => false,
        });
    }

    fn condemn(
        &mut self,
        cut: Target,
        change: u64,
        guilt: &Guilt,
        wanted: &[WantedRoute],
        node: &NodeView,
        now: Duration,
    ) -> Verdict {
        self.change += 1;
        if let State::Trying(trial) = &mut self.state {
            trial.begins_anew(now);
        }
        let objects: Vec<String> = match guilt {
            Guilt::Guard => Vec::new(),
            Guilt::Way(Some(uid)) if self.suspects.contains_key(uid) => vec![uid.clone()],
            Guilt::Way(_) | Guilt::Hidden => {
                let before = self.suspects.iter().filter(|(_, suspect)| suspect.since <= change);
                before.map(|(uid, _)| uid.clone()).collect()
            }
        };
        if objects.is_empty() {
            self.spared.insert(*cut.address.ip(), cut.lifeline);
            return Verdict::Spared { cut };
        }
        for uid in &objects {
            let refused = wanted.iter().find(|route| route.uid == *uid);
            let (Some(suspect), Some(refused)) = (self.suspects.remove(uid), refused.cloned()) else {
                continue;
            };
            let mut instead = suspect.confirmed;
            if refused.is_fail_closed() && *guilt != Guilt::Hidden {
                instead = guarded(instead, &refused);
                self.spared.insert(*cut.address.ip(), cut.lifeline);
            }
            let times = self.rollbacks.entry(uid.clone()).or_default();
            let not_before = now + wait(*times);
            *times += 1;
            let network = Network::of(node, &refused, cut);
            self.rolled_back.insert(uid.clone(), RolledBack { refused, instead, cut, network, not_before });
        }
        Verdict::RolledBack { cut, objects }
    }
}
