//! Whose Droplet is it? Names, tags, and the proof without which nothing is changed or deleted (invariant I1).
//!
//! A tag proves nothing on its own, neither does a name. [`OwnedDroplet`] can be made only by [`Identity::prove`], and every
//! effect that changes an existing Droplet takes one.

use std::collections::BTreeSet;

use egress_api::{
    ADDRESS_TAG_PREFIX, CLUSTER_TAG_PREFIX, FLEET_TAG, GatewayStatus, OWNER_TAG_PREFIX, SLOT_TAG_PREFIX,
};
use egress_digitalocean::{Droplet, DropletId};

/// What marks the Droplets of one EgressGateway of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the EgressGateway.
    pub name: String,
    /// Uid of the EgressGateway.
    pub owner: String,
    /// Uid of namespace `kube-system`.
    pub cluster: String,
}

/// A Droplet that is provably ours: recorded id, cluster tag, owner tag, VPC, and no node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedDroplet {
    id: DropletId,
    name: String,
}

impl OwnedDroplet {
    /// Its id.
    pub fn id(&self) -> DropletId {
        self.id
    }

    /// Its name as the cloud has it.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// A tag of ours on a Droplet that stays when its EgressGateway goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnTag {
    droplet: DropletId,
    name: String,
    tag: String,
}

impl OwnTag {
    /// The Droplet's id.
    pub fn droplet(&self) -> DropletId {
        self.droplet
    }

    /// The Droplet's name as the cloud has it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tag.
    pub fn tag(&self) -> &str {
        &self.tag
    }
}

/// Why a Droplet is not provably ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOurs {
    /// The status does not name it.
    #[error("its id is not recorded in the status")]
    NotRecorded,
    /// A tag is missing, or the token may not read tags.
    #[error("it does not carry the tag {0}")]
    Tag(String),
    /// Another VPC, or the token may not read it.
    #[error("it is not in VPC {0}")]
    Vpc(String),
    /// It is a worker of this cluster.
    #[error("it is a node of this cluster")]
    Node,
    /// The name is not one that we give.
    #[error("its name {0} is not one of ours")]
    Name(String),
}

impl Identity {
    /// `egress-cluster:<uid>`.
    pub fn cluster_tag(&self) -> String {
        cluster_tag(&self.cluster)
    }

    /// `egress-owner:<uid>`.
    pub fn owner_tag(&self) -> String {
        format!("{OWNER_TAG_PREFIX}{}", self.owner)
    }

    /// The tags of a Droplet in this slot, without the user's own.
    pub fn tags(&self, slot: i32) -> Vec<String> {
        vec![FLEET_TAG.to_owned(), self.cluster_tag(), self.owner_tag(), format!("{SLOT_TAG_PREFIX}{slot}")]
    }

    /// The name of the Droplet in this slot.
    pub fn droplet_name(&self, slot: i32) -> String {
        let short: String = self.owner.chars().take(8).collect();
        format!("{}-{slot}-{short}", self.name)
    }

    /// The slot that a Droplet's name stands for, if it is a name we give. Names are compared as the cloud does, without case.
    pub fn slot_of(&self, droplet_name: &str) -> Option<i32> {
        (0..=MOST_SLOTS).find(|slot| self.droplet_name(*slot).eq_ignore_ascii_case(droplet_name))
    }

    /// Whether a Droplet found by tag or name is the one that was asked for, so that its id may be recorded.
    pub fn adoptable(
        &self,
        droplet: &Droplet,
        vpc: &str,
        nodes: &BTreeSet<DropletId>,
    ) -> Result<i32, NotOurs> {
        self.marks(droplet, vpc, nodes)?;
        self.slot_of(&droplet.name).ok_or_else(|| NotOurs::Name(droplet.name.clone()))
    }

    /// The proof that a Droplet may be changed or deleted.
    pub fn prove(
        &self,
        recorded: &[GatewayStatus],
        droplet: &Droplet,
        vpc: &str,
        nodes: &BTreeSet<DropletId>,
    ) -> Result<OwnedDroplet, NotOurs> {
        if !recorded.iter().any(|gateway| droplet_id(gateway) == Some(droplet.id)) {
            return Err(NotOurs::NotRecorded);
        }
        self.marks(droplet, vpc, nodes)?;
        Ok(OwnedDroplet { id: droplet.id, name: droplet.name.clone() })
    }

