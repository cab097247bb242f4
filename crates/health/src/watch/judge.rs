//! The verdict by difference: who is condemned, on what evidence, and when that is forgiven.

use std::time::Duration;

use super::watched::{FAST, SLOW, Watched};
use super::{Evidence, Fault, Level, Watch};
use crate::loss::{Share, misses_beside};
use crate::tick::Tick;

/// So long no answer of any size must have come from outside where the first miss was not the last probe of all.
const NOTHING_FOR: Duration = Duration::from_secs(1);

impl<G: Copy + Ord, W: Copy + Ord> Watch<G, W> {
    // By difference: pairs are few, and this is the one place where gateways are compared.
    pub(super) fn judge(&mut self, now: Tick) {
        let gateways: Vec<G> = self.gateways.keys().copied().collect();
        for gateway in gateways {
            let is_elsewhere = self.is_elsewhere(gateway);
            if let Some(watched) = self.gateways.get_mut(&gateway) {
                watched.forgive(now);
                if is_elsewhere {
                    // What it is no longer expected to have it does not lack.
                    watched.condemned.remove(&Fault::UnexpectedSource);
                }
            }
            for level in Level::BEYOND {
                if let Some(evidence) = self.accuse(gateway, level) {
                    self.condemn(gateway, evidence);
                }
            }
            if let Some(evidence) = self.accuse_of_loss(gateway, now) {
                self.condemn(gateway, evidence);
            }
            self.welcome(gateway, now);
        }
    }

    /// Whoever came back is on trial no longer when it has shown that it works, and since then lost no more than the others.
    fn welcome(&mut self, gateway: G, now: Tick) {
        let Some(watched) = self.gateways.get(&gateway) else { return };
        let Some(begun) = watched.returning.filter(|begun| watched.has_shown_itself(*begun, now)) else {
            return;
        };
        if self.may_be_another(gateway, begun) {
            return;
        }
        let is_better = |other: &Watched<G, W>| {
            other.is_alive() && other.condemned.is_empty() && other.hardly_lost_since(begun)
        };
        if (watched.hardly_lost_since(begun) || !self.others(gateway).any(is_better))
            && let Some(watched) = self.gateways.get_mut(&gateway)
        {
            watched.returning = None;
        }
    }

    fn condemn(&mut self, gateway: G, evidence: Evidence<G, W>) {
        if let Some(watched) = self.gateways.get_mut(&gateway) {
            watched.condemn(evidence);
        }
    }

    fn accuse(&self, gateway: G, level: Level) -> Option<Evidence<G, W>> {
        let watched = self.gateways.get(&gateway).filter(|watched| watched.is_alive())?;
        let detector = watched.levels.get(&level).filter(|detector| detector.is_down())?;
        if level == Level::Source && watched.shared_address.is_some() {
            return self.accuse_of_the_address(gateway);
        }
        if level != Level::Forwarding && !watched.has_answered(level) {
            return None;
        }
        let ((since, last), misses) = (detector.missing()?, detector.misses());
        // What was missed while it did not answer in the VPC says nothing of the way through it.
        if last < watched.detector(Level::Reachability).changed() {
            return None;
        }
        // What began with the misses, and what was there before.
        let times = [since, Tick(since.0.saturating_sub(FAST.span))];
        // Whoever leads nowhere gets no answer of any size; whoever has another address, or a black hole, gets small ones.
        let is_so = match level {
            // Among the first misses may be one of a dead target.
            Level::Forwarding => {
                watched.reached.is_none_or(|reached| reached <= since || last >= reached.after(NOTHING_FOR))
            }
            _ => watched.detector(Level::Forwarding).last_answered() > Some(since),
        };
        if !is_so {
            return None;
        }
        // Neither a wrong address nor a black hole loses small packets to targets; whoever loses such loses others as well.
        let lost_itself = |begun| {
            if level == Level::Forwarding { Share::default() } else { watched.lost_of_small(begun) }
        };
        let (other, answered) = self.gateways.iter().find_map(|(other, watched)| {
            if *other == gateway || !watched.is_alive() {
                return None;
            }
            let answered = match level {
                Level::Source => self.contradicts_source(gateway, *other, since, last)?,
                _ => watched.answered_after(level, since, last)?,
            };
            let chance = |begun| misses_beside(&[lost_itself(begun), watched.lost_on_the_way(begun)]);
            times.into_iter().all(|begun| misses >= chance(begun)).then_some((*other, answered))
        })?;
        Some(Evidence {
            fault: Fault::of(level),
            since,
            misses,
            lost_percent: None,
            unanswered: watched.unanswered_at(level),
            other,
            answered: Some(answered),
        })
    }

    fn accuse_of_loss(&mut self, gateway: G, now: Tick) -> Option<Evidence<G, W>> {
        let watched = self.gateways.get(&gateway).filter(|watched| watched.is_alive())?;
        let slow_percent = u32::from(watched.config.loss_percent);
        let fast_percent = (2 * slow_percent).min(90);
        let (span, lost, other) =
            [(FAST, fast_percent), (SLOW, slow_percent)].into_iter().find_map(|(window, percent)| {
                let (lost, on) = watched.loses(window, percent, now)?;
                let better = self.gateways.iter().find(|(other, watched)| {
                    **other != gateway
                        && watched.is_alive()
                        && watched.condemned.is_empty()
                        && watched.hardly_loses(window, on, now)
                })?;
                Some((window.span, lost, *better.0))
            })?;
        let watched = self.gateways.get_mut(&gateway)?;
        watched.convict_of_loss(now);
        Some(Evidence {
            fault: Fault::LosesPackets,
            since: Tick(now.0.saturating_sub(span)),
            misses: u8::try_from(lost.missed).unwrap_or(u8::MAX),
            lost_percent: Some(u8::try_from(lost.missed * 100 / lost.total().max(1)).unwrap_or(100)),
            unanswered: Vec::new(),
            other,
            answered: None,
        })
    }
}
