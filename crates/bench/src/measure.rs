//! The order in which one program is measured, and its part of the report.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};
use testkit::ApiServer;
use tokio::runtime::Runtime;

use crate::api::{Api, Shape};
use crate::apply::{self, destinations};
use crate::interruption;
use crate::kernel::Kernel;
use crate::network::{A, NODE_PUBLIC, NODE_VPC, Network};
use crate::numbers::{Samples, rounded};
use crate::subject::{NODE, Running, Subject};
use crate::switch::Watch;

/// The largest list that a StaticRoute may have.
const MOST: usize = 10_000;
/// The list that people really have: the older operator's users spoke of 2,000 ranges.
const MANY: usize = 2_000;
/// Both gateways have answered often enough by then to be up.
const KNOWN: Duration = Duration::from_secs(1);
/// Any program has settled by then.
const DEADLINE: Duration = Duration::from_secs(120);

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Sizes and how often each is made and deleted.
    sizes: &'static [(usize, usize)],
    /// How long processor time is taken.
    quiet: Duration,
    /// Size of the list that stays while memory, processor time, switches and restarts are measured.
    held: usize,
    /// Switches and restarts.
    repeats: usize,
    /// Pause between two samples: what a program does after the last route (its report, its events) is not to be in the next.
    rest: Duration,
    /// Most repeats of a size with another program, which may take minutes for each.
    peer_repeats: usize,
}

impl Effort {
    /// For numbers to be published.
    pub const FULL: Self = Self {
        sizes: &[(1, 21), (100, 15), (MANY, 11), (MOST, 9)],
        quiet: Duration::from_secs(60),
        held: MOST,
        repeats: 9,
        rest: Duration::from_millis(700),
        peer_repeats: 3,
    };
    /// To see that all of it works.
    pub const SHORT: Self = Self {
        sizes: &[(1, 1), (100, 1)],
        quiet: Duration::from_millis(200),
        held: 100,
        repeats: 1,
        rest: Duration::from_millis(60),
        peer_repeats: 1,
    };
}

/// Everything that measuring needs.
pub struct Bench<'a> {
    api: Api<'a>,
    kernel: Kernel,
    network: &'a Network,
    effort: Effort,
}

impl<'a> Bench<'a> {
    /// On the node of the calling thread.
    pub fn new(
        runtime: &'a Runtime,
        server: &'a ApiServer,
        network: &'a Network,
        effort: Effort,
    ) -> anyhow::Result<Self> {
        let api = Api::new(runtime, server)?;
        api.add_node(NODE, NODE_VPC, NODE_PUBLIC)?;
        Ok(Self { api, kernel: Kernel::open()?, network, effort })
    }

    /// Measures one program and leaves nothing of it behind; with `only`, nothing but the time of that many destinations.
    pub fn measure(&mut self, subject: &Subject, only: Option<usize>) -> anyhow::Result<Value> {
        let mut running = subject.start()?;
        let outcome = match only {
            Some(count) => self.only(subject, &mut running, count),
            None => self.everything(subject, &mut running),
        };
        if outcome.is_err() {
            eprintln!("its last words:\n{}", running.last_words());
        }
        let (report, running) = (outcome?, running);
        running.terminate()?;
        self.api.clear()?;
        Ok(report)
    }

    fn only(&mut self, subject: &Subject, running: &mut Running, count: usize) -> anyhow::Result<Value> {
        let (api, rest) = (&self.api, self.effort.rest);
        let times =
            apply::measure(api, &mut self.kernel, running, subject.table, count, self.effort.repeats, rest)?;
        let key = count.to_string();
        Ok(json!({"apply_ms": {&key: times.apply.summary()}, "delete_ms": {&key: times.delete.summary()},
            "raw": {"apply_ms": {&key: times.apply.raw()}, "delete_ms": {&key: times.delete.raw()}}}))
    }

