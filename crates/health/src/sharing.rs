//! Which gateways of a list share a node's traffic (ECMP).
//!
//! By difference, and sticky, as [`crate::selection`] is for one gateway:
//! 1. A gateway that is in use stays until it is down: leaving costs its connections.
//! 2. One that is not in use joins when it is Up and answers, that is, after its hold-down: a gateway that flaps must not
//!    take connections that it will lose.
//! 3. When every gateway in use is down, whoever answers takes over at once, Up before Trial: rise and hold-down never keep a
//!    node on dead gateways. Those that are down themselves and answered their last probe take over only from silent ones, or
//!    from those that leave with another address if they do not, so that gateways that lose most probes do not throw the node
//!    back and forth at each of them. Of those in use themselves only the worse ones leave.
//! 4. When none answers, those in use stay (`KeepLast`): silence of all proves nothing against one.
//! 5. Where none is in use yet, or none of those is in the list any more, all that are not known to be down are; if all are
//!    down, the best that answer, else the whole list.
//!
//! All memory is in the detectors and in what is in use, so the choice is a pure function and survives any restart.

use std::collections::BTreeSet;

use crate::detector::{Signal, Verdict};
use crate::selection::{Candidate, has_answered, is_worse};

/// Chooses among `listed`; `in_use` is what was chosen last. Empty only for an empty list.
pub fn share<G: Copy + Ord>(listed: &[Candidate<G>], in_use: &BTreeSet<G>) -> BTreeSet<G> {
    let is_down = |candidate: &Candidate<G>| candidate.standing.verdict == Verdict::Down;
    let is_used = |candidate: &Candidate<G>| in_use.contains(&candidate.gateway);
    let is_proven = |candidate: &Candidate<G>| {
        candidate.standing.verdict == Verdict::Up && candidate.standing.signal == Signal::Answering
    };
    let those = |wanted: &dyn Fn(&Candidate<G>) -> bool| -> BTreeSet<G> {
        listed.iter().filter(|candidate| wanted(candidate)).map(|candidate| candidate.gateway).collect()
    };

    let used = those(&is_used);
    let alive = those(&|candidate| is_used(candidate) && !is_down(candidate));
    if !alive.is_empty() {
        return those(&|candidate| alive.contains(&candidate.gateway) || is_proven(candidate));
    }
    if used.is_empty() {
        let hopeful = those(&|candidate| !is_down(candidate));
        if !hopeful.is_empty() {
            return hopeful;
        }
    }
    let of = |candidate: &Candidate<G>| (candidate.standing.verdict, candidate.standing.signal);
    let answering = listed.iter().filter(|candidate| has_answered(candidate.standing.signal));
    let Some(best) = answering.map(of).min() else {
        return if used.is_empty() { those(&|_| true) } else { used };
    };
    let (verdict, signal) = best;
    let stays = |candidate: &Candidate<G>| {
        verdict == Verdict::Down && is_used(candidate) && !is_worse(candidate.standing.signal, signal)
    };
    let staying = those(&stays);
    if staying.is_empty() { those(&|candidate| of(candidate) == best) } else { staying }
}

#[cfg(test)]
mod tests;
