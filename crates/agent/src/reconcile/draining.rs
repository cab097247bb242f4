//! When a planned move begins, goes on and ends: connections leave a gateway that works one by one (`docs/decisions/0019`).
//!
//! How far it is stands in the kernel, but for the time: an agent that starts counts the deadline anew.
//!
//! ```text
//! watching ──► moving ── the deadline, a death ──────────────────────► over
//!                │ every watch's length: who used the old gateway?       ▲
//!                ├─ it is not known, or somebody did: the roll is called │
//!                └─ nobody since the roll was called, long enough ago ───┘
//! ```
//!
//! Calling the roll replaces the group by itself. Nothing moves by that, but each socket of the node, which remembers its way and
//! is not seen any more, has to ask again with the next packet that it sends ([`egress_netlink::bucket`]). A watch begins with
//! that, too: who asked in the very tick in which the group was made looks to the kernel as if it never had.

use std::net::Ipv4Addr;
use std::time::Duration;

use egress_health::selection::Why;
use egress_health::{Choice, Tick};
use egress_netlink::bucket::Bucket;
use egress_routing::kernel_state::{Change, Managed, NexthopId};
use egress_routing::{Chosen, Draining, RouteReport, WantedRoute, quiet_seconds, watch_seconds};

use super::Reconciler;

/// The kernel notes the use of a bucket in ticks of at most 10 ms, and tells how long ago that was in such steps.
const COARSENESS: Duration = Duration::from_millis(20);

/// Beats are a second apart, more or less: what is due with one does not wait for the next.
const UNEVEN: Duration = Duration::from_millis(200);

/// Of more drains than that no beat looks at the old gateway: each look is one or two exchanges with the kernel, and the loop that waits
/// for them is the one that leaves a gateway that died.
const MOST_LOOKS: usize = 16;

/// A planned move that goes on.
#[derive(Debug)]
pub(super) struct Drain {
    from: Ipv4Addr,
    since: Tick,
    /// Since then it is watched who sends, before anything moves.
    watching: Option<Tick>,
    looked: Tick,
    /// Since then it is known who sends.
    called: Option<Tick>,
    /// Nothing uses the gateway that is left any more.
    is_idle: bool,
}

/// What a look at the old gateway's buckets leads to.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Wait,
    CallTheRoll,
    End,
}

impl Drain {
    fn begin(from: Ipv4Addr, now: Tick) -> Self {
        Self { from, since: now, watching: None, looked: now, called: None, is_idle: false }
    }

    /// Another choice: a move that leaves another gateway begins anew. Who uses which one is known by then: it is the same group,
    /// whose buckets go on being watched.
    fn go_on(&mut self, from: Ipv4Addr, now: Tick) {
        if self.from != from {
            *self = Self { watching: self.watching, ..Self::begin(from, now) };
        }
    }

    /// Whether all had the time to be seen.
    fn is_watched(&self, now: Tick, watch: Duration) -> bool {
        self.watching.is_some_and(|since| now.since(since) + UNEVEN >= watch)
    }

    /// Whether it is time to look who uses the old gateway.
    fn is_due(&self, now: Tick, draining: Draining) -> bool {
        if !draining.moving {
            return self.watching.is_none();
        }
        let [watch, quiet] = [watch_seconds, quiet_seconds].map(|of| seconds(of(draining.seconds)));
        now.since(self.looked) >= watch || self.called.is_some_and(|called| now.since(called) >= quiet)
    }

    /// `idle`: for how long no bucket of the old gateway has been used, where it has any.
    fn step(&self, idle: Option<Duration>, now: Tick, quiet: Duration) -> Step {
        let Some(called) = self.called else { return Step::CallTheRoll };
        let silence = now.since(called);
        if idle.is_some_and(|idle| idle <= silence + COARSENESS) {
            Step::CallTheRoll
        } else if silence < quiet {
            Step::Wait
        } else {
            Step::End
        }
    }
}

impl Reconciler {
    /// Takes note of a choice.
    pub(super) fn select(&mut self, uid: String, chosen: Chosen) {
        if let Some(Draining { from, .. }) = chosen.draining {
            let now = self.now();
            self.drains.entry(uid.clone()).or_insert_with(|| Drain::begin(from, now)).go_on(from, now);
        } else if let Some(drain) = self.drains.remove(&uid) {
            let seconds = self.now().since(drain.since).as_secs();
            if drain.is_idle {
                tracing::info!(
                    uid,
                    seconds,
                    "a planned move is over: nothing used the gateway that was left"
                );
            } else {
                tracing::info!(
                    uid,
                    seconds,
                    "a planned move is over: what used the gateway that was left is moved"
                );
            }
        }
        self.selection.insert(uid, chosen);
    }

