//! One StaticRoute as the plan takes it: parsed once, so that nothing after it meets bad text.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::prefix::{Fault, InvalidValue, parse_destination, parse_gateway};

/// The fields of a StaticRoute as they were written.
#[derive(Debug, Clone)]
pub struct StaticRouteFields<'a> {
    /// `metadata.name`.
    pub name: &'a str,
    /// `metadata.uid`.
    pub uid: &'a str,
    /// `metadata.creationTimestamp` in seconds since 1970: the older object wins a conflict.
    pub created: i64,
    /// `spec.destinations`.
    pub destinations: &'a [&'a str],
    /// `spec.excludedDestinations`.
    pub excluded: &'a [&'a str],
    /// `spec.gateway` (a list of one) or the addresses of `spec.gateways` in order.
    pub gateways: &'a [&'a str],
    /// Whether nodes probe the gateways: not for a bare `spec.gateway`.
    pub health_checked: bool,
    /// Why the EgressGateway of `spec.gatewayRef` gives no list; `gateways` is then the last one there was.
    pub reference_fault: Option<ReferenceFault>,
    /// With `spec.mode: ActiveActive` the weights of `gateways`, in their order; 1 where the list is shorter.
    pub weights: Option<&'a [i32]>,
    /// `spec.onNoGateway`.
    pub on_no_gateway: OnNoGateway,
    /// `spec.drainSeconds`.
    pub drain_seconds: u32,
}

/// What happens to routed traffic while no gateway works (`docs/decisions/0018`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnNoGateway {
    /// It goes to the last one that did.
    #[default]
    KeepLast,
    /// It is dropped, also while there is no gateway in the list.
    FailClosed,
    /// It leaves by the node's own default route.
    FailOpen,
}

/// Why a StaticRoute can't follow the EgressGateway that it names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceFault {
    /// There is none of that name. A name may be a slip of the pen: what is routed stays.
    #[error("EgressGateway {name} does not exist; make it, or correct spec.gatewayRef.name")]
    Missing {
        /// The name.
        name: String,
    },
    /// It has no list of gateways. What is routed stays.
    #[error("EgressGateway {name} has no proven gateway yet")]
    NotReady {
        /// The name.
        name: String,
    },
    /// It was deleted, and its gateways go: nothing may be routed to them.
    #[error(
        "EgressGateway {name} was deleted; name another one in spec.gatewayRef, or delete this StaticRoute"
    )]
    Deleted {
        /// The name.
        name: String,
    },
}

impl ReferenceFault {
    /// The fault in one word, for `reason` fields.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "EgressGatewayMissing",
            Self::NotReady { .. } => "EgressGatewayNotReady",
            Self::Deleted { .. } => "EgressGatewayDeleted",
        }
    }
}

/// A StaticRoute that applies to this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedRoute {
    /// Name of the object.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// When it was made, seconds since 1970.
    pub created: i64,
    /// What it routes, each prefix once, however often and in whichever spelling it was listed.
    pub destinations: BTreeMap<Ipv4Net, Spelling>,
    /// What it does not route; counts for this object only.
    pub excluded: BTreeSet<Ipv4Net>,
    /// Gateways in order, each once.
    pub gateways: Vec<Ipv4Addr>,
    /// Whether nodes probe the gateways.
    pub health_checked: bool,
    /// Why the EgressGateway that it follows gives it no list.
    pub reference_fault: Option<ReferenceFault>,
    /// The weight of each gateway, 1 to 256, when they share the traffic (`ActiveActive`); `None`: one is used at a time.
    pub weights: Option<BTreeMap<Ipv4Addr, u16>>,
    /// Destinations that were refused; the rest of the object counts.
    pub invalid_destinations: Vec<InvalidValue>,
    /// Gateways that were refused; the rest of the object counts.
    pub invalid_gateways: Vec<InvalidValue>,
    /// What happens while no gateway works.
    pub on_no_gateway: OnNoGateway,
    /// So long connections keep a gateway that works and that a planned move leaves, at most; 0: it is left at once.
    pub drain_seconds: u32,
    /// What a `FailClosed` version that was rolled back leaves shut beside this one (`confirm`).
    pub guard: Option<Guard>,
    /// An exclusion that was refused. The whole object is then left out: without it, it would route what it must not.
    pub refused: Option<InvalidValue>,
}

/// What is dropped, whatever works, for as long as another version of the object is in force than the one that lists it. That one
/// fails closed meanwhile, since the refused one may list the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// What the refused version lists. What the one in force routes of it is not dropped.
    pub destinations: BTreeSet<Ipv4Net>,
    /// What the refused version excludes. What the one in force excludes is dropped all the same.
    pub excluded: BTreeSet<Ipv4Net>,
    /// What the one in force says itself of no gateway.
    pub own_mode: OnNoGateway,
}

