//! A copy of what was seen, on which effects are carried out as they would be at their best.

mod addresses;

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use egress_api::{EGRESS_GATEWAY_FINALIZER, EgressGatewayStatus, StaticRoute, StaticRouteSpec};
use egress_digitalocean::{
    AddressKind, AddressV4, Droplet, DropletId, DropletStatus, Firewall, FirewallId, FirewallSpec,
    FirewallStatus as Progress, RegionSlug, SizeSlug, VpcId,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::nodes::{follow, gets_through};
use super::{Bill, Change, Prices, Why};
use crate::act::{CallFailure, CreateFailure, Ports};
use crate::decision::{Admission, Order};
use crate::firewall::OwnedFirewall;
use crate::identity::{OwnTag, OwnedDroplet, droplet_id};
use crate::observation::{HealthSeen, Observation};
use crate::reserved_ip::{OwnedIp, ReleasableIp, address_tag};

/// The copy, and what has been done to it.
pub(super) struct World(Mutex<State>);

struct State {
    seen: Observation,
    now: Timestamp,
    /// Droplets that would be made.
    made: Vec<DropletId>,
    changes: Vec<Change>,
    is_gone: bool,
}

/// Ids in the cloud are far below; nobody is shown these.
const FIRST_MADE: u64 = 9_000_000_000_000_000;

impl World {
    pub(super) fn new(seen: Observation, now: Timestamp) -> Self {
        let mut state = State { seen, now, made: Vec::new(), changes: Vec::new(), is_gone: false };
        state.settle();
        Self(Mutex::new(state))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows what there is, and what time it is.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Observation, Timestamp) -> T) -> T {
        let state = self.state();
        look(&state.seen, state.now)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.state().now
    }

    pub(super) fn is_gone(&self) -> bool {
        self.state().is_gone
    }

    /// Lets time pass, a second at least, and everybody catch up.
    pub(super) fn pass(&self, time: Duration) {
        let mut state = self.state();
        state.now += time.max(Duration::from_secs(1));
        state.settle();
    }

    /// The Droplets that the controller has made.
    pub(super) fn bill(&self, prices: &Prices) -> Bill {
        let state = self.state();
        let droplets = state.seen.cloud.as_ref().map(|cloud| &cloud.droplets).ok();
        let status = state.status();
        let there = status.gateways.iter().filter(|gateway| !gateway.existing).filter_map(|gateway| {
            let Some(droplets) = droplets else { return Some(gateway.size.clone()) };
            let droplet = droplets.get(&droplet_id(gateway)?)?;
            Some(droplet.size_slug.as_ref().map(ToString::to_string).or_else(|| gateway.size.clone()))
        });
        let sizes: Vec<Option<String>> = there.collect();
        Bill::of(sizes.iter().map(Option::as_deref), prices)
    }

    /// What was done, the status unless the object is gone, and the routes of the nodes.
    pub(super) fn end(&self) -> (Vec<Change>, Option<EgressGatewayStatus>, Option<StaticRouteSpec>) {
        let state = self.state();
        let status = (!state.is_gone).then(|| state.status());
        (state.changes.clone(), status, state.seen.route.as_ref().map(|route| route.spec.clone()))
    }
}

impl State {
    fn status(&self) -> EgressGatewayStatus {
        self.seen.gateway.status.clone().unwrap_or_default()
    }

    // The cloud shows what was done, gateways answer, and nodes have what they are told.
    fn settle(&mut self) {
        let status = self.status();
        if let Ok(cloud) = &mut self.seen.cloud {
            cloud.taken = self.now;
            cloud.looked_up = status.creating.iter().map(|intent| intent.name.clone()).collect();
            let recorded = status.gateways.iter().filter(|gateway| !gateway.existing).filter_map(droplet_id);
            cloud.gone = recorded.filter(|id| !cloud.droplets.contains_key(id)).collect();
        }
        if let Ok(firewalls) = &mut self.seen.firewalls {
            firewalls.taken = self.now;
        }
        if let Ok(reserved) = &mut self.seen.reserved_ips {
            reserved.taken = self.now;
        }
        // As agents do, they learn of a new one from the status.
        let made = status
            .gateways
            .iter()
            .filter(|gateway| droplet_id(gateway).is_some_and(|id| self.made.contains(&id)));
        let addresses: Vec<String> = made.filter_map(|gateway| gateway.private_address.clone()).collect();
        let route = self.seen.route.clone();
        let followers: Vec<String> = self.seen.followers.iter().map(|one| one.uid.clone()).collect();
        for node in self.seen.nodes.iter_mut().filter(|node| node.live) {
            node.heard = Some(self.now);
            follow(node, route.as_ref(), &followers, &addresses);
        }
    }

