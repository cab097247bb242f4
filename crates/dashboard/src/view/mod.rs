//! What a person sees, made from what is in the watches: pure, and bounded whatever the cluster's size.
//!
//! Nothing here looks at a clock: what is shown changes when an object does, and two looks at the same objects are equal.

mod card;
mod matrix;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use egress_api::{EgressGateway, NodeEgressStatus, NodeRoute};
use egress_runtime::guarded::Guarded;
use jiff::Timestamp;

use crate::headroom::Headrooms;

pub use card::{AddressInUse, Card, ConditionInWords, Machine};
pub use matrix::{Cell, Column, Level, Matrix, Row, Seen, Sight, Standing};
pub use state::State;

/// Gateways that the matrix of the first page shows at most: what is wrong comes first.
pub const MOST_COLUMNS: usize = 12;

/// Nodes that it shows at most.
pub const MOST_ROWS: usize = 40;

/// Nodes on one page of a single EgressGateway.
pub const ROWS_OF_A_PAGE: usize = 200;

/// What there is, as it was read.
#[derive(Clone, Copy)]
pub struct Objects<'a> {
    /// Every EgressGateway, also those that can't be read.
    pub gateways: &'a [Arc<Guarded<EgressGateway>>],
    /// Every node with its report.
    pub nodes: &'a [NodeObjects<'a>],
    /// Whether everything has been read once.
    pub known: bool,
    /// Since when the API server has not been heard, if it has not: then all this is from before.
    pub unheard_since: Option<Timestamp>,
}

/// A node and what its agent says.
#[derive(Clone, Copy, Debug)]
pub struct NodeObjects<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its `Ready` condition.
    pub ready: bool,
    /// Whether the agent's pod on it is Ready; `None` where that is not known.
    pub agent_ready: Option<bool>,
    /// Status of its NodeEgress.
    pub report: Option<&'a NodeEgressStatus>,
}

/// The first page.
#[derive(Clone, Debug, PartialEq)]
pub struct Overview {
    /// The state of the worst; nothing where there is no EgressGateway.
    pub worst: Option<State>,
    /// What a person must know first.
    pub sentence: String,
    /// How many there are of each state, worst first, without zeros.
    pub counts: Vec<(State, usize)>,
    /// What is said of nodes.
    pub nodes: Nodes,
    /// Every EgressGateway, worst first.
    pub cards: Vec<Card>,
    /// What nodes see of the gateways.
    pub matrix: Matrix,
    /// See [`Objects::known`].
    pub known: bool,
    /// See [`Objects::unheard_since`].
    pub unheard_since: Option<Timestamp>,
}

/// How many nodes there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    /// All.
    pub total: usize,
    /// Those whose word does not count now: not Ready, without a Ready agent, without a report, or cut off.
    pub silent: usize,
    /// Those that say that something is wrong with the node itself.
    pub troubled: usize,
}

/// The page of one EgressGateway.
#[derive(Clone, Debug, PartialEq)]
pub struct Detail {
    /// It.
    pub card: Card,
    /// What nodes see of its gateways.
    pub matrix: Matrix,
    /// See [`Objects::unheard_since`].
    pub unheard_since: Option<Timestamp>,
}

/// What nodes say of gateways, by private address.
#[derive(Default)]
pub(crate) struct Sights<'a> {
    seen: HashMap<&'a str, Seen>,
    used_by: HashMap<&'a str, usize>,
}

