//! A node that watches gateways, in a world in which things break. It probes as an agent does (`egress-agent`, `probe::prober`): each
//! level at its interval, what is late again at once and through the other gateways too, what fails at leisure.

use std::collections::{BTreeMap, BTreeSet};

use crate::detector::{Outcome, Standing, Verdict};
use crate::selection::select;
use crate::watch::Wanted;
use crate::{Config, Fault, Level, Probe, Tick, Watch};

/// What is broken. Each is as a gateway's probes find it, whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Broken {
    /// Nothing answers in the VPC.
    Dead(char),
    /// Nothing goes through: no forwarding, no translation, no public link, a direction dropped.
    Deaf(char),
    /// Only what is on its own link is reached.
    NoDefaultRoute(char),
    /// It leaves with an address that no peer admits. So does a stranger that has its address in the VPC while it lives on outside.
    WrongSource(char),
    /// Its public probe port lets nobody in.
    PortShut(char),
    /// These two do not reach each other outside.
    Apart(char, char),
    /// It is gone, and another machine has its VPC address, which forwards and leaves with an address of its own.
    TakenOver(char),
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

pub const TARGETS: [char; 3] = ['x', 'y', 'z'];

/// As the agent's: milliseconds until a probe through a gateway is late, and until it is a miss; in the VPC it is both, a little before the
/// next.
const LATE: u64 = 250;
const PATH_DEADLINE: u64 = 700;
/// So many times at most what is late is asked again at once, then every so many milliseconds, through gateways that remember for long.
const REPEATED: u8 = 12;
const FAILING: u64 = 4_100;
/// So many probes in a row that a witness left without an answer make it one that is known to be silent, and so many of a level are a doubt.
const SILENT: u8 = 3;

/// One level of one gateway.
#[derive(Debug, Clone, Default)]
struct Prober {
    turn: usize,
    /// In which turn each was asked last.
    asked: BTreeMap<char, usize>,
    unanswered: u8,
    /// Of these, to witnesses that answer otherwise.
    surprising: u8,
    /// How many each witness left without an answer in a row.
    silent: BTreeMap<char, u8>,
    fails: bool,
    due: u64,
    late: Option<u64>,
    /// Whether the next one is sent before its turn, and how many more may be.
    hurries: bool,
    credit: u8,
}

impl Prober {
    fn hurry(&mut self, now: u64) {
        if now < self.due && self.credit > 0 {
            (self.due, self.hurries, self.credit) = (now, true, self.credit - 1);
        }
    }
}

/// A probe that is under way: it ends at that time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct UnderWay {
    ends: u64,
    gateway: char,
    level: Level,
    witness: char,
    sent: u64,
    answered: bool,
}

/// A single one has no peer to be asked about by.
fn asked_among(gateways: &[char]) -> impl Iterator<Item = Level> {
    let is_pair = gateways.len() > 1;
    Level::ALL.into_iter().filter(move |level| *level != Level::Source || is_pair)
}

/// These gateways, asked about at every level and as witnesses of each other.
pub fn wanted(gateways: &[char], config: &Config) -> BTreeMap<char, Wanted<char>> {
    let wanted = |gateway| Wanted {
        asked: asked_among(gateways).collect(),
        ..Wanted::at_every_level(config.clone(), TARGETS, gateway)
    };
    gateways.iter().map(|gateway| (*gateway, wanted(*gateway))).collect()
}

/// Where an address is that moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    Gateway(char),
    /// On its way.
    Nobody,
}

/// What the address is called that moves.
const ADDRESS: char = 'r';

