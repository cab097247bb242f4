//! Conditions whose transition time moves only when the status does.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Condition type: does it do what it promises, now?
pub const READY: &str = "Ready";
/// Condition type: is something being made or replaced?
pub const PROGRESSING: &str = "Progressing";
/// Condition type: does it work with less than was asked for?
pub const DEGRADED: &str = "Degraded";

/// What a condition should say from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Condition type, such as [`READY`].
    pub type_: &'static str,
    /// Whether it holds; `None` is `Unknown`.
    pub status: Option<bool>,
    /// One CamelCase word for programs.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
}

/// Puts `verdict` into `conditions`, keeping `lastTransitionTime` unless the status changes.
///
/// kstatus, `kubectl wait` and Argo CD read `lastTransitionTime` and `observedGeneration`; a time that moves on every write
/// would also make every write a change.
pub fn set(conditions: &mut Vec<Condition>, verdict: Verdict, generation: Option<i64>, now: Timestamp) {
    let status = match verdict.status {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let previous = conditions.iter().position(|condition| condition.type_ == verdict.type_);
    let last_transition_time = match previous {
        Some(index) if conditions[index].status == status => conditions[index].last_transition_time.clone(),
        _ => Time(now),
    };
    let condition = Condition {
        type_: verdict.type_.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.to_owned(),
        message: verdict.message,
        observed_generation: generation,
        last_transition_time,
    };
    match previous {
        Some(index) => conditions[index] = condition,
        None => conditions.push(condition),
    }
}

/// Whether the condition of this type is `True`.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    conditions.iter().any(|condition| condition.type_ == type_ && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: bool, message: &str) -> Verdict {
        Verdict { type_: READY, status: Some(status), reason: "Test", message: message.to_owned() }
    }

    #[test]
    fn transition_time_moves_only_with_the_status() {
        let mut conditions = Vec::new();
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        set(&mut conditions, verdict(false, "a"), Some(1), at(10));
        set(&mut conditions, verdict(false, "b"), Some(2), at(20));
        assert_eq!(conditions[0].last_transition_time, Time(at(10)));
        assert_eq!((conditions[0].message.as_str(), conditions[0].observed_generation), ("b", Some(2)));
        set(&mut conditions, verdict(true, "c"), Some(2), at(30));
        assert_eq!(conditions[0].last_transition_time, Time(at(30)));
        assert_eq!(conditions.len(), 1);
        assert!(is_true(&conditions, READY));
    }
}
