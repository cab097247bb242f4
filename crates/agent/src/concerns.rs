//! What is wrong with the node as a whole, as opposed to with one StaticRoute: pure.
//!
//! Whoever finds such a thing returns a [`Concern`], and `Reconciler::concerns` gathers them: a new kind of trouble is a
//! constant here and a line there. The conditions of the report are made of them, and of what the report said before.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use egress_api::NodeEgressStatus;
use egress_api::condition::{self, Verdict};
use egress_routing::Uncertainty;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::protected_list::ProtectedList;
use crate::surroundings::Surroundings;

/// More gateways are listed than one node can probe, and it does not leave the others by itself.
pub const NOT_PROBED: &str = "GatewaysNotProbed";

/// StaticRoutes went with their definition (CRD), and their routes stay.
pub const ORPHANED: &str = "Orphaned";

/// The user's list of protected ranges and names has lines that can't be read.
pub const PROTECTED_LIST_INVALID: &str = "ProtectedListInvalid";

/// Where the API server is, is not known: no range is opened.
pub const API_SERVER_UNKNOWN: &str = "ApiServerUnknown";

/// Protected names have no address.
pub const PROTECTED_NAMES_UNKNOWN: &str = "ProtectedNamesUnknown";

/// Somebody keeps changing what the agent puts right.
pub const CONTESTED: &str = "Contested";

/// EgressGateways can't be read.
pub const EGRESS_GATEWAY_UNREADABLE: &str = "EgressGatewayUnreadable";

/// There are more StaticRoutes than a report has room for.
pub const ROUTES_NOT_REPORTED: &str = "RoutesNotReported";

/// Reason of a condition whose trouble is over.
const RESOLVED: &str = "Resolved";

/// A condition's message has so many bytes at most (I11).
const LONGEST_MESSAGE: usize = 2048;

/// Something is wrong with this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concern {
    /// Type of the condition that tells it.
    pub type_: &'static str,
    /// One CamelCase word for programs.
    pub reason: &'static str,
    /// What is wrong, and the way out, in a sentence for people.
    pub message: String,
}

/// The gateways for which there was no probe slot.
pub fn not_probed(gateways: &[Ipv4Addr]) -> Option<Concern> {
    let first = gateways.first()?;
    let message = format!(
        "{} gateways, the first being {first}, are not probed: a node probes 32, and a StaticRoute stays on one of the others \
         when that dies; list fewer gateways",
        gateways.len()
    );
    Some(Concern { type_: NOT_PROBED, reason: "TooManyGateways", message })
}

/// What stands in the user's list and can't be read.
pub fn protected_list(list: &ProtectedList) -> Option<Concern> {
    let message = list.complaint()?;
    Some(Concern { type_: PROTECTED_LIST_INVALID, reason: "InvalidLine", message })
}

/// That the API server is not known. The first moments of an agent are no concern.
pub fn api_server(uncertain: Option<&Uncertainty>) -> Option<Concern> {
    let unknown = uncertain.filter(|uncertain| uncertain.reason() == API_SERVER_UNKNOWN)?;
    let message = format!("{unknown}; until then no range is routed that is not routed already");
    Some(Concern { type_: API_SERVER_UNKNOWN, reason: "NoAddress", message })
}

/// Protected names that never had an address.
pub fn protected_names(surroundings: &Surroundings) -> Option<Concern> {
    let unknown = surroundings.names.iter().filter(|(_, addresses)| addresses.is_empty());
    let unknown: Vec<&str> = unknown.map(|(name, _)| name.as_str()).collect();
    let first = *unknown.first().filter(|_| surroundings.looked)?;
    let message = format!(
        "{} protected names have no address on this node, the first being {first}; what they mean may go through a gateway: \
         correct the name, or mend the node's resolvers",
        unknown.len()
    );
    Some(Concern { type_: PROTECTED_NAMES_UNKNOWN, reason: "NoAddress", message })
}

/// StaticRoutes that the report leaves out, of so many that are known.
pub fn not_reported(known: usize) -> Option<Concern> {
    let left_out = known.checked_sub(NodeEgressStatus::MOST_ROUTES).filter(|left_out| *left_out > 0)?;
    let message = format!(
        "this node has {known} StaticRoutes and its report has room for {}: what became of the {left_out} youngest is not told, \
         and their Ready stays False; list more destinations in fewer StaticRoutes",
        NodeEgressStatus::MOST_ROUTES
    );
    Some(Concern { type_: ROUTES_NOT_REPORTED, reason: "TooManyStaticRoutes", message })
}