#[derive(Clone)]
pub struct World {
    pub watch: Watch<char, char>,
    pub broken: BTreeSet<Broken>,
    /// Milliseconds.
    pub now: u64,
    pub current: char,
    /// When, from whom, to whom.
    pub switches: Vec<(u64, char, char)>,
    /// Milliseconds between two probes in the VPC, of a level through a gateway, and to another gateway: more in large clusters.
    pub vpc_interval: u64,
    pub path_interval: u64,
    pub source_interval: u64,
    /// Who does not ask whom, because it is not let in there yet.
    pub not_admitted: BTreeSet<(char, char)>,
    /// Where the address is that all have in common; `None`: each has its own.
    pub address: Option<At>,
    gateways: Vec<char>,
    random: u64,
    probers: BTreeMap<(char, Level), Prober>,
    under_way: BTreeSet<UnderWay>,
}

impl World {
    pub fn new(gateways: &[char]) -> Self {
        Self::with(gateways, 1, &Config::default())
    }

    pub fn with(gateways: &[char], seed: u64, config: &Config) -> Self {
        let mut watch = Watch::default();
        watch.retain(&wanted(gateways, config), Tick::default());
        let mut world = Self {
            watch,
            broken: BTreeSet::new(),
            now: 0,
            current: gateways[0],
            switches: Vec::new(),
            vpc_interval: 100,
            path_interval: 1_000,
            source_interval: 1_000,
            not_admitted: BTreeSet::new(),
            address: None,
            gateways: gateways.to_vec(),
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            probers: BTreeMap::new(),
            under_way: BTreeSet::new(),
        };
        for gateway in gateways {
            for level in asked_among(gateways) {
                let due = world.below(world.interval(level));
                world
                    .probers
                    .insert((*gateway, level), Prober { due, credit: REPEATED, ..Prober::default() });
            }
        }
        world
    }

    pub fn whole(gateways: &[char]) -> Self {
        Self::whole_with(gateways, 1, &Config::default())
    }

    /// One in which all gateways have worked for a minute.
    pub fn whole_with(gateways: &[char], seed: u64, config: &Config) -> Self {
        let mut world = Self::with(gateways, seed, config);
        world.runs(60_000);
        assert!(gateways.iter().all(|gateway| world.standing(*gateway).verdict == Verdict::Up));
        world
    }

    /// One in which all have one address in common, and have worked for a minute; the first has it.
    pub fn moving(gateways: &[char], seed: u64) -> Self {
        let config = Config::default();
        let mut world = Self::with(gateways, seed, &config);
        world.address = Some(At::Gateway(gateways[0]));
        let mut wanted = wanted(gateways, &config);
        for one in wanted.values_mut() {
            one.seen_as.clear();
            one.shared_address = Some(ADDRESS);
        }
        world.watch.retain(&wanted, Tick::default());
        world.runs(60_000);
        world
    }

    pub fn is(&self, broken: Broken) -> bool {
        self.broken.contains(&broken)
    }

    pub fn standing(&self, gateway: char) -> Standing {
        self.watch.standing(gateway, Tick::from_millis(self.now))
    }

    pub fn condemned(&self) -> Vec<(char, Fault)> {
        let fault = |gateway: &char| Some((*gateway, self.watch.condemned(*gateway)?.fault));
        self.gateways.iter().filter_map(fault).collect()
    }

    /// The list of gateways is another one, of some that were there before.
    pub fn lists(&mut self, gateways: &[char]) {
        let config = Config::default();
        self.gateways = gateways.to_vec();
        let asked: Vec<Level> = asked_among(gateways).collect();
        self.probers.retain(|(gateway, level), _| gateways.contains(gateway) && asked.contains(level));
        self.under_way.retain(|probe| gateways.contains(&probe.gateway));
        self.watch.retain(&wanted(gateways, &config), Tick::from_millis(self.now));
        self.choose();
    }

    /// Nobody is asked through the gateways any more.
    pub fn asks_in_the_vpc_only(&mut self) {
        self.probers.retain(|(_, level), _| *level == Level::Reachability);
        self.under_way.retain(|probe| probe.level == Level::Reachability);
        let mut wanted = wanted(&self.gateways, &Config::default());
        for one in wanted.values_mut() {
            one.asked = [Level::Reachability].into();
            one.targets.clear();
        }
        self.watch.retain(&wanted, Tick::from_millis(self.now));
    }

