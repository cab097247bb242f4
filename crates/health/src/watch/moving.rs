//! An address that several gateways have in common and one has at a time: who is seen with it, and when it is lost.
//!
//! | the address is seen | the gateway that had it | verdict |
//! | --- | --- | --- |
//! | through another one | answers | nobody is condemned: it has moved |
//! | through nobody | does not answer, or does not forward | that one, as ever; the node stays until the address is seen elsewhere |
//! | through nobody | forwards, as answers past the address show | that one: the outside does not see the address |
//! | through nobody | forwards no more than any other: the outside is gone | nobody: hold |

use std::time::Duration;

use super::watched::{FAST, SLOW, Watched};
use super::{Evidence, Fault, Level, Watch};
use crate::loss::misses_beside;
use crate::tick::Tick;

impl<G: Copy + Ord, W: Copy + Ord> Watch<G, W> {
    /// Whether its address is seen through another gateway.
    pub(super) fn is_elsewhere(&self, gateway: G) -> bool {
        let Some(address) = self.gateways.get(&gateway).and_then(|watched| watched.shared_address) else {
            return false;
        };
        let has_it = |other: &Watched<G, W>| {
            other.shared_address == Some(address) && other.works(Level::Source) == Some(true)
        };
        self.others(gateway).any(has_it)
    }

    /// Whether nothing is to be had from it but what the address would bring, and that was last seen at one that is out.
    pub(super) fn waits_for_the_address(
        &self,
        gateway: G,
        listed: &[G],
        is_out: impl Fn(&G) -> bool,
    ) -> bool {
        let watched =
            |gateway: &G| self.gateways.get(gateway).filter(|watched| watched.shared_address.is_some());
        let has_not = watched(&gateway).is_some_and(|watched| watched.works(Level::Source) == Some(false));
        let seen = listed.iter().filter_map(|gateway| {
            Some((watched(gateway)?.detector(Level::Source).last_answered()?, gateway))
        });
        let last = seen.max_by_key(|(answered, _)| *answered);
        has_not && last.is_some_and(|(_, holder)| is_out(holder))
    }

    /// That the address is not seen any more through one that had it, nor elsewhere, while the outside answers past it.
    pub(super) fn accuse_of_the_address(&self, gateway: G) -> Option<Evidence<G, W>> {
        let watched = self.gateways.get(&gateway)?;
        let detector = watched.detector(Level::Source);
        let ((since, last), misses) = (detector.missing()?, detector.misses());
        let is_news = last >= watched.detector(Level::Reachability).changed();
        if !detector.is_down()
            || !watched.has_answered(Level::Source)
            || !is_news
            || self.is_elsewhere(gateway)
        {
            return None;
        }
        let forwarding = watched.detector(Level::Forwarding);
        let answered = forwarding.last_answered().filter(|one| *one > since && !forwarding.is_down())?;
        // One that loses packets loses some on this way as well.
        let times = [Duration::ZERO, FAST.span, SLOW.span].map(|span| Tick(since.0.saturating_sub(span)));
        let is_chance = |begun: Tick| {
            let lost = [watched.lost_of_small(begun), watched.lost_on_the_way(begun)];
            misses < misses_beside(&lost)
        };
        if times.into_iter().any(is_chance) {
            return None;
        }
        Some(Evidence {
            fault: Fault::UnexpectedSource,
            since,
            misses,
            lost_percent: None,
            unanswered: watched.unanswered_at(Level::Source),
            other: gateway,
            answered: Some(answered),
        })
    }
}
