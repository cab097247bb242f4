//! What the controller changes in the world, and which of it must never be.

use std::net::Ipv4Addr;

use egress_controller::reserved_ip::{OwnedIp, ReleasableIp};

use super::*;

/// The controller's hands in this world, with the version of the EgressGateway that it saw.
pub(super) struct Hands<'a> {
    pub world: &'a World,
    pub version: Mutex<Option<String>>,
}

impl Hands<'_> {
    fn change_gateway(&self, change: impl FnOnce(&mut EgressGateway)) -> Result<(), Failed> {
        let mut state = self.world.state();
        let crash = state.begin()?;
        let mut version = self.version.lock().unwrap();
        if state.version() != *version || state.gateway.is_none() {
            return Err(Failed::Conflict);
        }
        let before = state.gateway.clone();
        let proven_before = state.status();
        change(state.gateway.as_mut().unwrap());
        state.note_who_is_proven(&proven_before);
        // Writing what is there already makes no new version.
        if state.gateway != before {
            state.bump();
        }
        *version = state.version();
        end(crash)
    }
}

impl Ports for Hands<'_> {
    type Error = Failed;

    async fn add_finalizer(&self) -> Result<(), Failed> {
        self.change_gateway(|gateway| {
            gateway.metadata.finalizers = Some(vec![EGRESS_GATEWAY_FINALIZER.to_owned()]);
        })
    }

    async fn remove_finalizer(&self) -> Result<(), Failed> {
        let mut state = self.world.state();
        let crash = state.begin()?;
        if state.version() != *self.version.lock().unwrap() {
            return Err(Failed::Conflict);
        }
        let policy = state.gateway.as_ref().map(|gateway| gateway.spec.deletion_policy);
        state.deletes_nothing = policy == Some(DeletionPolicy::Retain);
        state.gateway = None;
        state.journal.push("object gone".into());
        let retains = state.deletes_nothing;
        if !retains && !state.ours().is_empty() {
            state.violations.push("I2: the object is gone and Droplets are left".into());
        }
        // One that still comes is there too.
        let is_left =
            |(id, wall): (&String, &Wall)| wall.name == firewall_name() && !state.foreign_walls.contains(id);
        if !retains && state.walls.iter().any(is_left) {
            state.violations.push("I2: the object is gone and a firewall is left".into());
        }
        if !retains && !state.our_addresses().is_empty() {
            state.violations.push("I2: the object is gone and reserved addresses are left".into());
        }
        end(crash)
    }

    async fn write_status(&self, status: &EgressGatewayStatus) -> Result<(), Failed> {
        let hasty = is_hasty(&self.world.state(), status);
        self.change_gateway(|gateway| gateway.status = Some(status.clone()))?;
        if hasty {
            self.world.state().violations.push("I8: two replacements within ten minutes".into());
        }
        Ok(())
    }

    async fn apply_route(&self, spec: &StaticRouteSpec) -> Result<(), Failed> {
        let mut state = self.world.state();
        let crash = state.begin()?;
        if spec.ordered_gateways().is_empty() {
            state.violations.push("I6: an empty list of gateways".into());
        }
        let generation =
            state.route.as_ref().and_then(|route| route.metadata.generation).unwrap_or_default() + 1;
        let mut route = StaticRoute::new("demo", spec.clone());
        route.metadata.uid = Some("route".into());
        route.metadata.generation = Some(generation);
        let owner = OwnerReference { uid: OWNER.into(), controller: Some(true), ..OwnerReference::default() };
        route.metadata.owner_references = Some(vec![owner]);
        for entry in spec.ordered_gateways() {
            let id =
                entry.address.0.rsplit('.').next().and_then(|last| last.parse().ok()).unwrap_or_default();
            let egress = entry.egress_address.map(|address| address.0);
            if state.has_one_address() {
                // All are listed with it, whoever holds it.
                let told = state.status().public_ips;
                if egress.as_ref() != told.first() || told.len() != 1 {
                    state.violations.push(format!("a gateway is listed with {egress:?} beside {told:?}"));
                }
            } else if state.has_reserved_addresses() && state.leaves_with(id) != egress {
                state.violations.push(format!("a gateway is listed with {egress:?}, which it does not have"));
            }
        }
        let changed = state.route.as_ref().is_none_or(|old| old.spec != *spec);
        if changed {
            state.route = Some(route);
            state.journal.push(format!("route {}", spec.ordered_gateways().len()));
        }
        end(crash)
    }

    async fn delete_route(&self, _uid: &str) -> Result<(), Failed> {
        let mut state = self.world.state();
        let crash = state.begin()?;
        state.route = None;
        state.journal.push("route gone".into());
        end(crash)
    }

    async fn create(&self, order: &Order) -> Result<DropletId, CreateFailure<Failed>> {
        let mut state = self.world.state();
        let crash = state.begin().map_err(CreateFailure::Unknown)?;
        let late = if crash == Some(Crash::LateSuccess) { 25 } else { 0 };
        let id = 100 + u64::try_from(state.machines.len()).unwrap();
        let machine = Machine {
            name: order.name.clone(),
            tags: order.tags.clone(),
            vpc: order.vpc.clone(),
            made: state.now + late,
            dead: state.stillborn,
            ..Machine::default()
        };
        state.machines.insert(id, machine);
        state.journal.push(format!("create {}", order.name));
        state.check();
        end(crash).map_err(CreateFailure::Unknown)?;
        Ok(DropletId(id))
    }

    async fn power_on(&self, droplet: &OwnedDroplet) -> Result<(), Failed> {
        let mut state = self.world.state();
        let crash = state.begin()?;
        if let Some(machine) = state.machines.get_mut(&droplet.id().0) {
            machine.off = false;
        }
        state.journal.push(format!("power on {}", droplet.name()));
        end(crash)
    }

    async fn untag(&self, own: &OwnTag) -> Result<(), Failed> {
        let mut state = self.world.state();
        let crash = state.begin()?;
        let id = own.droplet().0;
        if id < 100 {
            state.violations.push(format!("I1: a tag was taken off {}", own.name()));
        }
        if state.route.is_some() || state.uses.is_some() {
            state.violations.push("a Droplet was let go of while nodes route to it".into());
        }
        state.machines.get_mut(&id).unwrap().tags.retain(|tag| tag != own.tag());
        state.journal.push(format!("untag {}", own.tag()));
        end(crash)
    }

    async fn create_firewall(&self, wanted: &FirewallSpec) -> Result<FirewallId, CallFailure<Failed>> {
        let mut state = self.world.state();
        let crash = state.begin().map_err(CallFailure::Unknown)?;
        refused(&state)?;
        let id = state.make_wall(wanted, if crash == Some(Crash::LateSuccess) { 25 } else { 0 });
        end(crash).map_err(CallFailure::Unknown)?;
        Ok(id)
    }

    async fn update_firewall(
        &self,
        firewall: &OwnedFirewall,
        wanted: &FirewallSpec,
    ) -> Result<bool, CallFailure<Failed>> {
        let mut state = self.world.state();
        let crash = state.begin().map_err(CallFailure::Unknown)?;
        refused(&state)?;
        // A leader that slept may name one that has gone since.
        if state.version() == *self.version.lock().unwrap() {
            state.only_our_droplets(wanted);
        }
        state.change_wall(firewall, wanted).map_err(CallFailure::Unknown)?;
        end(crash).map_err(CallFailure::Unknown)?;
        Ok(true)
    }

    async fn delete_firewall(&self, firewall: &OwnedFirewall) -> Result<(), CallFailure<Failed>> {
        let mut state = self.world.state();
        let crash = state.begin().map_err(CallFailure::Unknown)?;
        refused(&state)?;
        state.take_wall(firewall);
        end(crash).map_err(CallFailure::Unknown)
    }

    async fn reserve_ip(&self, droplet: &OwnedDroplet) -> Result<Ipv4Addr, CallFailure<Failed>> {
        let mut state = self.world.state();
        let crash = state.begin().map_err(CallFailure::Unknown)?;
        let made = state.reserve(droplet.id(), crash).map_err(no)?;
        end(crash).map_err(CallFailure::Unknown)?;
        Ok(made)
    }

    async fn mark_ip(&self, droplet: &OwnedDroplet, ip: Ipv4Addr) -> Result<(), CallFailure<Failed>> {
        let mut state = self.world.state();
        let crash = state.begin().map_err(CallFailure::Unknown)?;
        state.mark(droplet.id(), ip);
        end(crash).map_err(CallFailure::Unknown)
    }

    async fn assign_ip(&self, ip: &OwnedIp, droplet: &OwnedDroplet) -> Result<(), CallFailure<Failed>> {
        let mut state = self.world.state();
        let crash = state.begin().map_err(CallFailure::Unknown)?;
        state.assign(ip, droplet.id()).map_err(no)?;
        end(crash).map_err(CallFailure::Unknown)
    }

    async fn release_ip(&self, ip: &ReleasableIp) -> Result<(), CallFailure<Failed>> {
        let mut state = self.world.state();
        let crash = state.begin().map_err(CallFailure::Unknown)?;
        state.release(ip).map_err(no)?;
        end(crash).map_err(CallFailure::Unknown)
    }

    async fn admit(&self, admission: &Admission) -> Result<(), Failed> {
        let mut state = self.world.state();
        let crash = state.begin()?;
        let named: BTreeSet<u64> =
            admission.peers.iter().map(|address| u64::from(address.octets()[3])).collect();
        // A leader that slept may name one that has gone since.
        let is_awake = state.version() == *self.version.lock().unwrap();
        if is_awake && named.iter().any(|id| !state.ours().iter().any(|(ours, _)| *ours == id)) {
            state.violations.push("somebody is admitted who is no gateway of ours".into());
        }
        let told = u64::from(admission.gateway.octets()[3]);
        if !state.machines.get(&told).is_some_and(|machine| state.is_up(machine)) {
            return end(crash);
        }
        // It asks each, and takes a silent one at its last word.
        let answers = |id: &u64| state.machines.get(id).is_some_and(|machine| state.is_up(machine));
        let admits = named
            .iter()
            .filter(|id| answers(id) || state.machines[&told].admits.contains(id))
            .copied()
            .collect();
        state.machines.get_mut(&told).unwrap().admits = admits;
        state.journal.push(format!("admit at {}", admission.name));
        end(crash)
    }

    async fn power_cycle(&self, droplet: &OwnedDroplet) -> Result<(), Failed> {
        let mut state = self.world.state();
        let crash = state.begin()?;
        let (id, now) = (droplet.id(), state.now);
        let machine = &state.machines[&id.0];
        // A real one is not up before the window is over, in which a second cycle may follow the first.
        let boots = now - machine.booted < POWER_CYCLE_WINDOW.as_secs().cast_signed();
        // What a quorum said a moment ago may have healed since: nodes are heard later than what they see.
        let condemned = state.against.get(&id.0).is_some_and(|against| *against == now);
        if state.answers_and_forwards(id.0) == (true, true) && !boots && !condemned {
            state.violations.push("I8: a gateway that works was power-cycled".into());
        }
        let machine = state.machines.get_mut(&id.0).unwrap();
        (machine.frozen, machine.unruled) = (false, false);
        machine.booted = now;
        state.journal.push(format!("power cycle {}", droplet.name()));
        end(crash)
    }

    async fn assign(&self, droplet: &OwnedDroplet, project: &str) -> Result<(), Failed> {
        let mut state = self.world.state();
        let crash = state.begin()?;
        let words = format!("put {} into {project}", droplet.name());
        state.journal.push(words);
        end(crash)
    }

    async fn delete(&self, droplet: &OwnedDroplet) -> Result<(), CallFailure<Failed>> {
        let mut state = self.world.state();
        let crash = state.begin().map_err(CallFailure::Unknown)?;
        if state.deletes_refused {
            let words = "You are not authorized to perform this operation.".to_owned();
            return Err(CallFailure::Refused { words, pause: Duration::from_secs(300) });
        }
        let (id, now) = (droplet.id().0, state.now);
        let machine = &state.machines[&id];
        if !is_made(id) {
            let words = format!("I1: foreign delete of {}", machine.name);
            state.violations.push(words);
        }
        let listed = state.route.as_ref().map(|route| route.spec.ordered_gateways()).unwrap_or_default();
        if listed.iter().any(|entry| entry.address.0 == private(id)) {
            state.violations.push("a Droplet was deleted that nodes are told to use".into());
        }
        let works = |id: u64| state.answers_and_forwards(id) == (true, true);
        let used = state.uses == Some(id) || state.drains.is_some_and(|(drained, _)| drained == id);
        if used && works(id) && state.nodes_follow {
            state.violations.push(format!("a Droplet was deleted that carries connections: {id}"));
        }
        let leaving = state.gateway.as_ref().is_some_and(|one| one.metadata.deletion_timestamp.is_some());
        let used = state.follower.as_ref().and_then(|follower| follower.uses.as_ref());
        if leaving && used == Some(&private(id)) {
            state.violations.push("a Droplet was deleted that nodes route to for a follower".into());
        }
        let works = |machine: &Machine| state.is_up(machine) && !machine.is_gray();
        let others = state.ours().iter().filter(|(other, machine)| **other != id && works(machine)).count();
        let deleting =
            state.gateway.as_ref().is_some_and(|gateway| gateway.metadata.deletion_timestamp.is_some());
        // One that was never proven is in no list.
        if !deleting && others == 0 && works(&state.machines[&id]) && state.proven.contains_key(&id) {
            state.violations.push("I8: the last working gateway was deleted".into());
        }
        if !deleting && state.answers_and_forwards(id) == (true, true) && !state.may_go(id) {
            state.violations.push(format!("I8: {id} works, and was deleted without a quorum"));
        }
        if state.machines[&id].deleted.is_none() {
            let words = format!("delete {}", droplet.name());
            state.journal.push(words);
            state.machines.get_mut(&id).unwrap().deleted = Some(now);
        }
        state.delete_accepted.insert(DropletId(id), timestamp(now));
        end(crash).map_err(CallFailure::Unknown)
    }
}

// Whether this status gives up a gateway that is there, too soon after another was.
fn is_hasty(state: &State, status: &EgressGatewayStatus) -> bool {
    let (Some(last), Some(next)) = (state.status().last_replacement, &status.last_replacement) else {
        return false;
    };
    let there = state.ours().iter().any(|(id, _)| i64::try_from(**id) == Ok(next.from_droplet_id));
    last.from_droplet_id != next.from_droplet_id
        && there
        && next.time.0.as_second() - last.time.0.as_second() < 600
}

fn end(crash: Option<Crash>) -> Result<(), Failed> {
    if matches!(crash, Some(Crash::ReplyLost | Crash::LateSuccess)) { Err(Failed::Crashed) } else { Ok(()) }
}

fn no(words: String) -> CallFailure<Failed> {
    CallFailure::Refused { words, pause: Duration::from_secs(10) }
}

fn refused(state: &State) -> Result<(), CallFailure<Failed>> {
    let Some(words) = state.walls_refused else { return Ok(()) };
    Err(CallFailure::Refused { words: words.to_owned(), pause: Duration::from_secs(60) })
}