    /// So many milliseconds pass.
    pub fn runs(&mut self, millis: u64) {
        let end = self.now + millis;
        loop {
            let next =
                self.probers.iter().map(|(key, prober)| (prober.late.unwrap_or(prober.due), *key)).min();
            let (due, key) = next.unwrap();
            let ends = self.under_way.first().map(|probe| probe.ends).filter(|ends| *ends <= due);
            let at = ends.unwrap_or(due);
            if at >= end {
                break;
            }
            self.now = self.now.max(at);
            if ends.is_some() {
                let ended = self.under_way.pop_first().unwrap();
                self.take(&ended);
            } else if self.probers[&key].late.is_some() {
                self.is_late(key);
            } else {
                self.send(key);
            }
        }
        self.now = end;
        self.choose();
    }

    fn send(&mut self, key: (char, Level)) {
        let (gateway, level) = key;
        let (witness, answered) = self.ask(gateway, level);
        let now = self.now;
        let interval = self.interval(level);
        let deadline = if level == Level::Reachability { interval * 95 / 100 } else { PATH_DEADLINE };
        let ends = now + if answered { 1 } else { deadline };
        self.under_way.insert(UnderWay { ends, gateway, level, witness, sent: now, answered });
        let due = now + interval * 95 / 100 + self.below(interval / 10);
        let prober = self.probers.get_mut(&key).unwrap();
        let is_silent = prober.silent.get(&witness).is_some_and(|missed| *missed >= SILENT);
        if !std::mem::take(&mut prober.hurries) {
            prober.credit = prober.credit.saturating_add(1).min(REPEATED);
        }
        // Not on account of the one that is just sent.
        let is_surprised = prober.surprising > 0;
        prober.unanswered = prober.unanswered.saturating_add(1);
        prober.surprising = prober.surprising.saturating_add(u8::from(!is_silent));
        prober.late = Some(now + if level == Level::Reachability { deadline } else { LATE });
        prober.due = due;
        if prober.unanswered >= SILENT && is_surprised && !prober.fails {
            self.doubt(gateway, level);
        }
    }

    fn is_late(&mut self, key: (char, Level)) {
        let (now, interval) = (self.now, self.interval(key.1));
        let is_judged = self.watch.is_judged(key.0, key.1);
        let moves = self.address.is_some();
        let prober = self.probers.get_mut(&key).unwrap();
        prober.late = None;
        if prober.unanswered == 0 {
            prober.fails = false;
        } else if prober.unanswered >= REPEATED || prober.fails || is_judged {
            prober.fails = true;
            let at_leisure = key.1 != Level::Reachability && !(key.1 == Level::Source && moves);
            prober.due += if at_leisure { FAILING.saturating_sub(interval) } else { 0 };
        } else if prober.surprising > 0 {
            prober.hurry(now);
        }
    }

    fn take(&mut self, ended: &UnderWay) {
        let UnderWay { gateway, level, witness, sent, answered, .. } = *ended;
        let prober = self.probers.get_mut(&(gateway, level)).unwrap();
        if answered {
            let came_back = prober.fails;
            (prober.unanswered, prober.surprising) = (0, 0);
            prober.silent.remove(&witness);
            if came_back {
                self.doubt(gateway, level);
            }
        } else {
            let missed = prober.silent.entry(witness).or_default();
            *missed = missed.saturating_add(1);
        }
        let outcome = if answered { Outcome::Answered } else { Outcome::Missed };
        let probe = Probe { level, witness, sent: Tick::from_millis(sent), outcome };
        self.watch.on_probe(gateway, probe, Tick::from_millis(self.now));
        self.choose();
    }

    /// The same is asked through the others, at once; and of whose address or large packets there is doubt, whether it forwards.
    fn doubt(&mut self, of: char, level: Level) {
        if level == Level::Reachability {
            return;
        }
        for ((gateway, asked), prober) in &mut self.probers {
            let beyond = [Level::Source, Level::FullSize].contains(&level);
            let itself = *gateway == of && *asked == Level::Forwarding && beyond;
            // What it takes to find this one failing is kept.
            if (itself || *gateway != of && *asked == level) && prober.credit > SILENT {
                prober.hurry(self.now);
            }
        }
    }

