//! Times of the status that a clock has written which ran ahead: another controller's, on a machine whose clock was put right since.
//!
//! How long ago such a time was cannot be known, and as it is, everything that waits for it would wait for as long as that clock was ahead.
//! So whoever finds one takes now for it, and writes that down: all waits begin anew, and none is shorter than it was to be.
//!
//! But for one: when the last gateway was replaced. Were it our clock that is behind, and put right in a moment, then now would soon be long
//! ago, and the next gateway would be replaced too early. So that time stays, and since when the next one is held is written beside it.

use std::time::Duration;

use egress_api::{EgressGatewayStatus, FirewallStatus, GatewayStatus, Refused, Replacement};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::act::LONGEST_REST;

/// So far ahead of ours may be the clock of the last leader. Clocks that differ by less cost no more than that; and should ours be the one
/// that is behind, no wait ends before its time.
const SLACK: Duration = Duration::from_secs(60);

/// What was written, with no time in it on which a decision rests that is still to come.
pub(super) fn brought_back(mut status: EgressGatewayStatus, now: &Time) -> EgressGatewayStatus {
    let back = |then: &mut Time| {
        if is_ahead(then, now) {
            *then = now.clone();
        }
    };
    let maybe = |then: &mut Option<Time>| {
        if let Some(then) = then {
            back(then);
        }
    };
    let rests = |until: &mut Time| {
        let latest = now.0.checked_add(LONGEST_REST).unwrap_or(now.0);
        if is_ahead(until, &Time(latest)) {
            *until = Time(latest);
        }
    };
    let refused = |refused: &mut Option<Refused>| {
        if let Some(Refused { message: _, since, not_before }) = refused {
            back(since);
            rests(not_before);
        }
    };
    maybe(&mut status.user_data_outdated_since);
    for gateway in &mut status.gateways {
        let GatewayStatus { since, created, suspect_since, powered_on, delete_refused, .. } = gateway;
        let times = [since, created, suspect_since, powered_on];
        times.into_iter().for_each(maybe);
        maybe(&mut gateway.power_cycled);
        maybe(&mut gateway.power_cycle_accepted);
        refused(delete_refused);
    }
    for intent in &mut status.creating {
        back(&mut intent.since);
        maybe(&mut intent.sent);
    }
    if let Some(FirewallStatus { since, sent, refused_since, not_before, .. }) = &mut status.firewall {
        back(since);
        maybe(sent);
        maybe(refused_since);
        if let Some(not_before) = not_before {
            rests(not_before);
        }
    }
    for recorded in &mut status.reserved_ips {
        back(&mut recorded.since);
        if let Some(assigning) = &mut recorded.assigning {
            back(&mut assigning.since);
        }
        refused(&mut recorded.refused);
    }
    if let Some(reserving) = &mut status.reserving_ip {
        back(&mut reserving.since);
        maybe(&mut reserving.sent);
        refused(&mut reserving.refused);
    }
    if let Some(roll) = &mut status.roll {
        back(&mut roll.since);
        maybe(&mut roll.drain_since);
        maybe(&mut roll.ended);
    }
    if let Some(last) = &mut status.last_replacement {
        maybe(&mut last.held_since);
        if !is_ahead(&last.time, now) {
            last.held_since = None;
        } else if last.held_since.is_none() {
            last.held_since = Some(now.clone());
        }
    }
    status
}

/// When the last replacement was, as far as the next one waits for it.
pub(super) fn counts_from(last: &Replacement) -> &Time {
    last.held_since.as_ref().unwrap_or(&last.time)
}

fn is_ahead(then: &Time, now: &Time) -> bool {
    then.0.duration_since(now.0) > jiff::SignedDuration::try_from(SLACK).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use egress_api::GatewayRole;
    use jiff::Timestamp;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn only_what_is_to_come_for_certain_is_taken_for_now_and_only_once() {
        let mut gateway = GatewayStatus::new("demo".into(), 0, 1, GatewayRole::Failed);
        gateway.since = Some(at(10));
        gateway.powered_on = Some(at(1_004));
        gateway.suspect_since = Some(at(4_600));
        let refused =
            |not_before| Refused { message: "no".into(), since: at(4_600), not_before: at(not_before) };
        gateway.delete_refused = Some(refused(4_900));
        let status = EgressGatewayStatus { gateways: vec![gateway], ..EgressGatewayStatus::default() };
        let back = brought_back(status, &at(1_000));
        let gateway = &back.gateways[0];
        let times = [&gateway.since, &gateway.powered_on, &gateway.suspect_since];
        assert_eq!(times, [&Some(at(10)), &Some(at(1_004)), &Some(at(1_000))]);
        let refused = gateway.delete_refused.as_ref().unwrap();
        assert_eq!((&refused.since, &refused.not_before), (&at(1_000), &at(1_300)));
        assert_eq!(brought_back(back.clone(), &at(1_000)), back);
        assert_eq!(brought_back(back.clone(), &at(2_000)), back);
    }

    #[test]
    fn the_next_replacement_waits_for_both_clocks_should_ours_be_the_one_that_was_wrong() {
        let last = Replacement {
            time: at(4_600),
            held_since: None,
            from: "demo-0".into(),
            from_droplet_id: 1,
            from_public_address: None,
            to: None,
            to_public_address: None,
            reason: "dead".into(),
        };
        let status = EgressGatewayStatus { last_replacement: Some(last), ..EgressGatewayStatus::default() };
        let held = brought_back(status, &at(1_000));
        let counted =
            |status: &EgressGatewayStatus| counts_from(status.last_replacement.as_ref().unwrap()).clone();
        assert_eq!(counted(&held), at(1_000));
        let later = brought_back(held, &at(1_500));
        assert_eq!(counted(&later), at(1_000), "it does not begin anew at every look");
        // Ours is put right.
        let right = brought_back(later, &at(4_700));
        assert_eq!((counted(&right), &right.last_replacement.unwrap().held_since), (at(4_600), &None));
    }
}