    fn private(&self, id: DropletId) -> Option<String> {
        let cloud = self.seen.cloud.as_ref().ok()?;
        Some(cloud.droplets.get(&id)?.private_v4()?.to_string())
    }

    fn why(&self, id: DropletId) -> Why {
        let status = self.status();
        let is_it = |recorded: i64| u64::try_from(recorded) == Ok(id.0);
        if self.seen.gateway.metadata.deletion_timestamp.is_some() {
            return Why::Deleted;
        }
        if let Some(roll) = status.roll.as_ref().filter(|roll| is_it(roll.from_droplet_id)) {
            return Why::Rolled { by: roll.to.clone().unwrap_or_default(), reason: roll.reason.clone() };
        }
        match status.last_replacement.filter(|last| is_it(last.from_droplet_id)) {
            Some(last) => Why::Replaced { by: last.to, reason: last.reason },
            None => Why::Surplus,
        }
    }

    // It runs, and whoever looks through it gets through.
    fn revive(&mut self, id: DropletId) {
        if let Ok(cloud) = &mut self.seen.cloud
            && let Some(droplet) = cloud.droplets.get_mut(&id)
        {
            droplet.status = DropletStatus::Active;
        }
        let status = self.status();
        let recorded = status.gateways.iter().find(|gateway| droplet_id(gateway) == Some(id));
        let version = recorded.and_then(|gateway| gateway.user_data_version.clone());
        let public_address =
            recorded.and_then(|gateway| gateway.public_address.as_ref()).and_then(|one| one.parse().ok());
        let peers = recorded.map(|gateway| &gateway.admits).into_iter().flatten();
        let peers = Some(peers.filter_map(|one| one.parse().ok()).collect());
        self.seen.health.insert(id, HealthSeen::Ready { version, public_address, peers });
        let Some(address) = self.private(id) else { return };
        for report in self.seen.nodes.iter_mut().filter_map(|node| node.report.as_mut()) {
            report.gateways.retain(|view| view.address != address);
            report.gateways.push(gets_through(address.clone()));
        }
    }
}

/// Everything succeeds at once.
impl Ports for World {
    type Error = Infallible;

    async fn add_finalizer(&self) -> Result<(), Infallible> {
        let meta = &mut self.state().seen.gateway.metadata;
        meta.finalizers.get_or_insert_default().push(EGRESS_GATEWAY_FINALIZER.to_owned());
        Ok(())
    }

    async fn remove_finalizer(&self) -> Result<(), Infallible> {
        self.state().is_gone = true;
        Ok(())
    }

    async fn write_status(&self, status: &EgressGatewayStatus) -> Result<(), Infallible> {
        self.state().seen.gateway.status = Some(status.clone());
        Ok(())
    }

    async fn apply_route(&self, spec: &StaticRouteSpec) -> Result<(), Infallible> {
        let mut state = self.state();
        let meta = state.seen.gateway.metadata.clone();
        let owner = OwnerReference {
            uid: meta.uid.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            controller: Some(true),
            ..OwnerReference::default()
        };
        let mut route = state.seen.route.take().unwrap_or_else(|| {
            let mut route = StaticRoute::new(&meta.name.unwrap_or_default(), spec.clone());
            route.metadata.uid = Some("of a StaticRoute that would be made".to_owned());
            route.metadata.owner_references = Some(vec![owner]);
            route
        });
        route.spec = spec.clone();
        route.metadata.generation = Some(route.metadata.generation.unwrap_or_default() + 1);
        state.seen.route = Some(route);
        Ok(())
    }

