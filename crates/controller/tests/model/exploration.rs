//! Every order of events, to a depth: three nodes with their own detectors and choice, two gateways, and the controller's decision.
//!
//! Breadth first: from each situation every event is tried, and situations that look alike are led on once. Alike are those with the
//! same machines, the same standings, verdicts and choice on each node, the same reports, list and record, times counted from now. What
//! a detector remembers beyond its standing (runs of misses, the end of a hold-down) is not compared, so of two histories that look
//! alike the shorter one stands for both.
//!
//! Checked after every event: I3 (at most one Droplet more than asked for); I4 (a node routes through a gateway of its list and nobody else;
//! what it does without one, which is to drop with `FailClosed` and to send with its own address with `FailOpen`, it does when none of its
//! list works for it and not before, and it does so when none has answered for long); I6 (a node uses one that works for it, of all that
//! there are, where there has been one for long enough that no quorum took off the list); I8 (the last one that works is never deleted, nor
//! is any that was proven and works, but as one too many or after a quorum has spoken against it; one that works is never power-cycled, no
//! two are replaced within ten minutes).

use std::collections::BTreeSet;
use std::env;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::thread;
use std::time::{Duration, Instant};

use egress_api::GatewayObservation;
use egress_health::{Config, Level, Outcome, Probe, Tick, Wanted, Watch, is_cut_off, select};
use serde_json::Value;

use super::prepared;
use super::world::{NODES, Said, State, World, private};

