//! The connections by which one level is asked through one gateway: which is next, and how long to wait for it. Pure.
//!
//! A gateway's connection table keeps an entry of each probe that had no answer, with the translation of then, for a while: a probe that
//! finds it goes on failing after a repair, or on being answered after the translation is gone. So a connection, a source port and a
//! witness, that was missed rests that long; one that was answered, or never begun, is free at once. Witnesses are asked in turn;
//! before its time only who is not known to be silent, or a doubt would take as long to settle as the dead ones take to be asked.
//!
//! Invariant: a connection is free, resting, or under way; from there it comes back by [`Connections::put_back`].

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::ops::RangeInclusive;
use std::time::Duration;

use tokio::time::Instant;

/// So long a connection table keeps a SYN without answer (`nf_conntrack_tcp_timeout_syn_sent`), unless somebody set something else.
const REST: Duration = Duration::from_secs(120);

/// The same of the gateways of an EgressGateway, 10 s (`cloud-init/files/egress-gateway-apply`), and a second.
const REST_OF_OURS: Duration = Duration::from_secs(11);

/// What fails is asked at least so often, by a connection that has not rested where there is no other: a gateway that is well again is
/// used again within 30 s, which are this, the confirmations, and the hold-down of 10 s.
const LONGEST_PAUSE: Duration = Duration::from_secs(12);

/// A witness that left so many probes in a row without an answer while others answered is taken for dead: that it leaves one more is no
/// news. What fails through the gateway fails with all of them.
const SILENT: u8 = 3;

/// How long a connection that was missed rests.
pub(super) const fn rest(is_ours: bool) -> Duration {
    if is_ours { REST_OF_OURS } else { REST }
}

/// The connections of one level through one gateway.
#[derive(Debug)]
pub(super) struct Connections {
    /// In turn.
    witnesses: VecDeque<Asked>,
    rest: Duration,
}

/// One witness.
#[derive(Debug)]
struct Asked {
    witness: SocketAddrV4,
    /// Probes in a row that it left without an answer.
    missed: u8,
    ports: Ports,
}

/// Source ports towards one witness.
#[derive(Debug)]
enum Ports {
    /// Any that the kernel chooses: the gateway itself is asked, which keeps no entry.
    Any,
    /// Those that lead through the gateway.
    Of {
        /// Whoever is free longest is first.
        free: VecDeque<u16>,
        /// Whoever was missed longest ago is first, with the end of its rest.
        resting: VecDeque<(Instant, u16)>,
    },
}

impl Connections {
    /// From each of these ports, or from any, to each of these witnesses.
    pub(super) fn new(
        ports: Option<&RangeInclusive<u16>>,
        witnesses: &[SocketAddrV4],
        rest: Duration,
    ) -> Self {
        let ports = || {
            ports.map_or(Ports::Any, |ports| Ports::Of {
                free: ports.clone().collect(),
                resting: VecDeque::new(),
            })
        };
        let asked = |witness: &SocketAddrV4| Asked { witness: *witness, missed: 0, ports: ports() };
        Self { witnesses: witnesses.iter().map(asked).collect(), rest }
    }

    /// Another witness is the first one.
    pub(super) fn begin_with(mut self, index: usize) -> Self {
        self.witnesses.rotate_left(index);
        self
    }

    /// The next one, to the next witness, or to the next that is `expected` to answer if any is; where all to it rest, the one that was
    /// missed longest ago. `None` while all are under way.
    pub(super) fn next(&mut self, expected: bool, now: Instant) -> Option<(u16, SocketAddrV4)> {
        let first = || self.witnesses.iter().position(|asked| !asked.is_silent());
        let place = if expected { first().unwrap_or(0) } else { 0 };
        let port = self.witnesses.get_mut(place)?.ports.take(now)?;
        let asked = self.witnesses.remove(place)?;
        let witness = asked.witness;
        self.witnesses.push_back(asked);
        Some((port, witness))
    }

    /// One ended, missed or not.
    pub(super) fn put_back(&mut self, port: u16, witness: SocketAddrV4, is_missed: bool, now: Instant) {
        if let Some(asked) = self.witnesses.iter_mut().find(|asked| asked.witness == witness) {
            asked.missed = if is_missed { asked.missed.saturating_add(1) } else { 0 };
            asked.ports.put_back(port, is_missed.then(|| now + self.rest));
        }
    }

    /// Whether a witness is known to answer nobody, so that one more silence says nothing.
    pub(super) fn is_silent(&self, witness: SocketAddrV4) -> bool {
        self.witnesses.iter().any(|asked| asked.witness == witness && asked.is_silent())
    }