    /// The next of our tags to be taken off a recorded Droplet that is to stay; `None` when it carries none any more. The owner's comes
    /// last: until then the Droplet is found again, whoever was killed in between.
    pub fn tag_to_take_off(
        &self,
        recorded: &[GatewayStatus],
        droplet: &Droplet,
        nodes: &BTreeSet<DropletId>,
    ) -> Result<Option<OwnTag>, NotOurs> {
        if !recorded.iter().any(|gateway| droplet_id(gateway) == Some(droplet.id)) {
            return Err(NotOurs::NotRecorded);
        }
        if nodes.contains(&droplet.id) {
            return Err(NotOurs::Node);
        }
        let owner = self.owner_tag();
        let Some(tags) = &droplet.tags else { return Err(NotOurs::Tag(owner)) };
        let cluster = self.cluster_tag();
        let of_ours = [SLOT_TAG_PREFIX, ADDRESS_TAG_PREFIX];
        let is_ours = |tag: &&String| {
            [FLEET_TAG, &cluster, &owner].contains(&tag.as_str())
                || of_ours.iter().any(|prefix| tag.starts_with(prefix))
        };
        let next = tags.iter().filter(is_ours).min_by_key(|tag| **tag == owner);
        let own = |tag: &String| OwnTag { droplet: droplet.id, name: droplet.name.clone(), tag: tag.clone() };
        Ok(next.map(own))
    }

    fn marks(&self, droplet: &Droplet, vpc: &str, nodes: &BTreeSet<DropletId>) -> Result<(), NotOurs> {
        if nodes.contains(&droplet.id) {
            return Err(NotOurs::Node);
        }
        for tag in [self.cluster_tag(), self.owner_tag()] {
            if droplet.has_tag(&tag) != Some(true) {
                return Err(NotOurs::Tag(tag));
            }
        }
        match &droplet.vpc_uuid {
            Some(id) if id.as_str() == vpc => Ok(()),
            _ => Err(NotOurs::Vpc(vpc.to_owned())),
        }
    }
}

// `spec.replicas` is at most 5, and there is one slot more; a lower number later must not hide what a higher one made.
const MOST_SLOTS: i32 = 5;

/// The tag on every Droplet of the cluster; what the shared list is read by.
pub fn cluster_tag(cluster: &str) -> String {
    format!("{CLUSTER_TAG_PREFIX}{cluster}")
}

/// The id that a status entry records; ids in the cloud are positive.
pub fn droplet_id(gateway: &GatewayStatus) -> Option<DropletId> {
    u64::try_from(gateway.droplet_id).ok().map(DropletId)
}

