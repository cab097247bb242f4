//! What the nodes say of a gateway, and whether enough of them say it.
//!
//! - Who votes: the nodes that leave through the gateways and have a Ready agent; all nodes with a Ready agent while the
//!   selector selects none.
//! - A vote against a gateway is a verdict by difference (it fails while another works) that was heard lately; so is the word that it does
//!   not answer, which agents renew as well. Silence, an old report and the word of a node that is cut off itself are none; such nodes count
//!   among those who vote all the same.
//! - A quorum is half of them, and two at least; one suffices where no other node lives. One that lives and whose agent is not Ready has no
//!   vote, and may well use what the only voter complains of.
//! - While it is not known whose agent is Ready, there is no quorum at all.

use egress_api::{GatewayObservation, GatewayStatus, NodeEgressStatus, NodeSelector, fresh_for};

use super::Look;
use super::addresses::floating;
use crate::observation::{NodeSeen, is_to_route};

/// The nodes whose word counts, and how many of them it takes.
pub(super) struct Electorate<'a> {
    voters: Vec<&'a NodeSeen>,
    needed: Option<usize>,
    all: usize,
}

/// What they say of one gateway.
pub(super) struct Ballot<'a> {
    /// Who among them complains of it, lately or not, with what they see of it.
    pub(super) complaining: Vec<(&'a NodeSeen, &'a GatewayObservation)>,
    /// Of how many.
    pub(super) voters: usize,
    /// Nodes that get through it and would use it, whether they vote or not. That they do is said once, and holds while an agent is there
    /// that would say something else.
    pub(super) through: usize,
    /// Nodes that have said anything of it.
    pub(super) reporting: usize,
    against: usize,
    /// Those of them who saw no more than another address than that it should have.
    by_source: usize,
    unanswered: usize,
    needed: Option<usize>,
}

impl<'a> Electorate<'a> {
    /// The electorate of an EgressGateway with this selector.
    pub(super) fn of(nodes: &'a [NodeSeen], selector: Option<&NodeSelector>) -> Self {
        let selects = |node: &&NodeSeen| is_to_route(selector, Some(&node.labels));
        let selected: Vec<&NodeSeen> = nodes.iter().filter(selects).collect();
        let asked: Vec<&NodeSeen> = if selected.is_empty() { nodes.iter().collect() } else { selected };
        let all_known = asked.iter().all(|node| node.agent_ready.is_some());
        let votes = |node: &&NodeSeen| node.agent_ready == Some(true);
        let concerned = asked.iter().filter(|node| node.live || votes(node)).count();
        let voters: Vec<&NodeSeen> = asked.into_iter().filter(votes).collect();
        let least = concerned.clamp(1, 2);
        let needed = all_known.then(|| voters.len().div_ceil(2).max(least));
        Self { voters, needed, all: nodes.len() }
    }

    /// Whether it is not known whose agent is Ready.
    pub(super) fn is_unknown(&self) -> bool {
        self.needed.is_none()
    }

    /// How many vote.
    pub(super) fn len(&self) -> usize {
        self.voters.len()
    }

    /// Whether so many of them are enough.
    pub(super) fn is_quorum(&self, count: usize) -> bool {
        self.needed.is_some_and(|needed| count >= needed)
    }

    /// What they say now.
    pub(super) fn reports(&self) -> impl Iterator<Item = (&'a NodeSeen, &'a NodeEgressStatus)> {
        self.voters.iter().filter_map(|node| Some((*node, node.report.as_ref()?)))
    }
}

impl Ballot<'_> {
    /// Whether a quorum says that it fails while another works.
    pub(super) fn condemns(&self) -> bool {
        self.needed.is_some_and(|needed| self.against >= needed)
    }

    /// Whether it would be none without those who only do not see its address outside: that may be the fault of whom they ask.
    pub(super) fn condemns_by_source_alone(&self) -> bool {
        self.condemns() && self.needed.is_some_and(|needed| self.against - self.by_source < needed)
    }

    /// Whether a quorum gets no answer from it: with all gateways dead there is no difference, and nobody condemns.
    pub(super) fn finds_it_silent(&self) -> bool {
        self.needed.is_some_and(|needed| self.unanswered >= needed)
    }
}

