//! One life: a scenario, with what happens to its controllers.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use testkit::memory_api::Lens;

use crate::gate::Moment;
use crate::outcome::outcome;
use crate::process::Process;
use crate::scenarios::{Scenario, ask_for, is_whole};
use crate::world::World;

/// How far all are driven before the others' turn. Machines and nodes look about every second.
const TICK: Duration = Duration::from_millis(250);

/// It is over when nothing was changed for so long: longer than a new leader needs to come, look and act.
const QUIET: Duration = Duration::from_secs(45);

/// A dead process is started again after this.
const RESTART: Duration = Duration::from_secs(1);

/// Nothing takes longer, two waits for a create's outcome and a replacement after ten minutes included.
const PATIENCE: Duration = Duration::from_secs(1800);

/// How a life ended.
pub struct Ended {
    /// What is compared; or why it did not come to rest.
    pub outcome: Result<Value, String>,
    /// Every changing call of all its controllers.
    pub calls: Vec<String>,
    pub violations: Vec<String>,
    /// Changing calls that left a process while another had the lease.
    pub stale: Vec<String>,
    /// How long nobody led after a controller was told to end.
    pub handed_over: Option<Duration>,
}

/// The world as a scenario begins: whoever led before has given the lease back.
pub fn prepared(scenario: &Scenario) -> World {
    let world = World::new();
    if scenario.before > 0 {
        ask_for(&world, scenario.before, scenario.public_ip);
        let mut life = Life::new(world.clone(), 1);
        life.lead(|world| is_whole(world, scenario.before)).unwrap();
        life.end();
    }
    world.fork()
}

/// What one life is like, besides its scenario.
#[derive(Default)]
pub struct Course<'a> {
    /// What happens to a controller at which of the changing calls.
    pub plan: &'a [(usize, Moment)],
    /// How watches see the world.
    pub lens: Option<Lens>,
    /// Whether a second controller stands by, and whoever was stopped wakes up when all is done.
    pub two: bool,
}

/// Leads a copy of that world to the scenario's end.
pub fn run(scenario: &Scenario, prepared: &World, course: Course<'_>) -> Ended {
    let world = prepared.fork();
    let mut life = Life::new(world.clone(), if course.two { 2 } else { 1 });
    life.settle();
    world.begin(course.plan, course.lens);
    (scenario.act)(&world);
    let mut led = life.lead(scenario.is_over);
    if course.two && life.wake() {
        led = led.and_then(|()| life.lead(scenario.is_over));
    }
    let outcome = led.map(|()| outcome(&world));
    let state = world.state();
    let (calls, violations) = (state.calls.clone(), state.violations.clone());
    Ended { outcome, calls, violations, stale: life.stale(), handed_over: life.handed_over }
}

/// Controllers in a world.
pub struct Life {
    pub world: World,
    now: Timestamp,
    processes: Vec<(Timestamp, Option<Process>)>,
    started: usize,
    stale: Vec<String>,
    told_to_end: Option<(Timestamp, String)>,
    pub handed_over: Option<Duration>,
}

impl Life {
    pub fn new(world: World, processes: usize) -> Self {
        // Whole seconds, in which machines and nodes look about.
        let now = Timestamp::from_second(world.now().as_second() + 1).unwrap();
        world.reached(now);
        Self {
            world,
            now,
            processes: (0..processes).map(|_| (now, None)).collect(),
            started: 0,
            stale: Vec::new(),
            told_to_end: None,
            handed_over: None,
        }
    }

    /// Until one leads and has had a look.
    pub fn settle(&mut self) {
        for _ in 0..ticks(Duration::from_secs(8)) {
            self.tick();
        }
    }

    /// Until the end has come and nothing was changed for a while since.
    pub fn lead(&mut self, is_over: impl Fn(&World) -> bool) -> Result<(), String> {
        let deadline = self.now + PATIENCE;
        self.world.state().last_call = self.now;
        while self.now < deadline {
            self.tick();
            let quiet = self.world.state().last_call + QUIET <= self.now;
            if quiet && is_over(&self.world) {
                return Ok(());
            }
        }
        Err(format!("no rest after {PATIENCE:?}: {:#?}", self.world.status()))
    }

    pub fn tick(&mut self) {
        self.now += TICK;
        for (start, process) in &mut self.processes {
            if process.is_none() && *start <= self.now {
                self.started += 1;
                *process = Some(Process::start(&self.world, &format!("controller-{}", self.started)));
            }
            let Some(running) = process.as_mut().filter(|running| !running.gate.is_stopped()) else {
                continue;
            };
            running.drive(self.now);
            if running.gate.shutdown.is_cancelled() && self.told_to_end.is_none() {
                self.told_to_end = Some((self.now, running.gate.name.clone()));
            }
            if running.gate.is_dead() || running.has_ended() {
                self.stale.append(&mut running.gate.stale.lock().unwrap());
                (*start, *process) = (self.now + RESTART, None);
            }
        }
        self.world.reached(self.now);
        if self.now.subsec_millisecond() == 0 {
            self.world.pass(self.now);
        }
        if let Some((told, name)) = &self.told_to_end
            && self.handed_over.is_none()
            && self.world.leader().is_some_and(|leader| leader != *name)
        {
            self.handed_over = Duration::try_from(self.now.duration_since(*told)).ok();
        }
    }

    /// Whoever was stopped goes on; whether anybody was.
    pub fn wake(&mut self) -> bool {
        let stopped = || {
            self.processes
                .iter()
                .filter_map(|(_, process)| process.as_ref())
                .filter(|process| process.gate.is_stopped())
        };
        let any = stopped().next().is_some();
        for process in stopped() {
            process.wake(self.now);
        }
        any
    }

    /// Tells the leader to end.
    pub fn terminate_leader(&self) {
        let leader = self.world.leader();
        let processes = self.processes.iter().filter_map(|(_, process)| process.as_ref());
        processes.filter(|process| Some(&process.gate.name) == leader.as_ref()).for_each(Process::terminate);
    }

    fn stale(&mut self) -> Vec<String> {
        for process in self.processes.iter().filter_map(|(_, process)| process.as_ref()) {
            self.stale.append(&mut process.gate.stale.lock().unwrap());
        }
        std::mem::take(&mut self.stale)
    }

    /// All are told to end, and do.
    pub fn end(mut self) {
        for (_, process) in &self.processes {
            process.iter().for_each(Process::terminate);
        }
        for _ in 0..ticks(Duration::from_secs(5)) {
            self.now += TICK;
            for process in self.processes.iter().filter_map(|(_, process)| process.as_ref()) {
                process.drive(self.now);
            }
        }
        self.world.pass(self.now);
    }
}

fn ticks(span: Duration) -> u128 {
    span.as_millis() / TICK.as_millis()
}