/// The Droplet behind a node's `spec.providerID`, `digitalocean://<id>`.
pub fn node_droplet(provider_id: &str) -> Option<DropletId> {
    provider_id.strip_prefix("digitalocean://")?.parse().ok().map(DropletId)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity { name: "egress-demo".into(), owner: "1a2b3c4d-0000".into(), cluster: "c1".into() }
    }

    fn droplet(json: &str) -> Droplet {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn names_carry_slot_and_owner_and_lead_back_to_the_slot() {
        let identity = identity();
        assert_eq!(identity.droplet_name(0), "egress-demo-0-1a2b3c4d");
        assert_eq!(identity.slot_of("Egress-Demo-2-1a2b3c4d"), Some(2));
        assert_eq!(identity.slot_of("egress-demo-2-1a2b3c4e"), None);
        assert_eq!(identity.slot_of("egress-demo-12-1a2b3c4d"), None);
    }

    #[test]
    fn names_that_are_alike_lead_to_no_slot_of_another() {
        let long = "a".repeat(49);
        let names = [
            "lost",
            "lost-0",
            "lost-0-1",
            "lost-00",
            "0",
            "0-0",
            &format!("{long}b"),
            &format!("{long}c"),
            &long,
        ];
        let of = |name: &str| Identity { name: name.to_owned(), ..identity() };
        for (name, other) in names.iter().flat_map(|name| names.iter().map(move |other| (name, other))) {
            for slot in 0..=MOST_SLOTS {
                let droplet_name = of(name).droplet_name(slot);
                assert!(droplet_name.len() <= 63, "no host name: {droplet_name}");
                let expected = (name == other).then_some(slot);
                for spelled in [droplet_name.clone(), droplet_name.to_ascii_uppercase()] {
                    assert_eq!(of(other).slot_of(&spelled), expected, "{spelled} as one of {other}");
                }
            }
        }
    }

    #[test]
    fn every_part_of_the_proof_is_needed() {
        let identity = identity();
        let ours = r#"{"id": 7, "name": "egress-demo-0-1a2b3c4d", "vpc_uuid": "v",
            "tags": ["egress-gateway", "egress-cluster:c1", "egress-owner:1a2b3c4d-0000"]}"#;
        let none = BTreeSet::new();
        assert_eq!(identity.adoptable(&droplet(ours), "v", &none), Ok(0));
        assert_eq!(identity.adoptable(&droplet(ours), "w", &none), Err(NotOurs::Vpc("w".into())));
        assert_eq!(
            identity.adoptable(&droplet(ours), "v", &BTreeSet::from([DropletId(7)])),
            Err(NotOurs::Node)
        );
        for (from, to) in [("cluster:c1", "cluster:c2"), ("owner:1a2b3c4d-0000", "owner:1a2b3c4d-0001")] {
            let foreign = droplet(&ours.replace(from, to));
            assert!(matches!(identity.adoptable(&foreign, "v", &none), Err(NotOurs::Tag(_))), "{to}");
        }
        let renamed = droplet(&ours.replace("egress-demo-0", "mine"));
        assert!(matches!(identity.adoptable(&renamed, "v", &none), Err(NotOurs::Name(_))));
        assert_eq!(identity.prove(&[], &droplet(ours), "v", &none), Err(NotOurs::NotRecorded));
        // What the token may not see proves nothing.
        let blind = droplet(r#"{"id": 7, "name": "egress-demo-0-1a2b3c4d"}"#);
        assert!(identity.adoptable(&blind, "v", &none).is_err());
    }

    #[test]
    fn from_a_droplet_that_stays_only_our_own_tags_are_taken_and_the_owners_last() {
        let identity = identity();
        let none = BTreeSet::new();
        let recorded = [GatewayStatus::new("a".into(), 0, 7, egress_api::GatewayRole::Leaving)];
        let next = |tags: &[&str]| {
            let seen = droplet(&serde_json::json!({"id": 7, "name": "a", "tags": tags}).to_string());
            identity.tag_to_take_off(&recorded, &seen, &none).unwrap().map(|own| own.tag().to_owned())
        };
        let (cluster, owner) = ("egress-cluster:c1", "egress-owner:1a2b3c4d-0000");
        assert_eq!(next(&[owner, cluster, "team"]).as_deref(), Some(cluster));
        assert_eq!(next(&["team", owner, "egress-slot:0"]).as_deref(), Some("egress-slot:0"));
        assert_eq!(next(&[owner, "egress-gateway"]).as_deref(), Some("egress-gateway"));
        let address = "egress-address:203-0-113-200";
        assert_eq!(next(&[owner, address]).as_deref(), Some(address));
        assert_eq!(next(&["team", owner]).as_deref(), Some(owner));
        assert_eq!(next(&["team", "egress-cluster:c2", "egress-owner:other"]), None);
        let seen = droplet(r#"{"id": 7, "name": "a", "tags": ["egress-gateway"]}"#);
        assert_eq!(identity.tag_to_take_off(&[], &seen, &none), Err(NotOurs::NotRecorded));
        let node = BTreeSet::from([DropletId(7)]);
        assert_eq!(identity.tag_to_take_off(&recorded, &seen, &node), Err(NotOurs::Node));
        let blind = droplet(r#"{"id": 7, "name": "a"}"#);
        assert!(identity.tag_to_take_off(&recorded, &blind, &none).is_err());
    }

    #[test]
    fn provider_ids_lead_to_droplets() {
        assert_eq!(node_droplet("digitalocean://3164494"), Some(DropletId(3_164_494)));
        assert_eq!(node_droplet("aws:///eu/i-1"), None);
    }
}
