//! Whose it is: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fmt::Write as _;
use std::process::ExitCode;

use egress_api::{CLUSTER_TAG_PREFIX, FLEET_TAG, OWNER_TAG_PREFIX};
use egress_controller::identity::{Identity, cluster_tag, droplet_id};
use egress_digitalocean::{Droplet, DropletId, Firewall, ReservedIp};
use jiff::Timestamp;
use kube::Resource as _;
use serde::Serialize;

use crate::output::{Table, count};
use crate::view::{View, name};

/// What makes a thing this cluster's, and who may have it.
#[derive(Clone, Debug)]
pub struct Cluster {
    uid: String,
    vpc: String,
    nodes: BTreeSet<DropletId>,
    /// Names by uid.
    owners: BTreeMap<String, String>,
    /// Droplets that an EgressGateway has recorded or names.
    claimed: BTreeMap<DropletId, String>,
    /// EgressGateways of which nobody knows what they claim.
    unreadable: Vec<String>,
}

impl Cluster {
    /// What there is in the cluster.
    pub fn new(uid: String, vpc: String, nodes: BTreeSet<DropletId>, view: &View) -> Self {
        let meta = |gateway: &egress_runtime::guarded::Guarded<egress_api::EgressGateway>| {
            Some((gateway.meta().uid.clone()?, name(gateway).to_owned()))
        };
        let mut claimed = BTreeMap::new();
        for gateway in view.gateways() {
            let recorded = gateway.status.iter().flat_map(|status| &status.gateways).filter_map(droplet_id);
            let named =
                gateway.spec.existing_droplets.iter().filter_map(|id| u64::try_from(*id).ok()).map(DropletId);
            claimed.extend(recorded.chain(named).map(|id| (id, name(gateway).to_owned())));
        }
        let unreadable = view.egress_gateways.iter().filter(|gateway| gateway.0.is_err());
        Self {
            uid,
            vpc,
            nodes,
            owners: view.egress_gateways.iter().filter_map(meta).collect(),
            claimed,
            unreadable: unreadable.map(|gateway| name(gateway).to_owned()).collect(),
        }
    }

    /// Whether an EgressGateway has this uid.
    pub fn has_owner(&self, uid: &str) -> bool {
        self.owners.contains_key(uid)
    }

    /// What is known of a Droplet with our tag; `None` when it is not this cluster's, or an EgressGateway has it.
    pub fn judge(&self, droplet: &Droplet) -> Option<Orphan> {
        let tags = droplet.tags.clone().unwrap_or_default();
        let tag = |prefix: &str| tags.iter().find_map(|tag| tag.strip_prefix(prefix)).unwrap_or_default();
        if tag(CLUSTER_TAG_PREFIX) != self.uid {
            return None;
        }
        let owner = tag(OWNER_TAG_PREFIX).to_owned();
        if self.has_owner(&owner) || self.claimed.contains_key(&droplet.id) {
            return None;
        }
        // As the controller calls them: its own code says whether the rest of the name fits.
        let short: String = owner.chars().take(8).collect();
        let stem = droplet.name.strip_suffix(&format!("-{short}")).and_then(|stem| stem.rsplit_once('-'));
        let stem = stem.map(|(stem, _)| stem.to_owned()).unwrap_or_default();
        let identity = Identity { name: stem, owner: owner.clone(), cluster: self.uid.clone() };
        let is_adoptable = identity.adoptable(droplet, &self.vpc, &self.nodes);
        let is_named = !owner.is_empty() && identity.slot_of(&droplet.name).is_some();
        let in_vpc = droplet.vpc_uuid.as_ref().is_some_and(|vpc| vpc.as_str() == self.vpc);
        let mut proof = vec![
            Proof::of(tags.iter().any(|tag| tag == FLEET_TAG), format!("it carries the tag {FLEET_TAG}")),
            Proof::of(true, format!("it carries this cluster's tag {}", cluster_tag(&self.uid))),
            Proof::of(
                !owner.is_empty(),
                format!(
                    "it carries its owner's tag {OWNER_TAG_PREFIX}{owner}, and no EgressGateway has that uid"
                ),
            ),
            Proof::of(
                is_named,
                format!("its name {} is one that the controller gives for that owner", droplet.name),
            ),
            Proof::of(in_vpc, format!("it is in VPC {}, that of the cluster's nodes", self.vpc)),
            Proof::of(!self.nodes.contains(&droplet.id), "it is no node of the cluster".to_owned()),
            Proof::of(
                self.unreadable.is_empty(),
                format!("no EgressGateway has recorded or named it{}", unread(&self.unreadable)),
            ),
        ];
        if let Err(not) = is_adoptable
            && proof.iter().all(|one| one.holds)
        {
            proof.push(Proof::of(false, format!("the controller would take it for its own ({not})")));
        }
        Some(Orphan {
            kind: Resource::Droplet,
            id: droplet.id.to_string(),
            name: droplet.name.clone(),
            owner,
            created: droplet.created_at,
            proof,
            droplets: BTreeSet::from([droplet.id]),
        })
    }
}

