//! What firewalls do to packets, which comes after what they ask for.
//!
//! ```text
//!  asked for ≠ done or on its way ──► on its way ──Delays::firewall──► done ──► told to the machine room ──► confirmed
//!                                       ▲   │ asked for something else: begins again
//!                                       └───┘
//! ```
//!
//! Responsibility: one [`Place`] for each firewall at each Droplet, and the policy of a Droplet, which adds them up. A
//! firewall says `waiting`, and names the Droplet in `pending_changes`, until its place is confirmed; without a machine room
//! what is done is confirmed. A Droplet that is gone takes its places with it at once.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::{IpNet, Ipv4Net};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::{Cloud, Droplet, later};
use super::rules::{Rule, range};
use super::{Firewall, Protocol};

/// What passes by a rule, its peers resolved to IPv4 ranges. There is no IPv6 in this cloud.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pass {
    /// Which packets.
    pub protocol: Protocol,
    /// As the API shows them: `0` is all.
    pub ports: String,
    /// From or to where, sorted.
    pub addresses: Vec<Ipv4Net>,
}

/// What one firewall lets through at one Droplet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passes {
    /// What may come in.
    pub inbound: Vec<Pass>,
    /// What may go out.
    pub outbound: Vec<Pass>,
}

/// A firewall at a Droplet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// What acts there; `None` when it does not.
    pub acting: Option<Passes>,
    /// What will, and from when.
    pub coming: Option<(Option<Passes>, Timestamp)>,
    /// Whether the machine room has yet to confirm what acts.
    pub unconfirmed: bool,
    /// Whether the last change took it away.
    pub removing: bool,
}

/// A Droplet's policy for the machine room, to be confirmed by [`Cloud::enforced`].
#[derive(Debug, Clone, PartialEq)]
pub struct Enforcement {
    /// The Droplet.
    pub droplet: u64,
    /// What the command gets on standard input ([`Cloud::policy_json`]).
    pub policy: Value,
}

impl Firewall {
    /// Whether it applies to this Droplet: a tag of a new Droplet counts from when it has landed.
    pub fn covers(&self, droplet: &Droplet, now: Timestamp) -> bool {
        self.droplet_ids.contains(&droplet.id)
            || droplet.tags.iter().any(|tagged| tagged.listed_from <= now && self.tags.contains(&tagged.name))
    }

    /// Droplets at which its last change is not through, and whether that takes it away there.
    pub(super) fn pending(&self) -> impl Iterator<Item = (u64, bool)> + '_ {
        let pending = self.places.iter().filter(|(_, place)| place.coming.is_some() || place.unconfirmed);
        pending.map(|(id, place)| {
            let removing = place.coming.as_ref().map_or(place.removing, |(to, _)| to.is_none());
            (*id, removing)
        })
    }
}

impl Cloud {
    /// Compares what every firewall asks for with what it does, and starts what is missing.
    pub(in super::super) fn bring_firewalls_after(&mut self, now: Timestamp) {
        self.landing = None;
        if self.firewalls.is_empty() {
            return;
        }
        let droplets = &self.droplets;
        let exists = |id: &u64| droplets.get(id).is_some_and(Droplet::exists);
        let landed = landed_tags(droplets, now);
        let due = later(now, self.delays.firewall);
        for firewall in self.firewalls.values_mut() {
            firewall.droplet_ids.retain(exists);
            firewall.places.retain(|id, place| {
                let stays = exists(id);
                if !stays && self.machines && place.acting.is_some() {
                    self.enforcing.insert(*id);
                }
                stays
            });
            let covered: BTreeSet<u64> = if firewall.deleted {
                BTreeSet::new()
            } else {
                let by_tag = firewall.tags.iter().filter_map(|tag| landed.get(tag.as_str())).flatten();
                firewall.droplet_ids.iter().chain(by_tag).copied().collect()
            };
            let asked = Passes {
                inbound: resolve(&firewall.inbound, droplets, &landed),
                outbound: resolve(&firewall.outbound, droplets, &landed),
            };
            for id in &covered {
                firewall.places.entry(*id).or_insert_with(Place::nothing);
            }
            for (id, place) in &mut firewall.places {
                place.ask(covered.contains(id).then_some(&asked), due);
            }
        }
        self.forget_idle_firewalls();
        let tags =
            self.droplets.values().filter(|droplet| droplet.exists()).flat_map(|droplet| &droplet.tags);
        self.landing = tags.map(|tagged| tagged.listed_from).filter(|from| *from > now).min();
    }

    /// When the next change of a firewall is due, or a tag lands that one of them names.
    pub(in super::super) fn next_firewall_step(&self) -> Option<Timestamp> {
        let places = self.firewalls.values().flat_map(|firewall| firewall.places.values());
        let changes = places.filter_map(|place| place.coming.as_ref().map(|(_, due)| *due));
        changes.chain(self.landing).min()
    }

