//! Reserved IPv4 addresses.
//!
//! Invariant: a Droplet holds at most one; while an action on an address runs, the address is locked.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::action::Outcome;
use super::paging::page;
use super::request;
use super::{Answer, Cloud, Phase, Refusal, Request, later};

/// A Reserved IP; the address is its identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservedIp {
    /// The address.
    pub ip: Ipv4Addr,
    /// Slug of the region.
    pub region: String,
    /// Its holder.
    pub droplet: Option<u64>,
    /// The action that locks it.
    pub locked_by: Option<u64>,
    /// Project it was put into.
    pub project_id: String,
}

/// A reserved address that is translated to its holder's anchor address and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Translation {
    /// The reserved address.
    pub ip: Ipv4Addr,
    /// Its holder.
    pub droplet: u64,
    /// The holder's anchor address.
    pub anchor: Ipv4Addr,
}

impl Cloud {
    /// What the machine room is to translate now, if it has not confirmed that already.
    pub fn untold_translations(&self) -> Option<Vec<Translation>> {
        let translations = self.translations();
        (self.machines && translations != self.translated).then_some(translations)
    }

    /// The machine room translates these, and nothing else.
    pub fn translates(&mut self, translations: Vec<Translation>) {
        self.translated = translations;
    }

    fn translations(&self) -> Vec<Translation> {
        let of = |address: &ReservedIp| {
            let holder = self.droplets.get(&address.droplet?).filter(|droplet| droplet.exists())?;
            let anchor = holder.anchor.as_ref()?.address;
            Some(Translation { ip: address.ip, droplet: holder.id, anchor })
        };
        self.reserved_ips.values().filter_map(of).collect()
    }

    fn reserved_ip_json(&self, address: &ReservedIp) -> Value {
        let droplet = address.droplet.and_then(|id| self.droplets.get(&id));
        json!({
            "ip": address.ip, "region": self.region_json(&address.region), "locked": address.locked_by.is_some(),
            "droplet": droplet.map(|droplet| self.droplet_json(droplet)), "project_id": address.project_id,
        })
    }

    fn reserved_ip(&self, ip: &str) -> Result<&ReservedIp, Refusal> {
        let ip: Ipv4Addr = ip.parse().map_err(|_| Refusal::NotFound)?;
        self.reserved_ips.get(&ip).ok_or(Refusal::NotFound)
    }

    pub(super) fn list_reserved_ips(&self, request: &Request) -> Result<Answer, Refusal> {
        let found: Vec<&ReservedIp> = self.reserved_ips.values().collect();
        page(request, "reserved_ips", found.len(), |i| self.reserved_ip_json(found[i]))
    }

    pub(super) fn get_reserved_ip(&self, ip: &str) -> Result<Answer, Refusal> {
        let address = self.reserved_ip(ip)?;
        Ok(Answer::json(200, json!({"reserved_ip": self.reserved_ip_json(address)})))
    }

    pub(super) fn create_reserved_ip(
        &mut self,
        request: &Request,
        now: Timestamp,
    ) -> Result<Answer, Refusal> {
        let body = request.object()?;
        if self.reserved_ips.len() as u64 >= self.account.floating_ip_limit {
            return Err(Refusal::unprocessable("You have reached your limit of reserved IPs."));
        }
        let holder = request::number(&body, "droplet_id")?;
        let region = match (holder, request::text(&body, "region")?) {
            (Some(id), _) => {
                self.check_holder(id, None)?;
                self.droplets.get(&id).map(|droplet| droplet.region.clone()).unwrap_or_default()
            }
            (None, Some(slug)) => {
                let region = self.region(slug).filter(|region| region.available);
                region.ok_or_else(|| Refusal::unprocessable("Region is not available."))?.slug.clone()
            }
            (None, None) => return Err(Refusal::unprocessable("Either region or droplet_id is required.")),
        };
        let project = request::text(&body, "project_id")?.filter(|id| !id.is_empty());
        let project_id = project.unwrap_or_else(|| self.default_project()).to_owned();
        let taken = self.addresses_in_use();
        let ip =
            self.pools.reserved.take(&taken).ok_or_else(|| {
                Refusal::unprocessable("No address is available right now, please try again.")
            })?;
        let address = ReservedIp { ip, region, droplet: None, locked_by: None, project_id };
        self.reserved_ips.insert(ip, address);
        let mut links = json!({});
        if let Some(id) = holder {
            let action = self.start_reserved_ip_action(ip, Some(id), now);
            let base = "https://api.digitalocean.com/v2";
            links = json!({
                "droplets": [{"id": id, "rel": "droplet", "href": format!("{base}/droplets/{id}")}],
                "actions": [{"id": action, "rel": "assign_ip", "href": format!("{base}/actions/{action}")}],
            });
        }
        let shown = self.reserved_ips.get(&ip).map_or(Value::Null, |address| self.reserved_ip_json(address));
        Ok(Answer::json(202, json!({"reserved_ip": shown, "links": links})))
    }