fn unread(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(" ({} can't be read)", names.join(", ")) }
}

/// Kinds of things in the cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Resource {
    /// A Droplet.
    Droplet,
    /// A cloud firewall.
    Firewall,
    /// A reserved address.
    ReservedAddress,
}

impl Resource {
    /// In words.
    pub fn word(self) -> &'static str {
        match self {
            Self::Droplet => "Droplet",
            Self::Firewall => "firewall",
            Self::ReservedAddress => "reserved address",
        }
    }
}

/// A part of the proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Proof {
    holds: bool,
    that: String,
}

impl Proof {
    fn of(holds: bool, that: String) -> Self {
        Self { holds, that }
    }
}

/// A thing that nobody in this cluster has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Orphan {
    /// What it is.
    pub kind: Resource,
    /// Its identity.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Uid of the EgressGateway that it was made for.
    owner: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<Timestamp>,
    /// What must hold before it may be deleted.
    proof: Vec<Proof>,
    /// Droplets that it concerns.
    #[serde(skip)]
    pub droplets: BTreeSet<DropletId>,
}

impl Orphan {
    /// Whether all of the proof holds.
    pub fn is_proven(&self) -> bool {
        self.kind != Resource::ReservedAddress && self.proof.iter().all(|one| one.holds)
    }

    /// The proof, line by line.
    pub fn proof_in_words(&self) -> String {
        let mut text = format!("{} {} ({})\n", self.kind.word(), self.name, self.id);
        for Proof { holds, that } in &self.proof {
            // Writing to a string can't fail.
            let _infallible = writeln!(text, "  {} {that}", if *holds { "yes" } else { "NO " });
        }
        text
    }
}

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Orphans {
    /// They.
    #[serde(rename = "orphans")]
    found: Vec<Orphan>,
    notes: Vec<String>,
    #[serde(skip)]
    blind: bool,
}

impl Orphans {
    /// The orphans among these. `firewalls` and `addresses` may not be readable.
    pub fn among(
        cluster: &Cluster,
        droplets: &[Droplet],
        firewalls: Result<Vec<Firewall>, String>,
        addresses: Result<Vec<ReservedIp>, String>,
    ) -> Self {
        let mut notes = Vec::new();
        let blind = droplets.iter().any(|droplet| droplet.tags.is_none());
        if blind {
            notes.push(
                "the token does not see tags (scope tag:read): whose Droplets are whose can't be told"
                    .to_owned(),
            );
        }
        let tagged =
            |droplet: &&Droplet| droplet.tags.iter().flatten().any(|tag| *tag == cluster_tag(&cluster.uid));
        let elsewhere = droplets.iter().filter(|droplet| droplet.tags.is_some() && !tagged(droplet)).count();
        if elsewhere > 0 {
            notes.push(format!(
                "{} of other clusters are not looked at",
                count(elsewhere, "Droplet", "Droplets")
            ));
        }
        let mut orphans: Vec<Orphan> = droplets.iter().filter_map(|droplet| cluster.judge(droplet)).collect();
        match firewalls {
            Ok(firewalls) => {
                let found =
                    firewalls.iter().filter_map(|firewall| judge_firewall(cluster, firewall, &orphans));
                let found: Vec<Orphan> = found.collect();
                orphans.extend(found);
            }
            Err(error) => notes.push(error),
        }
        match addresses {
            Ok(addresses) => {
                let found = addresses.iter().filter_map(|address| judge_address(address, &orphans));
                let found: Vec<Orphan> = found.collect();
                orphans.extend(found);
            }
            Err(error) => notes.push(error),
        }
        orphans.sort_by(|a, b| (a.kind, &a.name, &a.id).cmp(&(b.kind, &b.name, &b.id)));
        Self { found: orphans, notes, blind }
    }