/// The ballot on this gateway.
pub(super) fn ballot<'a>(look: &Look<'a>, gateway: &GatewayStatus) -> Ballot<'a> {
    let electorate = &look.electorate;
    let address = gateway.private_address.as_deref();
    let views =
        electorate.reports().filter_map(|(node, report)| Some((node, report, view(report, address?)?)));
    let views: Vec<_> = views.collect();
    // Whoever is not to have the address that moves is not to be seen with it.
    let is_excused = floating::is_excused(look, gateway);
    let is_void = |view: &GatewayObservation| {
        is_excused && Level::of(view) == Level::WrongSource && view.full_size != Some(false)
    };
    let complains = |(_, report, view): &&(_, &NodeEgressStatus, &GatewayObservation)| {
        complains(report, view) && !is_void(view)
    };
    let complaining: Vec<_> = views.iter().filter(complains).map(|(node, _, view)| (*node, *view)).collect();
    // Agents from before verdicts renew nothing.
    let counts =
        |node: &NodeSeen, report: &NodeEgressStatus| report.boot_id.is_none() || is_fresh(look, node);
    let against: Vec<_> =
        views.iter().filter(complains).filter(|(node, report, _)| counts(node, report)).collect();
    let by_source = against.iter().filter(|(_, _, view)| Level::of(view) == Level::WrongSource).count();
    let unanswered = views
        .iter()
        .filter(|(node, report, view)| !view.reachable && !report.cut_off && counts(node, report));
    let said = look.seen.nodes_that_speak().filter_map(|node| view(node.report.as_ref()?, address?));
    let (mut through, mut reporting) = (0, 0);
    for view in said {
        reporting += 1;
        let is_condemned = view.condemned && !is_void(view);
        through += usize::from(view.reachable && view.forwards == Some(true) && !is_condemned);
    }
    Ballot {
        unanswered: unanswered.count(),
        against: against.len(),
        by_source,
        complaining,
        voters: electorate.len(),
        through,
        reporting,
        needed: electorate.needed,
    }
}

fn view<'a>(report: &'a NodeEgressStatus, address: &str) -> Option<&'a GatewayObservation> {
    report.gateways.iter().find(|view| view.address == address)
}

fn complains(report: &NodeEgressStatus, view: &GatewayObservation) -> bool {
    if report.cut_off {
        return false;
    }
    if report.boot_id.is_some() {
        return view.condemned;
    }
    // An agent of before verdicts: what it sees is all that it says, and it does not say it twice.
    let another = report.gateways.iter().any(|other| other.address != view.address && gets_through(other));
    !view.reachable || (view.forwards == Some(false) && another)
}

fn gets_through(view: &GatewayObservation) -> bool {
    view.reachable && view.forwards == Some(true)
}

fn is_fresh(look: &Look<'_>, node: &NodeSeen) -> bool {
    let heard = node.heard.map(|heard| crate::cloud::elapsed(heard, look.now));
    heard.is_some_and(|age| age < fresh_for(look.electorate.all))
}

/// What is wrong with a gateway as a node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Unanswered,
    NotForwarding,
    WrongSource,
    BlackHole,
    Lossy,
}

impl Level {
    /// The first level at which it fails: each is needed for the next.
    pub(super) fn of(view: &GatewayObservation) -> Self {
        if !view.reachable {
            Self::Unanswered
        } else if view.forwards == Some(false) {
            Self::NotForwarding
        } else if view.expected_source == Some(false) {
            Self::WrongSource
        } else if view.full_size == Some(false) {
            Self::BlackHole
        } else {
            Self::Lossy
        }
    }

    /// Reason of a condition.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Unanswered => "GatewayDoesNotAnswer",
            Self::NotForwarding => "GatewayDoesNotForward",
            Self::WrongSource => "GatewayWrongSource",
            Self::BlackHole => "GatewayBlackHole",
            Self::Lossy => "GatewayLosesPackets",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Unanswered => "does not answer in the VPC",
            Self::NotForwarding => "does not forward",
            Self::WrongSource => "leaves with the wrong source address",
            Self::BlackHole => "is a black hole for full-size packets",
            Self::Lossy => "loses packets",
        }
    }
}

/// At which level most of these nodes see it fail, and that in a sentence with how many they are and what one of them saw.
pub(super) fn complaint(ballot: &Ballot<'_>) -> Option<(Level, String)> {
    let complaining = &ballot.complaining;
    let count = |level| complaining.iter().filter(|(_, view)| Level::of(view) == level).count();
    let levels = complaining.iter().map(|(_, view)| Level::of(view));
    let level = levels.max_by_key(|level| (count(*level), std::cmp::Reverse(*level)))?;
    let (node, view) = complaining.iter().find(|(_, view)| Level::of(view) == level)?;
    let saw = match &view.message {
        Some(message) => format!("{}: {message}", node.name),
        None => node.name.clone(),
    };
    let words = format!("it {} for {} of {} nodes ({saw})", level.words(), complaining.len(), ballot.voters);
    Some((level, words))
}
