//! Reserved addresses of the copy: reserved, moved and given back in one step.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use egress_digitalocean::{Droplet, DropletId, ReservedIp};

use super::State;
use crate::forecast::Change;
use crate::identity::droplet_id;
use crate::observation::HealthSeen;

/// Nobody has these, and nobody is shown them.
const FIRST_RESERVED: [u8; 4] = [203, 0, 113, 1];

impl State {
    /// What the endpoint of a Droplet says that was made just now.
    pub(super) fn first_words(&self, version: String, own: Ipv4Addr) -> HealthSeen {
        let version = Some(version);
        if self.seen.gateway.spec.public_ip.is_reserved() {
            HealthSeen::Awaiting { version }
        } else {
            HealthSeen::Ready { version, public_address: Some(own), peers: Some(BTreeSet::new()) }
        }
    }

    /// The address with which a Droplet leaves.
    pub(super) fn leaves_with(&self, droplet: &Droplet) -> Option<Ipv4Addr> {
        let status = self.status();
        let of_people = status.gateways.iter().filter(|gateway| gateway.existing);
        let is_theirs = of_people.filter_map(droplet_id).any(|id| id == droplet.id);
        if is_theirs || !self.seen.gateway.spec.public_ip.is_reserved() {
            return droplet.public_v4(&[]);
        }
        let mut held = self.seen.reserved_ips.as_ref().ok()?.addresses.iter();
        held.find(|one| one.droplet == Some(droplet.id)).map(|one| one.ip)
    }

    /// Reserves one for this Droplet.
    pub(super) fn reserve(&mut self, droplet: DropletId, name: &str) -> Ipv4Addr {
        let [a, b, c, first] = FIRST_RESERVED;
        let number = self.changes.iter().filter(|one| matches!(one, Change::ReserveAddress { .. })).count();
        let ip = Ipv4Addr::new(a, b, c, first.saturating_add(u8::try_from(number).unwrap_or(u8::MAX)));
        let region = self.seen.site.as_ref().ok().map(|site| site.region.clone());
        if let Ok(seen) = &mut self.seen.reserved_ips {
            let region = region.and_then(|region| egress_digitalocean::RegionSlug::new(region.as_str()).ok());
            seen.addresses.push(ReservedIp { ip, region, droplet: None, locked: false });
        }
        self.changes.push(Change::ReserveAddress { name: name.to_owned() });
        self.hold(ip, droplet);
        ip
    }

    /// Moves one to this Droplet.
    pub(super) fn assign(&mut self, ip: Ipv4Addr, droplet: DropletId, name: &str) {
        self.changes.push(Change::MoveAddress { address: ip, name: name.to_owned() });
        self.hold(ip, droplet);
    }

    /// Gives one back.
    pub(super) fn release(&mut self, ip: Ipv4Addr) {
        if let Ok(seen) = &mut self.seen.reserved_ips {
            seen.addresses.retain(|one| one.ip != ip);
        }
        self.changes.push(Change::ReleaseAddress { address: ip });
    }

    /// Nobody holds what this Droplet held.
    pub(super) fn free(&mut self, droplet: DropletId) {
        if let Ok(seen) = &mut self.seen.reserved_ips {
            let held = seen.addresses.iter_mut().filter(|one| one.droplet == Some(droplet));
            held.for_each(|one| one.droplet = None);
        }
    }

    fn hold(&mut self, ip: Ipv4Addr, droplet: DropletId) {
        let Ok(seen) = &mut self.seen.reserved_ips else { return };
        for one in seen.addresses.iter_mut().filter(|one| one.ip == ip) {
            let before = one.droplet.replace(droplet);
            if let Some(left) = before.and_then(|id| self.seen.health.get_mut(&id))
                && let HealthSeen::Ready { version, .. } = left
            {
                *left = HealthSeen::Awaiting { version: version.take() };
            }
        }
        if let Some(said) = self.seen.health.get_mut(&droplet)
            && let HealthSeen::Awaiting { version } | HealthSeen::Ready { version, .. } = said
        {
            let version = version.take();
            let peers = Some(BTreeSet::new());
            *said = HealthSeen::Ready { version, public_address: Some(ip), peers };
        }
    }
}
