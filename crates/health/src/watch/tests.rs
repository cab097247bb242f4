use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::selection::{Why, select};

const A: char = 'A';
const B: char = 'B';
const C: char = 'C';

/// What is broken. Each is as a gateway's probes find it, whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Broken {
    /// Nothing answers in the VPC.
    Dead(char),
    /// Nothing goes through: no forwarding, no translation, no public link, a direction dropped.
    Deaf(char),
    /// Only what is on its own link is reached.
    NoDefaultRoute(char),
    /// It leaves with an address that no peer admits.
    WrongSource(char),
    /// Packets of full size vanish on its public side, both ways.
    BlackHole(char),
    /// A target outside is dead.
    Target(char),
    /// Nothing beyond the gateways' own subnet is there.
    Internet,
    /// The node's own link to the VPC.
    Node,
    /// A gateway loses so many percent of what goes through it.
    Loses(char, u8),
    /// Its link to the VPC does.
    LosesInVpc(char, u8),
}
use Broken::*;

const TARGETS: [char; 3] = ['x', 'y', 'z'];

/// A node that watches gateways, each level as often as an agent does.
#[derive(Clone)]
struct World {
    watch: Watch<char, char>,
    gateways: Vec<char>,
    broken: BTreeSet<Broken>,
    now: u64,
    random: u64,
    current: char,
    switches: Vec<(u64, char, char)>,
    turns: BTreeMap<(char, Level), usize>,
    due: BTreeMap<(char, Level), u64>,
}

impl World {
    fn new(gateways: &[char]) -> Self {
        Self::with(gateways, 1, &Config::default())
    }

    fn with(gateways: &[char], seed: u64, config: &Config) -> Self {
        let mut watch = Watch::default();
        watch.retain(&gateways.iter().map(|gateway| (*gateway, config.clone())).collect(), Tick::default());
        let mut world = Self {
            watch,
            gateways: gateways.to_vec(),
            broken: BTreeSet::new(),
            now: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            current: gateways[0],
            switches: Vec::new(),
            turns: BTreeMap::new(),
            due: BTreeMap::new(),
        };
        for (index, gateway) in gateways.iter().enumerate() {
            for (step, level) in Level::ALL.into_iter().enumerate() {
                world.due.insert((*gateway, level), 37 * index as u64 + 251 * step as u64);
            }
        }
        world
    }

    fn whole(gateways: &[char]) -> Self {
        let mut world = Self::new(gateways);
        world.runs(60_000);
        assert!(gateways.iter().all(|gateway| world.standing(*gateway).verdict == Verdict::Up));
        world
    }

    fn is(&self, broken: Broken) -> bool {
        self.broken.contains(&broken)
    }

    fn chance(&mut self, percent: u8) -> bool {
        // xorshift64*
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % 100 < u64::from(percent)
    }

    fn is_lost(&mut self, gateway: char, witness: char, level: Level) -> bool {
        let losses: Vec<u8> = self
            .broken
            .iter()
            .filter_map(|broken| match broken {
                Loses(lossy, percent)
                    if [gateway, witness].contains(lossy) && level != Level::Reachability =>
                {
                    Some(*percent)
                }
                LosesInVpc(lossy, percent) if *lossy == gateway => Some(*percent),
                _ => None,
            })
            .collect();
        losses.into_iter().any(|percent| self.chance(percent))
    }

