//! What happened: failovers, replacements, rolls, moves of nodes, and when an EgressGateway began or ceased to work.
//!
//! The objects hold the last of each. Read again and again, they are a history, which is remembered here, bounded, for as long as the
//! process runs; after a restart it begins with what the objects hold.

use std::collections::{BTreeMap, HashMap};

use egress_api::condition::READY;
use egress_api::{EgressGateway, EgressGatewayStatus, NodeFailover};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use crate::view::{NodeObjects, Objects};

/// What is remembered at most; the oldest is forgotten.
pub const MOST_MOMENTS: usize = 500;

// Nodes decide for themselves, within seconds of each other: one entry for all of them.
const TOGETHER: SignedDuration = SignedDuration::from_secs(60);

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Nodes left a gateway by themselves.
    Moved,
    /// Another gateway became the active one.
    Failover,
    /// A gateway was given up for another.
    Replacement,
    /// A gateway that works makes room for a new one.
    Roll,
    /// It ceased to work, for some nodes or all.
    Broke,
    /// It works since.
    Works,
}

impl Kind {
    /// The word on its label.
    pub fn word(self) -> &'static str {
        match self {
            Self::Moved => "Moved",
            Self::Failover => "Failover",
            Self::Replacement => "Replacement",
            Self::Roll => "Roll",
            Self::Broke => "Not ready",
            Self::Works => "Ready",
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: Kind,
    /// Name of the EgressGateway, or of the StaticRoute where nodes moved.
    pub gateway: String,
    /// In a sentence.
    pub sentence: String,
}

// The newest comes last.
type Key = (Timestamp, String, Kind, String);

/// The history.
#[derive(Debug, Default)]
pub struct Timeline {
    moments: BTreeMap<Key, String>,
    moves: BTreeMap<Key, Moves>,
    // What of each node was counted last.
    counted: HashMap<String, (Timestamp, Key)>,
}

#[derive(Clone, Debug)]
struct Moves {
    nodes: usize,
    from: String,
    to: String,
    reason: String,
    fastest: f64,
    slowest: f64,
}

impl Timeline {
    /// Takes in what the objects hold now.
    pub fn observe(&mut self, objects: &Objects<'_>) {
        let mut names: HashMap<&str, &str> = HashMap::new();
        for gateway in objects.gateways.iter().filter_map(|gateway| gateway.0.as_ref().ok()) {
            let Some(status) = &gateway.status else { continue };
            self.moments.extend(told_by(gateway, status));
            names.extend(
                status
                    .gateways
                    .iter()
                    .filter_map(|one| Some((one.private_address.as_deref()?, one.name.as_str()))),
            );
        }
        for node in objects.nodes {
            self.count(node, &names);
        }
        if self.counted.len() > objects.nodes.len() {
            let there: std::collections::HashSet<&str> = objects.nodes.iter().map(|node| node.name).collect();
            self.counted.retain(|name, _| there.contains(name.as_str()));
        }
        while self.moments.len() + self.moves.len() > MOST_MOMENTS {
            let oldest =
                [self.moments.keys().next(), self.moves.keys().next()].into_iter().flatten().min().cloned();
            let Some(oldest) = oldest else { break };
            self.moments.remove(&oldest);
            self.moves.remove(&oldest);
        }
    }

    fn count(&mut self, node: &NodeObjects<'_>, names: &HashMap<&str, &str>) {
        let Some(last) = node.report.and_then(|report| report.last_failover.as_ref()) else { return };
        let before = self.counted.get(node.name);
        if before.is_some_and(|(at, _)| *at == last.time.0) {
            return;
        }
        let NodeFailover { time, static_route, from, to, reason, seconds, evidence: _ } = last;
        let way = format!("{from} {to}");
        let since = time.0.checked_sub(TOGETHER).unwrap_or(Timestamp::MIN);
        let until = time.0.checked_add(TOGETHER).unwrap_or(Timestamp::MAX);
        let same = |(key, moves): &(&Key, &mut Moves)| {
            key.0 <= until && key.1 == *static_route && key.3 == way && moves.reason == *reason
        };
        let recent = (since, String::new(), Kind::Moved, String::new());
        let key = if let Some((key, moves)) = self.moves.range_mut(recent..).find(same) {
            // One that left it twice is one node.
            moves.nodes += usize::from(before.is_none_or(|(_, counted)| counted != key));
            moves.fastest = moves.fastest.min(*seconds);
            moves.slowest = moves.slowest.max(*seconds);
            key.clone()
        } else {
            let named = |address: &str| names.get(address).copied().unwrap_or(address).to_owned();
            let (from, to) = (named(from), named(to));
            let moves =
                Moves { nodes: 1, from, to, reason: reason.clone(), fastest: *seconds, slowest: *seconds };
            let key = (time.0, static_route.clone(), Kind::Moved, way);
            self.moves.insert(key.clone(), moves);
            key
        };
        self.counted.insert(node.name.to_owned(), (time.0, key));
    }

