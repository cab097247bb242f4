//! One EgressGateway: its state, its addresses, its gateways and what its conditions say.

use std::net::Ipv4Addr;

use egress_api::condition::{DEGRADED, PROGRESSING, READY};
use egress_api::{
    EgressGateway, EgressGatewayStatus, GatewayRole, GatewayStatus, OnNoGateway, PublicIp, RouteMode,
};
use egress_runtime::guarded::Guarded;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{Resource as _, ResourceExt as _};

use super::Sights;
use super::matrix::{Column, Seen};
use super::state::State;
use crate::headroom::{Headroom, Headrooms};

/// One EgressGateway.
#[derive(Clone, Debug, PartialEq)]
pub struct Card {
    /// Its name.
    pub name: String,
    /// How it is.
    pub state: State,
    /// What matters most of it, in a sentence.
    pub sentence: String,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// With which addresses its traffic leaves: what a partner must allow.
    pub addresses: Vec<AddressInUse>,
    /// Its gateways: who carries the traffic first, then who would.
    pub machines: Vec<Machine>,
    /// Gateways that are about to be made, in a sentence each.
    pub creating: Vec<String>,
    /// `applied/total` over the nodes.
    pub nodes: Option<String>,
    /// `proven/asked for`.
    pub gateways_ready: Option<String>,
    /// What the conditions say.
    pub conditions: Vec<ConditionInWords>,
    /// What was asked for, in a few words each.
    pub asked_for: Vec<(&'static str, String)>,
    /// The spec is newer than what the conditions speak of.
    pub outdated: bool,
}

/// A public address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressInUse {
    /// It.
    pub address: String,
    /// What the gateway that has it does, if one has it.
    pub holder: Option<GatewayRole>,
    /// Whether traffic leaves with it now.
    pub leaves: bool,
}

/// One gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// Name of the Droplet.
    pub name: String,
    /// What it does.
    pub role: GatewayRole,
    /// Whether the way through it is proven.
    pub ready: bool,
    /// Whether it is a Droplet of the user's.
    pub existing: bool,
    /// Address in the VPC.
    pub private_address: Option<String>,
    /// Address with which it leaves.
    pub public_address: Option<String>,
    /// Since when it is as it is.
    pub since: Option<Timestamp>,
    /// Why it is not ready.
    pub message: Option<String>,
    /// How many nodes send through it.
    pub used_by: usize,
    /// What nodes see of it.
    pub seen: Seen,
    /// How much more it can carry, where that is known.
    pub headroom: Option<Headroom>,
}

/// A condition as a person would say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionInWords {
    /// What it means.
    pub words: String,
    /// Whether that is as it should be.
    pub good: bool,
    /// Its reason: the word to search for.
    pub reason: String,
    /// Its message.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
}

impl Card {
    pub(super) fn of(gateway: &Guarded<EgressGateway>, sights: &Sights<'_>, headrooms: &Headrooms) -> Self {
        match &gateway.0 {
            Ok(gateway) => Self::readable(gateway, sights, headrooms),
            Err(invalid) => Self {
                name: gateway.name_any(),
                state: State::Down,
                sentence: format!("This version can't read the object: {}", invalid.error),
                created: time(gateway.meta().creation_timestamp.as_ref()),
                addresses: Vec::new(),
                machines: Vec::new(),
                creating: Vec::new(),
                nodes: None,
                gateways_ready: None,
                conditions: Vec::new(),
                asked_for: Vec::new(),
                outdated: false,
            },
        }
    }

    fn readable(gateway: &EgressGateway, sights: &Sights<'_>, headrooms: &Headrooms) -> Self {
        let nothing = EgressGatewayStatus::default();
        let status = gateway.status.as_ref().unwrap_or(&nothing);
        let mut machines: Vec<Machine> =
            status.gateways.iter().map(|one| machine(one, sights, headrooms)).collect();
        machines.sort_by(|a, b| (a.role, &a.name).cmp(&(b.role, &b.name)));
        let is_listed =
            |one: &&Machine| one.ready && matches!(one.role, GatewayRole::Active | GatewayRole::Standby);
        let condemned = machines.iter().filter(is_listed).find(|one| one.seen.is_condemned());
        let deleting = gateway.metadata.deletion_timestamp.is_some();
        let applied = status.nodes.as_deref().and_then(|nodes| nodes.split_once('/')?.0.parse().ok());
        let applied = applied.unwrap_or_default();
        let state = State::of(gateway.status.as_ref(), deleting, applied, condemned.is_some());
        Self {
            name: gateway.name_any(),
            state,
            sentence: sentence(state, status, condemned),
            created: time(gateway.metadata.creation_timestamp.as_ref()),
            addresses: addresses(status),
            machines,
            creating: status.creating.iter().map(creating).collect(),
            nodes: status.nodes.clone(),
            gateways_ready: status.gateways_ready.clone(),
            conditions: status.conditions.iter().map(in_words).collect(),
            asked_for: asked_for(gateway, status),
            outdated: gateway.metadata.generation > status.observed_generation,
        }
    }

