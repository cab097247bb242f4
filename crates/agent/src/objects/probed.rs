//! How each gateway is to be probed, from everybody who lists it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::time::Duration;

use egress_api::{EgressGateway, GATEWAY_RELAY_PORT, HealthCheck};

/// How one gateway is probed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probed {
    /// Targets outside that prove the way through it. None: nobody outside is asked.
    pub targets: BTreeSet<SocketAddrV4>,
    /// Public addresses of other gateways of a list that it is in: their probe port answers whom they admit.
    pub peers: BTreeSet<Ipv4Addr>,
    /// Its own public addresses, as lists have them: others are asked about there.
    pub public: BTreeSet<Ipv4Addr>,
    /// Whether an EgressGateway made it: its connection table forgets as ours do.
    pub is_ours: bool,
    /// Where one address moves between gateways: which address that is, and which target each of this gateway's relay ports leads to.
    pub moving: Option<Moving>,
    /// Its health check; of several the most demanding, the one with the shortest interval. `None`: that of the defaults.
    pub check: Option<Check>,
}

/// An address that a gateway has in common with others, and what shows that it forwards while another one has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moving {
    /// The address; unspecified while it is not known.
    pub address: Ipv4Addr,
    /// Ports of the gateway that lead past the address, each to a target.
    pub relays: BTreeMap<SocketAddrV4, SocketAddrV4>,
}

/// The numbers of a health check, within the ranges of the API: who wrote the object is not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Check {
    /// Time between two probes in the VPC.
    pub interval: Duration,
    /// Time between two probes of one kind through the gateway.
    pub path_interval: Duration,
    /// Misses in a row that are a failure.
    pub fall: u8,
    /// Answers in a row that end it.
    pub rise: u8,
    /// How long a gateway that failed must work before a node that works elsewhere returns to it.
    pub hold_down: Duration,
    /// The longest that grows to.
    pub longest_hold_down: Duration,
    /// Loss, in percent over the slow detector's time, from which on a gateway that loses less is better.
    pub loss_percent: u8,
}

impl Default for Check {
    fn default() -> Self {
        Self::of(&HealthCheck::default())
    }
}

impl Check {
    /// The numbers of that health check.
    pub fn of(check: &HealthCheck) -> Self {
        let within =
            |value: i32, range: RangeInclusive<i32>| value.clamp(*range.start(), *range.end()).unsigned_abs();
        let millis = |value, range| Duration::from_millis(within(value, range).into());
        let seconds = |value, range| Duration::from_secs(within(value, range).into());
        let count = |value, range| u8::try_from(within(value, range)).unwrap_or(u8::MAX);
        Self {
            interval: millis(check.interval_milliseconds, 20..=10_000),
            path_interval: millis(check.path_interval_milliseconds, 200..=60_000),
            fall: count(check.fall, 2..=10),
            rise: count(check.rise, 1..=20),
            hold_down: seconds(check.hold_down_seconds, 0..=600),
            longest_hold_down: seconds(check.longest_hold_down_seconds, 1..=3600),
            loss_percent: count(check.loss_percent, 10..=90),
        }
    }
}

fn targets(check: &HealthCheck) -> impl Iterator<Item = SocketAddrV4> + '_ {
    check.targets.iter().filter_map(|target| target.0.parse::<SocketAddrV4>().ok())
}

impl Moving {
    /// Of a gateway of an EgressGateway with one address for all.
    fn of(egress_gateway: &EgressGateway, gateway: Ipv4Addr) -> Option<Self> {
        if !egress_gateway.spec.public_ip.moves() {
            return None;
        }
        let told = egress_gateway.status.iter().flat_map(|status| &status.public_ips);
        let address = told.filter_map(|ip| ip.parse().ok()).next().unwrap_or(Ipv4Addr::UNSPECIFIED);
        // In the order of the targets, as its user data has them.
        let in_order: BTreeSet<SocketAddrV4> = targets(&egress_gateway.spec.health_check).collect();
        let relay = |port| SocketAddrV4::new(gateway, port);
        let relays = (GATEWAY_RELAY_PORT..).map(relay).zip(in_order).collect();
        Some(Self { address, relays })
    }
}

impl Probed {
    /// Asks for a health check; the most demanding one counts.
    fn ask(&mut self, check: &HealthCheck) {
        self.targets.extend(targets(check));
        let asked = Check::of(check);
        self.check = Some(self.check.map_or(asked, |other| other.min(asked)));
    }
}

/// Everybody's word on whom to probe, until all of it is heard.
#[derive(Debug, Default)]
pub(super) struct Hearing {
    probed: BTreeMap<Ipv4Addr, Probed>,
    /// Gateways that may prove each other's source address: who is asked, through whom, and that one's public address.
    pairs: BTreeSet<(Ipv4Addr, Ipv4Addr, Ipv4Addr)>,
    /// Whom the filter of a gateway with that public address admits, where it is known.
    admitted: BTreeMap<Ipv4Addr, BTreeSet<Ipv4Addr>>,
}

impl Hearing {
    /// A StaticRoute lists these gateways: private address, and the public one where it is given.
    pub(super) fn list(&mut self, gateways: &[(Ipv4Addr, Option<Ipv4Addr>)], check: Option<&HealthCheck>) {
        for (gateway, _) in gateways {
            let probed = self.probed.entry(*gateway).or_default();
            if let Some(check) = check {
                probed.ask(check);
            }
        }
        self.pair(gateways.iter().filter_map(|(gateway, public)| Some((*gateway, (*public)?))));
    }

    /// An EgressGateway has gateways that are used or wait to be proven.
    pub(super) fn egress_gateway(&mut self, gateway: &EgressGateway) {
        let parse = |text: &String| text.parse::<Ipv4Addr>().ok();
        let mut both = Vec::new();
        for one in gateway.status.iter().flat_map(|status| &status.gateways) {
            let Some(private) = one.private_address.as_ref().and_then(parse) else { continue };
            let probed = self.probed.entry(private).or_default();
            probed.is_ours = true;
            probed.moving = Moving::of(gateway, private);
            probed.ask(&gateway.spec.health_check);
            if let Some(public) = one.public_address.as_ref().and_then(parse) {
                self.admitted.insert(public, one.admits.iter().filter_map(parse).collect());
                both.push((private, public));
            }
        }
        self.pair(both.into_iter());
    }

    /// Every gateway of a list may vouch for the others. With one address for all of them none can tell them apart.
    fn pair(&mut self, gateways: impl Iterator<Item = (Ipv4Addr, Ipv4Addr)>) {
        let gateways: Vec<_> = gateways.collect();
        for (gateway, own) in &gateways {
            let others = gateways.iter().map(|(_, public)| public).filter(|public| *public != own);
            self.pairs.extend(others.map(|public| (*public, *gateway, *own)));
        }
    }

    /// How each gateway is to be probed. A gateway whose filter is known is asked through those that it admits only: the silence
    /// of one that admits nobody would say nothing.
    pub(super) fn probed(mut self) -> BTreeMap<Ipv4Addr, Probed> {
        for (asked, gateway, own) in self.pairs {
            let is_admitted = self.admitted.get(&asked).is_none_or(|admitted| admitted.contains(&own));
            let Some(probed) = self.probed.get_mut(&gateway) else { continue };
            probed.public.insert(own);
            if is_admitted {
                probed.peers.insert(asked);
            }
        }
        self.probed
    }
}