    /// Lets everything act that is due at `at`.
    pub(in super::super) fn step_firewalls(&mut self, at: Timestamp) {
        let machines = self.machines;
        for firewall in self.firewalls.values_mut() {
            for (droplet, place) in &mut firewall.places {
                if place.coming.as_ref().is_some_and(|(_, due)| *due <= at)
                    && let Some((to, _)) = place.coming.take()
                {
                    place.removing = to.is_none();
                    place.acting = to;
                    place.unconfirmed = machines;
                    if machines {
                        self.enforcing.insert(*droplet);
                    }
                }
            }
        }
    }

    fn forget_idle_firewalls(&mut self) {
        for firewall in self.firewalls.values_mut() {
            firewall.places.retain(|_, place| !place.is_idle());
        }
        self.firewalls.retain(|_, firewall| !firewall.deleted || !firewall.places.is_empty());
    }
}

impl Cloud {
    /// What the machine room has to be told, in no order; until it confirms it, it is asked again.
    pub fn enforcements(&self) -> Vec<Enforcement> {
        let of = |droplet: &u64| Enforcement { droplet: *droplet, policy: self.policy_json(*droplet) };
        self.enforcing.iter().map(of).collect()
    }

    /// Whether there is any.
    pub fn has_enforcements(&self) -> bool {
        !self.enforcing.is_empty()
    }

    /// The machine room has done it. What changed meanwhile is still to be done.
    pub fn enforced(&mut self, done: &Enforcement) {
        if self.policy_json(done.droplet) != done.policy {
            return;
        }
        self.enforcing.remove(&done.droplet);
        for firewall in self.firewalls.values_mut() {
            if let Some(place) = firewall.places.get_mut(&done.droplet) {
                place.unconfirmed = false;
            }
        }
        self.forget_idle_firewalls();
    }

    /// What acts on a Droplet now: `rules` is null without a firewall, and then everything passes; otherwise nothing passes
    /// but what they name, and answers to it (docs/architecture.md, the machine hook).
    pub fn policy_json(&self, droplet: u64) -> Value {
        let acting =
            self.firewalls.values().filter_map(|firewall| firewall.places.get(&droplet)?.acting.as_ref());
        let acting: Vec<&Passes> = acting.collect();
        let all = |side: fn(&Passes) -> &Vec<Pass>| -> BTreeSet<&Pass> {
            acting.iter().flat_map(|passes| side(passes)).collect()
        };
        let rules =
            json!({"inbound": all(|passes| &passes.inbound), "outbound": all(|passes| &passes.outbound)});
        json!({"id": droplet, "rules": if acting.is_empty() { Value::Null } else { rules }})
    }
}

impl Place {
    fn nothing() -> Self {
        Self { acting: None, coming: None, unconfirmed: false, removing: false }
    }

    fn ask(&mut self, asked: Option<&Passes>, due: Timestamp) {
        let coming = self.coming.as_ref().map_or(self.acting.as_ref(), |(to, _)| to.as_ref());
        if coming != asked {
            self.coming = (self.acting.as_ref() != asked).then(|| (asked.cloned(), due));
        }
    }

    fn is_idle(&self) -> bool {
        self.acting.is_none() && self.coming.is_none() && !self.unconfirmed
    }
}

type Landed<'a> = BTreeMap<&'a str, Vec<u64>>;

/// Droplets by the tags that have landed.
fn landed_tags(droplets: &BTreeMap<u64, Droplet>, now: Timestamp) -> Landed<'_> {
    let mut landed = Landed::new();
    for droplet in droplets.values().filter(|droplet| droplet.exists()) {
        for tagged in droplet.tags.iter().filter(|tagged| tagged.listed_from <= now) {
            landed.entry(tagged.name.as_str()).or_default().push(droplet.id);
        }
    }
    landed
}

/// Rules with addresses instead of names. One whose peers have none lets nothing through.
fn resolve(rules: &[Rule], droplets: &BTreeMap<u64, Droplet>, landed: &Landed<'_>) -> Vec<Pass> {
    let passes = rules.iter().map(|rule| {
        let written = rule.peers.addresses.iter().filter_map(|text| range(text));
        let mut addresses: Vec<Ipv4Net> = written
            .filter_map(|range| match range {
                IpNet::V4(range) => Some(range.trunc()),
                IpNet::V6(_) => None,
            })
            .collect();
        let nodes = rule.peers.kubernetes_ids.iter().map(|id| format!("k8s:{id}"));
        let tags = rule.peers.tags.iter().cloned().chain(nodes);
        let tagged = tags.filter_map(|tag| landed.get(tag.as_str())).flatten();
        let named = rule.peers.droplet_ids.iter().chain(tagged).filter_map(|id| droplets.get(id));
        let own = named.filter(|droplet| droplet.exists()).flat_map(Droplet::addresses);
        addresses.extend(own.map(Ipv4Net::from));
        addresses.sort_unstable();
        addresses.dedup();
        Pass { protocol: rule.protocol, ports: rule.shown_ports(), addresses }
    });
    passes.filter(|pass| !pass.addresses.is_empty()).collect()
}
