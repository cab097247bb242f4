//! What each node sees of each gateway: the level that fails, what it uses, and whose word does not count.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use egress_api::{GatewayObservation, GatewayRole, NodeRoute, NodeRouteState};
use jiff::Timestamp;

use super::NodeObjects;

/// What fails, in the order of docs/probes.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Its kernel does not answer in the VPC.
    Vpc,
    /// Nothing outside answers through it.
    Outside,
    /// Packets of full size do not get through.
    Size,
    /// The outside sees another address than it should.
    Address,
    /// It loses too many packets.
    Loss,
}

impl Level {
    /// All, in their order.
    pub const ALL: [Self; 5] = [Self::Vpc, Self::Outside, Self::Size, Self::Address, Self::Loss];

    /// What stands in a cell.
    pub fn short(self) -> &'static str {
        match self {
            Self::Vpc => "VPC",
            Self::Outside => "out",
            Self::Size => "size",
            Self::Address => "addr",
            Self::Loss => "loss",
        }
    }

    /// The same in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Vpc => "does not answer in the VPC",
            Self::Outside => "does not lead outside",
            Self::Size => "loses packets of full size",
            Self::Address => "leaves with another address",
            Self::Loss => "loses packets",
        }
    }
}

/// What a node sees of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Every level that was tried holds, and the way to the outside was.
    Works,
    /// It answers, and nobody has got through it yet.
    Untried,
    /// This does not hold.
    Fails(Level),
    /// The node says nothing of it.
    Unknown,
}

impl Sight {
    /// As the report has it.
    pub fn of(seen: &GatewayObservation) -> Self {
        if !seen.reachable {
            return Self::Fails(Level::Vpc);
        }
        let failing = [
            (seen.forwards, Level::Outside),
            (seen.full_size, Level::Size),
            (seen.expected_source, Level::Address),
        ];
        if let Some((_, level)) = failing.into_iter().find(|(holds, _)| *holds == Some(false)) {
            return Self::Fails(level);
        }
        match (seen.condemned, seen.forwards) {
            (true, _) => Self::Fails(Level::Loss),
            (false, None) => Self::Untried,
            (false, Some(_)) => Self::Works,
        }
    }
}

/// How many nodes see a gateway in which way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Works.
    pub works: usize,
    /// Nobody got through yet.
    pub untried: usize,
    /// By what fails.
    pub fails: BTreeMap<Level, usize>,
}

impl Seen {
    pub(super) fn count(&mut self, sight: Sight) {
        match sight {
            Sight::Works => self.works += 1,
            Sight::Untried => self.untried += 1,
            Sight::Fails(level) => *self.fails.entry(level).or_default() += 1,
            Sight::Unknown => {}
        }
    }

    /// How many nodes say something.
    pub fn asked(&self) -> usize {
        self.works + self.untried + self.failing()
    }

    /// How many nodes see it fail.
    pub fn failing(&self) -> usize {
        self.fails.values().sum()
    }

    /// Whether most of those who say something see it fail.
    pub fn is_condemned(&self) -> bool {
        2 * self.failing() > self.asked()
    }
}

/// Whether what a node says counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// The node is not Ready: its report may be old.
    NotReady,
    /// The agent's pod is not Ready: its report may be old.
    AgentNotReady,
    /// There is no report.
    NoReport,
    /// It reaches neither a gateway nor a neighbour: it is the node.
    CutOff,
    /// It counts.
    Reports,
}

impl Standing {
    /// Of this node.
    pub fn of(node: &NodeObjects<'_>) -> Self {
        match node.report {
            _ if !node.ready => Self::NotReady,
            None => Self::NoReport,
            Some(_) if node.agent_ready == Some(false) => Self::AgentNotReady,
            Some(report) if report.cut_off => Self::CutOff,
            Some(_) => Self::Reports,
        }
    }

    /// In words; nothing for who counts.
    pub fn words(self) -> Option<&'static str> {
        match self {
            Self::NotReady => Some("node not Ready: its report may be old"),
            Self::AgentNotReady => Some("agent not Ready: its report may be old"),
            Self::NoReport => Some("no report: the agent has not written one"),
            Self::CutOff => Some("cut off: it reaches no gateway and no neighbour"),
            Self::Reports => None,
        }
    }
}

/// A gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Name of its EgressGateway.
    pub egress_gateway: String,
    /// Its own name.
    pub name: String,
    /// Its private address.
    pub address: String,
    /// What it does.
    pub role: GatewayRole,
    /// Whether a node that counts sees it fail.
    pub fails: bool,
}

/// What one node sees of one gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// What it sees.
    pub sight: Sight,
    /// Whether it sends through it now.
    pub in_use: bool,
    /// What failed last, in a sentence.
    pub message: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub node: String,
    /// Whether its word counts.
    pub standing: Standing,
    /// One for each column.
    pub cells: Vec<Cell>,
    /// What is wrong with the node or its routes, the first few.
    pub notes: Vec<String>,
}

