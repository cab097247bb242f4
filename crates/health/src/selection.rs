//! Which gateway of an ordered list a node uses.
//!
//! By difference, and sticky:
//! 1. While the current gateway is not down, the node stays, but for one case: a gateway earlier in the list is Up and
//!    answers. Then it moves there (return after a failover, or a new order by the controller).
//! 2. When the current gateway is down, the node moves to the best that answers: Up before Trial; of equals the first in
//!    the list. To one that is down itself and answered its last probe it moves only from one that is silent, so that two
//!    gateways that lose most probes do not throw the node back and forth at each of them; or from one that leaves with
//!    another address, or through which the only target that tells gets nothing, if that one does not: what loses some packets or large
//!    ones serves most connections.
//! 3. When no other answers, it stays (`KeepLast`): silence of all proves nothing against one.
//! 4. Without a current gateway, or when that has left the list, it takes the first that is not known to be down; if all
//!    are, the best that answers, else the head of the list.
//!
//! All memory is in the detectors, so the choice is a pure function and survives any restart of the caller.

use crate::detector::{Signal, Standing, Verdict};

/// A gateway of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<G> {
    /// The gateway, as the caller names it.
    pub gateway: G,
    /// What is known of it.
    pub standing: Standing,
}

/// The gateway to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice<G> {
    /// The gateway.
    pub gateway: G,
    /// Why this one.
    pub why: Why,
}

/// Why a gateway was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is the current one and not down.
    Stays,
    /// It is the current one and down, and no other answers.
    NoneAnswers,
    /// The current one is down and this one answers.
    CurrentDown,
    /// It comes earlier in the list than the current one and is up.
    EarlierInList,
    /// There was no current one, or it is not in the list.
    NoCurrent,
}

impl Why {
    /// Whether the node moves.
    pub fn is_switch(self) -> bool {
        matches!(self, Self::CurrentDown | Self::EarlierInList | Self::NoCurrent)
    }
}

/// Chooses among `ordered`, the list in its order. `None` only for an empty list.
pub fn select<G: Copy + PartialEq>(ordered: &[Candidate<G>], current: Option<G>) -> Option<Choice<G>> {
    let head = ordered.first()?.gateway;
    let position =
        current.and_then(|current| ordered.iter().position(|candidate| candidate.gateway == current));
    let (gateway, why) = match position {
        Some(position) if is_down(&ordered[position]) => leave(ordered, ordered[position]),
        Some(position) => {
            let earlier = ordered[..position].iter().find(|candidate| {
                candidate.standing == Standing { verdict: Verdict::Up, signal: Signal::Answering }
            });
            earlier
                .map_or((ordered[position].gateway, Why::Stays), |found| (found.gateway, Why::EarlierInList))
        }
        None => {
            let alive =
                ordered.iter().find(|candidate| !is_down(candidate)).or_else(|| best_answering(ordered));
            (alive.map_or(head, |candidate| candidate.gateway), Why::NoCurrent)
        }
    };
    Some(Choice { gateway, why })
}

fn leave<G: Copy + PartialEq>(ordered: &[Candidate<G>], here: Candidate<G>) -> (G, Why) {
    match best_answering(ordered) {
        Some(other) if !is_down(other) || is_worse(here.standing.signal, other.standing.signal) => {
            (other.gateway, Why::CurrentDown)
        }
        _ => (here.gateway, Why::NoneAnswers),
    }
}

/// Whoever answered the last probe: the best verdict and signal, and of equals the first in the list.
fn best_answering<G>(ordered: &[Candidate<G>]) -> Option<&Candidate<G>> {
    ordered
        .iter()
        .filter(|candidate| has_answered(candidate.standing.signal))
        // The order of `Verdict` and `Signal`; `min_by_key` takes the first of equals.
        .min_by_key(|candidate| (candidate.standing.verdict, candidate.standing.signal))
}

/// Whether the last probe was answered, whatever the outside sees.
pub(crate) fn has_answered(signal: Signal) -> bool {
    matches!(signal, Signal::Answering | Signal::WrongSource | Signal::Doubtful)
}

/// Whether one that is down is so much worse than another one that answered, and is down as well, that it is left for that. A single
/// miss, which comes and goes, is not.
pub(crate) fn is_worse(here: Signal, other: Signal) -> bool {
    here != Signal::Wavering && other < here
}

fn is_down<G>(candidate: &Candidate<G>) -> bool {
    candidate.standing.verdict == Verdict::Down
}

#[cfg(test)]
mod tests;