    /// The drain that `choice` begins or goes on with: from a gateway that is not dead.
    pub(super) fn drained(
        &self,
        wanted: &WantedRoute,
        report: &RouteReport,
        current: Option<Ipv4Addr>,
        choice: Choice<Ipv4Addr>,
        now: Tick,
    ) -> Option<Draining> {
        if wanted.drain_seconds == 0 {
            return None;
        }
        let selected = self.selection.get(&wanted.uid);
        let under_way = selected.map_or(report.draining, |chosen| chosen.draining);
        let seconds = wanted.drain_seconds;
        let drain = match choice.why {
            // Where it is only watched yet, it is the old gateway that is current after a start.
            Why::EarlierInList => Draining { from: current?, moving: false, seconds },
            // Turned round before anything moved: it is the head of the list again.
            Why::Stays => under_way.filter(|drain| {
                drain.from != choice.gateway || report.usable_gateways.first() != Some(&drain.from)
            })?,
            _ => return None,
        };
        if self.gateways.none_works(&[drain.from]) {
            return None;
        }
        let known = self.drains.get(&wanted.uid);
        let same = known.filter(|known| known.from == drain.from);
        let elapsed = same.map_or(Duration::ZERO, |known| now.since(known.since));
        let is_idle = drain.moving && same.is_some_and(|known| known.is_idle);
        if is_idle || elapsed >= self::seconds(seconds) {
            return None;
        }
        let watch = self::seconds(watch_seconds(seconds));
        let watched = known.is_some_and(|drain| drain.is_watched(now, watch));
        let moving = drain.from != choice.gateway && (drain.moving || watched);
        Some(Draining { moving, ..drain })
    }

    /// Looks whether anything still uses the gateways that planned moves leave.
    pub(super) async fn look_at_drains(&mut self) {
        let now = self.now();
        let due = self.plan.routes.iter().filter_map(|report| {
            let known = self.drains.get(&report.uid)?;
            let drain = report.draining.filter(|drain| known.is_due(now, *drain))?;
            Some((known.looked, (report.uid.clone(), report.nexthop?, drain)))
        });
        for (uid, group, drain) in in_turn(due.collect()) {
            self.look_at_drain(&uid, group, drain).await;
        }
    }

    async fn look_at_drain(&mut self, uid: &str, group: NexthopId, drain: Draining) {
        let now = self.now();
        if let Some(known) = self.drains.get_mut(uid) {
            known.looked = now;
        }
        let buckets = match self.with.kernel.buckets(group).await {
            Ok(buckets) => buckets,
            Err(error) => {
                tracing::debug!(uid, %error, "who uses the gateway that is left is not known");
                return;
            }
        };
        let now = self.now();
        if !drain.moving {
            // As old as the bucket that nobody has used yet.
            let age = buckets.iter().map(|bucket| bucket.idle).max();
            if age.is_some_and(|age| age >= COARSENESS) && self.call_the_roll(group).await {
                self.drains.entry(uid.to_owned()).and_modify(|known| known.watching = Some(now));
            }
            return;
        }
        let idle = self.idle(&buckets, drain.from);
        let Some(known) = self.drains.get_mut(uid) else { return };
        match known.step(idle, now, seconds(quiet_seconds(drain.seconds))) {
            Step::Wait => {}
            Step::CallTheRoll => {
                let called = self.call_the_roll(group).await.then_some(now);
                if let Some(known) = self.drains.get_mut(uid) {
                    known.called = called;
                }
            }
            Step::End => known.is_idle = true,
        }
    }

    /// For how long no bucket that is with `gateway` has been used.
    fn idle(&self, buckets: &[Bucket], gateway: Ipv4Addr) -> Option<Duration> {
        let slot = self.plan.probes.iter().find(|path| path.gateway == gateway)?.slot;
        let members = [self.layout.probe_nexthop(slot), self.layout.twin_nexthop(slot)];
        buckets.iter().filter(|bucket| members.contains(&bucket.nexthop)).map(|bucket| bucket.idle).min()
    }

    /// Makes every socket of the node look up its way anew. False: it is not known whether that is so.
    async fn call_the_roll(&mut self, group: NexthopId) -> bool {
        let Some(nexthop) = self.plan.state.nexthops.get(&group).cloned() else { return false };
        let replaces = self.observed.nexthops.get(&group).cloned();
        // What is not as planned yet is changed by a pass, not from here.
        if replaces.as_ref().map(Managed::get) != Some(&nexthop) {
            return false;
        }
        self.apply(vec![Change::PutNexthop { replaces, nexthop }]).await
    }
}

/// Those whose turn it is: who waits longest is first, and who is left waits for the next beat.
fn in_turn<T>(mut due: Vec<(Tick, T)>) -> impl Iterator<Item = T> {
    due.sort_by_key(|(looked, _)| *looked);
    due.into_iter().take(MOST_LOOKS).map(|(_, one)| one)
}