    fn everything(&mut self, subject: &Subject, running: &mut Running) -> anyhow::Result<Value> {
        let mut report = Map::new();
        let mut raw = Map::new();

        // Measured first: what a list leaves behind in an allocator is no idle state.
        interruption::sleep(self.effort.quiet.min(Duration::from_secs(10)))?;
        let idle = running.memory()?;
        self.sizes(subject, running, &mut report, &mut raw)?;
        report.insert("kubectl_ms".to_owned(), self.kubectl()?.summary());
        let (writes, by_resource) = self.writes(subject)?;
        report.insert("api_writes_per_change".to_owned(), writes.summary());
        raw.insert("api_writes".to_owned(), by_resource);

        let shape = if subject.is_agent { Shape::Pair } else { Shape::Bare };
        let size = self.effort.held.to_string();
        let mut processor = Map::new();
        processor.insert("1".to_owned(), self.processor_share(subject, running, 1, shape)?);
        processor.insert(size.clone(), self.processor_share(subject, running, self.effort.held, shape)?);
        // Left there by the last one.
        let full = running.memory()?;
        report.insert("cpu_idle_percent".to_owned(), processor["1"].clone());
        report.insert("cpu_percent".to_owned(), processor.into());
        report.insert("rss_mib".to_owned(), json!({"idle": rounded(idle[0]), &size: rounded(full[0])}));
        report.insert("anonymous_mib".to_owned(), json!({"idle": rounded(idle[1]), &size: rounded(full[1])}));
        report.insert("peak_rss_mib".to_owned(), json!(rounded(full[2])));
        self.api.delete(&held(self.effort.held))?;
        self.kernel.until_gone(subject.table, &destinations(self.effort.held), A, DEADLINE)?;
        self.rest()?;

        if subject.is_agent {
            self.switches(subject, &mut report, &mut raw)?;
            self.restarts(subject, running, &mut report, &mut raw)?;
        }
        report.insert("raw".to_owned(), raw.into());
        Ok(report.into())
    }

    fn rest(&self) -> anyhow::Result<()> {
        interruption::sleep(self.effort.rest)
    }

    fn sizes(
        &mut self,
        subject: &Subject,
        running: &mut Running,
        report: &mut Map<String, Value>,
        raw: &mut Map<String, Value>,
    ) -> anyhow::Result<()> {
        let (mut apply, mut delete, mut server, mut failed) = (Map::new(), Map::new(), Map::new(), 0);
        let (mut apply_raw, mut delete_raw, mut server_raw) = (Map::new(), Map::new(), Map::new());
        for (count, repeats) in self.effort.sizes {
            let repeats = if subject.is_agent { *repeats } else { (*repeats).min(self.effort.peer_repeats) };
            let times = apply::measure(
                &self.api,
                &mut self.kernel,
                running,
                subject.table,
                *count,
                repeats,
                self.effort.rest,
            )?;
            eprintln!("  {count} destinations: {:.1?} ms", times.apply.median());
            let key = || count.to_string();
            apply.insert(key(), times.apply.summary());
            apply_raw.insert(key(), times.apply.raw());
            delete.insert(key(), times.delete.summary());
            delete_raw.insert(key(), times.delete.raw());
            server.insert(key(), times.server.summary());
            server_raw.insert(key(), times.server.raw());
            failed += times.failed;
        }
        report.insert("apply_ms".to_owned(), apply.into());
        report.insert("delete_ms".to_owned(), delete.into());
        report.insert("server_ms".to_owned(), server.into());
        report.insert("not_applied_in_time".to_owned(), failed.into());
        raw.insert("apply_ms".to_owned(), apply_raw.into());
        raw.insert("delete_ms".to_owned(), delete_raw.into());
        raw.insert("server_ms".to_owned(), server_raw.into());
        Ok(())
    }

    /// What a user waits for `kubectl create` of the largest list, whatever the program under test does.
    fn kubectl(&mut self) -> anyhow::Result<Samples> {
        let destinations = destinations(self.effort.held);
        let mut samples = Samples::default();
        samples.push_time(self.api.kubectl_create("by-hand", &destinations)?);
        self.api.delete("by-hand")?;
        self.rest()?;
        self.rest()?;
        Ok(samples)
    }

    /// Writes that a create, an edit and a delete bring about, the harness's own not counted.
    fn writes(&mut self, subject: &Subject) -> anyhow::Result<(Samples, Value)> {
        let list = destinations(self.effort.held.min(MANY));
        let mut samples = Samples::default();
        let mut each = Map::new();
        for change in ["create", "edit", "delete"] {
            let before = self.api.writes()?;
            match change {
                "create" => self.api.create("counted", &list[1..], Shape::Bare)?,
                "edit" => self.api.edit("counted", &list, Shape::Bare)?,
                _ => self.api.delete("counted")?,
            };
            if change == "delete" {
                self.kernel.until_gone(subject.table, &list, A, DEADLINE)?;
            } else {
                self.kernel.until_routed(subject.table, &list[1..], A, DEADLINE)?;
            }
            let caused = self.until_quiet(before)?;
            samples.push(caused.values().sum());
            each.insert(change.to_owned(), json!(caused));
        }
        Ok((samples, each.into()))
    }