/// How a destination was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Spelling {
    /// `203.0.113.7`.
    Address,
    /// `203.0.113.7/32`, `203.0.113.0/24`.
    Prefix,
}

/// A destination in the spelling of the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// The prefix.
    pub prefix: Ipv4Net,
    /// How it was written.
    pub spelling: Spelling,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.spelling {
            Spelling::Address => self.prefix.addr().fmt(f),
            Spelling::Prefix => self.prefix.fmt(f),
        }
    }
}

impl WantedRoute {
    /// Parses the fields. What is wrong with them stands in the `invalid_*` fields and [`WantedRoute::refused`].
    pub fn parse(fields: StaticRouteFields<'_>) -> Self {
        let mut invalid_destinations = Vec::new();
        let mut invalid_gateways = Vec::new();
        let mut destinations = BTreeMap::new();
        for (index, text) in fields.destinations.iter().enumerate() {
            match parse_destination(&format!("spec.destinations[{index}]"), text) {
                Ok(prefix) => {
                    let spelling = if text.contains('/') { Spelling::Prefix } else { Spelling::Address };
                    destinations.entry(prefix).or_insert(spelling);
                }
                Err(error) => invalid_destinations.push(error),
            }
        }
        let mut excluded = BTreeSet::new();
        let mut refused = None;
        for (index, text) in fields.excluded.iter().enumerate() {
            match parse_destination(&format!("spec.excludedDestinations[{index}]"), text) {
                Ok(prefix) => {
                    excluded.insert(prefix);
                }
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        let mut gateways = Vec::new();
        let mut weights = BTreeMap::new();
        for (index, text) in fields.gateways.iter().enumerate() {
            let field = if fields.health_checked {
                format!("spec.gateways[{index}].address")
            } else {
                "spec.gateway".to_owned()
            };
            let weight = fields.weights.map_or(Ok(1), |weights| weight(index, weights));
            match parse_gateway(&field, text).and_then(|address| Ok((address, weight?))) {
                Ok((address, _)) if gateways.contains(&address) => {}
                Ok((address, weight)) => {
                    gateways.push(address);
                    weights.insert(address, weight);
                }
                Err(error) => invalid_gateways.push(error),
            }
        }
        Self {
            name: fields.name.to_owned(),
            uid: fields.uid.to_owned(),
            created: fields.created,
            destinations,
            excluded,
            gateways,
            health_checked: fields.health_checked,
            reference_fault: fields.reference_fault,
            // One gateway taken on trust shares with nobody.
            weights: fields.weights.filter(|_| fields.health_checked).map(|_| weights),
            invalid_destinations,
            invalid_gateways,
            on_no_gateway: fields.on_no_gateway,
            drain_seconds: fields.drain_seconds,
            guard: None,
            refused,
        }
    }

    /// Whether what it lists is dropped rather than let out when there is nowhere to route it.
    pub fn is_fail_closed(&self) -> bool {
        self.on_no_gateway == OnNoGateway::FailClosed
    }

    /// This version without what a refused one leaves shut beside it.
    pub(crate) fn without_guard(&self) -> Self {
        let on_no_gateway = self.guard.as_ref().map_or(self.on_no_gateway, |guard| guard.own_mode);
        Self { guard: None, on_no_gateway, ..self.clone() }
    }

    /// Whether it takes part with what it lists itself, and not with its [`Guard`] alone. `is_routable`: nothing keeps this node
    /// from routing it.
    pub(crate) fn lists_for_itself(&self, is_routable: bool) -> bool {
        let own_mode = self.guard.as_ref().map_or(self.on_no_gateway, |guard| guard.own_mode);
        is_routable || own_mode == OnNoGateway::FailClosed
    }

    /// Whether the gateways share the traffic instead of one being used at a time.
    pub fn is_shared(&self) -> bool {
        self.weights.is_some()
    }

    /// Who comes first where two objects want the same: the older one, then the name.
    pub(crate) fn seniority(&self) -> (i64, &str, &str) {
        (self.created, &self.name, &self.uid)
    }
}

fn weight(index: usize, weights: &[i32]) -> Result<u16, InvalidValue> {
    let weight = weights.get(index).copied().unwrap_or(1);
    u16::try_from(weight).ok().filter(|weight| (1..=256).contains(weight)).ok_or_else(|| InvalidValue {
        field: format!("spec.gateways[{index}].weight"),
        value: weight.to_string(),
        fault: Fault::Weight,
    })
}