    /// The newest first; of one EgressGateway or of all.
    pub fn newest(&self, of: Option<&str>, most: usize) -> Vec<Moment> {
        let told = self.moments.iter().map(|(key, sentence)| (key, sentence.clone()));
        let moved = self.moves.iter().map(|(key, moves)| (key, moves.to_string()));
        let mut all: Vec<(&Key, String)> =
            told.chain(moved).filter(|(key, _)| of.is_none_or(|name| key.1 == name)).collect();
        all.sort_by(|(a, _), (b, _)| b.cmp(a));
        all.into_iter()
            .take(most)
            .map(|((at, gateway, kind, _), sentence)| Moment {
                at: *at,
                kind: *kind,
                gateway: gateway.clone(),
                sentence,
            })
            .collect()
    }
}

impl std::fmt::Display for Moves {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { nodes, from, to, reason, fastest, slowest } = self;
        let what = match reason.as_str() {
            "Unreachable" => "it did not answer in the VPC",
            "NotForwarding" => "it did not lead outside",
            "UnexpectedSource" => "it left with another address",
            "LosesLargePackets" => "it lost packets of full size",
            "LosesPackets" => "it lost packets",
            other => other,
        };
        let who = if *nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") };
        let took = if slowest - fastest < 0.1 {
            format!("{slowest:.1} s")
        } else {
            format!("{fastest:.1} to {slowest:.1} s")
        };
        write!(f, "{who} left {from} for {to} within {took}: {what}")
    }
}

fn told_by(gateway: &EgressGateway, status: &EgressGatewayStatus) -> Vec<(Key, String)> {
    let name = gateway.name_any();
    let mut told = Vec::new();
    let mut tell = |at: Timestamp, kind: Kind, which: &str, sentence: String| {
        told.push(((at, name.clone(), kind, which.to_owned()), sentence));
    };
    if let Some(last) = &status.last_failover {
        let seconds = last.seconds.map(|seconds| format!(", a node in {seconds:.1} s")).unwrap_or_default();
        let sentence = format!("from {} to {}{seconds}: {}", last.from, last.to, last.reason);
        tell(last.time.0, Kind::Failover, &last.from, sentence);
    }
    if let Some(last) = &status.last_replacement {
        let to = match &last.to {
            Some(to) if *to == last.from => "which works again".to_owned(),
            Some(to) => format!("by {to}"),
            None => "under way".to_owned(),
        };
        let sentence = format!("of {}, {to}: {}", last.from, last.reason);
        tell(last.time.0, Kind::Replacement, &last.from, sentence);
    }
    if let Some(roll) = &status.roll {
        let how = match (&roll.failure, &roll.ended) {
            (Some(failure), _) => format!("stopped: {failure}"),
            (None, Some(_)) => "done".to_owned(),
            (None, None) => "under way".to_owned(),
        };
        let sentence = format!("of {}, {how}: {}", roll.from, roll.reason);
        tell(roll.since.0, Kind::Roll, &roll.from, sentence);
    }
    if let Some(ready) = status.conditions.iter().find(|condition| condition.type_ == READY) {
        let kind = if ready.status == "True" { Kind::Works } else { Kind::Broke };
        // The message moves on while the condition stays; what was said first is what happened, and what is said last is kept.
        tell(ready.last_transition_time.0, kind, "", format!("{}: {}", ready.reason, ready.message));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made_up::{Cluster, at};

    #[test]
    fn what_the_objects_hold_is_told_once_and_what_they_held_before_is_not_forgotten() {
        let mut cluster = Cluster::of(1, 3);
        let mut timeline = Timeline::default();
        cluster.look(|objects| timeline.observe(objects));
        cluster.fail_over(0, at(100));
        cluster.look(|objects| timeline.observe(objects));
        cluster.look(|objects| timeline.observe(objects));
        cluster.fail_over(0, at(900));
        cluster.look(|objects| timeline.observe(objects));
        let kinds =
            |kind| timeline.newest(None, 100).into_iter().filter(|one| one.kind == kind).collect::<Vec<_>>();
        assert_eq!(kinds(Kind::Failover).iter().map(|one| one.at).collect::<Vec<_>>(), [at(900), at(100)]);
        let moved = kinds(Kind::Moved);
        assert_eq!(moved.len(), 2, "{moved:?}");
        assert!(
            moved[0].sentence.starts_with("3 nodes left gw-000-0 for gw-000-1 within 0.4 s"),
            "{moved:?}"
        );
        // Who leaves it twice within a minute is one node.
        cluster.fail_over(0, at(910));
        cluster.look(|objects| timeline.observe(objects));
        let moved =
            timeline.newest(None, 100).into_iter().filter(|one| one.kind == Kind::Moved).collect::<Vec<_>>();
        assert_eq!(moved.len(), 2, "{moved:?}");
        assert!(moved[0].sentence.starts_with("3 nodes left"), "{moved:?}");
        assert_eq!(timeline.newest(None, 1).len(), 1);
        assert!(timeline.newest(Some("another"), 100).is_empty());
    }

    #[test]
    fn a_year_of_failovers_is_no_more_than_a_page_can_hold() {
        let mut cluster = Cluster::of(1, 2);
        let mut timeline = Timeline::default();
        for hour in 0..2_000 {
            cluster.fail_over(0, at(hour * 3_600));
            cluster.look(|objects| timeline.observe(objects));
        }
        let told = timeline.newest(None, usize::MAX);
        assert_eq!(told.len(), MOST_MOMENTS);
        assert_eq!(told[0].at, at(1_999 * 3_600));
    }
}
