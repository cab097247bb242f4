//! The cloud firewall of an EgressGateway: which one is ours, and what it is to be (`docs/decisions/0023-cloud-firewall.md`).
//!
//! A firewall can carry no mark but its name: a tag on it says to whom it applies. Ours is the one whose id the status records and
//! whose name is the one that we give, which holds the whole uid of the EgressGateway. One that is not recorded is taken over only
//! if it applies to nobody but our own gateways.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use egress_api::{FirewallStatus, GATEWAY_PROBE_PORT};
use egress_digitalocean::{
    DropletId, Firewall, FirewallId, FirewallName, FirewallRule, FirewallSpec, FirewallStatus as Progress,
    Peers, Ports, Protocol,
};
use ipnet::Ipv4Net;

use crate::identity::Identity;

// With the uid no longer than 64 characters, which the API is known to take.
const LONGEST_PREFIX: usize = 27;

/// A firewall that is provably ours: recorded id and our name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedFirewall {
    id: FirewallId,
    name: String,
    failed: bool,
}

impl OwnedFirewall {
    /// Its id.
    pub fn id(&self) -> &FirewallId {
        &self.id
    }

    /// Its name as the cloud has it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the cloud said that it could not put it into force.
    pub fn has_failed(&self) -> bool {
        self.failed
    }
}

/// Why a firewall is not provably ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOurs {
    /// The status does not name it.
    #[error("its id is not recorded in the status")]
    NotRecorded,
    /// Somebody renamed it, or recorded another one.
    #[error("its name is {0}")]
    Name(String),
    /// It applies to Droplets by a tag.
    #[error("it applies to Droplets with the tag {0}")]
    Tag(String),
    /// A token without `tag:read` is not shown to whom it applies.
    #[error(
        "its tags are not shown, which may apply it to other Droplets: the API token needs the scope tag:read"
    )]
    TagsUnknown,
    /// It applies to a Droplet that is none of our gateways.
    #[error("it applies to Droplet {0}")]
    Droplet(DropletId),
}

impl Identity {
    /// The name of the firewall.
    pub fn firewall_name(&self) -> String {
        let prefix: String = self.name.chars().take(LONGEST_PREFIX).collect();
        format!("{prefix}-{}", self.owner)
    }

    /// Whether a firewall has the name of ours. Names are compared without case, as those of Droplets.
    pub fn names(&self, firewall: &Firewall) -> bool {
        firewall.name.eq_ignore_ascii_case(&self.firewall_name())
    }

    /// Whether a firewall that is not recorded is the one that was asked for, so that its id may be recorded.
    pub fn adoptable_firewall(
        &self,
        firewall: &Firewall,
        gateways: &BTreeSet<DropletId>,
    ) -> Result<(), NotOurs> {
        if !self.names(firewall) {
            return Err(NotOurs::Name(firewall.name.clone()));
        }
        let tags = firewall.tags.as_ref().ok_or(NotOurs::TagsUnknown)?;
        if let Some(tag) = tags.first() {
            return Err(NotOurs::Tag(tag.clone()));
        }
        match firewall.droplet_ids.iter().find(|id| !gateways.contains(id)) {
            Some(other) => Err(NotOurs::Droplet(*other)),
            None => Ok(()),
        }
    }

    /// The proof that a firewall may be changed or deleted. What somebody else put into it is no objection: that is drift.
    pub fn prove_firewall(
        &self,
        recorded: Option<&FirewallStatus>,
        firewall: &Firewall,
    ) -> Result<OwnedFirewall, NotOurs> {
        if !recorded.into_iter().flat_map(recorded_ids).any(|id| id == firewall.id.as_str()) {
            return Err(NotOurs::NotRecorded);
        }
        if !self.names(firewall) {
            return Err(NotOurs::Name(firewall.name.clone()));
        }
        let failed = firewall.status == Progress::Failed;
        Ok(OwnedFirewall { id: firewall.id.clone(), name: firewall.name.clone(), failed })
    }
}

/// Ids of the firewall and of its doubles.
pub fn recorded_ids(recorded: &FirewallStatus) -> impl Iterator<Item = &str> {
    recorded.id.iter().chain(&recorded.doubles).map(String::as_str)
}

/// What the firewall is to be: open to the sources that gateways serve, on the public side to probes of one gateway by another and
/// to ICMP. `None` if the name is none that the API takes.
///
/// ICMP comes from whoever is on the way: a router that says how large packets may be is in no list. Whether the cloud takes such an
/// answer for one to what went out is not documented; the gateway's own filter does, and drops all other ICMP of the public side.
pub fn spec(
    name: &str,
    gateways: BTreeSet<DropletId>,
    sources: &[Ipv4Net],
    addresses: &BTreeSet<Ipv4Addr>,
) -> Option<FirewallSpec> {
    let rule = |protocol, ports, peers| FirewallRule { protocol, ports, peers };
    let served = || Peers::ranges(sources.iter().copied());
    let anybody = || Peers::ranges([Ipv4Net::default()]);
    let mut inbound = vec![
        rule(Protocol::Tcp, Ports::All, served()),
        rule(Protocol::Udp, Ports::All, served()),
        rule(Protocol::Icmp, Ports::All, anybody()),
    ];
    // A single one has no peers.
    if addresses.len() > 1 {
        let peers = Peers::ranges(addresses.iter().copied().map(Ipv4Net::from));
        inbound.push(rule(Protocol::Tcp, Ports::one(GATEWAY_PROBE_PORT), peers));
    }
    let outbound = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp];
    Some(FirewallSpec {
        name: FirewallName::new(name).ok()?,
        droplets: gateways.into_iter().take(FirewallSpec::MOST_DROPLETS).collect(),
        inbound,
        outbound: outbound.into_iter().map(|protocol| rule(protocol, Ports::All, anybody())).collect(),
    })
}

