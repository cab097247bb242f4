//! What others changed of this node's routing and the loop put right: counted, told, and told louder when somebody keeps at
//! it. Pure.
//!
//! While somebody keeps at it the agent does not give in, but the loop rests for [`REST`] after each look and what is told
//! changes every [`TELL`] at most: otherwise a fight would be as many writes to the kernel and to the API server as the other
//! program pleases, on every node.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use egress_api::{Repair, Repairs};
use egress_health::Tick;
use egress_netlink::monitor::Event;
use egress_routing::kernel_state::Change;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::concerns::{self, Concern};

/// So many repairs within [`WINDOW`] are no accident.
const FIGHT: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);

/// A fight is over when nothing had to be put right for that long.
const PEACE: Duration = Duration::from_secs(300);

/// Least time between two looks that events ask for during a fight: what is damaged last is still put right within two seconds.
const REST: Duration = Duration::from_secs(1);

/// Least time between two changes of what is told during a fight.
const TELL: Duration = Duration::from_secs(10);

/// Rules that one sentence names.
const NAMED: usize = 8;

/// What the kernel took, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Priorities.
    rules: BTreeSet<u32>,
    /// Numbers of routes by table.
    routes: BTreeMap<u32, u32>,
    nexthops: u32,
}

impl Tally {
    /// Counts one more.
    pub fn add(&mut self, change: &Change) {
        match change {
            Change::PutRule(rule) => _ = self.rules.insert(rule.priority),
            Change::RestoreRule(rule) => _ = self.rules.insert(rule.rule().priority),
            Change::DeleteRule(rule) => _ = self.rules.insert(rule.get().priority),
            Change::PutRoute { route, .. } => *self.routes.entry(route.table).or_default() += 1,
            Change::DeleteRoute(route) => *self.routes.entry(route.get().table).or_default() += 1,
            Change::PutNexthop { .. } | Change::DeleteNexthop(_) => self.nexthops += 1,
        }
    }

    /// Rules, routes and nexthop objects.
    pub fn count(&self) -> u32 {
        u32::try_from(self.rules.len()).unwrap_or(u32::MAX)
            + self.routes.values().sum::<u32>()
            + self.nexthops
    }
}

/// `rules 1000, 1001, 2 routes in table 1157, 1 nexthop object`.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count: u32| if count == 1 { "" } else { "s" };
        let mut parts = Vec::new();
        if !self.rules.is_empty() {
            let named: Vec<String> = self.rules.iter().take(NAMED).map(u32::to_string).collect();
            let more = match self.rules.len() - named.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let few = if self.rules.len() == 1 { "" } else { "s" };
            parts.push(format!("rule{few} {}{more}", named.join(", ")));
        }
        let routes = self.routes.iter();
        parts
            .extend(routes.map(|(table, count)| format!("{count} route{} in table {table}", plural(*count))));
        if self.nexthops > 0 {
            parts.push(format!("{} nexthop object{}", self.nexthops, plural(self.nexthops)));
        }
        f.write_str(&parts.join(", "))
    }
}

/// What happened since the last look: to links and addresses, and by whom to the rest, as port numbers of netlink sockets.
#[derive(Debug, Default)]
struct Heard {
    link: bool,
    address: bool,
    rules: Option<u32>,
    routes: Option<u32>,
    nexthops: Option<u32>,
}

impl Heard {
    fn cause(&self, repaired: &Tally) -> Option<String> {
        if self.link {
            return Some("a link went down or came up".to_owned());
        }
        if self.address {
            return Some("an address came or went".to_owned());
        }
        let rules = self.rules.filter(|_| !repaired.rules.is_empty());
        let routes = self.routes.filter(|_| !repaired.routes.is_empty());
        // Routes go silently with the nexthop objects that they use.
        let port = rules.or(self.nexthops).or(routes)?;
        Some(format!("the program with netlink port {port} (as a rule its process id)"))
    }
}

/// What is told to the API server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// The repairs since this agent started; `None` while there were none.
    pub repairs: Option<Repairs>,
    /// That somebody keeps at it.
    pub concern: Option<Concern>,
}

/// The loop's memory of drift.
#[derive(Debug, Default)]
pub struct Drift {
    /// Something was asked for that is not wholly in the kernel yet: what is written then is no repair.
    asked: bool,
    heard: Heard,
    repairs: Repairs,
    /// When the last [`FIGHT`] repairs were that no link or address explains, the newest last.
    blows: VecDeque<Tick>,
    fight: bool,
    told: Told,
    told_at: Option<Tick>,
}