    /// Who is asked next, and whether an answer comes.
    fn ask(&mut self, gateway: char, level: Level) -> (char, Outcome) {
        let turn = self.turns.entry((gateway, level)).or_default();
        *turn += 1;
        let turn = *turn;
        let peers: Vec<char> = self.gateways.iter().copied().filter(|peer| *peer != gateway).collect();
        let asked: Vec<char> = match level {
            Level::Reachability => vec![gateway],
            Level::Forwarding => TARGETS.to_vec(),
            Level::Source => peers,
            Level::FullSize => TARGETS.into_iter().chain(peers).collect(),
        };
        let witness = asked[turn % asked.len()];
        let is_peer = self.gateways.contains(&witness) && level != Level::Reachability;
        let large = level == Level::FullSize;
        let gone = [Dead(gateway), Node].iter().any(|broken| self.is(*broken));
        let in_vpc = !gone && !self.is_lost(gateway, witness, level);
        let swallowed = large && self.is(BlackHole(gateway)) || !is_peer && self.is(NoDefaultRoute(gateway));
        let leads = !swallowed && !self.is(Deaf(gateway));
        let arrives = if is_peer {
            [Dead(witness), Deaf(witness), WrongSource(gateway)].iter().all(|broken| !self.is(*broken))
                && !(large && self.is(BlackHole(witness)))
        } else {
            !self.is(Internet) && !self.is(Target(witness))
        };
        let answered = if level == Level::Reachability { in_vpc } else { in_vpc && leads && arrives };
        (witness, if answered { Outcome::Answered } else { Outcome::Missed })
    }

    fn runs(&mut self, millis: u64) {
        let end = self.now + millis;
        while let Some((at, gateway, level)) = self
            .due
            .iter()
            .map(|((gateway, level), at)| (*at, *gateway, *level))
            .min()
            .filter(|due| due.0 < end)
        {
            let (witness, outcome) = self.ask(gateway, level);
            // A miss is known at the deadline, and the next probe of a way goes out long before that.
            let (took, next) = match (outcome, level) {
                (Outcome::Answered, Level::Reachability) => (0, 100),
                (Outcome::Missed, Level::Reachability) => (95, 100),
                (Outcome::Answered, _) => (0, 1_000),
                (Outcome::Missed, _) => (240, 250),
            };
            self.now = self.now.max(at + took);
            self.due.insert((gateway, level), at + next);
            let probe = Probe { level, witness, sent: Tick::from_millis(at), outcome };
            self.watch.on_probe(gateway, probe, Tick::from_millis(self.now));
            self.choose();
        }
        self.now = end;
        self.choose();
    }

    fn choose(&mut self) {
        let candidates = self.watch.candidates(&self.gateways, Tick::from_millis(self.now));
        let choice = select(&candidates, Some(self.current)).unwrap();
        if choice.why.is_switch() && choice.gateway != self.current {
            self.switches.push((self.now, self.current, choice.gateway));
            self.current = choice.gateway;
        }
    }

    fn standing(&self, gateway: char) -> Standing {
        self.watch.standing(gateway, Tick::from_millis(self.now))
    }

    fn condemned(&self) -> Vec<(char, Fault)> {
        let fault = |gateway: &char| Some((*gateway, self.watch.condemned(*gateway)?.fault));
        self.gateways.iter().filter_map(fault).collect()
    }
}

#[test]
fn every_row_of_the_table() {
    use Fault::{LosesLargePackets, NotForwarding, UnexpectedSource};
    let whole = World::whole(&[A, B]);
    for (broken, condemned, used) in [
        (vec![], vec![], A),
        (vec![Deaf(A)], vec![(A, NotForwarding)], B),
        (vec![NoDefaultRoute(A)], vec![(A, NotForwarding)], B),
        (vec![WrongSource(A)], vec![(A, UnexpectedSource)], B),
        (vec![BlackHole(A)], vec![(A, LosesLargePackets)], B),
        (vec![Dead(A)], vec![], B),
        (vec![Dead(B)], vec![], A),
        (vec![Deaf(B)], vec![(B, NotForwarding)], A),
        (vec![BlackHole(B)], vec![(B, LosesLargePackets)], A),
        (vec![WrongSource(B)], vec![(B, UnexpectedSource)], A),
        (vec![Target('x')], vec![], A),
        (vec![Target('x'), Target('y')], vec![], A),
        (vec![Target('x'), Target('y'), Target('z')], vec![], A),
        (vec![Internet], vec![], A),
        (vec![Internet, Dead(A)], vec![], B),
        (vec![Deaf(A), Deaf(B)], vec![], A),
        (vec![Dead(A), Dead(B)], vec![], A),
        (vec![Node], vec![], A),
    ] {
        let mut world = whole.clone();
        world.broken.extend(broken.clone());
        world.runs(10_000);
        assert_eq!((world.condemned(), world.current), (condemned, used), "{broken:?}");
        let out = world.broken.iter().any(|broken| matches!(broken, Node))
            || [Dead(A), Dead(B)].iter().all(|dead| world.is(*dead));
        assert_eq!(world.watch.none_works(&[A, B]), out, "{broken:?}");
        assert!(world.switches.len() <= 1, "{broken:?}: {:?}", world.switches);
    }
}

