//! What controllers did in the cloud, and whether they may.

use do_simulator::cloud::{Answer, Phase, Request};
use egress_api::{EgressGateway, StaticRoute};
use serde_json::Value;

use crate::world::State;

impl State {
    /// I1 and I8, of a call that is about to be carried out.
    pub fn check_before(
        &mut self,
        request: &Request,
        gateway: Option<&EgressGateway>,
        route: Option<&StaticRoute>,
    ) {
        let parts: Vec<&str> = request.path.trim_matches('/').split('/').collect();
        let foreign = match parts.as_slice() {
            ["v2", "droplets", id, ..] => id.parse().ok().is_none_or(|id: u64| !self.ours.contains(&id)),
            ["v2", "firewalls", id, ..] => !self.walls.contains(*id),
            ["v2", "reserved_ips", ip, ..] => ip.parse().ok().is_none_or(|ip| !self.addresses.contains(&ip)),
            ["v2", "tags", _, "resources"] => tagged(request).is_none_or(|id| !self.ours.contains(&id)),
            ["v2", "droplets" | "firewalls"] => request.method == "DELETE",
            _ => false,
        };
        if foreign {
            self.violations.push(format!("I1: {} {} is not ours", request.method, request.path));
        }
        if let ["v2", "reserved_ips", ip, "actions"] = parts.as_slice() {
            self.check_move(ip, route);
        }
        let ["v2", "droplets", id] = parts.as_slice() else { return };
        let Some(id) = id.parse::<u64>().ok().filter(|_| request.method == "DELETE") else { return };
        let Some(address) = self.cloud.droplets.get(&id).map(|droplet| droplet.private.address) else {
            return;
        };
        let listed = route.is_some_and(|route| {
            route.spec.ordered_gateways().iter().any(|entry| entry.address.0 == address.to_string())
        });
        if listed {
            self.violations.push(format!("I8: {} is deleted while it is listed", self.name_of(id)));
        }
        if self.is_used(address) && self.works(address) {
            self.violations.push(format!("I8: {} is deleted while connections use it", self.name_of(id)));
        }
        let stays = gateway.is_some_and(|gateway| gateway.metadata.deletion_timestamp.is_none());
        let others = self.billed().any(|droplet| droplet.id != id && self.works(droplet.private.address));
        if stays && !others && self.works(address) {
            self.violations
                .push(format!("I8: {} is the last one that works and is deleted", self.name_of(id)));
        }
    }

    // An address is not taken from a gateway that is used while another one is listed and works.
    fn check_move(&mut self, ip: &str, route: Option<&StaticRoute>) {
        let holder = ip.parse().ok().and_then(|ip| self.cloud.reserved_ips.get(&ip)?.droplet);
        let Some(droplet) = holder.and_then(|id| self.cloud.droplets.get(&id)) else { return };
        let (id, address) = (droplet.id, droplet.private.address);
        let listed = route.map(|route| route.spec.ordered_gateways()).unwrap_or_default();
        let mut others = listed.iter().filter_map(|entry| entry.address.0.parse().ok());
        let another = others.any(|other| other != address && self.works(other));
        if another && self.is_used(address) && self.works(address) {
            self.violations
                .push(format!("D6: {ip} is taken from {} while connections use it", self.name_of(id)));
        }
    }

    /// Writes down what was done.
    pub fn note(&mut self, request: &Request, answer: &Answer) {
        if answer.status >= 300 {
            return;
        }
        let parts: Vec<&str> = request.path.trim_matches('/').split('/').collect();
        let body = answer.body.clone().unwrap_or_default();
        let sent: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let words = match (request.method.as_str(), parts.as_slice()) {
            ("POST", ["v2", "droplets"]) => {
                self.ours.insert(body["droplet"]["id"].as_u64().unwrap());
                format!("create {}", sent["name"].as_str().unwrap())
            }
            ("POST", ["v2", "firewalls"]) => {
                self.walls.insert(body["firewall"]["id"].as_str().unwrap().to_owned());
                "create firewall".to_owned()
            }
            ("POST", ["v2", "reserved_ips"]) => {
                self.addresses.insert(body["reserved_ip"]["ip"].as_str().unwrap().parse().unwrap());
                "create address".to_owned()
            }
            ("POST", ["v2", "reserved_ips", _, "actions"]) => {
                format!("assign address to {}", self.name_of(sent["droplet_id"].as_u64().unwrap()))
            }
            ("DELETE", ["v2", "reserved_ips", _]) => "release address".to_owned(),
            ("POST", ["v2", "tags"]) => "make tag".to_owned(),
            ("POST", ["v2", "tags", _, "resources"]) => {
                format!("mark {}", self.name_of(tagged(request).unwrap()))
            }
            ("DELETE", ["v2", "tags", tag, "resources"]) => {
                let tag = tag.split_once(':').map_or(*tag, |(kind, _)| kind);
                format!("take {tag} off {}", self.name_of(tagged(request).unwrap()))
            }
            ("DELETE", ["v2", "droplets", id]) => format!("delete {}", self.name_of(id.parse().unwrap())),
            ("DELETE", ["v2", "firewalls", _]) => "delete firewall".to_owned(),
            ("PUT", ["v2", "firewalls", _]) => "update firewall".to_owned(),
            ("POST", ["v2", "droplets", id, "actions"]) => {
                let (id, action) = (id.parse().unwrap(), sent["type"].as_str().unwrap());
                if action == "power_cycle"
                    && let Some(machine) = self.machines.get_mut(&id)
                {
                    (machine.frozen, machine.since) = (false, Some(self.now));
                }
                format!("{action} {}", self.name_of(id))
            }
            (method, _) => format!("{method} {}", request.path),
        };
        self.journal.push(words);
    }

    /// I3, at every call of a controller.
    pub fn check_bill(&mut self, gateway: Option<&EgressGateway>) {
        let asked_for = gateway.map_or(0, |gateway| usize::try_from(gateway.spec.replicas).unwrap());
        let billed = self.billed().count();
        let going = self.billed().filter(|droplet| droplet.phase == Phase::Deleting).count();
        if gateway.is_some() && billed - going > asked_for + 1 {
            self.violations.push(format!("I3: {billed} Droplets for {asked_for}"));
        }
    }
}

// The Droplet of a request about a tag.
fn tagged(request: &Request) -> Option<u64> {
    let sent: Value = serde_json::from_slice(&request.body).ok()?;
    sent["resources"][0]["resource_id"].as_str()?.parse().ok()
}