impl Row {
    /// Whether a person should look at it.
    pub fn is_troubled(&self) -> bool {
        let fails = |cell: &Cell| matches!(cell.sight, Sight::Fails(_));
        self.standing != Standing::Reports || !self.notes.is_empty() || self.cells.iter().any(fails)
    }
}

/// Nodes and gateways; nodes in which something is wrong come first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matrix {
    /// Gateways.
    pub columns: Vec<Column>,
    /// Gateways that are not shown.
    pub more_columns: usize,
    /// Nodes of this page.
    pub rows: Vec<Row>,
    /// All nodes.
    pub nodes: usize,
    /// Nodes in which something is wrong.
    pub troubled: usize,
    /// Which page this is, from 1.
    pub page: usize,
    /// How many there are, 1 at least.
    pub pages: usize,
}

// Of what is wrong with a node a few sentences are told, each cut to what a person reads.
const MOST_NOTES: usize = 3;

impl Matrix {
    pub(super) fn of(
        columns: Vec<Column>,
        more_columns: usize,
        nodes: &[NodeObjects<'_>],
        page: usize,
        rows_of_a_page: usize,
    ) -> Self {
        let pages = nodes.len().div_ceil(rows_of_a_page).max(1);
        let page = page.clamp(1, pages);
        let mut seen: Vec<(bool, &NodeObjects<'_>)> = {
            let addresses: BTreeSet<&str> = columns.iter().map(|one| one.address.as_str()).collect();
            let owners: BTreeSet<&str> = columns.iter().map(|one| one.egress_gateway.as_str()).collect();
            nodes.iter().map(|node| (!is_troubled(node, &addresses, &owners), node)).collect()
        };
        let troubled = seen.iter().filter(|(fine, _)| !fine).count();
        seen.sort_by_key(|(fine, node)| (*fine, node.name));
        let shown = seen.into_iter().skip((page - 1) * rows_of_a_page).take(rows_of_a_page);
        let rows = shown.map(|(_, node)| row(node, &columns)).collect();
        Self { columns, more_columns, rows, nodes: nodes.len(), troubled, page, pages }
    }
}

fn is_troubled(node: &NodeObjects<'_>, addresses: &BTreeSet<&str>, owners: &BTreeSet<&str>) -> bool {
    let fails = |seen: &GatewayObservation| {
        addresses.contains(seen.address.as_str()) && matches!(Sight::of(seen), Sight::Fails(_))
    };
    Standing::of(node) != Standing::Reports
        || node.report.is_some_and(|report| report.gateways.iter().any(fails))
        || notes(node, owners).next().is_some()
}

fn row(node: &NodeObjects<'_>, columns: &[Column]) -> Row {
    let mut seen: HashMap<&str, &GatewayObservation> = HashMap::new();
    let mut used: BTreeSet<&str> = BTreeSet::new();
    if let Some(report) = node.report {
        seen.extend(report.gateways.iter().map(|one| (one.address.as_str(), one)));
        used.extend(report.routes.iter().flat_map(NodeRoute::gateways_in_use).map(String::as_str));
    }
    let cell = |column: &Column| {
        let in_use = used.contains(column.address.as_str());
        match seen.get(column.address.as_str()) {
            None => Cell { sight: Sight::Unknown, in_use, message: None, since: None },
            Some(one) => Cell {
                sight: Sight::of(one),
                in_use,
                message: one.message.clone(),
                since: one.since.as_ref().map(|since| since.0),
            },
        }
    };
    let owners: BTreeSet<&str> = columns.iter().map(|one| one.egress_gateway.as_str()).collect();
    Row {
        node: node.name.to_owned(),
        standing: Standing::of(node),
        cells: columns.iter().map(cell).collect(),
        notes: notes(node, &owners).take(MOST_NOTES).collect(),
    }
}

/// What the node says is wrong with itself.
pub(super) fn troubles<'a>(node: &NodeObjects<'a>) -> impl Iterator<Item = &'a str> {
    let conditions = node.report.map(|report| report.conditions.as_slice()).unwrap_or_default();
    conditions.iter().filter(|condition| condition.status == "True").map(|condition| {
        if condition.message.is_empty() { condition.type_.as_str() } else { condition.message.as_str() }
    })
}

// With what is wrong with the routes of these EgressGateways.
fn notes<'a>(node: &NodeObjects<'a>, owners: &'a BTreeSet<&str>) -> impl Iterator<Item = String> {
    let routes = node.report.map(|report| report.routes.as_slice()).unwrap_or_default();
    let of_routes = routes.iter().filter(|route| owners.contains(route.name.as_str())).filter_map(|route| {
        let what = match route.state {
            NodeRouteState::Applied if !route.no_gateway => return None,
            NodeRouteState::Applied => "no gateway works from here".to_owned(),
            NodeRouteState::Partial => format!("{} of {} routes", route.applied, route.total),
            NodeRouteState::NotApplied => "no routes".to_owned(),
        };
        let why = route.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
        Some(format!("{}: {what}{why}", route.name))
    });
    troubles(node).map(str::to_owned).chain(of_routes)
}