    async fn delete_route(&self, _uid: &str) -> Result<(), Infallible> {
        self.state().seen.route = None;
        Ok(())
    }

    async fn create(&self, order: &Order) -> Result<DropletId, CreateFailure<Infallible>> {
        let mut state = self.state();
        let number = state.made.len();
        let id = DropletId(FIRST_MADE + u64::try_from(number).unwrap_or_default());
        let host = u8::try_from(number + 1).unwrap_or(u8::MAX);
        let public = Ipv4Addr::new(198, 51, 100, host);
        let address = |ip, kind| AddressV4 { ip, kind };
        let droplet = Droplet {
            id,
            name: order.name.clone(),
            status: DropletStatus::Active,
            locked: Some(false),
            created_at: Some(state.now),
            v4: vec![
                address(Ipv4Addr::new(192, 0, 2, host), AddressKind::Private),
                address(public, AddressKind::Public),
            ],
            tags: Some(order.tags.clone()),
            vpc_uuid: VpcId::new(order.vpc.as_str()).ok(),
            region: RegionSlug::new(order.region.as_str()).ok(),
            size_slug: SizeSlug::new(order.size.as_str()).ok(),
            image_slug: Some(order.image.clone()),
        };
        if let Ok(cloud) = &mut state.seen.cloud {
            cloud.droplets.insert(id, droplet);
            cloud.fleet += 1;
        }
        let said = state.first_words(order.user_data_version.clone(), public);
        state.seen.health.insert(id, said);
        state.made.push(id);
        state.changes.push(Change::CreateDroplet {
            name: order.name.clone(),
            size: order.size.clone(),
            image: order.image.clone(),
            region: order.region.clone(),
        });
        Ok(id)
    }

    async fn power_on(&self, droplet: &OwnedDroplet) -> Result<(), Infallible> {
        let mut state = self.state();
        state.revive(droplet.id());
        state.changes.push(Change::PowerOn { name: droplet.name().to_owned() });
        Ok(())
    }

    async fn power_cycle(&self, droplet: &OwnedDroplet) -> Result<(), Infallible> {
        let mut state = self.state();
        state.revive(droplet.id());
        state.changes.push(Change::PowerCycle { name: droplet.name().to_owned() });
        Ok(())
    }

    async fn delete(&self, droplet: &OwnedDroplet) -> Result<(), CallFailure<Infallible>> {
        let mut state = self.state();
        let id = droplet.id();
        let now = state.now;
        if let Ok(cloud) = &mut state.seen.cloud {
            cloud.droplets.remove(&id);
            cloud.fleet = cloud.fleet.saturating_sub(1);
        }
        state.seen.delete_accepted.insert(id, now);
        if let Ok(firewalls) = &mut state.seen.firewalls {
            firewalls.firewalls.iter_mut().for_each(|one| one.droplet_ids.retain(|member| *member != id));
        }
        state.seen.health.remove(&id);
        state.free(id);
        let (why, known) = (state.why(id), !state.made.contains(&id));
        state.changes.push(Change::DeleteDroplet {
            name: droplet.name().to_owned(),
            id: known.then_some(id.0),
            why,
        });
        Ok(())
    }

    async fn untag(&self, tag: &OwnTag) -> Result<(), Infallible> {
        let mut state = self.state();
        if let Ok(cloud) = &mut state.seen.cloud
            && let Some(tags) =
                cloud.droplets.get_mut(&tag.droplet()).and_then(|droplet| droplet.tags.as_mut())
        {
            tags.retain(|one| one != tag.tag());
        }
        let change = Change::LeaveDroplet { name: tag.name().to_owned() };
        if !state.changes.contains(&change) {
            state.changes.push(change);
        }
        Ok(())
    }

    async fn reserve_ip(&self, droplet: &OwnedDroplet) -> Result<Ipv4Addr, CallFailure<Infallible>> {
        Ok(self.state().reserve(droplet.id(), droplet.name()))
    }

