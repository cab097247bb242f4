//! Against whom a quorum speaks, counted by this model for itself, and who may be deleted without one.

use super::*;
use egress_api::{GatewayRole, GatewayStatus};

/// Every node of the model has a Ready agent, so that two of two or of three are half of them.
const QUORUM: usize = 2;
/// So long what a node says against a gateway counts, in a cluster of so few.
const FRESH: i64 = 15;

impl State {
    /// To be called when the controller looks: what it sees then is what it may act on.
    pub(super) fn note_who_is_spoken_against(&mut self) {
        let ours = self.ours().into_iter().map(|(id, _)| *id);
        let against: Vec<(u64, i64)> =
            ours.filter(|id| self.is_spoken_against(*id)).map(|id| (id, self.now)).collect();
        self.against.extend(against);
    }

    fn is_spoken_against(&self, id: u64) -> bool {
        let complains =
            |view: &GatewayObservation| view.address == private(id) && (view.condemned || !view.reachable);
        let votes = |node: &&&str| match self.said.get(**node) {
            Some(said) => {
                let is_fresh = self.now - said.heard < FRESH;
                is_fresh && !said.cut_off && said.gateways.iter().any(complains)
            }
            // It sees what is so.
            None => {
                let is_blind = self.machines[&id].blind && self.held_by(id).is_some();
                self.answers_and_forwards(id) != (true, true) || is_blind
            }
        };
        let nodes = if self.third_node { &NODES[..] } else { &NODES[..2] };
        self.machines[&id].off || nodes.iter().filter(votes).count() >= QUORUM
    }

    /// Takes note of who has come to be proven since the status was that.
    pub(super) fn note_who_is_proven(&mut self, before: &EgressGatewayStatus) {
        let status = self.status();
        let was_ready = |id| before.gateways.iter().any(|old| old.droplet_id == id && old.ready);
        for gateway in status.gateways.iter().filter(|one| one.ready && !was_ready(one.droplet_id)) {
            self.proven.insert(u64::try_from(gateway.droplet_id).unwrap(), self.now);
        }
    }

    /// Whether this gateway, which was proven once and works, may go: as many others as asked for are proven, or, where it goes as one
    /// that failed, a quorum has spoken against it since it was proven.
    pub(super) fn may_go(&self, id: u64) -> bool {
        let status = self.status();
        let is_it = |gateway: &&GatewayStatus| u64::try_from(gateway.droplet_id) == Ok(id);
        let (Some(proven), Some(gateway)) = (self.proven.get(&id), status.gateways.iter().find(is_it)) else {
            return true;
        };
        if !gateway.ready {
            return self.against.get(&id).is_some_and(|against| against >= proven);
        }
        let stays = |one: &&GatewayStatus| !is_it(one) && one.ready && one.role != GatewayRole::Leaving;
        let wanted = self.gateway.as_ref().map_or(0, |gateway| gateway.spec.replicas);
        status.gateways.iter().filter(stays).count() >= usize::try_from(wanted).unwrap()
    }
}