    /// Time between two probes of what fails: so long that to every witness the free ones last until the next has rested.
    pub(super) fn pause(&self, now: Instant) -> Duration {
        let each = self.witnesses.len();
        // Rounded up: a nanosecond too early has not rested.
        let until_rested = self.witnesses.iter().enumerate().map(|(turn, asked)| {
            let (rested, uses) = asked.ports.next_rested(now);
            let uses = count(uses * each + turn + 1);
            (rested + Duration::from_nanos(u64::from(uses) - 1)) / uses
        });
        let all_of_them = self
            .witnesses
            .front()
            .map_or(Duration::ZERO, |asked| asked.ports.each_after(self.rest) / count(each));
        until_rested.fold(all_of_them, Duration::max).min(LONGEST_PAUSE)
    }
}

impl Asked {
    fn is_silent(&self) -> bool {
        self.missed >= SILENT
    }
}

fn count(some: usize) -> u32 {
    u32::try_from(some).unwrap_or(u32::MAX).max(1)
}

impl Ports {
    fn take(&mut self, now: Instant) -> Option<u16> {
        let Self::Of { free, resting } = self else { return Some(0) };
        while resting.front().is_some_and(|(ends, _)| *ends <= now) {
            free.extend(resting.pop_front().map(|(_, port)| port));
        }
        free.pop_front().or_else(|| resting.pop_front().map(|(_, port)| port))
    }

    fn put_back(&mut self, port: u16, rests_until: Option<Instant>) {
        let Self::Of { free, resting } = self else { return };
        match rests_until {
            Some(ends) => resting.push_back((ends, port)),
            None => free.push_back(port),
        }
    }

    /// Time until the next one has rested, and how many uses the free ones are good for until then.
    fn next_rested(&self, now: Instant) -> (Duration, usize) {
        let Self::Of { free, resting } = self else { return (Duration::ZERO, 0) };
        let rested = resting.iter().filter(|(ends, _)| *ends <= now).count();
        (resting.get(rested).map_or(Duration::ZERO, |(ends, _)| *ends - now), free.len() + rested)
    }

