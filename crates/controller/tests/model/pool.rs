//! Reserved addresses of the model's cloud: they move by actions that take a while and lock address and Droplet, and stay when a Droplet
//! goes.

use std::net::Ipv4Addr;

use egress_controller::reserved_ip::{OwnedIp, ReleasableIp, address_tag};
use egress_digitalocean::{DropletId, ReservedIp};
use serde_json::json;

use crate::world::{Crash, State};

#[derive(Clone, Debug)]
pub struct Address {
    pub region: &'static str,
    pub holder: Option<u64>,
    /// To whom, and when that is through.
    pub moving: Option<(u64, i64)>,
    pub made: i64,
    /// The controller made it.
    pub ours: bool,
}

impl State {
    /// An address of somebody else.
    pub fn foreign_address(&mut self, last: u8, holder: Option<u64>) -> Ipv4Addr {
        let ip = Ipv4Addr::new(203, 0, 113, last);
        let address = Address { region: "nyc1", holder, moving: None, made: 0, ours: false };
        self.addresses.insert(ip, address);
        ip
    }

    /// Lets actions end that are due, and frees what dead Droplets held.
    pub fn settle_addresses(&mut self) {
        let there: Vec<u64> =
            self.machines.iter().filter(|(_, one)| self.is_there(one)).map(|(id, _)| *id).collect();
        let (now, fails) = (self.now, self.addresses_fail);
        for address in self.addresses.values_mut() {
            if let Some((to, _)) = address.moving.filter(|(_, due)| *due <= now) {
                address.moving = None;
                if !fails {
                    address.holder = Some(to);
                }
            }
            address.holder = address.holder.filter(|holder| there.contains(holder));
        }
    }

    /// The address that a machine holds.
    pub fn held_by(&self, id: u64) -> Option<Ipv4Addr> {
        self.addresses.iter().find(|(_, address)| address.holder == Some(id)).map(|(ip, _)| *ip)
    }

    /// What the controller made and is there.
    pub fn our_addresses(&self) -> Vec<Ipv4Addr> {
        self.addresses.iter().filter(|(_, address)| address.ours).map(|(ip, _)| *ip).collect()
    }

    /// Whether an event of it is under way.
    pub fn is_busy(&self, id: u64) -> bool {
        self.addresses.values().any(|address| address.moving.is_some_and(|(to, _)| to == id))
    }

    /// What the API shows.
    pub fn shown_addresses(&self) -> Vec<ReservedIp> {
        let shown = self.addresses.iter().filter(|(_, address)| address.made <= self.now);
        shown
            .map(|(ip, address)| {
                let droplet = address.holder.map(|id| json!({"id": id}));
                let locked = address.moving.is_some();
                let region = json!({"slug": address.region});
                serde_json::from_value(
                    json!({"ip": ip, "region": region, "droplet": droplet, "locked": locked}),
                )
                .unwrap()
            })
            .collect()
    }

    pub fn reserve(&mut self, droplet: DropletId, crash: Option<Crash>) -> Result<Ipv4Addr, String> {
        self.only_our_machine(droplet.0);
        self.refuse_addresses()?;
        if self.is_busy(droplet.0) || self.held_by(droplet.0).is_some() {
            return Err("Droplet already has a pending event.".to_owned());
        }
        let last = 200 + u8::try_from(self.addresses.len() + self.addresses_gone).unwrap();
        let ip = Ipv4Addr::new(203, 0, 113, last);
        let made = self.now + if crash == Some(Crash::LateSuccess) { 25 } else { 0 };
        let moving = Some((droplet.0, made + self.addresses_take));
        self.addresses.insert(ip, Address { region: "nyc1", holder: None, moving, made, ours: true });
        self.journal.push(format!("reserve {ip}"));
        Ok(ip)
    }

    pub fn mark(&mut self, droplet: DropletId, ip: Ipv4Addr) {
        self.only_our_machine(droplet.0);
        if !self.addresses[&ip].ours {
            self.violations.push(format!("{ip} was marked as made by us"));
        }
        let machine = self.machines.get_mut(&droplet.0).unwrap();
        if !machine.tags.contains(&address_tag(ip)) {
            machine.tags.push(address_tag(ip));
        }
    }

    pub fn assign(&mut self, ip: &OwnedIp, droplet: DropletId) -> Result<(), String> {
        self.only_our_machine(droplet.0);
        self.refuse_addresses()?;
        let (ip, busy) = (ip.ip(), self.is_busy(droplet.0));
        let held = self.held_by(droplet.0).is_some_and(|other| other != ip);
        let holder = self.addresses.get(&ip).and_then(|address| address.holder);
        if holder.is_some_and(|holder| holder < 100) {
            self.violations.push(format!("I1: {ip} was taken from Droplet {holder:?}"));
        }
        if let Some(holder) = holder
            && self.is_used_beside_another(holder)
        {
            self.violations.push(format!("{ip} was taken from a gateway that is used while another works"));
        }
        let wanted = self.gateway.as_ref().is_some_and(|one| one.spec.reserved_ips.contains(&ip.to_string()));
        let Some(address) = self.addresses.get_mut(&ip) else { return Err("not found".to_owned()) };
        if !address.ours && !wanted {
            self.violations.push(format!("I1: foreign address {ip} was assigned"));
        }
        if busy || held || address.moving.is_some() {
            return Err("The reserved IP already has a pending event.".to_owned());
        }
        address.moving = Some((droplet.0, self.now + self.addresses_take));
        self.journal.push(format!("assign {ip} to {}", self.machines[&droplet.0].name()));
        Ok(())
    }

    pub fn release(&mut self, ip: &ReleasableIp) -> Result<(), String> {
        self.refuse_addresses()?;
        let Some(address) = self.addresses.get(&ip.ip()) else { return Ok(()) };
        if !address.ours {
            self.violations.push(format!("I1: foreign address {} was given back", ip.ip()));
        }
        if address.holder.is_some() || address.moving.is_some() {
            return Err("The reserved IP is assigned to a Droplet.".to_owned());
        }
        self.addresses.remove(&ip.ip());
        self.addresses_gone += 1;
        self.journal.push(format!("release {}", ip.ip()));
        Ok(())
    }

    fn refuse_addresses(&self) -> Result<(), String> {
        self.addresses_refused.map_or(Ok(()), |words| Err(words.to_owned()))
    }

    fn only_our_machine(&mut self, id: u64) {
        if !self.ours().iter().any(|(ours, _)| **ours == id) {
            self.violations.push(format!("I1: foreign Droplet {id} got an address or a tag"));
        }
    }
}
