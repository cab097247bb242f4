//! An EgressGateway that people have paused: looked at and reported on, and nothing is changed for it.
//!
//! What has happened is recorded all the same: a Droplet whose create was answered late, one that is gone, who works. Nothing is
//! planned, so that nothing has to be taken back when the pause is over.

use egress_api::PAUSED_ANNOTATION;

use super::{Look, QUIET, SOON, addresses, conditions, creation, events, judge, route, stamp};
use crate::decision::{Decision, Effect};
use crate::observation::Trouble;

/// Whether it is paused. Whatever else the annotation says is told of, and means no.
pub(super) fn is_asked_for(look: &Look<'_>) -> bool {
    value(look).is_some_and(|value| value == "true")
}

/// What is wrong with an annotation that says neither yes nor no.
pub(super) fn complaint(look: &Look<'_>) -> Option<String> {
    let value = value(look).filter(|value| !matches!(value.as_str(), "true" | "false" | ""))?;
    Some(format!(
        "Annotation {PAUSED_ANNOTATION} is {value:?}, which pauses nothing; write \"true\" to pause, or remove it"
    ))
}

/// The words of the conditions.
pub(super) fn words() -> String {
    format!("Annotation {PAUSED_ANNOTATION} is \"true\": nothing is changed until it is removed")
}

fn value<'a>(look: &Look<'a>) -> Option<&'a String> {
    look.seen.gateway.metadata.annotations.as_ref()?.get(PAUSED_ANNOTATION)
}

/// The status as it is, and no effect but writing it.
pub(super) fn decide(look: &Look<'_>) -> Decision {
    let mut status = look.before.clone();
    creation::adopt(look, &mut status);
    addresses::record_for_pause(look, &mut status);
    judge::judge(look, &mut status);
    let is_deleted = look.seen.gateway.metadata.deletion_timestamp.is_some();
    if is_deleted && !look.seen.goes_with_its_definition() {
        stamp(look, &mut status);
        let blocked = Trouble { reason: "Paused", message: words() };
        let doing = "Nothing is deleted while it is paused".to_owned();
        conditions::summarize_deletion(look, &mut status, doing, Some(blocked));
    } else {
        let mut plan = route::plan(look, &mut status);
        plan.change = None;
        stamp(look, &mut status);
        conditions::summarize(look, &mut status, &plan);
    }
    // Of a spec that was not acted on the rest does not speak.
    status.observed_generation = look.before.observed_generation;
    let effect = (status != look.written()).then_some(Effect::WriteStatus);
    let events = events::between(look, &status, effect.as_ref());
    let requeue_after = if effect.is_some() { SOON } else { QUIET };
    Decision { effect, status, requeue_after, events }
}