/// Whether this address may reach the probe port through a firewall.
pub fn lets_in(firewall: &Firewall, address: Ipv4Addr) -> bool {
    firewall.inbound.iter().any(|rule| {
        let port = match rule.ports {
            Ports::All => true,
            Ports::Range(first, last) => (first..=last).contains(&GATEWAY_PROBE_PORT),
        };
        rule.protocol == Protocol::Tcp
            && port
            && rule.peers.addresses.iter().any(|range| range.contains(&address))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            name: "demo".into(),
            owner: "1a2b3c4d-0000-4000-8000-00000000000a".into(),
            cluster: "c".into(),
        }
    }

    fn firewall(name: &str) -> Firewall {
        let json = format!(r#"{{"id": "w", "name": "{name}", "droplet_ids": [7, 8], "tags": []}}"#);
        serde_json::from_str(&json).unwrap()
    }

    const NAME: &str = "demo-1a2b3c4d-0000-4000-8000-00000000000a";

    #[test]
    fn the_name_holds_the_whole_uid_and_is_never_longer_than_64() {
        assert_eq!(identity().firewall_name(), NAME);
        let long = Identity { name: "x".repeat(63), ..identity() };
        assert_eq!(long.firewall_name().len(), 64);
        assert!(long.firewall_name().ends_with(&long.owner));
        let other = Identity { owner: "1a2b3c4d-0000-4000-8000-00000000000b".into(), ..identity() };
        assert!(!other.names(&firewall(NAME)));
    }

    #[test]
    fn one_that_is_not_recorded_is_taken_over_only_if_it_applies_to_our_gateways_alone() {
        let identity = identity();
        let ours = BTreeSet::from([DropletId(7), DropletId(8), DropletId(9)]);
        assert_eq!(identity.adoptable_firewall(&firewall(NAME), &ours), Ok(()));
        let seven = BTreeSet::from([DropletId(7)]);
        let foreign = identity.adoptable_firewall(&firewall(NAME), &seven);
        assert_eq!(foreign, Err(NotOurs::Droplet(DropletId(8))));
        let tagged = Firewall { tags: Some(vec!["web".into()]), ..firewall(NAME) };
        assert_eq!(identity.adoptable_firewall(&tagged, &ours), Err(NotOurs::Tag("web".into())));
        let unseen = Firewall { tags: None, ..firewall(NAME) };
        assert_eq!(identity.adoptable_firewall(&unseen, &ours), Err(NotOurs::TagsUnknown));
        assert!(matches!(identity.adoptable_firewall(&firewall("demo"), &ours), Err(NotOurs::Name(_))));
    }

    #[test]
    fn id_and_name_are_both_needed_to_change_one() {
        let identity = identity();
        let recorded = |id: &str| FirewallStatus {
            name: NAME.into(),
            id: Some(id.into()),
            doubles: vec!["double".into()],
            since: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH),
            sent: None,
            message: None,
            refused_since: None,
            not_before: None,
        };
        let proof = |recorded: Option<&FirewallStatus>, name: &str| {
            identity.prove_firewall(recorded, &firewall(name))
        };
        assert_eq!(proof(Some(&recorded("w")), NAME).unwrap().id().as_str(), "w");
        assert_eq!(proof(Some(&recorded("v")), NAME), Err(NotOurs::NotRecorded));
        assert_eq!(proof(None, NAME), Err(NotOurs::NotRecorded));
        assert_eq!(proof(Some(&recorded("w")), "web"), Err(NotOurs::Name("web".into())));
    }

    #[test]
    fn only_peers_come_in_from_outside_and_what_is_served_from_within() {
        let sources = ["10.116.0.0/20".parse().unwrap(), "10.244.0.0/16".parse().unwrap()];
        let addresses: BTreeSet<Ipv4Addr> =
            ["203.0.113.1", "203.0.113.2"].map(|one| one.parse().unwrap()).into();
        let made = spec(NAME, BTreeSet::from([DropletId(7)]), &sources, &addresses).unwrap();
        let shown = Firewall { inbound: made.inbound.clone(), ..firewall(NAME) };
        for (address, may) in
            [("203.0.113.1", true), ("203.0.113.3", false), ("10.244.7.1", true), ("10.0.0.1", false)]
        {
            assert_eq!(lets_in(&shown, address.parse().unwrap()), may, "{address}");
        }
        let public: Vec<&FirewallRule> = made
            .inbound
            .iter()
            .filter(|rule| !rule.peers.addresses.iter().all(|range| sources.contains(range)))
            .collect();
        assert_eq!(public.len(), 2, "{public:?}");
        assert_eq!((public[0].protocol, public[1].ports), (Protocol::Icmp, Ports::one(9181)));
        let single =
            spec(NAME, BTreeSet::new(), &sources, &BTreeSet::from(["203.0.113.1".parse().unwrap()])).unwrap();
        assert_eq!(single.inbound.len(), 3, "nobody has a reason to ask a single one");
    }
}