    /// Time between two uses with which all of them last for a rest.
    fn each_after(&self, rest: Duration) -> Duration {
        let Self::Of { free, resting } = self else { return Duration::ZERO };
        rest / count(free.len() + resting.len())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn witness(last: u8) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, last), 443)
    }

    fn to(witnesses: u8, ports: RangeInclusive<u16>) -> Connections {
        Connections::new(Some(&ports), &(1..=witnesses).map(witness).collect::<Vec<_>>(), REST)
    }

    #[test]
    fn a_port_rests_until_a_connection_table_has_forgotten_it() {
        let mut connections = to(1, 61_000..=61_003);
        let begin = Instant::now();
        let mut asked = |after: u32, is_missed| {
            let now = begin + SECOND * after;
            let (port, witness) = connections.next(false, now).unwrap();
            connections.put_back(port, witness, is_missed, now);
            port
        };
        assert_eq!([0, 1, 2].map(|after| asked(after, true)), [61_000, 61_001, 61_002]);
        // The one that is left is answered, and used until others have rested.
        assert!((3..120).all(|after| asked(after, false) == 61_003));
        let rested = [120, 121, 122, 123].map(|after| asked(after, false));
        assert_eq!(rested, [61_003, 61_000, 61_003, 61_001]);
    }

    #[test]
    fn where_all_rest_the_one_that_was_missed_longest_ago_is_used() {
        let mut connections = to(1, 61_000..=61_001);
        let now = Instant::now();
        let mut next = |after| connections.next(false, now + SECOND * after).map(|(port, _)| port);
        assert_eq!([0, 0, 0].map(&mut next), [Some(61_000), Some(61_001), None], "none is begun twice");
        connections.put_back(61_001, witness(1), true, now);
        connections.put_back(61_000, witness(1), true, now);
        assert_eq!(connections.next(false, now + SECOND), Some((61_001, witness(1))));
        assert_eq!(Connections::new(None, &[witness(1)], REST).next(false, now), Some((0, witness(1))));
    }

    #[test]
    fn witnesses_are_asked_in_turn_whoever_does_not_answer() {
        let mut connections = to(3, 61_000..=61_001).begin_with(1);
        let mut now = Instant::now();
        for asked in [2, 3, 1].into_iter().cycle().take(60) {
            let (port, whom) = connections.next(false, now).unwrap();
            assert_eq!(whom, witness(asked));
            connections.put_back(port, whom, asked == 2, now);
            now += SECOND;
        }
    }

    #[test]
    fn before_its_time_only_who_is_not_known_to_be_silent_is_asked_and_the_others_wait_for_their_turn() {
        let mut connections = to(3, 61_000..=61_040);
        let now = Instant::now();
        let mut asked = |expected, dead: &[u8]| {
            let (port, whom) = connections.next(expected, now).unwrap();
            let last = whom.ip().octets()[3];
            connections.put_back(port, whom, dead.contains(&last), now);
            last
        };
        let two = [1, 2];
        assert_eq!([(); 9].map(|()| asked(false, &two)), [1, 2, 3, 1, 2, 3, 1, 2, 3]);
        let turns = [true, true, false, true, false, false];
        assert_eq!(turns.map(|expected| asked(expected, &two)), [3, 3, 1, 3, 2, 1]);
        // Where all are silent, whoever is next.
        let all = [1, 2, 3];
        assert_eq!([(); 3].map(|()| asked(true, &all)), [3, 3, 3]);
        assert_eq!([(); 3].map(|()| asked(true, &all)), [2, 1, 3]);
    }

    /// A failure that is confirmed twelve times, as with `fall` 3, and then lasts for half an hour: what a pair asks at its levels.
    #[test]
    fn a_gateway_that_fails_is_asked_every_few_seconds_and_by_connections_that_have_rested() {
        let divided = [(1, 40), (3, 13), (4, 11)];
        let ours = divided.map(|(witnesses, ports)| (witnesses, ports, REST_OF_OURS, SECOND));
        let others = divided.map(|(witnesses, ports)| (witnesses, ports, REST, SECOND * 9 / 2));
        let few = [(1, 21, REST, LONGEST_PAUSE), (2, 12, REST, LONGEST_PAUSE)];
        for (witnesses, ports, rest, most) in ours.into_iter().chain(others).chain(few) {
            let mut connections = Connections { rest, ..to(witnesses, 61_000..=61_000 + ports - 1) };
            let mut now = Instant::now();
            let mut missed = BTreeMap::new();
            let mut was_longest = false;
            for probe in 0..400 {
                let connection = connections.next(false, now).unwrap();
                if let Some(missed) = missed.get(&connection) {
                    let has_rested = now.duration_since(*missed) >= rest;
                    assert!(has_rested || was_longest, "{witnesses} × {ports}: probe {probe}");
                }
                let ended = now + SECOND * 7 / 10;
                missed.insert(connection, ended);
                let pause = if probe < 12 { SECOND / 4 } else { connections.pause(now) };
                assert!(pause <= most, "{witnesses} × {ports}: {pause:?}");
                connections.put_back(connection.0, connection.1, true, ended);
                was_longest = pause == LONGEST_PAUSE;
                now += pause;
            }
        }
    }

    /// What the failure matrix does: every quarter of a minute another failure, each confirmed twelve times.
    #[test]
    fn failures_one_after_the_other_leave_enough_connections_that_have_rested() {
        for (witnesses, ports) in [(1, 40), (3, 13), (4, 11)] {
            let mut connections =
                Connections { rest: REST_OF_OURS, ..to(witnesses, 61_000..=61_000 + ports - 1) };
            let mut now = Instant::now();
            let mut missed: BTreeMap<_, Instant> = BTreeMap::new();
            for probe in 0..500_u32 {
                let (fails, is_repeated) = (probe % 25 < 15, probe % 25 < 12);
                let connection = connections.next(false, now).unwrap();
                let rested =
                    missed.get(&connection).is_none_or(|then| now.duration_since(*then) >= REST_OF_OURS);
                assert!(rested, "{witnesses} × {ports}: probe {probe}");
                if fails {
                    missed.insert(connection, now);
                }
                connections.put_back(connection.0, connection.1, fails, now);
                now += if is_repeated { SECOND / 4 } else { SECOND };
            }
        }
    }

    #[test]
    fn the_fewer_are_free_the_longer_a_failing_gateway_waits() {
        let mut connections = to(1, 61_000..=61_020);
        let now = Instant::now();
        let pauses: Vec<_> = (0..21)
            .map(|_| {
                let (port, witness) = connections.next(false, now).unwrap();
                connections.put_back(port, witness, true, now);
                connections.pause(now)
            })
            .collect();
        assert_eq!(pauses[0], (REST + Duration::from_nanos(20)) / 21, "rounded up");
        assert!(pauses.is_sorted());
        assert_eq!(pauses[20], LONGEST_PAUSE);
        assert_eq!(Connections::new(None, &[witness(1)], REST).pause(now), Duration::ZERO);
    }
}