fn seconds(number: u32) -> Duration {
    Duration::from_secs(number.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_secs(75);

    fn at(seconds: u64) -> Tick {
        Tick(Duration::from_secs(seconds))
    }

    fn begun(second: u64) -> Drain {
        Drain::begin(Ipv4Addr::LOCALHOST, at(second))
    }

    #[test]
    fn of_many_drains_a_beat_looks_at_a_few_and_soon_all_had_their_turn() {
        let mut drains: Vec<Drain> = (0..40).map(|_| begun(100)).collect();
        let draining = Draining { from: Ipv4Addr::LOCALHOST, moving: true, seconds: 300 };
        let looks = (115..121).map(|second| {
            let due = drains.iter_mut().filter(|drain| drain.is_due(at(second), draining));
            let due = due.map(|drain| (drain.looked, drain)).collect();
            in_turn(due).map(|drain| drain.looked = at(second)).count()
        });
        assert_eq!(looks.collect::<Vec<_>>(), [16, 16, 8, 0, 0, 0]);
        // What stays due, since the kernel does not answer, leaves the others their turn.
        let mut looked = vec![0_u64; 40];
        for second in 200..203 {
            for drain in in_turn((0..40).map(|index| (at(looked[index]), index)).collect()) {
                looked[drain] = second;
            }
        }
        assert!(looked.iter().all(|second| *second >= 200), "{looked:?}");
    }

    #[test]
    fn a_move_that_is_turned_round_begins_anew_and_one_that_leaves_the_same_gateway_goes_on() {
        let moved = |from| {
            let mut drain =
                Drain { watching: Some(at(101)), called: Some(at(116)), is_idle: true, ..begun(100) };
            drain.go_on(from, at(390));
            drain
        };
        let same = moved(Ipv4Addr::LOCALHOST);
        assert_eq!((same.since, same.called, same.is_idle), (at(100), Some(at(116)), true));
        let other = moved(Ipv4Addr::BROADCAST);
        assert_eq!((other.since, other.looked, other.called, other.is_idle), (at(390), at(390), None, false));
        assert!(other.is_watched(at(391), seconds(watch_seconds(300))), "the buckets are watched already");
    }

    #[test]
    fn a_drain_ends_when_nobody_has_sent_since_the_roll_was_called_and_not_on_silence_alone() {
        let secs = Duration::from_secs;
        let new = begun(100);
        assert_eq!(new.step(Some(secs(3600)), at(500), QUIET), Step::CallTheRoll, "sockets are not seen yet");
        assert_eq!(new.step(None, at(500), QUIET), Step::CallTheRoll);

        let called = Drain { called: Some(at(115)), ..begun(100) };
        // Silent since before the roll was called.
        for (now, then) in [(130, Step::Wait), (189, Step::Wait), (190, Step::End), (400, Step::End)] {
            let idle = secs(now - 114);
            assert_eq!(called.step(Some(idle), at(now), QUIET), then, "at {now}");
            assert_eq!(called.step(None, at(now), QUIET), then, "at {now}, without a bucket");
        }
        // A socket that was seen right after the roll was called may have sent ever since.
        for (now, idle) in [(130, secs(15)), (190, secs(75)), (400, secs(285)), (400, secs(1))] {
            assert_eq!(called.step(Some(idle), at(now), QUIET), Step::CallTheRoll, "at {now}");
            let coarse = idle + Duration::from_millis(10);
            assert_eq!(called.step(Some(coarse), at(now), QUIET), Step::CallTheRoll, "at {now}");
        }
    }

    #[test]
    fn nothing_moves_before_the_roll_was_called_and_a_look_comes_as_soon_as_it_may_be_the_last() {
        let draining = |moving| Draining { from: Ipv4Addr::LOCALHOST, moving, seconds: 300 };
        let watch = seconds(watch_seconds(300));
        let new = begun(100);
        assert!(new.is_due(at(101), draining(false)) && !new.is_watched(at(399), watch));
        let watching = Drain { watching: Some(at(101)), ..new };
        assert!(!watching.is_due(at(102), draining(false)));
        assert!(!watching.is_watched(at(115), watch) && watching.is_watched(at(116), watch));
        // Every 15 s, and 75 s after the roll was called.
        let moving = Drain { looked: at(180), called: Some(at(116)), ..watching };
        assert!(!moving.is_due(at(190), draining(true)) && moving.is_due(at(191), draining(true)));
        let used = Drain { looked: at(180), called: Some(at(180)), ..moving };
        assert!(!used.is_due(at(194), draining(true)) && used.is_due(at(195), draining(true)));
    }
}