#[test]
fn with_a_third_gateway_the_same_ones_are_condemned() {
    for (broken, condemned) in [
        (Deaf(A), vec![(A, Fault::NotForwarding)]),
        (WrongSource(A), vec![(A, Fault::UnexpectedSource)]),
        (BlackHole(C), vec![(C, Fault::LosesLargePackets)]),
        (Dead(C), vec![]),
        (Internet, vec![]),
    ] {
        let mut world = World::whole(&[A, B, C]);
        world.broken.insert(broken);
        world.runs(10_000);
        assert_eq!(world.condemned(), condemned, "{broken:?}");
    }
}

#[test]
fn a_gray_failure_is_left_within_three_seconds_whenever_it_happens() {
    for offset in (0..1_000).step_by(125) {
        for broken in [Deaf(A), NoDefaultRoute(A), WrongSource(A), BlackHole(A)] {
            let mut world = World::whole(&[A, B]);
            world.runs(offset);
            world.broken.insert(broken);
            let failed = world.now;
            world.runs(5_000);
            let left = world.switches[0].0 - failed;
            assert!(left < 3_000 && world.current == B, "{broken:?} after {offset} ms: {left} ms");
        }
    }
}

#[test]
fn a_node_returns_within_thirty_seconds_of_healing_and_by_one_move() {
    for broken in [Dead(A), Deaf(A), NoDefaultRoute(A), WrongSource(A), BlackHole(A)] {
        let mut world = World::whole(&[A, B]);
        world.broken.insert(broken);
        world.runs(20_000);
        world.broken.clear();
        world.runs(30_000);
        assert_eq!((world.current, world.switches.len()), (A, 2), "{broken:?}");
        assert_eq!(world.condemned(), []);
    }
}

#[test]
fn one_that_does_not_work_is_left_for_at_once_when_the_other_is_dead() {
    let mut world = World::whole(&[A, B]);
    world.broken.insert(BlackHole(A));
    world.runs(5_000);
    world.broken.insert(Dead(B));
    world.runs(2_000);
    assert_eq!(world.current, A, "better than nothing");
    assert!(!world.watch.none_works(&[A, B]));
    world.broken = BTreeSet::from([Deaf(A)]);
    world.runs(5_000);
    world.broken.insert(Dead(B));
    world.runs(2_000);
    assert!(world.watch.none_works(&[A, B]));
    world.broken.remove(&Dead(B));
    world.runs(1_000);
    assert!(!world.watch.none_works(&[A, B]));
    assert_eq!(world.current, B, "hold-down keeps nobody on one that does not work");
}

#[test]
fn who_was_never_seen_with_the_expected_address_is_not_condemned_and_not_returned_to() {
    let mut world = World::new(&[A, B]);
    world.broken.insert(WrongSource(A));
    world.current = B;
    world.runs(120_000);
    assert_eq!((world.condemned(), world.current), (vec![], B));
    assert_eq!(world.watch.works(A, Level::Source), Some(false));
    assert!(!world.watch.has_answered(A, Level::Source));
    world.broken.clear();
    world.runs(30_000);
    assert_eq!(world.current, A);
}

/// Seconds until the first switch, if there is one within `limit`.
fn leaves(broken: &[Broken], seed: u64, limit: u64) -> Option<u64> {
    let mut world = World::with(&[A, B], seed, &Config::default());
    world.runs(60_000);
    world.broken.extend(broken);
    let start = world.now;
    while world.now < start + limit * 1_000 {
        world.runs(1_000);
        if let Some((at, ..)) = world.switches.first() {
            return Some((at - start) / 1_000);
        }
    }
    None
}