    async fn mark_ip(&self, droplet: &OwnedDroplet, ip: Ipv4Addr) -> Result<(), CallFailure<Infallible>> {
        if let Ok(cloud) = &mut self.state().seen.cloud
            && let Some(marked) = cloud.droplets.get_mut(&droplet.id())
        {
            marked.tags.get_or_insert_default().push(address_tag(ip));
        }
        Ok(())
    }

    async fn assign_ip(&self, ip: &OwnedIp, droplet: &OwnedDroplet) -> Result<(), CallFailure<Infallible>> {
        self.state().assign(ip.ip(), droplet.id(), droplet.name());
        Ok(())
    }

    async fn release_ip(&self, ip: &ReleasableIp) -> Result<(), CallFailure<Infallible>> {
        self.state().release(ip.ip());
        Ok(())
    }

    async fn create_firewall(&self, wanted: &FirewallSpec) -> Result<FirewallId, CallFailure<Infallible>> {
        let mut state = self.state();
        state.changes.push(Change::CreateFirewall { name: wanted.name.to_string() });
        let Ok(id) = FirewallId::new("would-be-made") else {
            return Err(CallFailure::Refused { words: "no id".to_owned(), pause: Duration::ZERO });
        };
        if let Ok(firewalls) = &mut state.seen.firewalls {
            firewalls.firewalls.push(shown(id.clone(), wanted));
        }
        Ok(id)
    }

    async fn update_firewall(
        &self,
        firewall: &OwnedFirewall,
        wanted: &FirewallSpec,
    ) -> Result<bool, CallFailure<Infallible>> {
        let mut state = self.state();
        let name = wanted.name.to_string();
        // Its members come and go with the Droplets, of which is told.
        let (made, updated) =
            (Change::CreateFirewall { name: name.clone() }, Change::UpdateFirewall { name });
        if !state.changes.contains(&made) && !state.changes.contains(&updated) {
            state.changes.push(updated);
        }
        if let Ok(firewalls) = &mut state.seen.firewalls {
            let found = firewalls.firewalls.iter_mut().find(|one| one.id == *firewall.id());
            if let Some(found) = found {
                *found = shown(found.id.clone(), wanted);
            }
        }
        Ok(true)
    }

    async fn delete_firewall(&self, firewall: &OwnedFirewall) -> Result<(), CallFailure<Infallible>> {
        let mut state = self.state();
        state.changes.push(Change::DeleteFirewall { name: firewall.name().to_owned() });
        if let Ok(firewalls) = &mut state.seen.firewalls {
            firewalls.firewalls.retain(|one| one.id != *firewall.id());
        }
        Ok(())
    }

    async fn assign(&self, droplet: &OwnedDroplet, project: &str) -> Result<(), Infallible> {
        let change = Change::AssignToProject { name: droplet.name().to_owned(), project: project.to_owned() };
        self.state().changes.push(change);
        Ok(())
    }

    async fn admit(&self, admission: &Admission) -> Result<(), Infallible> {
        let mut state = self.state();
        let Ok(cloud) = &state.seen.cloud else { return Ok(()) };
        let at = |address: Ipv4Addr| cloud.droplets.values().find(|one| one.private_v4() == Some(address));
        let named = admission.peers.iter().filter_map(|peer| state.leaves_with(at(*peer)?)).collect();
        let Some(told) = at(admission.gateway).map(|droplet| droplet.id) else { return Ok(()) };
        if let Some(HealthSeen::Ready { peers, .. }) = state.seen.health.get_mut(&told) {
            *peers = Some(named);
        }
        Ok(())
    }
}

fn shown(id: FirewallId, wanted: &FirewallSpec) -> Firewall {
    Firewall {
        id,
        name: wanted.name.to_string(),
        status: Progress::Succeeded,
        droplet_ids: wanted.droplets.clone(),
        tags: Some(Vec::new()),
        inbound: wanted.inbound.clone(),
        outbound: wanted.outbound.clone(),
    }
}