    fn interval(&self, level: Level) -> u64 {
        match level {
            Level::Reachability => self.vpc_interval,
            Level::Source => self.source_interval,
            Level::Forwarding | Level::FullSize => self.path_interval,
        }
    }

    /// Who is asked next, and whether an answer comes.
    fn ask(&mut self, gateway: char, level: Level) -> (char, bool) {
        let is_asked = |peer: &char| *peer != gateway && !self.not_admitted.contains(&(gateway, *peer));
        let peers: Vec<char> = self.gateways.iter().copied().filter(is_asked).collect();
        let asked: Vec<char> = match level {
            Level::Reachability => vec![gateway],
            _ if self.address.is_some() => TARGETS.to_vec(),
            Level::Forwarding => TARGETS.to_vec(),
            Level::Source => peers,
            Level::FullSize => TARGETS.into_iter().chain(peers).collect(),
        };
        let prober = self.probers.get_mut(&(gateway, level)).unwrap();
        let is_silent = |one: &char| prober.silent.get(one).is_some_and(|missed| *missed >= SILENT);
        // In turn; what is asked before its turn, of the first who is not known to be silent.
        let mut in_turn = asked.clone();
        in_turn.sort_by_key(|one| prober.asked.get(one).copied());
        let live = in_turn.iter().find(|one| prober.hurries && !is_silent(one));
        let witness = *live.unwrap_or(&in_turn[0]);
        prober.turn += 1;
        prober.asked.insert(witness, prober.turn);
        let is_peer = self.gateways.contains(&witness) && level != Level::Reachability;
        let large = level == Level::FullSize;
        let gone = [Dead(gateway), Node].iter().any(|broken| self.is(*broken));
        let in_vpc = !gone && !self.is_lost(gateway, witness, level);
        let swallowed = large && self.is(BlackHole(gateway)) || !is_peer && self.is(NoDefaultRoute(gateway));
        let is_away = self.address.is_some_and(|at| at != At::Gateway(gateway)) && level == Level::Source;
        let leads = !swallowed && !is_away && !self.is(Deaf(gateway));
        let arrives = if is_peer {
            let silent = [Dead(witness), Deaf(witness), TakenOver(witness), PortShut(witness)];
            let strange = [WrongSource(gateway), TakenOver(gateway)];
            let apart = [Apart(gateway, witness), Apart(witness, gateway)];
            silent.iter().chain(&strange).chain(&apart).all(|broken| !self.is(*broken))
                && !(large && self.is(BlackHole(witness)))
        } else {
            !self.is(Internet) && !self.is(Target(witness))
        };
        (witness, if level == Level::Reachability { in_vpc } else { in_vpc && leads && arrives })
    }

    fn is_lost(&mut self, gateway: char, witness: char, level: Level) -> bool {
        let loss = |broken: &Broken| match broken {
            Loses(lossy, percent) if [gateway, witness].contains(lossy) && level != Level::Reachability => {
                Some(*percent)
            }
            LosesInVpc(lossy, percent) if *lossy == gateway => Some(*percent),
            _ => None,
        };
        let losses: Vec<u8> = self.broken.iter().filter_map(loss).collect();
        losses.into_iter().any(|percent| self.below(100) < u64::from(percent))
    }

    /// Takes the gateway that it should use now.
    pub fn choose(&mut self) {
        let candidates = self.watch.candidates(&self.gateways, Tick::from_millis(self.now));
        let choice = select(&candidates, Some(self.current)).unwrap();
        if choice.why.is_switch() && choice.gateway != self.current {
            self.switches.push((self.now, self.current, choice.gateway));
            self.current = choice.gateway;
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        // xorshift64*
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit.max(1)
    }
}