#[test]
fn a_little_loss_moves_nobody_in_an_hour() {
    for (broken, seed) in [(Loses(A, 5), 1), (LosesInVpc(A, 5), 3)] {
        assert_eq!(leaves(&[broken], seed, 3_600), None, "{broken:?}");
    }
    assert_eq!(leaves(&[Loses(A, 10)], 3, 600), None);
}

#[test]
fn much_loss_on_one_is_left_and_the_same_on_both_is_borne() {
    for seed in 1..=3 {
        for (broken, limit) in
            [(Loses(A, 30), 45), (Loses(A, 60), 12), (LosesInVpc(A, 30), 45), (LosesInVpc(A, 60), 12)]
        {
            let left = leaves(&[broken], seed, limit);
            assert!(left.is_some(), "{broken:?} was not left within {limit} s, seed {seed}");
        }
        for percent in [5, 10, 30] {
            let mut world = World::with(&[A, B], seed, &Config::default());
            world.runs(60_000);
            world.broken.extend([Loses(A, percent), Loses(B, percent)]);
            world.runs(120_000);
            let most = if percent < 30 { 0 } else { 3 };
            assert!(world.switches.len() <= most, "{percent} % on both, seed {seed}: {:?}", world.switches);
        }
    }
}

#[test]
fn one_that_lost_packets_is_on_trial_after_it_and_returned_to() {
    let mut world = World::whole(&[A, B]);
    world.broken.insert(LosesInVpc(A, 40));
    world.runs(30_000);
    assert_eq!(world.current, B);
    assert!(world.watch.is_condemned(A));
    world.broken.clear();
    world.runs(5_000);
    assert_eq!(world.current, B);
    world.runs(120_000);
    assert_eq!((world.current, world.condemned()), (A, vec![]));
}

#[test]
fn flapping_moves_a_node_ever_more_rarely() {
    for period in [1_000, 20_000, 60_000] {
        let mut world = World::whole(&[A, B]);
        for _ in 0..(600_000 / period) {
            world.broken.insert(Dead(A));
            world.runs(period / 2);
            world.broken.clear();
            world.runs(period / 2);
        }
        // Once away and a few returns, each after a longer time.
        assert!(world.switches.len() <= 14, "period {period}: {} switches", world.switches.len());
        let back: Vec<u64> =
            world.switches.iter().filter(|(_, _, to)| *to == A).map(|(at, ..)| *at).collect();
        assert!(back.windows(2).all(|pair| pair[1] - pair[0] >= 10_000), "{period}: {back:?}");
    }
}

#[test]
fn neighbours_tell_whether_it_is_the_node_that_is_cut_off() {
    use Outcome::{Answered, Missed};
    let mut world = World::whole(&[A, B]);
    assert!(!world.watch.all_silent());
    world.broken.insert(Node);
    world.runs(1_000);
    assert!(world.watch.all_silent());
    for (neighbours, cut_off) in
        [(vec![], false), (vec![Missed], true), (vec![Missed, Missed], true), (vec![Missed, Answered], false)]
    {
        assert_eq!(is_cut_off(true, &neighbours), cut_off, "{neighbours:?}");
        assert!(!is_cut_off(false, &neighbours));
    }
    assert!(!Watch::<char, char>::default().all_silent());
}

#[test]
fn evidence_says_what_was_asked_and_who_answered_instead() {
    let mut world = World::whole(&[A, B]);
    world.broken.insert(Deaf(A));
    world.runs(4_000);
    let evidence = world.watch.evidence(A, B).unwrap();
    assert_eq!((evidence.fault.reason(), evidence.other), ("NotForwarding", B));
    let said = evidence.to_string();
    assert!(said.starts_with("nothing outside answers through it: "), "{said}");
    assert!(said.contains(" probes in a row without an answer from "), "{said}");
    assert!(said.ends_with("one that went through B was answered"), "{said}");

    world = World::whole(&[A, B]);
    world.broken.insert(Dead(A));
    world.runs(1_000);
    let evidence = world.watch.evidence(A, B).unwrap();
    assert_eq!(evidence.fault, Fault::Unreachable);
    assert!(world.watch.is_condemned(A) && !world.watch.is_condemned(B));
}

