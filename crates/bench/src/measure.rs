//! The order in which one program is measured, and its part of the report.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Map, Value, json};
use testkit::ApiServer;
use tokio::runtime::Runtime;

use crate::api::{Api, Shape};
use crate::apply::{self, destinations};
use crate::effort::{Effort, MANY};
use crate::kernel::Kernel;
use crate::network::{A, NODE_PUBLIC, NODE_VPC, Network};
use crate::numbers::Samples;
use crate::rest::AtRest;
use crate::subject::{NODE, Running, Subject};
use crate::switch::Watch;
use crate::{Only, interruption};

/// Both gateways have answered often enough by then to be up.
const KNOWN: Duration = Duration::from_secs(1);
/// Any program has settled by then.
const DEADLINE: Duration = Duration::from_secs(120);

/// Everything that measuring needs.
pub struct Bench<'a> {
    api: Api<'a>,
    kernel: Kernel,
    network: &'a Network,
    effort: Effort,
    /// StaticRoutes that were held.
    made: usize,
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
        Ok(Self { api, kernel: Kernel::open()?, network, effort, made: 0 })
    }

    /// Measures one program, or a part of it, and leaves nothing of it behind.
    pub fn measure(&mut self, subject: &Subject, only: Option<Only>) -> anyhow::Result<Value> {
        let mut report = json!({"raw": {}});
        if only != Some(Only::Idle) {
            report = self.in_one_process(subject, |bench, running| match only {
                Some(Only::Destinations(count)) => bench.only(subject, running, count),
                _ => bench.at_work(subject, running),
            })?;
        }
        if !matches!(only, Some(Only::Destinations(_))) {
            self.at_rest(subject, &mut report)?;
        }
        self.api.clear()?;
        Ok(report)
    }

    /// Starts the program, does something with it, and ends it.
    fn in_one_process<T>(
        &mut self,
        subject: &Subject,
        what: impl FnOnce(&mut Self, &mut Running) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut running = subject.start()?;
        let outcome = what(self, &mut running);
        if outcome.is_err() {
            eprintln!("its last words:\n{}", running.last_words());
        }
        let (outcome, running) = (outcome?, running);
        running.terminate()?;
        Ok(outcome)
    }

    fn only(&mut self, subject: &Subject, running: &mut Running, count: usize) -> anyhow::Result<Value> {
        let (api, rest) = (&self.api, self.effort.rest);
        let times =
            apply::measure(api, &mut self.kernel, running, subject.table, count, self.effort.repeats, rest)?;
        let key = count.to_string();
        Ok(json!({"apply_ms": {&key: times.apply.summary()}, "delete_ms": {&key: times.delete.summary()},
            "raw": {"apply_ms": {&key: times.apply.raw()}, "delete_ms": {&key: times.delete.raw()}}}))
    }

    /// All that has to do with changes.
    fn at_work(&mut self, subject: &Subject, running: &mut Running) -> anyhow::Result<Value> {
        let mut report = Map::new();
        let mut raw = Map::new();
        self.sizes(subject, running, &mut report, &mut raw)?;
        report.insert("kubectl_ms".to_owned(), self.kubectl()?.summary());
        let (writes, by_resource) = self.writes(subject)?;
        report.insert("api_writes_per_change".to_owned(), writes.summary());
        raw.insert("api_writes".to_owned(), by_resource);
        if subject.is_agent {
            self.switches(subject, &mut report, &mut raw)?;
            self.restarts(subject, running, &mut report, &mut raw)?;
        }
        report.insert("raw".to_owned(), raw.into());
        Ok(report.into())
    }

    /// Memory and processor while nothing changes, in some processes one after the other.
    fn at_rest(&mut self, subject: &Subject, report: &mut Value) -> anyhow::Result<()> {
        let mut rest = AtRest::default();
        for _ in 0..self.effort.processes {
            self.in_one_process(subject, |bench, running| {
                bench.process_at_rest(subject, running, &mut rest)
            })?;
        }
        add(&mut report["raw"], rest.raw());
        add(report, rest.summary());
        Ok(())
    }

    fn process_at_rest(
        &mut self,
        subject: &Subject,
        running: &Running,
        rest: &mut AtRest,
    ) -> anyhow::Result<()> {
        interruption::sleep(self.effort.settle)?;
        // First: what a list leaves behind in an allocator is no idle state.
        rest.memory(running, "idle")?;
        let lists = if subject.is_agent {
            self.effort.lists
        } else {
            self.effort.lists.min(self.effort.peer_repeats)
        };
        for _ in 0..lists {
            let name = self.hold(subject, self.effort.held, Shape::Bare)?;
            self.let_go(subject, &name, self.effort.held)?;
        }
        let shape = if subject.is_agent { Shape::Pair } else { Shape::Bare };
        for count in [1, self.effort.held] {
            let name = self.hold(subject, count, shape)?;
            rest.processor(running, &count.to_string(), self.effort.quiet, || Ok(()))?;
            if count == self.effort.held {
                rest.memory(running, &count.to_string())?;
            }
            self.let_go(subject, &name, count)?;
        }
        Ok(())
    }

    /// Makes a StaticRoute of so many destinations, and waits until the program has nothing more to do with it: its name.
    fn hold(&mut self, subject: &Subject, count: usize, shape: Shape) -> anyhow::Result<String> {
        let list = destinations(count);
        // A new one each time: somebody's finalizer may still hold the last.
        self.made += 1;
        let name = format!("held-{count}-{}", self.made);
        self.api.create(&name, &list, shape)?;
        let routed = self.kernel.until_routed(subject.table, &list, A, DEADLINE)?;
        ensure!(routed.is_some(), "{count} destinations are not routed after {DEADLINE:?}");
        self.rest()?;
        self.rest()?;
        Ok(name)
    }

    fn let_go(&mut self, subject: &Subject, name: &str, count: usize) -> anyhow::Result<()> {
        self.api.delete(name)?;
        let gone = self.kernel.until_gone(subject.table, &destinations(count), A, DEADLINE)?;
        ensure!(gone.is_some(), "{count} destinations are still routed after {DEADLINE:?}");
        self.rest()
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

/// Adds numbers of a program at rest to a report; with one destination it counts as idle.
fn add(report: &mut Value, numbers: Map<String, Value>) {
    report["cpu_idle_percent"] = numbers["cpu_percent"]["1"].clone();
    for (name, number) in numbers {
        report[name] = number;
    }
}
