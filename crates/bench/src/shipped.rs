//! The agent as it is shipped, at rest in a cluster of many nodes: with the arguments of its DaemonSet, the provider's resolvers and
//! metadata, and an EgressGateway whose two gateways it probes at every level.
//!
//! One node of [`World`] is real; the others are objects that the API server has, and that kubelets report of. No controller runs:
//! the harness writes what it would have written.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use ipnet::Ipv4Net;
use serde_json::{Value, json};
use testkit::ApiServer;

use crate::api::{Api, EGRESS_GATEWAYS, NODE_EGRESSES, NODES, STATIC_ROUTES};
use crate::apply::destinations;
use crate::effort::Effort;
use crate::failover::{
    CONTROL_PLANE, GATEWAYS, HEALTH_TARGETS, Namespace, ProbesSeen, World, kubeconfig, node_addresses,
};
use crate::kernel::Kernel;
use crate::nodes::{self, REPORTED_EVERY};
use crate::rest::AtRest;
use crate::subject::{Running, Subject, arguments_of_the_daemonset};
use crate::{interruption, provider};

/// Name of the EgressGateway and of its StaticRoute.
const NAME: &str = "egress";
/// A cluster so small that nodes probe as often as the health check says.
const FEW: usize = 3;
/// The first round of probes takes ten seconds in the largest cluster, and a level is proven by a few answers.
const PROVEN: Duration = Duration::from_secs(60);
/// The agent has applied any list long before.
const APPLIED: Duration = Duration::from_secs(30);
/// Time between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(20);

/// Measures it: what is published, and every sample.
pub fn measure(agent: &Path, effort: Effort) -> anyhow::Result<(Value, Value)> {
    let world = World::new(0, 1)?;
    world.count_probes()?;
    provider::start(&world.outside, CONTROL_PLANE)?;
    std::thread::scope(|scope| {
        let measuring = scope.spawn(|| in_control_plane(&world, agent, effort));
        measuring.join().map_err(|_| anyhow::anyhow!("the measuring thread died"))?
    })
}

/// On a thread of its own, which lives beside the API server from now on.
fn in_control_plane(world: &World, agent: &Path, effort: Effort) -> anyhow::Result<(Value, Value)> {
    world.control.enter()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _entered = runtime.enter();
    let server = runtime.block_on(interruption::or(ApiServer::start()))?;
    let api = Api::new(&runtime, &server)?;
    for file in ["namespace.yaml", "agent.yaml"] {
        api.apply_file(&format!("{}/../../deploy/base/{file}", env!("CARGO_MANIFEST_DIR")))?;
    }
    let resolv_conf = tempfile::NamedTempFile::new()?;
    std::fs::write(resolv_conf.path(), provider::RESOLV_CONF)?;
    let kubeconfig = kubeconfig(&server)?;
    let address = node_addresses(0).0;
    let subject = Subject::shipped(agent, &nodes::name(0), address, kubeconfig.path(), resolv_conf.path())?;
    let mut cluster = Cluster { world, api, subject, effort, nodes: 0, reports: 0.0, turn: 0 };
    cluster.measure(address)
}

/// The cluster, and the agent on its first node.
struct Cluster<'a> {
    world: &'a World,
    api: Api<'a>,
    subject: Subject,
    effort: Effort,
    nodes: usize,
    /// Reports of kubelets that are due.
    reports: f64,
    /// Reports that were written.
    turn: u32,
}