    /// Waits until the program writes no more: its share of the writes since `before`.
    fn until_quiet(&self, before: BTreeMap<String, f64>) -> anyhow::Result<BTreeMap<String, f64>> {
        let mut last = self.api.writes()?;
        loop {
            self.rest()?;
            self.rest()?;
            let now = self.api.writes()?;
            if now == last {
                break;
            }
            last = now;
        }
        let mut caused = last;
        for (resource, count) in before {
            *caused.entry(resource).or_default() -= count;
        }
        // The harness's own.
        *caused.entry("staticroutes".to_owned()).or_default() -= 1.0;
        caused.retain(|_, count| *count > 0.0);
        Ok(caused)
    }

    /// Percent of one core with so many destinations and nothing happening. Leaves its StaticRoute behind.
    fn processor_share(
        &mut self,
        subject: &Subject,
        running: &Running,
        count: usize,
        shape: Shape,
    ) -> anyhow::Result<Value> {
        let list = destinations(count);
        if count > 1 {
            self.api.delete(&held(1))?;
            self.kernel.until_gone(subject.table, &destinations(1), A, DEADLINE)?;
        }
        self.api.create(&held(count), &list, shape)?;
        self.kernel.until_routed(subject.table, &list, A, DEADLINE)?;
        self.rest()?;
        self.rest()?;
        let before = running.processor_time()?;
        interruption::sleep(self.effort.quiet)?;
        let took = running.processor_time()?.saturating_sub(before);
        Ok(json!(rounded(took.as_secs_f64() / self.effort.quiet.as_secs_f64() * 100.0)))
    }

    fn switches(
        &mut self,
        subject: &Subject,
        report: &mut Map<String, Value>,
        raw: &mut Map<String, Value>,
    ) -> anyhow::Result<()> {
        let mut watch = Watch::start(self.network)?;
        let mut from_miss = Samples::default();
        for (key, count) in [("switch_ms_of_one", 1), ("switch_ms", self.effort.held)] {
            let list = destinations(count);
            let mut from_verdict = Samples::default();
            for repeat in 0..self.effort.repeats {
                // A new object each time: a gateway that was left is returned to ever more rarely.
                let name = format!("switched-{count}-{repeat}");
                self.api.create(&name, &list, Shape::Pair)?;
                self.kernel.until_routed(subject.table, &list, A, DEADLINE)?;
                interruption::sleep(KNOWN)?;
                let switch = watch.measure(self.network)?;
                from_verdict.push_time(switch.after_verdict);
                from_miss.push_time(switch.after_first_miss);
                self.api.delete(&name)?;
                self.kernel.until_gone(subject.table, &list, A, DEADLINE)?;
                self.rest()?;
            }
            eprintln!("  switch of {count}: {:.2?} ms", from_verdict.median());
            report.insert(key.to_owned(), from_verdict.summary());
            raw.insert(key.to_owned(), from_verdict.raw());
        }
        report.insert("first_miss_to_switch_ms".to_owned(), from_miss.summary());
        raw.insert("first_miss_to_switch_ms".to_owned(), from_miss.raw());
        Ok(())
    }

    /// From the start of the process until it says that the kernel holds its plan, with everything in place already.
    fn restarts(
        &mut self,
        subject: &Subject,
        running: &mut Running,
        report: &mut Map<String, Value>,
        raw: &mut Map<String, Value>,
    ) -> anyhow::Result<()> {
        let list = destinations(self.effort.held);
        self.api.create("restarted", &list, Shape::Pair)?;
        self.kernel.until_routed(subject.table, &list, A, DEADLINE)?;
        let mut samples = Samples::default();
        for _ in 0..self.effort.repeats {
            self.rest()?;
            running.stop()?;
            *running = subject.start()?;
            samples.push_time(running.ready_after);
        }
        self.api.delete("restarted")?;
        self.kernel.until_gone(subject.table, &list, A, DEADLINE)?;
        eprintln!("  restart: {:.1?} ms", samples.median());
        report.insert("restart_ms".to_owned(), samples.summary());
        raw.insert("restart_ms".to_owned(), samples.raw());
        Ok(())
    }
}

/// Name of the StaticRoute that stays while nothing happens.
fn held(count: usize) -> String {
    format!("held-{count}")
}
