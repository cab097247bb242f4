//! A cluster under measurement: its API server, an agent and connections on each node, and what the harness waits for.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use testkit::ApiServer;
use tokio::runtime::Runtime;

use super::ledger::Ledger;
use super::traffic::{Answers, Connections};
use super::world::{CONTROL_PLANE, GATEWAYS, HEALTH_TARGETS, ROUTED, World, node_addresses};
use crate::api::Api;
use crate::subject::{Running, Subject};

/// Name of the one StaticRoute.
pub const ROUTE: &str = "measured";
/// Time between two looks at the news. They have their times with them: nothing is measured by looking.
const LOOK: Duration = Duration::from_millis(10);
/// So many connections in a row show that a node is on a gateway: a fifth of a second of them.
const SETTLED: u32 = 20;
/// Agents, routes and probes of all levels are there long before.
const START: Duration = Duration::from_secs(60);

/// How the gateways are probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// What a user gets who says nothing.
    Default,
    /// A probe every 50 ms.
    Fast,
}

impl Profile {
    /// What data and documents call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Fast => "fast",
        }
    }

    /// The health check of the StaticRoute. Only what delays the return is other than a user's: each kill would wait longer.
    fn health_check(self) -> Value {
        let mut check = json!({"targets": HEALTH_TARGETS, "holdDownSeconds": 1, "longestHoldDownSeconds": 1});
        if self == Self::Fast {
            check["intervalMilliseconds"] = json!(50);
        }
        check
    }
}

/// A node: its agent, and the connections that are begun on it.
pub struct Node {
    /// The real program.
    pub agent: Running,
    connections: Connections,
    /// What is known of its connections.
    pub ledger: Ledger,
}

/// A cluster that runs.
pub struct Pair<'a> {
    /// Its network.
    pub world: &'a mut World,
    /// Its API server, by the harness's own hand.
    pub api: Api<'a>,
    server: &'a ApiServer,
    /// Its nodes.
    pub nodes: Vec<Node>,
    _answers: Answers,
    _kubeconfig: tempfile::NamedTempFile,
}

impl<'a> Pair<'a> {
    /// Starts everything and waits until each node's connections go through the first gateway. `server` runs in the world's
    /// control plane, and so does the calling thread.
    pub fn start(
        world: &'a mut World,
        runtime: &'a Runtime,
        server: &'a ApiServer,
        agent: &Path,
        profile: Profile,
    ) -> anyhow::Result<Self> {
        let api = Api::new(runtime, server)?;
        let gateways = GATEWAYS.map(|at| json!({"address": at.private, "egressAddress": at.public}));
        // A return that waits for old connections to end would be waited for after each kill.
        let spec = json!({"destinations": [ROUTED], "gateways": gateways, "drainSeconds": 0,
            "healthCheck": profile.health_check()});
        api.create_with(ROUTE, &spec)?;
        let kubeconfig = kubeconfig(server)?;
        let mut nodes = Vec::new();
        for (n, machine) in (0..).zip(&world.nodes) {
            let (private, public) = node_addresses(n);
            let name = format!("node-{}", n + 1);
            api.add_node(&name, private, public)?;
            let subject = Subject::agent(agent, &name, kubeconfig.path());
            let agent = machine.inside(|| subject.start())?.with_context(|| name.clone())?;
            let connections = Connections::start(machine)?;
            nodes.push(Node { agent, connections, ledger: Ledger::default() });
        }
        let answers = Answers::start(&world.outside)?;
        let mut pair = Self { world, api, server, nodes, _answers: answers, _kubeconfig: kubeconfig };
        pair.until_whole(START)?;
        Ok(pair)
    }

    /// Stops the control plane where it is. Nothing but the probes is left to the agents.
    pub fn stop_control_plane(&self) -> anyhow::Result<()> {
        self.server.freeze()
    }

    /// Takes the connections' news.
    pub fn look(&mut self) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            node.agent.is_alive()?;
            for event in node.connections.news() {
                node.ledger.take(event);
            }
        }
        Ok(())
    }

    /// Waits until that is so; false when it was not within `deadline`.
    pub fn until(&mut self, deadline: Duration, is_so: impl Fn(&Self) -> bool) -> anyhow::Result<bool> {
        let started = Instant::now();
        loop {
            self.look()?;
            if is_so(self) {
                return Ok(true);
            }
            if started.elapsed() > deadline {
                return Ok(false);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Goes on for so long.
    pub fn watch(&mut self, time: Duration) -> anyhow::Result<()> {
        self.until(time, |_| false).map(drop)
    }

    /// Waits until every node's connections go through the first gateway of the list again.
    pub fn until_whole(&mut self, deadline: Duration) -> anyhow::Result<()> {
        if !self.until_all_through(0, deadline)? {
            bail!("not every node is on the first gateway after {deadline:?}\n{}", self.last_words());
        }
        Ok(())
    }

    /// Waits until every node's connections go through the gateway in that slot.
    pub fn until_all_through(&mut self, slot: usize, deadline: Duration) -> anyhow::Result<bool> {
        let gateway = GATEWAYS[slot].public;
        self.until(deadline, |pair| {
            let now = Instant::now();
            pair.nodes.iter().all(|node| node.ledger.is_settled(gateway, SETTLED, now))
        })
    }

    /// Forgets what the connections of all nodes have told until now.
    pub fn forget(&mut self) -> anyhow::Result<()> {
        self.look()?;
        self.nodes.iter_mut().for_each(|node| node.ledger.forget());
        Ok(())
    }

    /// The end of each agent's log.
    pub fn last_words(&self) -> String {
        let words = (1..).zip(&self.nodes).map(|(n, node)| format!("node-{n}:\n{}", node.agent.last_words()));
        words.collect::<Vec<_>>().join("\n")
    }
}

/// A kubeconfig for the nodes, who reach the API server from outside.
pub fn kubeconfig(server: &ApiServer) -> anyhow::Result<tempfile::NamedTempFile> {
    let file = tempfile::NamedTempFile::new()?;
    let text = fs::read_to_string(server.kubeconfig())?.replace("127.0.0.1", &CONTROL_PLANE.to_string());
    fs::write(file.path(), text)?;
    Ok(file)
}
