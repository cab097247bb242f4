//! What the peers of one gateway said to it: who answered since when, and who is silent.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::detector::Outcome;
use crate::tick::Tick;

/// So long a peer that came back must have been there before a probe that it leaves without an answer counts again.
pub(super) const BELIEVED_AFTER: Duration = Duration::from_secs(3);
/// Who was asked within that time before is asked, in clusters of any size: what fails is asked every 12 s, each peer in turn.
const ASKED_WITHIN: Duration = Duration::from_secs(60);
/// So many peers are told from targets: more than a list can have.
const MOST: usize = 32;

/// The peers that were asked through one gateway, at level source.
#[derive(Debug, Clone)]
pub(super) struct Peers<W> {
    heard: BTreeMap<W, Heard>,
}

/// What one of them said. Times are those at which probes were sent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Heard {
    /// The first and the last probe of the present run of answers.
    answers: Option<(Tick, Tick)>,
    has_answered: bool,
    missed: Option<Tick>,
}

impl<W> Default for Peers<W> {
    fn default() -> Self {
        Self { heard: BTreeMap::new() }
    }
}

impl<W: Copy + Ord> Peers<W> {
    /// Takes the outcome of a probe.
    pub(super) fn hear(&mut self, peer: W, sent: Tick, outcome: Outcome) {
        if self.heard.len() >= MOST && !self.heard.contains_key(&peer) {
            let stalest =
                self.heard.iter().min_by_key(|(_, heard)| heard.last_asked()).map(|(peer, _)| *peer);
            stalest.map(|peer| self.heard.remove(&peer));
        }
        self.heard.entry(peer).or_default().take(sent, outcome);
    }

    pub(super) fn contains(&self, peer: &W) -> bool {
        self.heard.contains_key(peer)
    }

    pub(super) fn get(&self, peer: &W) -> Option<&Heard> {
        self.heard.get(peer)
    }

    /// Who was silent since then, and when it was asked last.
    pub(super) fn silent_since(&self, since: Tick) -> impl Iterator<Item = (W, Tick)> {
        let silent =
            move |(peer, heard): (&W, &Heard)| Some((*peer, heard.missed.filter(|missed| *missed >= since)?));
        self.heard.iter().filter_map(silent)
    }
}

impl Heard {
    fn take(&mut self, sent: Tick, outcome: Outcome) {
        match outcome {
            Outcome::Answered => {
                self.has_answered = true;
                // What was sent before the last miss says nothing of the time since.
                if self.missed.is_none_or(|missed| sent > missed) {
                    let (first, last) = self.answers.unwrap_or((sent, sent));
                    self.answers = Some((first.min(sent), last.max(sent)));
                }
            }
            Outcome::Missed => {
                self.missed = self.missed.max(Some(sent));
                // A miss is known at its deadline, when later probes may have been answered.
                self.answers = self.answers.and_then(|(first, last)| {
                    if sent < first { Some((first, last)) } else { (sent < last).then_some((last, last)) }
                });
            }
        }
    }

    /// When the last probe was sent that it answered, if that shows that it was there when another's probe to it, or beside it, was missed
    /// at `missed`, the last of those that began at `since`: it answered before and after.
    pub(super) fn was_there(&self, since: Tick, missed: Tick) -> Option<Tick> {
        let (first, last) = self.answers?;
        (last > missed && (first <= since || missed >= first.after(BELIEVED_AFTER))).then_some(last)
    }

    /// Whether it is asked, then or not long before, and answers at other times.
    pub(super) fn is_asked(&self, then: Tick) -> bool {
        self.has_answered && self.last_asked().is_some_and(|asked| asked.after(ASKED_WITHIN) >= then)
    }

    fn last_asked(&self) -> Option<Tick> {
        self.missed.max(self.answers.map(|(_, last)| last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Outcome::{Answered, Missed};

    fn heard(said: &[(u64, Outcome)]) -> Heard {
        let mut heard = Heard::default();
        for (sent, outcome) in said {
            heard.take(Tick::from_millis(*sent), *outcome);
        }
        heard
    }

    #[test]
    fn a_peer_was_there_when_it_answered_before_and_after() {
        let at = Tick::from_millis;
        let there = |said: &[(u64, Outcome)], since, missed| heard(said).was_there(at(since), at(missed));
        let steady = [(0, Answered), (1_000, Answered), (2_000, Answered)];
        assert_eq!(there(&steady, 500, 1_500), Some(at(2_000)));
        assert_eq!(there(&steady, 500, 2_000), None, "nothing after");
        assert_eq!(there(&[], 500, 1_500), None);
        // It came back in between.
        let back = [(0, Answered), (400, Missed), (1_600, Answered), (6_000, Answered)];
        assert_eq!(there(&back, 500, 1_500), None);
        assert_eq!(there(&back, 500, 4_599), None, "not for long enough");
        assert_eq!(there(&back, 500, 4_600), Some(at(6_000)));
        // The miss is known when later ones are answered.
        let late = [(0, Answered), (1_000, Answered), (2_000, Answered), (900, Missed)];
        assert_eq!(there(&late, 500, 1_500), None);
        assert_eq!(there(&late, 2_000, 1_500), Some(at(2_000)));
        let early = [(1_000, Answered), (2_000, Answered), (900, Missed)];
        assert_eq!(there(&early, 1_000, 1_500), Some(at(2_000)));
    }

    #[test]
    fn whoever_was_heard_of_longest_ago_makes_room() {
        let mut peers = Peers::default();
        for peer in 0..100_u8 {
            peers.hear(
                peer,
                Tick::from_millis(u64::from(peer)),
                if peer % 2 == 0 { Answered } else { Missed },
            );
        }
        assert_eq!(peers.heard.len(), MOST);
        assert!(peers.contains(&99) && peers.contains(&68) && !peers.contains(&67));
    }
}
