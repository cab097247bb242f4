//! What people are told of a StaticRoute: that all nodes have this version of it, or that one can't. Pure.
//!
//! A node that joins, or one that is slow, makes `Ready` false for a while and is nothing to tell of. So an object has one event
//! for each change of its spec, one when nodes fail and one when they have recovered, however many nodes there are.

use std::time::Duration;

use egress_api::StaticRouteStatus;
use egress_api::condition::READY;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::cloud::elapsed;
use crate::decision::Happening;

use super::sum::{APPLIED, PENDING};

/// The same is not told again before that much time has passed, whatever flaps.
const AGAIN: Duration = Duration::from_secs(60);

/// What was told of one object last.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    last: Option<(Option<i64>, String)>,
    times: Vec<(String, Timestamp)>,
}

impl Told {
    /// What another controller must have told, by the status that it wrote.
    pub(super) fn before(status: &StaticRouteStatus) -> Self {
        let last = ready(status).filter(|condition| condition.reason != PENDING);
        let last = last.map(|condition| (condition.observed_generation, condition.reason.clone()));
        Self { last, times: Vec::new() }
    }

    /// What is to be told, now that this is the status.
    pub(super) fn tell(&mut self, status: &StaticRouteStatus, now: Timestamp) -> Option<Happening> {
        let condition = ready(status).filter(|condition| condition.reason != PENDING)?;
        let news = (condition.observed_generation, condition.reason.clone());
        if self.last.as_ref() == Some(&news) {
            return None;
        }
        let same_version = self.last.as_ref().is_some_and(|(generation, _)| *generation == news.0);
        self.times.retain(|(_, time)| elapsed(*time, now) < AGAIN);
        if same_version && self.times.iter().any(|(reason, _)| *reason == condition.reason) {
            return None;
        }
        self.last = Some(news);
        self.times.push((condition.reason.clone(), now));
        let known = REASONS.iter().find(|reason| **reason == condition.reason)?;
        let warning = *known != APPLIED;
        Some(Happening { warning, reason: known, note: condition.message.clone() })
    }
}

/// Reasons of `Ready` that are told.
const REASONS: [&str; 4] = [APPLIED, super::sum::FAILED, super::sum::NO_NODES, crate::unreadable::UNREADABLE];

fn ready(status: &StaticRouteStatus) -> Option<&Condition> {
    status.conditions.iter().find(|condition| condition.type_ == READY)
}

#[cfg(test)]
mod tests {
    use egress_api::condition::{Verdict, set};

    use super::*;

    fn status(generation: i64, reason: &'static str) -> StaticRouteStatus {
        let mut status = StaticRouteStatus::default();
        let verdict =
            Verdict { type_: READY, status: Some(reason == APPLIED), reason, message: reason.to_owned() };
        set(&mut status.conditions, verdict, Some(generation), Timestamp::UNIX_EPOCH);
        status
    }

    #[test]
    fn a_change_is_told_once_however_many_nodes_come_and_go() {
        let failed = super::super::sum::FAILED;
        let mut told = Told::before(&StaticRouteStatus::default());
        let mut now = 0;
        let mut tell = |generation, reason| {
            now += 10;
            let happening = told.tell(&status(generation, reason), Timestamp::from_second(now).unwrap());
            happening.map(|happening| (happening.reason, happening.warning))
        };
        assert_eq!(tell(1, PENDING), None);
        assert_eq!(tell(1, APPLIED), Some((APPLIED, false)));
        // Nodes join for a minute and a half.
        for _ in 0..5 {
            assert_eq!(tell(1, PENDING), None);
            assert_eq!(tell(1, APPLIED), None);
        }
        assert_eq!(tell(2, PENDING), None);
        assert_eq!(tell(2, APPLIED), Some((APPLIED, false)), "another version");
        assert_eq!(tell(2, failed), Some((failed, true)));
        assert_eq!(tell(2, APPLIED), None, "told 20 s ago: it may be flapping");
        for _ in 0..3 {
            assert_eq!(tell(2, failed), None);
            assert_eq!(tell(2, PENDING), None);
        }
        assert_eq!(tell(2, APPLIED), Some((APPLIED, false)), "it has recovered");
        // Another controller takes over and tells nothing twice.
        assert!(Told::before(&status(2, APPLIED)).tell(&status(2, APPLIED), Timestamp::UNIX_EPOCH).is_none());
    }
}
