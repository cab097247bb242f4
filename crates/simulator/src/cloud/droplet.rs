//! Droplets: what they are, how they are shown, listed and deleted.
//!
//! ```text
//!  POST ──► Provisioning: new ──active_at──► active, no networks ──networks_at──► Live ──DELETE──► Deleting
//!             │ vanish_at, boot failed                                                              │ delete
//!             └────────────────────────────► Gone (404; in tag lists until ghost_until) ◄───────────┘
//! ```

use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::action::Outcome;
use super::paging::page;
use super::{Answer, Cloud, Interface, MachineVerb, Refusal, Request, Tagged, later, written};

/// Power state as the API names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Accepted, not started yet.
    New,
    /// Running.
    Active,
    /// Powered off.
    Off,
}

/// Where a Droplet is between accepted and forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The create action runs.
    Provisioning {
        /// When `status` may become `active`; `None` for never.
        active_at: Option<Timestamp>,
    },
    /// Created; power state in [`Droplet::status`].
    Live,
    /// The delete was accepted; still answers 200.
    Deleting,
    /// Answers 404; a lagging tag index may still list it.
    Gone {
        /// When the tag index forgets it.
        ghost_until: Timestamp,
    },
}

/// A Droplet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Droplet {
    /// Identity.
    pub id: u64,
    /// Hostname; not unique.
    pub name: String,
    /// Slug of the size.
    pub size: String,
    /// Id of the image.
    pub image: u64,
    /// Slug of the region.
    pub region: String,
    /// VPC it lives in.
    pub vpc: String,
    /// When the create was accepted.
    pub created_at: Timestamp,
    /// User data as sent.
    pub user_data: Option<String>,
    /// Ids of the SSH keys.
    pub ssh_keys: Vec<u64>,
    /// Feature slugs.
    pub features: Vec<String>,
    /// Ids of attached volumes, as sent.
    pub volumes: Vec<String>,
    /// Tags, in the order they were set.
    pub tags: Vec<Tagged>,
    /// Power state.
    pub status: Status,
    /// Life phase.
    pub phase: Phase,
    /// The one pending event: an action that is in progress.
    pub pending: Option<u64>,
    /// Whether `networks` is filled.
    pub networked: bool,
    /// Public side; `None` for a Private Droplet.
    pub public: Option<Interface>,
    /// VPC side.
    pub private: Interface,
    /// Anchor address beside the public one.
    pub anchor: Option<Interface>,
    /// Whether the machine command knows it: false for Droplets of the fixtures.
    pub has_machine: bool,
    /// Fault: it disappears at this time.
    pub vanish_at: Option<Timestamp>,
    /// Fault: so many GETs by id still answer 404.
    pub hidden_gets: u32,
}

impl Droplet {
    /// Whether `GET /v2/droplets/{id}` finds it (hidden GETs aside).
    pub fn exists(&self) -> bool {
        !matches!(self.phase, Phase::Gone { .. })
    }

    /// Every address it holds, visible in the API or not.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.public.iter().chain(self.anchor.iter()).chain([&self.private]).map(|interface| interface.address)
    }

    /// Whether the tag index lists it under `tag` at `now`.
    pub fn listed_under(&self, tag: &str, now: Timestamp) -> bool {
        self.tags.iter().any(|tagged| tagged.name == tag && tagged.listed_from <= now)
            && match self.phase {
                Phase::Gone { ghost_until } => now < ghost_until,
                _ => true,
            }
    }
}

impl Cloud {
    /// A Droplet that answers to its id.
    pub(super) fn existing(&self, id: &str) -> Result<&Droplet, Refusal> {
        let id: u64 = id.parse().map_err(|_| Refusal::NotFound)?;
        self.droplets.get(&id).filter(|droplet| droplet.exists()).ok_or(Refusal::NotFound)
    }

    /// A Droplet as the API shows it.
    pub(super) fn droplet_json(&self, droplet: &Droplet) -> Value {
        let size = self.size(&droplet.size);
        let image = self.images.iter().find(|image| image.id == droplet.image);
        let mut networks = Vec::new();
        if droplet.networked {
            networks.extend(droplet.public.iter().map(|interface| interface.network_json("public")));
            networks.push(droplet.private.network_json("private"));
            // Seen in practice, not documented: an assigned Reserved IP is one more public entry.
            let reserved = self.reserved_ips.values().filter(|address| address.droplet == Some(droplet.id));
            networks.extend(
                reserved
                    .map(|address| self.pools.reserved.interface(address.ip, None).network_json("public")),
            );
        }
        json!({
            "id": droplet.id,
            "name": droplet.name,
            "memory": size.map_or(0, |size| size.memory),
            "vcpus": size.map_or(0, |size| size.vcpus),
            "disk": size.map_or(0, |size| size.disk),
            "disk_info": [{"type": "local", "size": {"amount": size.map_or(0, |size| size.disk), "unit": "gib"}}],
            "locked": droplet.pending.is_some(),
            "status": droplet.status,
            "kernel": null,
            "created_at": written(droplet.created_at),
            "features": droplet.features,
            "backup_ids": [],
            "next_backup_window": null,
            "snapshot_ids": [],
            "image": image.map_or(Value::Null, super::Image::json),
            "volume_ids": droplet.volumes,
            "size": self.size_json(&droplet.size),
            "size_slug": droplet.size,
            "networks": {"v4": networks, "v6": []},
            "region": self.region_json(&droplet.region),
            "tags": droplet.tags.iter().map(|tagged| tagged.name.as_str()).collect::<Vec<_>>(),
            "vpc_uuid": droplet.vpc,
        })
    }

