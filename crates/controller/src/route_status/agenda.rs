//! Which statuses are written in a round: pure, but for the clock that is passed in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

/// Writes in one round; rounds are at least 300 ms apart, so twenty a second.
const MOST_IN_A_ROUND: usize = 6;

/// How far the nodes have come is written that often.
const PROGRESS: Duration = Duration::from_secs(2);

/// When each object was chosen last.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    chosen: BTreeMap<String, Instant>,
    /// Something is left to write, at the earliest then.
    next: Option<Instant>,
}

impl Agenda {
    /// Forgets objects that are gone.
    pub(super) fn retain(&mut self, there: &BTreeSet<&str>) {
        self.chosen.retain(|uid, _| there.contains(uid.as_str()));
    }

    /// Picks those to write now, by their place in `objects`: uid, whether anything is to be written, and whether it is news.
    /// News first, then who waited longest: one whose write fails time and again lets all others pass.
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
            let last = self.chosen.get(uid).copied();
            let ripe = last.filter(|_| !is_news).map_or(now, |last| last + PROGRESS);
            if ripe <= now {
                due.push((!is_news, last, uid, index));
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
            self.chosen.insert((*uid).to_owned(), now);
        }
        due.into_iter().map(|(.., index)| index).collect()
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
}
