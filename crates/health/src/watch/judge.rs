//! The verdict by difference: who is condemned, on what evidence, and when that is forgiven.

use std::time::Duration;

use super::evidence::{Evidence, Fault};
use super::watched::{FAST, SLOW};
use super::{Level, Watch};
use crate::detector::{Detector, Outcome};
use crate::tick::Tick;

/// So long a peer that came back must have been there before a probe that it leaves without an answer counts again.
const BELIEVED_AFTER: Duration = Duration::from_secs(3);

impl<G: Copy + Ord, W: Copy + Ord> Watch<G, W> {
    /// Condemns and forgives whom there is reason to, by what is known now. Pairs are few, and this is the one place where gateways are
    /// compared.
    pub(super) fn judge(&mut self, now: Tick) {
        let gateways: Vec<G> = self.gateways.keys().copied().collect();
        for gateway in gateways {
            self.forgive(gateway, now);
            for level in Level::BEYOND {
                if let Some(evidence) = self.accuse(gateway, level) {
                    self.condemn(gateway, evidence);
                }
            }
            if let Some(evidence) = self.accuse_of_loss(gateway, now) {
                self.condemn(gateway, evidence);
            }
        }
    }

    fn condemn(&mut self, gateway: G, evidence: Evidence<G, W>) {
        if let Some(watched) = self.gateways.get_mut(&gateway) {
            watched.condemned.entry(evidence.fault).or_insert(evidence);
        }
    }

    fn forgive(&mut self, gateway: G, now: Tick) {
        let Some(watched) = self.gateways.get_mut(&gateway) else { return };
        if watched.loses && watched.hardly_loses(SLOW, now) {
            watched.loses = false;
            watched.loss.on_probe(now, Outcome::Answered);
        }
        let (levels, loses) = (&watched.levels, watched.loses);
        watched.condemned.retain(|fault, _| match fault.level() {
            Some(level) => levels.get(&level).is_some_and(Detector::is_down),
            None => loses,
        });
    }

    fn accuse(&self, gateway: G, level: Level) -> Option<Evidence<G, W>> {
        let watched = self.gateways.get(&gateway).filter(|watched| watched.is_alive())?;
        let detector = watched.levels.get(&level).filter(|detector| detector.is_down())?;
        if level != Level::Forwarding && !watched.has_answered(level) {
            return None;
        }
        let (since, last) = detector.missing()?;
        let proof = if level == Level::Source { Level::Forwarding } else { level };
        let (other, answered) = self.gateways.iter().find_map(|(other, watched)| {
            let detector = watched.levels.get(&proof)?;
            let answered = detector.last_answered()?;
            let is_better = *other != gateway && answered > last && watched.is_alive() && !detector.is_down();
            // Who was down as well and came back first proves nothing until the accused has missed another probe: the outside may have
            // come back for both. A peer that was dead meanwhile answered nobody: that is no word against the source of another until
            // it was there for a while.
            let believed = if level == Level::Source { BELIEVED_AFTER } else { Duration::ZERO };
            let was_there = detector.changed() <= since || last >= detector.changed().after(believed);
            (is_better && was_there).then_some((*other, answered))
        })?;
        Some(Evidence {
            fault: Fault::of(level),
            since,
            misses: detector.misses(),
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
                let lost = watched.loses(window, percent, now)?;
                let better = self.gateways.iter().find(|(other, watched)| {
                    **other != gateway
                        && watched.is_alive()
                        && watched.condemned.is_empty()
                        && watched.hardly_loses(window, now)
                })?;
                Some((window.span, lost, *better.0))
            })?;
        let watched = self.gateways.get_mut(&gateway)?;
        if !watched.loses {
            watched.loses = true;
            watched.loss.on_probe(now, Outcome::Missed);
        }
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