/// Somebody outside who is asked through the gateways.
const TARGET: u64 = 0;
/// Long enough for a gateway to be condemned and left, whatever it lost before.
const LONG: i64 = 40;
const SHORT: i64 = 6;
/// Events in a row that are tried by every run of the tests.
const SAMPLE: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ails {
    Dead,
    /// Answers in the VPC and does not forward.
    Gray,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parted {
    /// From nobody.
    Nobody,
    /// From the gateway at the head of the record.
    Head,
    /// From the one after it.
    Second,
    /// From everybody, its neighbours included.
    All,
}

/// Whether the controller runs, and whose reports arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Controller {
    Away,
    HearsAll,
    Hears(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Fails(usize, Ails),
    Heals(usize),
    Parts(usize, Parted),
    Passes(i64, Controller),
}

fn events() -> Vec<Event> {
    let mut events = Vec::new();
    for place in 0..2 {
        events.extend([
            Event::Fails(place, Ails::Dead),
            Event::Fails(place, Ails::Gray),
            Event::Heals(place),
        ]);
    }
    // Nodes are alike: two of them lose the head or everybody, the third one the other gateway.
    for node in 0..2 {
        events.extend([Parted::Nobody, Parted::Head, Parted::All].map(|parted| Event::Parts(node, parted)));
    }
    events.extend([Parted::Nobody, Parted::Second].map(|parted| Event::Parts(2, parted)));
    for seconds in [SHORT, LONG] {
        let controllers =
            [Controller::Away, Controller::HearsAll, Controller::Hears(0), Controller::Hears(1)];
        events.extend(controllers.map(|controller| Event::Passes(seconds, controller)));
    }
    events
}

#[derive(Clone)]
struct Node {
    watch: Watch<u64, u64>,
    uses: Option<u64>,
    parted: Parted,
}

struct Situation {
    world: World,
    nodes: [Node; 3],
    path: Vec<Event>,
}

impl Situation {
    /// A pair that works and two nodes that know it.
    fn first() -> Self {
        let node = || Node { watch: Watch::default(), uses: None, parted: Parted::Nobody };
        let mut first = Self { world: prepared(), nodes: [node(), node(), node()], path: Vec::new() };
        first.world.state().third_node = true;
        first.passes(LONG, Controller::HearsAll);
        first
    }

    fn fork(&self) -> Self {
        Self { world: self.world.fork(), nodes: self.nodes.clone(), path: self.path.clone() }
    }

    /// Lets it happen; false where nothing would.
    fn happens(&mut self, event: Event) -> bool {
        self.path.push(event);
        match event {
            Event::Fails(place, ails) => self.sets(place, Some(ails)),
            Event::Heals(place) => self.sets(place, None),
            Event::Parts(node, parted) => {
                let before = std::mem::replace(&mut self.nodes[node].parted, parted);
                before != parted
            }
            Event::Passes(seconds, controller) => {
                self.passes(seconds, controller);
                true
            }
        }
    }

    fn sets(&self, place: usize, ails: Option<Ails>) -> bool {
        let mut state = self.world.state();
        let Some(id) = recorded(&state).get(place).copied() else { return false };
        let Some(machine) = state.machines.get_mut(&id) else { return false };
        let wanted = (ails == Some(Ails::Dead), ails == Some(Ails::Gray));
        let changes = (machine.dead, machine.gray) != wanted;
        (machine.dead, machine.gray) = wanted;
        changes
    }

    fn passes(&mut self, seconds: i64, controller: Controller) {
        let works_before: Vec<BTreeSet<u64>> = (0..NODES.len()).map(|node| self.works_for(node)).collect();
        for _ in 0..seconds {
            self.world.state().tick(1);
            let state = self.world.state().clone();
            for node in &mut self.nodes {
                node.probes(&state);
            }
            for (index, node) in self.nodes.iter().enumerate() {
                if controller == Controller::HearsAll || controller == Controller::Hears(index) {
                    node.reports(NODES[index], &mut self.world.state());
                }
            }
            if controller != Controller::Away {
                self.controller_acts();
                let state = self.world.state().clone();
                // They see at once what has become of the list.
                self.nodes.iter_mut().for_each(|node| node.follows(&state));
            }
        }
        for (node, before) in works_before.iter().enumerate() {
            self.gives_up_only_without_a_way(node, seconds == LONG);
            if seconds == LONG {
                self.uses_what_works(node, before);
            }
        }
    }

    fn controller_acts(&self) {
        if let Some(decision) = self.world.next() {
            let _ = self.world.carry_out(&decision, None);
        }
    }

    /// Gateways of the list that work for this node.
    fn works_for(&self, node: usize) -> BTreeSet<u64> {
        let state = self.world.state();
        listed(&state).into_iter().filter(|id| self.nodes[node].gets_through(*id, &state)).collect()
    }

    /// What `onNoGateway` says comes into force when no gateway of its list works for a node, and not before; for certain when none has
    /// answered for long.
    fn gives_up_only_without_a_way(&self, node: usize, long: bool) {
        let state = self.world.state();
        let (name, node, listed) = (NODES[node], &self.nodes[node], listed(&state));
        let gives_up = node.watch.none_works(&listed);
        let works: Vec<&u64> = listed.iter().filter(|id| node.gets_through(**id, &state)).collect();
        assert!(!gives_up || works.is_empty(), "I4: {name} gives up beside {works:?}: {:?}", self.path);
        let answers = listed.iter().any(|id| node.reaches(*id, &state));
        assert!(gives_up || !long || answers, "I4: {name} has nobody of {listed:?}: {:?}", self.path);
    }

    /// Of those that worked for it before, one that works still and that no quorum took off the list is enough for it to use one that works.
    fn uses_what_works(&self, node: usize, before: &BTreeSet<u64>) {
        let state = self.world.state();
        let (name, node, listed) = (NODES[node], &self.nodes[node], listed(&state));
        let proven = state.status().gateways.into_iter().filter(|gateway| gateway.ready);
        let proven: Vec<u64> = proven.map(|gateway| u64::try_from(gateway.droplet_id).unwrap()).collect();
        let is_left = |id: &&u64| listed.contains(id) || proven.contains(id);
        let stayed: Vec<&u64> =
            before.iter().filter(is_left).filter(|id| node.gets_through(**id, &state)).collect();
        let works = node.uses.is_some_and(|used| node.gets_through(used, &state));
        assert!(
            stayed.is_empty() || works,
            "I6: {name} uses {:?} beside {stayed:?}: {:?}",
            node.uses,
            self.path
        );
    }

    fn check(&self) {
        let state = self.world.state();
        assert!(state.violations.is_empty(), "{:?} by {:?}", state.violations, self.path);
        let listed = listed(&state);
        assert!(!listed.is_empty(), "I6: no gateway is listed: {:?}", self.path);
        for (node, name) in self.nodes.iter().zip(NODES) {
            let used = node.uses.filter(|used| listed.contains(used));
            assert!(used.is_some(), "I4: {name} uses {:?} of {listed:?}: {:?}", node.uses, self.path);
        }
    }

    /// What of it is compared.
    fn looks(&self) -> u64 {
        let state = self.world.state();
        let mut hasher = DefaultHasher::new();
        let mut status = serde_json::to_value(state.status()).unwrap();
        status.as_object_mut().unwrap().remove("conditions");
        let since = |at: i64| (state.now - at).min(700);
        from_now(&mut status, &since);
        status.to_string().hash(&mut hasher);
        listed(&state).hash(&mut hasher);
        for (id, machine) in state.ours() {
            (id, machine.dead, machine.gray, state.answers_and_forwards(*id)).hash(&mut hasher);
        }
        for said in state.said.values() {
            let seen = said.gateways.iter().map(|view| {
                (view.address.clone(), view.reachable, view.forwards, view.expected_source, view.condemned)
            });
            (seen.collect::<Vec<_>>(), said.cut_off, since(said.heard)).hash(&mut hasher);
        }
        for node in &self.nodes {
            (node.uses, node.parted as u8, node.watch.none_works(&listed(&state))).hash(&mut hasher);
            for id in recorded(&state) {
                let standing = node.watch.standing(id, tick(&state));
                let levels = Level::ALL.map(|level| node.watch.works(id, level));
                (standing.verdict, standing.signal, levels, node.watch.is_condemned(id)).hash(&mut hasher);
            }
        }
        hasher.finish()
    }
}

// Times in a status, as how long ago they were.
fn from_now(value: &mut Value, since: &dyn Fn(i64) -> i64) {
    match value {
        Value::String(text) => {
            if let Ok(time) = text.parse::<jiff::Timestamp>() {
                *value = since(time.as_second()).into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| from_now(item, since)),
        Value::Object(fields) => fields.values_mut().for_each(|field| from_now(field, since)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

impl Node {
    fn gets_through(&self, id: u64, state: &State) -> bool {
        self.reaches(id, state) && state.answers_and_forwards(id).1
    }

    fn reaches(&self, id: u64, state: &State) -> bool {
        let is_parted = match self.parted {
            Parted::Nobody => false,
            Parted::Head => recorded(state).first() == Some(&id),
            Parted::Second => recorded(state).get(1) == Some(&id),
            Parted::All => true,
        };
        !is_parted && state.answers_and_forwards(id).0
    }

    /// One round of all probes, and the choice after it.
    fn probes(&mut self, state: &State) {
        let now = tick(state);
        let config = Config { interval: Duration::from_secs(1), ..Config::default() };
        let watched = recorded(state);
        let wanted = |id: &u64| (*id, Wanted::at_every_level(config.clone(), [TARGET], *id));
        self.watch.retain(&watched.iter().map(wanted).collect(), now);
        let mut ended: Vec<(u64, Probe<u64>)> = Vec::new();
        for id in &watched {
            let peer = watched.iter().copied().find(|peer| peer != id);
            for level in Level::ALL {
                let (witness, arrives) = match (level, peer) {
                    (Level::Reachability, _) => (*id, true),
                    (Level::Source, None) => continue,
                    (Level::Source, Some(peer)) => (peer, state.answers_and_forwards(peer).0),
                    (Level::Forwarding | Level::FullSize, _) => (TARGET, true),
                };
                let leads = level == Level::Reachability || state.answers_and_forwards(*id).1;
                let answered = self.reaches(*id, state) && leads && arrives;
                let outcome = if answered { Outcome::Answered } else { Outcome::Missed };
                ended.push((*id, Probe { level, witness, sent: now, outcome }));
            }
        }
        // That a probe is missed is known at its deadline, when those sent with it are long answered.
        ended.sort_by_key(|(_, probe)| probe.outcome == Outcome::Missed);
        for (id, probe) in ended {
            self.watch.on_probe(id, probe, now);
        }
        self.follows(state);
    }

    /// Chooses out of the list as it is.
    fn follows(&mut self, state: &State) {
        let candidates = self.watch.candidates(&listed(state), tick(state));
        self.uses = select(&candidates, self.uses).map(|choice| choice.gateway).or(self.uses);
    }

    /// Its report arrives. It is written anew when it changes, and again and again while it condemns, or gets no answer.
    fn reports(&self, name: &str, state: &mut State) {
        let view = |id: u64| GatewayObservation {
            address: private(id),
            reachable: self.watch.works(id, Level::Reachability) == Some(true),
            forwards: self.watch.works(id, Level::Forwarding),
            expected_source: self.watch.works(id, Level::Source),
            full_size: self.watch.works(id, Level::FullSize),
            condemned: self.watch.is_condemned(id),
            ..GatewayObservation::default()
        };
        let neighbours = [if self.parted == Parted::All { Outcome::Missed } else { Outcome::Answered }];
        let mut said = Said {
            gateways: recorded(state).into_iter().map(view).collect(),
            cut_off: is_cut_off(self.watch.all_silent(), &neighbours),
            heard: state.now,
        };
        let renews = said.gateways.iter().any(|view| view.condemned || !view.reachable);
        if let Some(before) = state.said.get(name).filter(|_| !renews) {
            let is_news = before.gateways != said.gateways || before.cut_off != said.cut_off;
            said.heard = if is_news { said.heard } else { before.heard };
        }
        state.said.insert(name.to_owned(), said);
    }
}

fn tick(state: &State) -> Tick {
    Tick::from_millis(u64::try_from(state.now).unwrap() * 1_000)
}

fn recorded(state: &State) -> Vec<u64> {
    let with_address = state.status().gateways.into_iter().filter(|one| one.private_address.is_some());
    with_address.map(|gateway| u64::try_from(gateway.droplet_id).unwrap()).collect()
}

fn listed(state: &State) -> Vec<u64> {
    let entries = state.route.as_ref().map(|route| route.spec.ordered_gateways()).unwrap_or_default();
    entries.iter().map(|entry| entry.address.0.rsplit('.').next().unwrap().parse().unwrap()).collect()
}

/// How far it went.
#[derive(Debug)]
struct Explored {
    /// Situations that do not look alike.
    situations: usize,
    /// Events tried in them.
    tried: usize,
    /// Situations in which a gateway has been replaced.
    replaced: usize,
}

fn explore(depth: usize) -> Explored {
    let first = Situation::first();
    let mut known = BTreeSet::from([first.looks()]);
    let mut edge = vec![first];
    let (mut tried, mut replaced) = (0, 0);
    for level in 1..=depth {
        let led_on = level < depth;
        let mut next = Vec::new();
        for found in on_all_cores(&edge, |part| expand(part, &known, led_on)) {
            tried += found.tried;
            // As one core would have gone: of those that look alike the first stands for all.
            for (looks, was_replaced, situation) in found.new {
                if known.insert(looks) {
                    replaced += usize::from(was_replaced);
                    next.extend(situation);
                }
            }
        }
        edge = next;
    }
    Explored { situations: known.len(), tried, replaced }
}

/// Calls `work` with an equal part of `edge` on each core; what it gave, in the order of the parts.
fn on_all_cores<T: Send>(edge: &[Situation], work: impl Fn(&[Situation]) -> T + Sync) -> Vec<T> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let parts = edge.chunks(edge.len().div_ceil(cores).max(1));
        let started: Vec<_> = parts.map(|part| scope.spawn(|| work(part))).collect();
        let ended = started.into_iter().map(std::thread::ScopedJoinHandle::join);
        ended.map(|end| end.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

/// What every event in every situation of a part leads to.
#[derive(Default)]
struct Found {
    tried: usize,
    /// Those that do not look like any before, in the order they were come to: their looks, whether a gateway has been replaced,
    /// and, if they are to be led on, they themselves.
    new: Vec<(u64, bool, Option<Situation>)>,
}

fn expand(part: &[Situation], known: &BTreeSet<u64>, led_on: bool) -> Found {
    let (events, mut found, mut seen) = (events(), Found::default(), BTreeSet::new());
    for situation in part {
        for event in &events {
            let mut after = situation.fork();
            if !after.happens(*event) {
                continue;
            }
            found.tried += 1;
            after.check();
            let looks = after.looks();
            if !known.contains(&looks) && seen.insert(looks) {
                let was_replaced = after.world.state().status().last_replacement.is_some();
                found.new.push((looks, was_replaced, led_on.then_some(after)));
            }
        }
    }
    found
}

/// A quorum decides for all, be it wrong for a few: `docs/repair.md` says so.
#[test]
fn who_gets_through_nothing_but_what_a_quorum_took_off_the_list_is_without_a_gateway() {
    let mut situation = Situation::first();
    for event in [
        Event::Parts(0, Parted::Head),
        Event::Parts(1, Parted::Head),
        Event::Parts(2, Parted::Second),
        Event::Passes(SHORT, Controller::HearsAll),
        Event::Passes(SHORT, Controller::HearsAll),
    ] {
        assert!(situation.happens(event));
        situation.check();
    }
    let state = situation.world.state();
    let ways = situation.nodes.each_ref().map(|node| node.uses.map(|used| node.gets_through(used, &state)));
    assert_eq!(ways, [Some(true), Some(true), Some(false)], "{:#?}", state.journal);
}

/// What the exploration found once, beyond the depth to which every run of the tests goes.
#[test]
fn the_newcomer_stays_while_a_node_complains_of_one_of_those_that_count_as_proven() {
    for (gray, dead) in [(0, 1), (1, 0)] {
        let mut situation = Situation::first();
        for event in [
            Event::Fails(gray, Ails::Gray),
            Event::Passes(SHORT, Controller::Hears(0)),
            Event::Fails(dead, Ails::Dead),
            // The word of the first one grows old.
            Event::Passes(LONG, Controller::Hears(1)),
            Event::Passes(LONG, Controller::HearsAll),
        ] {
            situation.happens(event);
            situation.check();
        }
    }
}

/// What the check of deletions looks for would be there if one were enough.
#[test]
fn the_word_of_one_node_against_a_gateway_that_works_deletes_nothing_and_that_of_two_does() {
    for (nodes, stays) in [(1, true), (2, false)] {
        let mut situation = Situation::first();
        let head = recorded(&situation.world.state())[0];
        for node in 0..nodes {
            situation.happens(Event::Parts(node, Parted::Head));
        }
        for _ in 0..4 {
            situation.happens(Event::Passes(LONG, Controller::HearsAll));
            situation.check();
        }
        let state = situation.world.state();
        assert_eq!(state.ours().iter().any(|(id, _)| **id == head), stays, "{nodes}: {:#?}", state.journal);
    }
}

#[test]
fn one_node_that_complains_chooses_nobody_to_leave() {
    let mut situation = Situation::first();
    let standby = recorded(&situation.world.state())[1];
    let ours = |situation: &Situation| situation.world.state().ours().len();
    situation.happens(Event::Parts(0, Parted::Second));
    situation.happens(Event::Passes(LONG, Controller::HearsAll));
    // The others leave the head for the standby; it works again when its successor is on its way.
    situation.happens(Event::Fails(0, Ails::Gray));
    for _ in 0..LONG {
        if ours(&situation) < 3 {
            situation.happens(Event::Passes(1, Controller::HearsAll));
        }
    }
    assert_eq!(ours(&situation), 3, "{:#?}", situation.world.state().journal);
    situation.happens(Event::Heals(0));
    for _ in 0..8 {
        situation.happens(Event::Passes(LONG, Controller::HearsAll));
        situation.check();
        let state = situation.world.state();
        assert!(state.ours().iter().any(|(id, _)| **id == standby), "{:#?}", state.journal);
    }
    assert_eq!(ours(&situation), 2);
}

/// Every run tries a few events in a row; `EXPLORATION_DEPTH` goes deeper, as the suite `exploration` of `make test-exhaustive` does.
#[test]
fn every_order_of_events_to_a_depth_breaks_no_invariant() {
    let wanted = env::var("EXPLORATION_DEPTH").ok().map(|depth| depth.parse().unwrap());
    let (depth, start) = (wanted.unwrap_or(SAMPLE), Instant::now());
    let explored = explore(depth);
    let Explored { situations, tried, replaced } = explored;
    let seconds = start.elapsed().as_secs();
    println!(
        "depth {depth}: {situations} situations, {replaced} with a replacement, {tried} events tried, {seconds} s"
    );
    assert!(
        situations > 100 && replaced > 0,
        "{situations} situations, {replaced} with a replacement, show nothing"
    );
}
