//! Several pairs at a time: each on a thread of its own, in a world of its own.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::Context;
use testkit::ApiServer;

use super::fault::Fault;
use super::kill::{self, Kill};
use super::pair::{Pair, Profile};
use super::planned::{self, Planned};
use super::record::Record;
use super::soak::{self, Soak};
use super::world::World;
use crate::interruption;

/// Time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// What is measured, and with how many.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The agent.
    pub agent: PathBuf,
    /// How gateways are probed.
    pub profile: Profile,
    /// Whether the control plane stands still while it is measured.
    pub control_plane_stops: bool,
    /// What gateways suffer.
    pub faults: Vec<Fault>,
    /// Pairs at a time.
    pub pairs: usize,
    /// Nodes of each.
    pub nodes: u8,
    /// Seed of moments and kinds.
    pub seed: u64,
}

/// Kills until the record has so many.
pub fn kills(plan: &Plan, wanted: usize, record: &mut Record) -> anyhow::Result<()> {
    let missing = wanted.saturating_sub(record.kills.len());
    let begun = AtomicUsize::new(0);
    let deck = Deck::new(plan);
    let (sender, results) = mpsc::channel::<Kill>();
    let course = |number: usize, pair: &mut Pair<'_>, stop: &AtomicBool| {
        let mut random = fastrand::Rng::with_seed(plan.seed.wrapping_add(number as u64));
        while begun.fetch_add(1, Ordering::Relaxed) < missing && !stop.load(Ordering::Relaxed) {
            let measured = kill::measure(pair, deck.draw(), &mut random)?;
            let measured = Kill { seed: plan.seed, pair: number, pairs: plan.pairs, ..measured };
            // Who listens goes only after this thread.
            let _told = sender.send(measured);
        }
        Ok(())
    };
    if missing == 0 {
        return Ok(());
    }
    let mut said = Instant::now();
    each_pair(plan, course, || {
        for kill in results.try_iter() {
            record.add(kill)?;
        }
        if said.elapsed() > PROGRESS {
            said = Instant::now();
            eprintln!("{} of {wanted} kills", record.kills.len());
        }
        Ok(())
    })
    .map(drop)
}

/// So many planned switches, all pairs together.
pub fn planned(plan: &Plan, switches: u32) -> anyhow::Result<Planned> {
    let begun = AtomicU32::new(0);
    let course = |_, pair: &mut Pair<'_>, stop: &AtomicBool| {
        let more = || begun.fetch_add(1, Ordering::Relaxed) < switches && !stop.load(Ordering::Relaxed);
        planned::measure(pair, more)
    };
    let mut all = Planned::default();
    each_pair(plan, course, || Ok(()))?.into_iter().for_each(|one| all.add(one));
    Ok(all)
}

/// A soak of every pair.
pub fn soak(plan: &Plan, time: Duration) -> anyhow::Result<Vec<Soak>> {
    each_pair(plan, |_, pair, stop| soak::measure(pair, time, stop), || Ok(()))
}

/// Faults in a random order, each as often as the others.
struct Deck {
    faults: Vec<Fault>,
    left: Mutex<(fastrand::Rng, Vec<Fault>)>,
}

impl Deck {
    fn new(plan: &Plan) -> Self {
        let random = fastrand::Rng::with_seed(plan.seed);
        Self { faults: plan.faults.clone(), left: Mutex::new((random, Vec::new())) }
    }

    fn draw(&self) -> Fault {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let (random, faults) = &mut *left;
        if faults.is_empty() {
            faults.extend(&self.faults);
            random.shuffle(faults);
        }
        faults.pop().unwrap_or(Fault::PowerOff)
    }
}

/// Starts all pairs, lets each take its course when all are there, and does something else meanwhile.
///
/// The first error ends all of them, and so does Ctrl-C, after the measurement under way.
fn each_pair<T: Send>(
    plan: &Plan,
    course: impl Fn(usize, &mut Pair<'_>, &AtomicBool) -> anyhow::Result<T> + Sync,
    mut meanwhile: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<T>> {
    let stop = AtomicBool::new(false);
    let (started, starts) = mpsc::channel();
    std::thread::scope(|scope| {
        let (mut threads, mut go) = (Vec::new(), Vec::new());
        for number in 0..plan.pairs {
            let (sender, receiver) = mpsc::channel();
            go.push(sender);
            let (started, stop, course) = (started.clone(), &stop, &course);
            threads.push(scope.spawn(move || {
                let outcome = live(plan, number, &started, &receiver, |pair| course(number, pair, stop));
                if outcome.is_err() {
                    stop.store(true, Ordering::Relaxed);
                    // Nobody listens any more when it had started.
                    let _told = started.send(false);
                }
                outcome
            }));
        }
        drop(started);
        // When one does not start, all the others go home.
        let all_started = starts.iter().take(plan.pairs).all(|has_started| has_started);
        if all_started {
            eprintln!("{} pairs of {} nodes run", plan.pairs, plan.nodes);
            // One that is gone has an error to tell below.
            for go in &go {
                let _told = go.send(());
            }
        }
        drop(go);
        let mut outcome = Ok(());
        while threads.iter().any(|thread| !thread.is_finished()) {
            if outcome.is_ok() {
                outcome = meanwhile();
            }
            if outcome.is_err() || interruption::is_wanted() {
                stop.store(true, Ordering::Relaxed);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        if outcome.is_ok() {
            outcome = meanwhile();
        }
        let mut results = Vec::new();
        let mut errors = Vec::new();
        for thread in threads {
            match thread.join().map_err(|_| anyhow::anyhow!("a pair's thread died")).and_then(|result| result)
            {
                Ok(result) => results.extend(result),
                Err(error) => errors.push(error),
            }
        }
        outcome?;
        errors.into_iter().next().map_or(Ok(results), Err)
    })
}

/// One pair's life. `None` when it was sent home before it could begin.
fn live<T>(
    plan: &Plan,
    number: usize,
    started: &mpsc::Sender<bool>,
    go: &mpsc::Receiver<()>,
    course: impl FnOnce(&mut Pair<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<Option<T>> {
    let mut world = World::new(number, plan.nodes)?;
    world.control.enter()?;
    // Current-thread: every socket is made on this thread, hence beside the API server.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _entered = runtime.enter();
    let server = runtime.block_on(interruption::or(ApiServer::start()))?;
    let mut pair = Pair::start(&mut world, &runtime, &server, &plan.agent, plan.profile)
        .with_context(|| format!("pair {number} does not start"))?;
    if plan.control_plane_stops {
        pair.stop_control_plane()?;
    }
    // Whoever waits for it has gone only when it was told of an error.
    let _told = started.send(true);
    if go.recv().is_err() {
        return Ok(None);
    }
    course(&mut pair).map(Some)
}
