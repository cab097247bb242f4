//! With which address a gateway leaves, as far as others can tell: whose silence counts, and whose does not.
//!
//! A is asked about by its peers, which answer to its own address only. A peer is silent also when it is dead, when it and A do not reach
//! each other outside, and when a firewall shuts its probe port; all of that can befall both of a pair at once while both forward. So:
//!
//! | who is silent to A | also asked by | A's own port answers | the silence |
//! | --- | --- | --- | --- |
//! | B | C, whom it answers | somebody | counts: A leaves with another address |
//! | B | C, to whom it is silent as well | - | does not count: B is dead, or shut |
//! | B | nobody else that leads anywhere | B | counts: B is there, and both reach each other |
//! | B | whoever | nobody | does not count: A may be parted from all of them |
//!
//! In a pair that cannot tell A's wrong address from B's probe port shut; `docs/health.md` says what becomes of it.

use super::peers::{BELIEVED_AFTER, Heard};
use super::watched::Watched;
use super::{Level, Watch};
use crate::tick::Tick;

impl<G: Copy + Ord, W: Copy + Ord> Watch<G, W> {
    /// When a probe was sent through `other` whose answer shows that `accused` leaves with another address; its misses at level source began
    /// at `since`, and the last was sent at `last`.
    pub(super) fn contradicts_source(&self, accused: G, other: G, since: Tick, last: Tick) -> Option<Tick> {
        let (silent_to, there) = (self.gateways.get(&accused)?, self.gateways.get(&other)?);
        // It may be another machine, or have been away when it was asked.
        let alive = there.detector(Level::Reachability).changed();
        if alive > since && last < alive.after(BELIEVED_AFTER) {
            return None;
        }
        let heard_after = |(witness, missed): (W, Tick)| {
            let from_accused = |heard_by: &Watched<G, W>, missed| {
                let own = silent_to.seen_as.iter();
                own.filter_map(|own| heard_by.peers.get(own)?.was_there(since, missed)).max()
            };
            if there.seen_as.contains(&witness) {
                let is_asked = self.is_asked_by_a_third(accused, other, witness, since);
                return from_accused(there, last).filter(|_| !is_asked);
            }
            let answers_others =
                self.others(accused).any(|one| one.is_alive() && from_accused(one, missed).is_some());
            there.peers.get(&witness)?.was_there(since, missed).filter(|_| answers_others)
        };
        silent_to.peers.silent_since(since).filter_map(heard_after).max()
    }

    /// Whether somebody besides these two asks that witness and could have been answered.
    fn is_asked_by_a_third(&self, accused: G, other: G, witness: W, since: Tick) -> bool {
        let asks = |heard: &Heard| heard.is_asked(since);
        self.gateways.iter().any(|(third, watched)| {
            ![accused, other].contains(third)
                && watched.is_alive()
                && !watched.detector(Level::Forwarding).is_down()
                && watched.peers.get(&witness).is_some_and(asks)
        })
    }

    /// Whether one that came back at `begun` may be another machine that has its address: its peers saw it before, are asked, and have not
    /// seen it since, while another one was there all the time, or was seen.
    pub(super) fn may_be_another(&self, gateway: G, begun: Tick) -> bool {
        let Some(watched) = self.gateways.get(&gateway) else { return false };
        let is_refused = watched.detector(Level::Source).missing().is_some_and(|(_, missed)| missed >= begun);
        is_refused
            && !watched.is_itself()
            && self
                .others(gateway)
                .any(|other| other.is_alive() && other.condemned.is_empty() && other.is_itself())
    }
}