impl Cluster<'_> {
    fn measure(&mut self, address: Ipv4Addr) -> anyhow::Result<(Value, Value)> {
        self.grow(self.effort.nodes.max(FEW))?;
        let (mut many, mut few) = (AtRest::default(), AtRest::default());
        for _ in 0..self.effort.processes {
            self.process(&mut many, true)?;
        }
        let count = self.nodes;
        self.shrink(FEW)?;
        for _ in 0..self.effort.processes {
            self.process(&mut few, false)?;
        }
        let (mut summary, mut raw) = (Value::from(many.summary()), Value::from(many.raw()));
        summary["nodes"] = count.into();
        summary["arguments"] = arguments_of_the_daemonset(&nodes::name(0), address)?.into();
        summary["few_nodes"] = few.summary().into();
        summary["few_nodes"]["nodes"] = self.nodes.into();
        raw["few_nodes"] = few.raw().into();
        Ok((summary, raw))
    }

    fn grow(&mut self, nodes: usize) -> anyhow::Result<()> {
        for n in self.nodes..nodes {
            let addresses = if n == 0 { node_addresses(0) } else { nodes::addresses(n) };
            self.api.send(http::Method::POST, NODES, &nodes::node(n, addresses))?;
            interruption::check()?;
        }
        self.nodes = nodes;
        Ok(())
    }

    fn shrink(&mut self, nodes: usize) -> anyhow::Result<()> {
        for n in nodes..self.nodes {
            self.api.send(http::Method::DELETE, &format!("{NODES}/{}", nodes::name(n)), &json!({}))?;
        }
        self.nodes = nodes;
        Ok(())
    }

    /// What one process of the agent takes, from its start on.
    fn process(&mut self, rest: &mut AtRest, with_list: bool) -> anyhow::Result<()> {
        let running = self.node().inside(|| self.subject.start())??;
        let outcome = self.at_rest(&running, rest, with_list);
        if outcome.is_err() {
            eprintln!("its last words:\n{}", running.last_words());
        }
        outcome?;
        running.terminate()?;
        // The next one is to prove the gateways itself.
        self.api.send(http::Method::DELETE, &Self::report_path(), &json!({}))?;
        Ok(())
    }

    fn at_rest(&mut self, running: &Running, rest: &mut AtRest, with_list: bool) -> anyhow::Result<()> {
        let (one, many) = (destinations(1), destinations(self.effort.held));
        self.make_egress_gateway(&one)?;
        self.until_routed(&one)?;
        self.until_proven()?;
        interruption::sleep(self.effort.settle)?;
        self.processor(running, rest, "1")?;
        rest.memory(running, "idle")?;
        if with_list {
            for _ in 0..self.effort.lists {
                self.edit(&many)?;
                self.edit(&one)?;
            }
            self.edit(&many)?;
            interruption::sleep(self.effort.settle)?;
            let holding = self.effort.held.to_string();
            self.processor(running, rest, &holding)?;
            rest.memory(running, &holding)?;
        }
        self.delete_egress_gateway(if with_list { &many } else { &one })
    }

    /// Processor time while kubelets report, and the probes that arrive in it.
    fn processor(&mut self, running: &Running, rest: &mut AtRest, holding: &str) -> anyhow::Result<()> {
        let (before, started) = (self.world.probes()?, Instant::now());
        rest.processor(running, holding, self.effort.quiet, || self.let_kubelets_report())?;
        let seen = self.world.probes()?.since(before);
        let ProbesSeen { in_the_vpc, of_peers, of_targets } = seen;
        for (name, count) in [
            ("probes_per_second_in_the_vpc", in_the_vpc),
            ("probes_per_second_of_peers", of_peers),
            ("probes_per_second_of_targets", of_targets),
        ] {
            rest.push(name, holding, crate::numbers::count(count) / started.elapsed().as_secs_f64());
        }
        Ok(())
    }

    /// Called once a second.
    fn let_kubelets_report(&mut self) -> anyhow::Result<()> {
        self.reports += crate::numbers::count(self.nodes) / REPORTED_EVERY.as_secs_f64();
        while self.reports >= 1.0 {
            self.reports -= 1.0;
            self.turn += 1;
            let n = self.turn as usize % self.nodes;
            let path = format!("{NODES}/{}/status", nodes::name(n));
            self.api.send(http::Method::PATCH, &path, &nodes::report(self.turn))?;
        }
        Ok(())
    }

    /// An EgressGateway with two gateways, and the StaticRoute that its controller would make of it.
    fn make_egress_gateway(&self, list: &[Ipv4Net]) -> anyhow::Result<()> {
        let check = json!({"targets": HEALTH_TARGETS});
        let gateway = json!({"apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway",
            "metadata": {"name": NAME},
            "spec": {"destinations": list, "publicIP": "Ephemeral", "healthCheck": check}});
        self.api.send(http::Method::POST, EGRESS_GATEWAYS, &gateway)?;
        let path = format!("{EGRESS_GATEWAYS}/{NAME}");
        self.api.send(http::Method::PATCH, &format!("{path}/status"), &status())?;
        let made = self.api.get(&path)?.context("the EgressGateway that was made")?;
        let gateways = GATEWAYS.map(|at| json!({"address": at.private, "egressAddress": at.public}));
        let route = json!({"apiVersion": "networking.digitalocean.com/v1", "kind": "StaticRoute",
            "metadata": {"name": NAME, "ownerReferences": [{
                "apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway", "name": NAME,
                "uid": made["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true}]},
            "spec": {"destinations": list, "gateways": gateways, "healthCheck": check}});
        self.api.send(http::Method::POST, STATIC_ROUTES, &route)?;
        Ok(())
    }

    /// Gives both other destinations, and waits until the agent has applied them and said so.
    fn edit(&self, list: &[Ipv4Net]) -> anyhow::Result<()> {
        let spec = json!({"spec": {"destinations": list}});
        for path in [EGRESS_GATEWAYS, STATIC_ROUTES] {
            self.api.send(http::Method::PATCH, &format!("{path}/{NAME}"), &spec)?;
        }
        self.until_routed(list)?;
        interruption::sleep(self.effort.rest)
    }

    fn delete_egress_gateway(&self, list: &[Ipv4Net]) -> anyhow::Result<()> {
        for path in [STATIC_ROUTES, EGRESS_GATEWAYS] {
            self.api.send(http::Method::DELETE, &format!("{path}/{NAME}"), &json!({}))?;
        }
        let (table, via) = (self.subject.table, GATEWAYS[0].private);
        let gone = self.node().inside(|| Kernel::open()?.until_gone(table, list, via, APPLIED))??;
        ensure!(gone.is_some(), "{} destinations are still routed after {APPLIED:?}", list.len());
        interruption::sleep(self.effort.rest)
    }

    fn until_routed(&self, list: &[Ipv4Net]) -> anyhow::Result<()> {
        let (table, via) = (self.subject.table, GATEWAYS[0].private);
        let routed = self.node().inside(|| Kernel::open()?.until_routed(table, list, via, APPLIED))??;
        ensure!(routed.is_some(), "{} destinations are not routed after {APPLIED:?}", list.len());
        Ok(())
    }

    /// Waits until the agent says that both gateways pass at every level: from then on all of them are probed at their interval.
    fn until_proven(&self) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            let report = self.api.get(&Self::report_path())?.unwrap_or_default();
            let gateways = report["status"]["gateways"].as_array().map(Vec::as_slice).unwrap_or_default();
            let passes = |gateway: &&Value| {
                ["reachable", "forwards", "expectedSource", "fullSize"]
                    .iter()
                    .all(|level| gateway[*level] == true)
            };
            if gateways.iter().filter(passes).count() == GATEWAYS.len() {
                return Ok(());
            }
            if started.elapsed() > PROVEN {
                bail!("the gateways are not proven after {PROVEN:?}: {:#}", report["status"]);
            }
            interruption::sleep(LOOK)?;
        }
    }

    fn report_path() -> String {
        format!("{NODE_EGRESSES}/{}", nodes::name(0))
    }

    fn node(&self) -> &Namespace {
        &self.world.nodes[0]
    }
}

/// What the controller writes down of two proven gateways.
fn status() -> Value {
    let gateways = GATEWAYS.map(|at| {
        json!({"name": format!("egress-{NAME}-{}", at.slot), "slot": at.slot, "dropletID": 400_000_000 + at.slot,
            "privateAddress": at.private, "publicAddress": at.public, "ready": true, "nodes": 0,
            "role": if at.slot == 0 { "Active" } else { "Standby" },
            "admits": [GATEWAYS[1 - at.slot].public]})
    });
    let [first, second] = GATEWAYS.map(|at| at.public);
    json!({"status": {"gateways": gateways, "gatewaysReady": "2/2", "publicIPs": [first, second],
        "active": format!("egress-{NAME}-0"), "egressIP": first}})
}