impl Drift {
    /// Takes note of whether something new is asked for.
    pub fn ask(&mut self, anew: bool) {
        self.asked |= anew;
    }

    /// Whether what is written now was there before: nobody asked for anything since all was in the kernel.
    pub fn is_repair(&self) -> bool {
        !self.asked
    }

    /// The kernel took all of what was asked for, or not: then the next try is still no repair.
    pub fn wrote(&mut self, all: bool) {
        self.asked &= !all;
    }

    /// Takes note of a change that another program or the kernel itself made.
    pub fn heard(&mut self, event: &Event) {
        // Port 0 is the kernel's own.
        let by = |port: u32| Some(port).filter(|port| *port != 0);
        match event {
            Event::Link => self.heard.link = true,
            Event::Address => self.heard.address = true,
            Event::Rule(author) => self.heard.rules = by(author.0).or(self.heard.rules),
            Event::Route(author) => self.heard.routes = by(author.0).or(self.heard.routes),
            Event::Nexthop(author) => self.heard.nexthops = by(author.0).or(self.heard.nexthops),
            Event::Overrun => {}
        }
    }

    /// Whether a link or an address changed since the last look.
    pub fn heard_of_links(&self) -> bool {
        self.heard.link || self.heard.address
    }

    /// A look is over in which `repaired` was put right. What was heard until now was about that, or about nothing of ours.
    pub fn looked(&mut self, repaired: &Tally, now: Tick, at: Timestamp) {
        let heard = std::mem::take(&mut self.heard);
        if repaired.count() == 0 {
            return;
        }
        self.repairs.count = self.repairs.count.saturating_add(repaired.count());
        self.repairs.last =
            Some(Repair { time: Time(at), what: repaired.to_string(), cause: heard.cause(repaired) });
        // A link that flaps is nobody's opinion.
        if heard.link || heard.address {
            return;
        }
        self.fight = self.is_fight(now);
        self.blows.push_back(now);
        if self.blows.len() > FIGHT {
            self.blows.pop_front();
        }
        let first = self.blows.front().filter(|_| self.blows.len() == FIGHT);
        self.fight |= first.is_some_and(|first| since(*first, now) <= WINDOW);
    }

    /// How long the loop should leave the kernel alone after a look at `now`, whatever it hears.
    pub fn rest(&self, now: Tick) -> Duration {
        if self.is_fight(now) { REST } else { Duration::ZERO }
    }

    /// Whether somebody keeps at it: also while nothing can be told.
    fn is_fight(&self, now: Tick) -> bool {
        self.fight && self.blows.back().is_some_and(|last| since(*last, now) < PEACE)
    }

    /// What the API server should be told now.
    pub fn told(&mut self, now: Tick) -> &Told {
        self.fight = self.is_fight(now);
        let goes_on = self.fight && self.told.concern.is_some();
        if !goes_on || self.told_at.is_none_or(|at| since(at, now) >= TELL) {
            let repairs = (self.repairs.count > 0).then(|| self.repairs.clone());
            self.told = Told { repairs, concern: self.fight.then(|| contested(self.repairs.last.as_ref())) };
            self.told_at = Some(now);
        }
        &self.told
    }
}

fn since(earlier: Tick, now: Tick) -> Duration {
    now.0.saturating_sub(earlier.0)
}

fn contested(last: Option<&Repair>) -> Concern {
    let what = last.map_or("", |last| last.what.as_str());
    let by =
        last.and_then(|last| last.cause.as_ref()).map(|cause| format!(", by {cause}")).unwrap_or_default();
    let message = format!(
        "something keeps changing what the agent puts right, which it does once a second at most; the last was {what}{by}: find \
         out what does it and stop it"
    );
    Concern { type_: concerns::CONTESTED, reason: "ChangedAgainAndAgain", message }
}

/// Goes on where the report of the agent before this one ended: a restart changes no report (I7).
pub fn continued(before: &Repairs, ours: Option<&Repairs>) -> Option<Repairs> {
    let count = before.count.saturating_add(ours.map_or(0, |ours| ours.count));
    let last = ours.and_then(|ours| ours.last.as_ref()).or(before.last.as_ref());
    (count > 0).then(|| Repairs { count, last: last.cloned() })
}

#[cfg(test)]
mod tests;
