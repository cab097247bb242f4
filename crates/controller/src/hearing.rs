//! When a node's verdicts were heard last, by this process' own clock.
//!
//! Two machines' clocks are never compared, and ours is not one that is set back ([`crate::clock`]): what counts is that the report
//! changed while we looked. A report that was there
//! already when this process began may be of an agent that has stood still since; it counts once it changes.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use egress_api::GatewayObservation;
use jiff::Timestamp;

use crate::observation::NodeSeen;

/// What each node said last of its gateways, and since when it is known.
#[derive(Debug, Default)]
pub struct Hearing {
    heard: Mutex<BTreeMap<String, Heard>>,
}

#[derive(Debug)]
struct Heard {
    words: Vec<GatewayObservation>,
    changed: Option<Timestamp>,
}

impl Hearing {
    /// Reads all nodes there are, and says in [`NodeSeen::heard`] when each one's report was new last. Nodes that are not among
    /// them are forgotten.
    pub fn listen(&self, now: Timestamp, read: impl FnOnce() -> Vec<NodeSeen>) -> Vec<NodeSeen> {
        // Locked before the reading: of two, the older must not come second and look like news.
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let mut nodes = read();
        let mut current = BTreeMap::new();
        for node in &mut nodes {
            let Some(report) = &node.report else { continue };
            let entry = match heard.remove(&node.name) {
                Some(known) if known.words == report.gateways => known,
                Some(_) => Heard { words: report.gateways.clone(), changed: Some(now) },
                None => Heard { words: report.gateways.clone(), changed: None },
            };
            node.heard = entry.changed;
            current.insert(node.name.clone(), entry);
        }
        *heard = current;
        nodes
    }
}

#[cfg(test)]
mod tests {
    use egress_api::NodeEgressStatus;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn node(renewed: i64) -> NodeSeen {
        let view = GatewayObservation {
            address: "10.116.0.100".into(),
            condemned: true,
            renewed: Some(Time(at(renewed))),
            ..GatewayObservation::default()
        };
        let report = NodeEgressStatus { gateways: vec![view], ..NodeEgressStatus::default() };
        NodeSeen { name: "pool-1".into(), report: Some(report), ..NodeSeen::default() }
    }

    fn heard(hearing: &Hearing, renewed: i64, now: i64) -> Option<Timestamp> {
        hearing.listen(at(now), || vec![node(renewed)])[0].heard
    }

    #[test]
    fn a_report_counts_from_when_it_was_seen_to_change_whatever_the_clock_of_its_node_says() {
        let hearing = Hearing::default();
        // Nobody knows how old this is.
        assert_eq!(heard(&hearing, 9_999, 100), None);
        assert_eq!(heard(&hearing, 9_999, 105), None);
        // A renewal, by a clock that was set back.
        assert_eq!(heard(&hearing, 10, 110), Some(at(110)));
        assert_eq!(heard(&hearing, 10, 130), Some(at(110)));
        // A node that went and came again is new.
        hearing.listen(at(131), Vec::new);
        assert_eq!(heard(&hearing, 20, 132), None);
    }
}
