//! A node that watches gateways of which some are broken, on a clock of the test's own.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::Config;
use crate::detector::{Outcome, Standing, Verdict};
use crate::selection::select;
use crate::tick::Tick;
use crate::watch::{Fault, Level, Probe, Watch};

pub const A: char = 'A';
pub const B: char = 'B';
pub const C: char = 'C';

/// What is broken. Each is as a gateway's probes find it, whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Broken {
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
pub use Broken::*;

pub const TARGETS: [char; 3] = ['x', 'y', 'z'];

/// A node that watches gateways, each level as often as an agent does.
#[derive(Clone)]
pub struct World {
    pub watch: Watch<char, char>,
    pub gateways: Vec<char>,
    pub broken: BTreeSet<Broken>,
    pub now: u64,
    pub random: u64,
    pub current: char,
    pub switches: Vec<(u64, char, char)>,
    pub turns: BTreeMap<(char, Level), usize>,
    pub due: BTreeMap<(char, Level), u64>,
}

impl World {
    pub fn new(gateways: &[char]) -> Self {
        Self::with(gateways, 1, &Config::default())
    }

    pub fn with(gateways: &[char], seed: u64, config: &Config) -> Self {
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

    pub fn whole(gateways: &[char]) -> Self {
        let mut world = Self::new(gateways);
        world.runs(60_000);
        assert!(gateways.iter().all(|gateway| world.standing(*gateway).verdict == Verdict::Up));
        world
    }

    pub fn is(&self, broken: Broken) -> bool {
        self.broken.contains(&broken)
    }

    pub fn chance(&mut self, percent: u8) -> bool {
        // xorshift64*
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % 100 < u64::from(percent)
    }

    pub fn is_lost(&mut self, gateway: char, witness: char, level: Level) -> bool {
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
    pub fn ask(&mut self, gateway: char, level: Level) -> (char, Outcome) {
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

    pub fn runs(&mut self, millis: u64) {
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

    pub fn choose(&mut self) {
        let candidates = self.watch.candidates(&self.gateways, Tick::from_millis(self.now));
        let choice = select(&candidates, Some(self.current)).unwrap();
        if choice.why.is_switch() && choice.gateway != self.current {
            self.switches.push((self.now, self.current, choice.gateway));
            self.current = choice.gateway;
        }
    }

    pub fn standing(&self, gateway: char) -> Standing {
        self.watch.standing(gateway, Tick::from_millis(self.now))
    }

    pub fn condemned(&self) -> Vec<(char, Fault)> {
        let fault = |gateway: &char| Some((*gateway, self.watch.condemned(*gateway)?.fault));
        self.gateways.iter().filter_map(fault).collect()
    }
}