/// EgressGateways that can't be read, by name, with the field and what is wrong with it.
pub fn unreadable_gateways(unreadable: &BTreeMap<String, String>) -> Option<Concern> {
    let (name, why) = unreadable.first_key_value()?;
    let more =
        if unreadable.len() > 1 { format!(" and {} more", unreadable.len() - 1) } else { String::new() };
    let message = format!(
        "EgressGateway {name}{more} can't be read: {why}; gateways of it that wait to be proven are not probed, and what is routed \
         stays"
    );
    Some(Concern { type_: EGRESS_GATEWAY_UNREADABLE, reason: "InvalidObject", message })
}

/// The conditions to report. `previous` are those reported last: one whose concern is gone stays, as `False`.
///
/// Of several concerns of one type the first gives the reason, and all of them stand in the message.
pub fn conditions(previous: &[Condition], concerns: &[Concern], now: Timestamp) -> Vec<Condition> {
    let mut conditions = previous.to_vec();
    let is_new = |index: &usize| !concerns[..*index].iter().any(|one| one.type_ == concerns[*index].type_);
    for first in (0..concerns.len()).filter(is_new) {
        let Concern { type_, reason, .. } = concerns[first];
        let messages: Vec<&str> =
            concerns.iter().filter(|one| one.type_ == type_).map(|one| one.message.as_str()).collect();
        let message = bounded(messages.join("; "));
        condition::set(&mut conditions, Verdict { type_, status: Some(true), reason, message }, None, now);
    }
    for over in &mut conditions {
        if over.status == "True" && !concerns.iter().any(|one| one.type_ == over.type_) {
            "False".clone_into(&mut over.status);
            RESOLVED.clone_into(&mut over.reason);
            over.message.clear();
            over.last_transition_time = Time(now);
        }
    }
    conditions
}

fn bounded(mut message: String) -> String {
    if message.len() > LONGEST_MESSAGE {
        let end = (0..=LONGEST_MESSAGE - 3).rev().find(|end| message.is_char_boundary(*end));
        message.truncate(end.unwrap_or_default());
        message.push_str("...");
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn concern(type_: &'static str, reason: &'static str, message: &str) -> Concern {
        Concern { type_, reason, message: message.to_owned() }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn said(conditions: &[Condition]) -> Vec<(&str, &str, &str, &str, i64)> {
        let said = |one: &'_ Condition| one.last_transition_time.0.as_second();
        conditions
            .iter()
            .map(|one| {
                (
                    one.type_.as_str(),
                    one.status.as_str(),
                    one.reason.as_str(),
                    one.message.as_str(),
                    said(one),
                )
            })
            .collect()
    }

    #[test]
    fn a_quiet_node_has_no_conditions_and_trouble_that_is_over_is_remembered_as_false() {
        assert_eq!(conditions(&[], &[], at(1)), []);
        let both = [concern("Clash", "ForeignRule", "a"), concern("Other", "Word", "b")];
        let first = conditions(&[], &both, at(10));
        assert_eq!(
            said(&first),
            [("Clash", "True", "ForeignRule", "a", 10), ("Other", "True", "Word", "b", 10)]
        );
        assert_eq!(conditions(&first, &both, at(20)), first, "nothing new is no change");
        let after = conditions(&first, &both[1..], at(30));
        assert_eq!(
            said(&after),
            [("Clash", "False", "Resolved", "", 30), ("Other", "True", "Word", "b", 10)]
        );
        assert_eq!(conditions(&after, &both[1..], at(40)), after);
    }

    #[test]
    fn an_agents_first_moments_are_no_concern_and_an_unknown_api_server_is() {
        let name = || "api.digitalocean.com".to_owned();
        for first in [Uncertainty::LookingAround, Uncertainty::ProtectedName { name: name() }] {
            assert_eq!(api_server(Some(&first)), None);
        }
        for unknown in [Uncertainty::NoApiServer, Uncertainty::MetadataSilent] {
            assert_eq!(api_server(Some(&unknown)).unwrap().type_, API_SERVER_UNKNOWN);
        }
    }

    #[test]
    fn static_routes_that_a_report_has_no_room_for_are_counted() {
        assert_eq!(not_reported(NodeEgressStatus::MOST_ROUTES), None);
        let message = not_reported(NodeEgressStatus::MOST_ROUTES + 7).unwrap().message;
        assert!(message.contains("1007 StaticRoutes") && message.contains("the 7 youngest"), "{message}");
    }

    #[test]
    fn several_concerns_of_one_type_are_one_condition_of_bounded_length() {
        let both = [concern("Clash", "ForeignRule", "a"), concern("Clash", "ForeignRoute", "b")];
        assert_eq!(said(&conditions(&[], &both, at(1))), [("Clash", "True", "ForeignRule", "a; b", 1)]);
        let long = concern("Clash", "ForeignRule", &"ä".repeat(LONGEST_MESSAGE));
        let message = &conditions(&[], &[long], at(1))[0].message;
        assert!(message.len() <= LONGEST_MESSAGE && message.ends_with("ä..."));
    }
}