    /// The one with this id.
    pub fn find(&self, id: &str) -> Option<&Orphan> {
        self.found.iter().find(|orphan| orphan.id == id)
    }

    /// 0, none; 1, some; 2, it can't be told.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match (self.blind, self.found.is_empty()) {
            (_, false) => 1,
            (true, true) => 2,
            (false, true) => 0,
        })
    }
}

/// The uid at the end of the name of one of our firewalls.
pub fn uid_of(name: &str) -> Option<&str> {
    const UID: usize = 36;
    let at = name.len().checked_sub(UID)?;
    let uid = name.get(at..)?;
    let is_uid = uid.char_indices().all(|(at, one)| match at {
        8 | 13 | 18 | 23 => one == '-',
        _ => one.is_ascii_hexdigit(),
    });
    (is_uid && name.get(..at)?.ends_with('-')).then_some(uid)
}

// A firewall carries no tag of ours: the Droplets that it names prove it, and without any nobody can say whose it was.
fn judge_firewall(cluster: &Cluster, firewall: &Firewall, orphans: &[Orphan]) -> Option<Orphan> {
    let owner = uid_of(&firewall.name)?;
    if cluster.has_owner(owner) {
        return None;
    }
    let of_owner: Vec<&Orphan> =
        orphans.iter().filter(|orphan| orphan.owner == owner && orphan.is_proven()).collect();
    let its = |id: &DropletId| of_owner.iter().any(|orphan| orphan.droplets.contains(id));
    let droplets: BTreeSet<DropletId> = firewall.droplet_ids.iter().copied().collect();
    // Of other clusters, or of people.
    if !droplets.is_empty() && !droplets.iter().any(its) {
        return None;
    }
    let list: Vec<String> = droplets.iter().map(ToString::to_string).collect();
    let applies = if list.is_empty() {
        "it applies to Droplets of that owner (it applies to none, so nobody can say of which cluster it was)"
            .to_owned()
    } else {
        format!("it applies to Droplets of that owner only: {}", list.join(", "))
    };
    let proof = vec![
        Proof::of(
            true,
            format!(
                "its name {} ends with the uid of its owner, and no EgressGateway has that uid",
                firewall.name
            ),
        ),
        Proof::of(
            firewall.tags.as_ref().is_some_and(Vec::is_empty),
            "it applies to nothing by a tag".to_owned(),
        ),
        Proof::of(!droplets.is_empty() && droplets.iter().all(its), applies),
    ];
    Some(Orphan {
        kind: Resource::Firewall,
        id: firewall.id.to_string(),
        name: firewall.name.clone(),
        owner: owner.to_owned(),
        created: None,
        proof,
        droplets,
    })
}

fn judge_address(address: &ReservedIp, orphans: &[Orphan]) -> Option<Orphan> {
    let droplet = address.droplet?;
    let holder =
        orphans.iter().find(|one| one.kind == Resource::Droplet && one.droplets.contains(&droplet))?;
    let words = "it was reserved for its owner (an address carries no tags): release it by hand, if no partner allows it any more: \
                 doctl compute reserved-ip delete";
    Some(Orphan {
        kind: Resource::ReservedAddress,
        id: address.ip.to_string(),
        name: format!("held by {}", holder.name),
        owner: holder.owner.clone(),
        created: None,
        proof: vec![
            Proof::of(true, format!("Droplet {droplet} holds it")),
            Proof::of(false, words.to_owned()),
        ],
        droplets: BTreeSet::from([droplet]),
    })
}

impl fmt::Display for Orphans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.found.is_empty() && !self.blind {
            writeln!(f, "There are none.")?;
        }
        let mut table = Table::new(&["KIND", "ID", "NAME", "CREATED", "PROVEN"]);
        for orphan in &self.found {
            let missing = orphan.proof.iter().find(|one| !one.holds);
            table.row([
                orphan.kind.word().to_owned(),
                orphan.id.clone(),
                orphan.name.clone(),
                orphan.created.map(|created| created.to_string()).unwrap_or_default(),
                missing.map_or_else(|| "yes".to_owned(), |missing| format!("no: that {}", missing.that)),
            ]);
        }
        if !table.is_empty() {
            write!(f, "{table}")?;
            writeln!(f, "\nWhat is proven goes with: kubectl egress orphans --delete ID")?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