    pub(super) fn columns(&self) -> impl Iterator<Item = Column> {
        self.machines.iter().filter_map(|machine| {
            Some(Column {
                egress_gateway: self.name.clone(),
                name: machine.name.clone(),
                address: machine.private_address.clone()?,
                role: machine.role,
                fails: machine.seen.failing() > 0,
            })
        })
    }
}

fn machine(one: &GatewayStatus, sights: &Sights<'_>, headrooms: &Headrooms) -> Machine {
    let (seen, used_by) = sights.of_gateway(one.private_address.as_deref());
    let address: Option<Ipv4Addr> = one.private_address.as_ref().and_then(|address| address.parse().ok());
    Machine {
        name: one.name.clone(),
        role: one.role,
        ready: one.ready,
        existing: one.existing,
        private_address: one.private_address.clone(),
        public_address: one.public_address.clone(),
        since: time(one.since.as_ref()),
        message: one.message.clone(),
        used_by,
        seen,
        headroom: address.and_then(|address| headrooms.get(&address)).cloned(),
    }
}

fn creating(intent: &egress_api::CreationIntent) -> String {
    match (&intent.message, &intent.sent) {
        (Some(refusal), _) => format!("{} was refused: {refusal}", intent.name),
        (None, Some(_)) => format!("{} was asked for", intent.name),
        (None, None) => format!("{} is about to be made", intent.name),
    }
}

fn addresses(status: &EgressGatewayStatus) -> Vec<AddressInUse> {
    let of = |address: &String| {
        let holder = status.gateways.iter().find(|one| one.public_address.as_ref() == Some(address));
        AddressInUse {
            address: address.clone(),
            holder: holder.map(|one| one.role),
            leaves: holder.is_some_and(|one| one.role == GatewayRole::Active && one.ready),
        }
    };
    status.public_ips.iter().map(of).collect()
}

fn sentence(state: State, status: &EgressGatewayStatus, condemned: Option<&Machine>) -> String {
    let said = |type_: &str| status.conditions.iter().find(|condition| condition.type_ == type_);
    // What nodes found is newer than the conditions.
    if let (State::Degraded, Some(machine), false) =
        (state, condemned, said(DEGRADED).is_some_and(|condition| condition.status == "True"))
    {
        let level =
            machine.seen.fails.iter().max_by_key(|(_, nodes)| **nodes).map(|(level, _)| level.words());
        let (failing, asked) = (machine.seen.failing(), machine.seen.asked());
        return format!(
            "{failing} of {asked} nodes find that {} {}",
            machine.name,
            level.unwrap_or("does not work")
        );
    }
    let telling = match state {
        State::Down | State::Partial | State::Works => READY,
        State::Degraded => DEGRADED,
        State::Changing => PROGRESSING,
    };
    let told = said(telling).map(|condition| condition.message.clone()).filter(|message| !message.is_empty());
    told.unwrap_or_else(|| "The controller has not said anything of it yet".to_owned())
}

fn in_words(condition: &Condition) -> ConditionInWords {
    let Condition { type_, status, reason, message, last_transition_time, .. } = condition;
    let (words, good) = match (type_.as_str(), status.as_str()) {
        (READY, "True") => ("It works".to_owned(), true),
        (READY, "False") => ("It does not do what it promises".to_owned(), false),
        (PROGRESSING, "True") => ("A change is under way".to_owned(), true),
        (PROGRESSING, "False") => ("No change is under way".to_owned(), true),
        (DEGRADED, "True") => ("Less than was asked for".to_owned(), false),
        (DEGRADED, "False") => ("All that was asked for".to_owned(), true),
        (_, "Unknown") => (format!("{type_} is not known"), false),
        _ => (format!("{type_} is {status}"), true),
    };
    ConditionInWords {
        words,
        good,
        reason: reason.clone(),
        message: message.clone(),
        since: last_transition_time.0,
    }
}

fn asked_for(gateway: &EgressGateway, status: &EgressGatewayStatus) -> Vec<(&'static str, String)> {
    let spec = &gateway.spec;
    let destinations = match (spec.destinations.first(), spec.destinations.len()) {
        (Some(one), 1) => one.0.clone(),
        // The source may keep but a few of them.
        (Some(first), _) => format!("{} and others", first.0),
        (None, _) => "none".to_owned(),
    };
    let mode = match spec.mode {
        RouteMode::ActiveStandby => "one at a time",
        RouteMode::ActiveActive => "all share the traffic",
    };
    let addresses = match spec.public_ip {
        PublicIp::Ephemeral => "the Droplets' own",
        PublicIp::ReservedPerGateway => "reserved, one for each gateway",
    };
    let without = match spec.on_no_gateway {
        OnNoGateway::KeepLast => "traffic waits for the last one",
        OnNoGateway::FailClosed => "traffic is dropped",
        OnNoGateway::FailOpen => "traffic leaves with the nodes' own addresses",
    };
    let price =
        status.monthly_price_usd.as_ref().map(|price| ("Droplets cost", format!("{price} USD a month")));
    [
        ("Destinations", destinations),
        ("Gateways", format!("{}, {mode}", spec.replicas)),
        ("Addresses", addresses.to_owned()),
        ("Without a gateway", without.to_owned()),
    ]
    .into_iter()
    .chain(price)
    .collect()
}

fn time(time: Option<&Time>) -> Option<Timestamp> {
    time.map(|time| time.0)
}