#[test]
fn thresholds_may_change_and_gateways_come_and_go() {
    let mut world = World::whole(&[A, B]);
    world.broken.insert(Deaf(A));
    world.runs(4_000);
    assert_eq!(world.current, B);
    let now = Tick::from_millis(world.now);
    let other = Config { hold_down: Duration::from_secs(1), ..Config::default() };
    world.watch.retain(&BTreeMap::from([(A, other.clone()), (B, other)]), now);
    assert!(world.watch.condemned(A).is_some(), "nothing is forgotten");
    world.watch.retain(&BTreeMap::from([(A, Config::default())]), now);
    assert!(world.watch.condemned(A).is_none(), "without the other there is no difference");
    assert_eq!(world.watch.works(B, Level::Reachability), None);
}

fn any_broken() -> impl Strategy<Value = Broken> {
    let gateway = || prop_oneof![Just(A), Just(B), Just(C)];
    prop_oneof![
        gateway().prop_map(Dead),
        gateway().prop_map(Deaf),
        gateway().prop_map(NoDefaultRoute),
        gateway().prop_map(WrongSource),
        gateway().prop_map(BlackHole),
        (0..3_usize).prop_map(|index| Target(TARGETS[index])),
        Just(Internet),
        Just(Node),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever breaks and heals, in whatever order: a whole gateway is never condemned for a total fault while the others are whole or
    /// broken, a node ends on one that works where there is one, and none is said to work only when that is so.
    #[test]
    fn a_node_ends_on_a_gateway_that_works_and_no_whole_one_is_condemned(
        steps in prop::collection::vec((any_broken(), prop::bool::ANY, 200_u64..8_000), 1..12)
    ) {
        let mut world = World::whole(&[A, B, C]);
        for (broken, heals, time) in steps {
            if heals {
                world.broken.remove(&broken);
            } else {
                world.broken.insert(broken);
            }
            world.runs(time);
        }
        world.broken.retain(|broken| !matches!(broken, Internet | Node | Target(_)));
        world.runs(330_000);
        let is_whole = |gateway: char| {
            [Dead(gateway), Deaf(gateway), NoDefaultRoute(gateway), WrongSource(gateway), BlackHole(gateway)]
                .iter()
                .all(|broken| !world.broken.contains(broken))
        };
        let whole: Vec<char> = [A, B, C].into_iter().filter(|gateway| is_whole(*gateway)).collect();
        for gateway in &whole {
            prop_assert!(world.watch.condemned(*gateway).is_none(), "{:?}: {:?}", world.broken, world.condemned());
        }
        if let Some(first) = whole.first() {
            prop_assert!(whole.contains(&world.current), "{:?}: on {}", world.broken, world.current);
            prop_assert_eq!(world.current, *first, "the order of the list");
            prop_assert!(!world.watch.none_works(&[A, B, C]));
        }
    }

    /// An hour of any single probes lost here and there condemns nobody.
    #[test]
    fn single_losses_move_nobody(lost in prop::collection::btree_set(0_usize..4_000, 0..60)) {
        let mut world = World::whole(&[A, B]);
        let mut last = None;
        for index in 0..4_000 {
            // Never two in a row.
            let lose = lost.contains(&index) && last != Some(index.wrapping_sub(1));
            if lose {
                last = Some(index);
            }
            world.now += 100;
            let now = Tick::from_millis(world.now);
            for gateway in [A, B] {
                let level = Level::ALL[index % 4];
                let outcome = if lose { Outcome::Missed } else { Outcome::Answered };
                world.watch.on_probe(gateway, Probe { level, witness: 'x', sent: now, outcome }, now);
            }
            world.choose();
        }
        prop_assert!(world.switches.is_empty());
        prop_assert!(select(&world.watch.candidates(&[A, B], Tick::from_millis(world.now)), Some(A)).unwrap().why == Why::Stays);
    }
}