impl<'a> Sights<'a> {
    fn of(nodes: &[NodeObjects<'a>]) -> Self {
        let mut sights = Self::default();
        for node in nodes {
            let Some(report) = node.report else { continue };
            let mut used: Vec<&str> =
                report.routes.iter().flat_map(NodeRoute::gateways_in_use).map(String::as_str).collect();
            used.sort_unstable();
            used.dedup();
            for address in used {
                *sights.used_by.entry(address).or_default() += 1;
            }
            if Standing::of(node) == Standing::Reports {
                for one in &report.gateways {
                    sights.seen.entry(&one.address).or_default().count(Sight::of(one));
                }
            }
        }
        sights
    }

    fn of_gateway(&self, address: Option<&str>) -> (Seen, usize) {
        let seen = address.and_then(|address| self.seen.get(address)).cloned().unwrap_or_default();
        let used = address.and_then(|address| self.used_by.get(address)).copied().unwrap_or_default();
        (seen, used)
    }
}

impl Overview {
    /// Everything at a glance.
    pub fn of(objects: &Objects<'_>, headrooms: &Headrooms) -> Self {
        let sights = Sights::of(objects.nodes);
        let mut cards: Vec<Card> =
            objects.gateways.iter().map(|gateway| Card::of(gateway, &sights, headrooms)).collect();
        cards.sort_by(|a, b| (a.state, &a.name).cmp(&(b.state, &b.name)));
        let mut counts: BTreeMap<State, usize> = BTreeMap::new();
        for card in &cards {
            *counts.entry(card.state).or_default() += 1;
        }
        let mut columns: Vec<Column> = cards.iter().flat_map(Card::columns).collect();
        // Stable: among those in which nobody sees anything wrong, the worst EgressGateway's come first.
        columns.sort_by_key(|column| !column.fails);
        let more = columns.len().saturating_sub(MOST_COLUMNS);
        columns.truncate(MOST_COLUMNS);
        Self {
            worst: cards.first().map(|card| card.state),
            sentence: sentence(objects.known, &cards),
            counts: counts.into_iter().collect(),
            nodes: Nodes::of(objects.nodes),
            matrix: Matrix::of(columns, more, objects.nodes, 1, MOST_ROWS),
            cards,
            known: objects.known,
            unheard_since: objects.unheard_since,
        }
    }
}

impl Detail {
    /// One EgressGateway and the nodes of this page of them, if there is one of that name.
    pub fn of(objects: &Objects<'_>, headrooms: &Headrooms, name: &str, page: usize) -> Option<Self> {
        let gateway =
            objects.gateways.iter().find(|one| kube::ResourceExt::name_any(one.as_ref()) == name)?;
        let card = Card::of(gateway, &Sights::of(objects.nodes), headrooms);
        let matrix = Matrix::of(card.columns().collect(), 0, objects.nodes, page, ROWS_OF_A_PAGE);
        Some(Self { card, matrix, unheard_since: objects.unheard_since })
    }
}

impl Nodes {
    fn of(nodes: &[NodeObjects<'_>]) -> Self {
        let troubled = |node: &&NodeObjects<'_>| matrix::troubles(node).next().is_some();
        Self {
            total: nodes.len(),
            silent: nodes.iter().filter(|node| Standing::of(node) != Standing::Reports).count(),
            troubled: nodes.iter().filter(troubled).count(),
        }
    }
}

// Names in a sentence: more are a list, and that stands below.
const MOST_NAMES: usize = 3;

fn sentence(known: bool, cards: &[Card]) -> String {
    let Some(worst) = cards.first().map(|card| card.state) else {
        return if known { "There is no EgressGateway yet" } else { "Nodes and gateways are being read" }
            .to_owned();
    };
    let affected: Vec<&str> =
        cards.iter().take_while(|card| card.state == worst).map(|card| card.name.as_str()).collect();
    let total = cards.len();
    if worst == State::Works {
        return match total {
            1 => format!("EgressGateway {} works", affected.concat()),
            _ => format!("All {total} EgressGateways work"),
        };
    }
    let what = worst.of_many(affected.len() == 1);
    if total == 1 {
        return format!("EgressGateway {} {what}", affected.concat());
    }
    let named = affected.iter().take(MOST_NAMES).copied().collect::<Vec<_>>().join(", ");
    let more = match affected.len().saturating_sub(MOST_NAMES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{} of {total} EgressGateways {what}: {named}{more}", affected.len())
}