    pub(super) fn get_droplet(&mut self, id: &str) -> Result<Answer, Refusal> {
        let id = self.existing(id)?.id;
        if let Some(droplet) = self.droplets.get_mut(&id)
            && droplet.hidden_gets > 0
        {
            droplet.hidden_gets -= 1;
            return Err(Refusal::NotFound);
        }
        let droplet = self.droplets.get(&id).ok_or(Refusal::NotFound)?;
        Ok(Answer::json(200, json!({"droplet": self.droplet_json(droplet)})))
    }

    pub(super) fn list_droplets(&self, request: &Request, now: Timestamp) -> Result<Answer, Refusal> {
        let (tag, name, kind) =
            (request.parameter("tag_name"), request.parameter("name"), request.parameter("type"));
        if tag.is_some() && (name.is_some() || kind.is_some()) {
            return Err(Refusal::unprocessable("tag_name cannot be combined with name or type."));
        }
        if kind.is_some_and(|kind| kind != "droplets" && kind != "gpus") {
            return Err(Refusal::unprocessable("type must be one of droplets, gpus."));
        }
        // Newest first, as the control panel and the API list them.
        let found: Vec<&Droplet> = self
            .droplets
            .values()
            .rev()
            .filter(|droplet| match tag {
                Some(tag) => droplet.listed_under(tag, now),
                None => droplet.exists(),
            })
            .filter(|droplet| name.is_none_or(|name| droplet.name.eq_ignore_ascii_case(name)))
            .filter(|droplet| {
                let gpu = self.size(&droplet.size).is_some_and(super::Size::has_gpu);
                gpu == (kind == Some("gpus"))
            })
            .collect();
        page(request, "droplets", found.len(), |i| self.droplet_json(found[i]))
    }

    pub(super) fn delete_droplet(&mut self, id: &str, now: Timestamp) -> Result<Answer, Refusal> {
        let droplet = self.existing(id)?;
        if droplet.phase == Phase::Deleting {
            return Err(Refusal::NotFound);
        }
        let id = droplet.id;
        self.refuse_when_pending(id)?;
        self.destroy(id, now);
        Ok(Answer::no_content())
    }

    /// `DELETE /v2/droplets?tag_name=`: everything the tag index lists. Droplets with a pending event are left, as
    /// the real call is not atomic either.
    pub(super) fn delete_droplets_by_tag(
        &mut self,
        request: &Request,
        now: Timestamp,
    ) -> Result<Answer, Refusal> {
        let tag =
            request.parameter("tag_name").ok_or_else(|| Refusal::unprocessable("tag_name is required."))?;
        if !self.tags.contains_key(tag) {
            return Err(Refusal::NotFound);
        }
        let doomed: Vec<u64> = self
            .droplets
            .values()
            .filter(|droplet| droplet.exists() && droplet.pending.is_none() && droplet.listed_under(tag, now))
            .map(|droplet| droplet.id)
            .collect();
        for id in doomed {
            self.destroy(id, now);
        }
        Ok(Answer::no_content())
    }

    /// # Errors
    /// The 422 that DigitalOcean gives while another event runs.
    pub(super) fn refuse_when_pending(&self, id: u64) -> Result<(), Refusal> {
        match self.droplets.get(&id).and_then(|droplet| droplet.pending) {
            Some(_) => Err(Refusal::unprocessable("Droplet already has a pending event.")),
            None => Ok(()),
        }
    }

    fn destroy(&mut self, id: u64, now: Timestamp) {
        let due = later(now, self.delays.delete);
        self.start_droplet_event(id, "destroy", Outcome::Destroy, &[MachineVerb::Destroy], Some(due), now);
        if let Some(droplet) = self.droplets.get_mut(&id) {
            droplet.phase = Phase::Deleting;
        }
    }

    /// Turns a Droplet into a ghost: 404 from now on, Reserved IPs set free.
    pub(super) fn forget(&mut self, id: u64, now: Timestamp) {
        let ghost_until = later(now, self.delays.tag_ghost);
        if let Some(droplet) = self.droplets.get_mut(&id) {
            droplet.phase = Phase::Gone { ghost_until };
            droplet.pending = None;
        }
        for address in self.reserved_ips.values_mut().filter(|address| address.droplet == Some(id)) {
            address.droplet = None;
        }
    }
}