    pub(super) fn delete_reserved_ip(&mut self, ip: &str) -> Result<Answer, Refusal> {
        let address = self.reserved_ip(ip)?;
        if address.locked_by.is_some() {
            return Err(Refusal::unprocessable("The reserved IP has a pending event."));
        }
        // Unverified on the real API: refusing finds the clients that rely on it.
        if address.droplet.is_some() {
            return Err(Refusal::unprocessable("The reserved IP is assigned to a Droplet."));
        }
        let ip = address.ip;
        self.reserved_ips.remove(&ip);
        Ok(Answer::no_content())
    }

    pub(super) fn post_reserved_ip_action(
        &mut self,
        ip: &str,
        request: &Request,
        now: Timestamp,
    ) -> Result<Answer, Refusal> {
        let address = self.reserved_ip(ip)?.clone();
        let body = request.object()?;
        let kind = request::text(&body, "type")?.unwrap_or_default();
        if address.locked_by.is_some() {
            return Err(Refusal::unprocessable("The reserved IP already has a pending event."));
        }
        let target = match kind {
            "assign" => {
                let id = request::number(&body, "droplet_id")?
                    .ok_or_else(|| Refusal::unprocessable("droplet_id is required."))?;
                self.check_holder(id, Some(&address))?;
                Some(id)
            }
            "unassign" if address.droplet.is_none() => {
                return Err(Refusal::unprocessable("The reserved IP is not assigned to a Droplet."));
            }
            "unassign" => {
                address.droplet.map_or(Ok(()), |id| self.refuse_when_pending(id))?;
                None
            }
            _ => return Err(Refusal::unprocessable("The action type is not known.")),
        };
        let action = self.start_reserved_ip_action(address.ip, target, now);
        let action = self.actions.get(&action).map_or(Value::Null, |action| self.action_json(action));
        Ok(Answer::json(201, json!({"action": action})))
    }

    /// Whether a Droplet may take an address.
    fn check_holder(&self, id: u64, address: Option<&ReservedIp>) -> Result<(), Refusal> {
        let droplet =
            self.droplets.get(&id).filter(|droplet| droplet.exists() && droplet.phase != Phase::Deleting);
        let droplet = droplet.ok_or_else(|| Refusal::unprocessable("Droplet not found."))?;
        self.refuse_when_pending(id)?;
        if droplet.anchor.is_none() {
            return Err(Refusal::unprocessable("The Droplet has no public networking."));
        }
        if address.is_some_and(|address| address.region != droplet.region) {
            return Err(Refusal::unprocessable("The Droplet is not in the same region as the reserved IP."));
        }
        let other = self
            .reserved_ips
            .values()
            .any(|held| held.droplet == Some(id) && address.is_none_or(|address| address.ip != held.ip));
        if other {
            return Err(Refusal::unprocessable("The Droplet already has a reserved IP."));
        }
        Ok(())
    }

    fn start_reserved_ip_action(&mut self, ip: Ipv4Addr, target: Option<u64>, now: Timestamp) -> u64 {
        let (kind, outcome) = match target {
            Some(droplet) => ("assign_ip", Outcome::AssignIp { ip, droplet }),
            None => ("unassign_ip", Outcome::UnassignIp { ip }),
        };
        let slot =
            target.or_else(|| self.reserved_ips.get(&ip).and_then(|address| address.droplet)).unwrap_or(0);
        let due = later(now, self.delays.reserved_ip);
        let id = self.start_droplet_event(slot, kind, outcome, &[], Some(due), now);
        if let (Some(action), Some(address)) = (self.actions.get_mut(&id), self.reserved_ips.get_mut(&ip)) {
            action.resource_type = "reserved_ip".into();
            action.resource_id = u64::from(u32::from(ip));
            action.region.clone_from(&address.region);
            action.project_id = Some(address.project_id.clone());
            address.locked_by = Some(id);
        }
        id
    }

    pub(super) fn list_reserved_ip_actions(&self, ip: &str, request: &Request) -> Result<Answer, Refusal> {
        let number = u64::from(u32::from(self.reserved_ip(ip)?.ip));
        self.page_of_actions(request, |action| {
            action.resource_type == "reserved_ip" && action.resource_id == number
        })
    }

    pub(super) fn get_reserved_ip_action(&self, ip: &str, action: &str) -> Result<Answer, Refusal> {
        let number = u64::from(u32::from(self.reserved_ip(ip)?.ip));
        self.get_action(action, |action| {
            action.resource_type == "reserved_ip" && action.resource_id == number
        })
    }
}
