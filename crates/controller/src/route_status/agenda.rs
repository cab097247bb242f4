//! Which statuses are written in a round: pure, but for the clock that is passed in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

/// Writes in one round; rounds are at least 300 ms apart, so twenty a second.
const MOST_IN_A_ROUND: usize = 6;

/// How far the nodes have come is written that often.
const PROGRESS: Duration = Duration::from_secs(2);

/// Pause after a write that failed, doubling up to the longest: most often somebody else wrote the object at that moment.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(16));

/// When each object was chosen last, and how that went.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    chosen: BTreeMap<String, Chosen>,
    /// Something is left to write, at the earliest then.
    next: Option<Instant>,
}

#[derive(Debug)]
struct Chosen {
    at: Instant,
    /// The write failed: it is not tried again for so long.
    failed: Option<Duration>,
}

impl Agenda {
    /// Forgets objects that are gone.
    pub(super) fn retain(&mut self, there: &BTreeSet<&str>) {
        self.chosen.retain(|uid, _| there.contains(uid.as_str()));
    }

    /// Picks those to write now, by their place in `objects`: uid, whether anything is to be written, and whether it is news.
    /// News first, then who waited longest. One whose last write failed counts as no news: it lets all others pass.
    pub(super) fn choose<'a>(
        &mut self,
        objects: impl Iterator<Item = (&'a str, bool, bool)>,
        now: Instant,
    ) -> Vec<usize> {
        self.next = None;
        let mut due = Vec::new();
        for (index, (uid, differs, is_news)) in objects.enumerate() {
            if !differs {
                continue;
            }
            let chosen = self.chosen.get(uid);
            let failed = chosen.and_then(|chosen| chosen.failed);
            let pause = if is_news { Duration::ZERO } else { PROGRESS }.max(failed.unwrap_or_default());
            let last = chosen.map(|chosen| chosen.at);
            let ripe = last.map_or(now, |last| last + pause);
            if ripe <= now {
                due.push((!is_news || failed.is_some(), last, uid, index));
            } else {
                self.next = Some(self.next.map_or(ripe, |next| next.min(ripe)));
            }
        }
        due.sort_unstable_by_key(|(waits, last, _, index)| (*waits, *last, *index));
        if due.len() > MOST_IN_A_ROUND {
            self.next = Some(now);
        }
        due.truncate(MOST_IN_A_ROUND);
        for (_, _, uid, _) in &due {
            self.chosen.entry((*uid).to_owned()).or_insert(Chosen { at: now, failed: None }).at = now;
        }
        due.into_iter().map(|(.., index)| index).collect()
    }

    /// How the write of one that was chosen went.
    pub(super) fn done(&mut self, uid: &str, written: bool) {
        if let Some(chosen) = self.chosen.get_mut(uid) {
            let longer = chosen.failed.map_or(RETRY.0, |pause| (pause * 2).min(RETRY.1));
            chosen.failed = (!written).then_some(longer);
        }
    }

    /// How long the next round may wait when nothing changes.
    pub(super) fn pause(&self, now: Instant) -> Option<Duration> {
        self.next.map(|next| next.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_go_first_progress_waits_and_no_round_writes_more_than_six() {
        let start = Instant::now();
        let mut agenda = Agenda::default();
        let names: Vec<String> = (0..20).map(|number| format!("uid-{number:02}")).collect();
        let all = || names.iter().map(String::as_str);
        let progress = |agenda: &mut Agenda, now| agenda.choose(all().map(|uid| (uid, true, false)), now);

        let mut seen = BTreeSet::new();
        for _ in 0..4 {
            let chosen = progress(&mut agenda, start);
            assert!(chosen.len() <= MOST_IN_A_ROUND);
            seen.extend(chosen);
        }
        assert_eq!(seen.len(), 20, "nobody starves");
        assert_eq!(progress(&mut agenda, start), [0; 0], "progress every two seconds");
        assert_eq!(agenda.pause(start), Some(PROGRESS));

        let news = all().enumerate().map(|(at, uid)| (uid, at >= 17, at >= 18));
        assert_eq!(agenda.choose(news, start), [18, 19]);
        assert_eq!(progress(&mut agenda, start + PROGRESS).len(), MOST_IN_A_ROUND);
        assert_eq!(agenda.pause(start + PROGRESS), Some(Duration::ZERO));
        assert_eq!(agenda.choose(all().map(|uid| (uid, false, true)), start), [0; 0]);
        assert_eq!(agenda.pause(start), None);
    }

    #[test]
    fn news_that_cannot_be_written_keep_nobody_waiting_and_are_tried_ever_more_seldom() {
        let start = Instant::now();
        let mut agenda = Agenda::default();
        let names: Vec<String> = (0..8).map(|number| format!("uid-{number}")).collect();
        let mut tried = [0_u32; 8];
        for round in 0..200 {
            let now = start + round * Duration::from_millis(300);
            // Six whose writes fail always, and progress of two others.
            let objects = names.iter().enumerate().map(|(at, uid)| (uid.as_str(), true, at < 6));
            for index in agenda.choose(objects, now) {
                tried[index] += 1;
                agenda.done(&names[index], index >= 6);
            }
        }
        assert_eq!(tried, [8, 8, 8, 8, 8, 8, 29, 29], "in a minute");

        agenda.done(&names[0], true);
        let later = start + Duration::from_secs(60);
        let objects = || [(names[0].as_str(), true, true)].into_iter();
        assert_eq!(agenda.choose(objects(), later), [0], "news again");
        agenda.done(&names[0], false);
        assert_eq!(agenda.choose(objects(), later), [0; 0]);
        assert_eq!(agenda.pause(later), Some(RETRY.0));
        assert_eq!(agenda.choose(objects(), later + RETRY.0), [0]);
    }
}
