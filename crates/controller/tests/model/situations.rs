//! Single looks: one thing is not as it should be, and this is what must come out.

mod creating;
mod deleting;
mod offered;

use std::net::Ipv4Addr;
use std::time::Duration;

use egress_api::condition::{DEGRADED, PROGRESSING, READY, is_true};
use egress_api::{GatewayRole, NodeEgressStatus};
use egress_controller::act::{CallFailure, CreateFailure, Ports, perform};
use egress_controller::decide::decide;
use egress_controller::decision::{Admission, Decision, Effect, Order};
use egress_controller::firewall::OwnedFirewall;
use egress_controller::identity::{OwnTag, OwnedDroplet};
use egress_controller::observation::{HealthSeen, NODE_EGRESS, Observation, STATIC_ROUTE, Trouble};
use egress_controller::reserved_ip::{OwnedIp, ReleasableIp};
use egress_digitalocean::{DropletId, DropletStatus, FirewallId, FirewallSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::prepared;
use crate::world::{World, private, timestamp};

pub const FIRST: DropletId = DropletId(103);
pub const SECOND: DropletId = DropletId(104);

pub fn calm() -> (World, Observation, i64) {
    let world = prepared();
    let (mut seen, now) = {
        let state = world.state();
        (state.observe().unwrap(), state.now)
    };
    // Whom gateways admit has tests of its own: `admits`.
    for health in seen.health.values_mut() {
        if let HealthSeen::Ready { peers, .. } = health {
            *peers = None;
        }
    }
    for gateway in &mut seen.gateway.status.as_mut().unwrap().gateways {
        gateway.admits.clear();
    }
    (world, seen, now)
}

pub fn at(world: &World, seen: &Observation, now: i64) -> Decision {
    decide(seen, &world.limits, timestamp(now))
}

/// Decides, takes the status as written and decides again, until something else than a status comes out. A firewall follows what
/// it is to be, which has tests of its own: `firewall`.
pub fn effect_at(world: &World, seen: &mut Observation, now: i64) -> (Option<Effect>, Decision) {
    for _ in 0..5 {
        let decision = at(world, seen, now);
        seen.gateway.status = Some(decision.status.clone());
        match &decision.effect {
            Some(Effect::WriteStatus) => {}
            Some(Effect::UpdateFirewall(_, spec)) => {
                let shown = &mut seen.firewalls.as_mut().unwrap().firewalls[0];
                shown.droplet_ids.clone_from(&spec.droplets);
                shown.inbound.clone_from(&spec.inbound);
            }
            _ => return (decision.effect.clone(), decision),
        }
    }
    panic!("the status never comes to rest");
}

pub fn reason(decision: &Decision, type_: &str) -> (String, String) {
    let condition = decision.status.conditions.iter().find(|condition| condition.type_ == type_).unwrap();
    (condition.status.clone(), condition.reason.clone())
}

pub fn yes(reason: &str) -> (String, String) {
    ("True".into(), reason.into())
}

pub fn no(reason: &str) -> (String, String) {
    ("False".into(), reason.into())
}

fn trouble() -> Trouble {
    Trouble { reason: "TokenMissing", message: "no token".into() }
}

pub fn reports(seen: &mut Observation) -> impl Iterator<Item = &mut NodeEgressStatus> {
    seen.nodes.iter_mut().filter_map(|node| node.report.as_mut())
}

fn without_second(seen: &mut Observation) {
    seen.gateway.status.as_mut().unwrap().gateways.pop();
    seen.cloud.as_mut().unwrap().droplets.remove(&SECOND);
    seen.route.as_mut().unwrap().spec.gateways.as_mut().unwrap().pop();
}

#[test]
fn when_all_is_well_nothing_is_done() {
    let (world, seen, now) = calm();
    for later in [0, 60, 3600, 86_400] {
        let decision = at(&world, &seen, now + later);
        assert_eq!(decision.effect, None);
        assert!(decision.requeue_after >= Duration::from_secs(10));
        assert!(decision.events.is_empty());
    }
}

#[test]
fn a_static_route_of_somebody_else_is_left_alone_and_no_droplet_is_made_for_it() {
    let (world, mut seen, now) = calm();
    seen.route.as_mut().unwrap().metadata.owner_references = None;
    let (effect, decision) = effect_at(&world, &mut seen, now);
    assert_eq!(effect, None);
    assert_eq!(reason(&decision, READY), no("StaticRouteTaken"));
    seen.gateway.status = None;
    if let Ok(cloud) = &mut seen.cloud {
        cloud.droplets.clear();
    }
    let (effect, decision) = effect_at(&world, &mut seen, now);
    assert_eq!((effect, decision.status.creating.len()), (None, 0));
}

#[test]
fn without_the_cloud_routes_stay_and_the_condition_says_why() {
    let (world, mut seen, now) = calm();
    seen.cloud = Err(trouble());
    let (effect, decision) = effect_at(&world, &mut seen, now);
    assert_eq!(effect, None);
    assert_eq!(reason(&decision, READY), yes("EgressWorks"));
    assert_eq!(reason(&decision, DEGRADED), yes("TokenMissing"));
    assert_eq!(decision.status.gateways_ready.as_deref(), Some("2/2"));
}

#[test]
fn its_own_endpoint_alone_condemns_nobody() {
    let (world, mut seen, now) = calm();
    seen.health.insert(FIRST, HealthSeen::Silent("no connection".into()));
    seen.failing_since.insert(FIRST, timestamp(now));
    let (effect, decision) = effect_at(&world, &mut seen, now + 5);
    assert_eq!(effect, None);
    assert_eq!(reason(&decision, DEGRADED), no("AsAskedFor"));
    let (effect, decision) = effect_at(&world, &mut seen, now + 10);
    assert_eq!(effect, None);
    assert_eq!(reason(&decision, DEGRADED), yes("GatewayDoubtful"));
    assert_eq!(decision.status.active.as_deref(), Some("demo-0-1a2b3c4d"));
}

#[test]
fn an_outside_that_answers_through_nobody_condemns_nobody() {
    let (world, mut seen, now) = calm();
    for id in [FIRST, SECOND] {
        seen.health.insert(id, HealthSeen::NotReady("uplink: no answer".into()));
    }
    for report in reports(&mut seen) {
        report.gateways.iter_mut().for_each(|view| view.forwards = Some(false));
    }
    let (effect, decision) = effect_at(&world, &mut seen, now + 600);
    assert_eq!(effect, None);
    assert_eq!(decision.status.gateways_ready.as_deref(), Some("2/2"));
    assert_eq!(reason(&decision, DEGRADED), yes("OutsideUnreachable"));
    // The same words about one of them only, while the other works, are a verdict.
    seen.health.insert(SECOND, HealthSeen::Ready { version: None, public_address: None, peers: None });
    for report in reports(&mut seen) {
        for view in &mut report.gateways {
            view.condemned = view.address == private(FIRST.0);
            view.forwards = Some(!view.condemned);
        }
    }
    seen.nodes.iter_mut().for_each(|node| node.heard = Some(timestamp(now + 600)));
    effect_at(&world, &mut seen, now + 600);
    let (effect, decision) = effect_at(&world, &mut seen, now + 604);
    assert_eq!(decision.status.gateways[0].role, GatewayRole::Failed);
    let Some(Effect::ApplyStaticRoute(spec)) = effect else { panic!("{effect:?}") };
    assert_eq!(spec.ordered_gateways().len(), 1);
}

#[test]
fn fewer_replicas_let_the_standby_go_and_more_destinations_change_the_route() {
    let (world, mut seen, now) = calm();
    seen.gateway.spec.replicas = 1;
    let (effect, decision) = effect_at(&world, &mut seen, now);
    let roles: Vec<_> = decision.status.gateways.iter().map(|gateway| gateway.role).collect();
    assert_eq!(roles, [GatewayRole::Active, GatewayRole::Leaving]);
    assert!(matches!(effect, Some(Effect::ApplyStaticRoute(spec)) if spec.ordered_gateways().len() == 1));

    let (world, mut seen, now) = calm();
    seen.gateway.spec.destinations.push("192.0.2.1".into());
    let (effect, _) = effect_at(&world, &mut seen, now);
    assert!(matches!(effect, Some(Effect::ApplyStaticRoute(spec)) if spec.destinations.len() == 2));
}

#[test]
fn who_is_first_stays_first() {
    let (world, mut seen, now) = calm();
    let route = seen.route.as_mut().unwrap();
    route.spec.gateways.as_mut().unwrap().reverse();
    let (effect, decision) = effect_at(&world, &mut seen, now);
    assert_eq!(effect, None);
    assert_eq!(decision.status.active.as_deref(), Some("demo-1-1a2b3c4d"));
    assert_eq!(decision.status.egress_ip.as_deref(), Some("203.0.113.104"));
}

#[test]
fn the_last_failover_is_written_down_once_with_its_reason() {
    let set = |seen: &mut Observation, id, status| {
        seen.cloud.as_mut().unwrap().droplets.get_mut(&id).unwrap().status = status;
    };
    let (world, mut seen, now) = calm();
    set(&mut seen, FIRST, DropletStatus::Off);
    let (effect, decision) = effect_at(&world, &mut seen, now);
    let failover = decision.status.last_failover.unwrap();
    assert_eq!([failover.from.as_str(), &failover.to], ["demo-0-1a2b3c4d", "demo-1-1a2b3c4d"]);
    assert_eq!(failover.reason, "the cloud says that it is powered off");
    assert_eq!(failover.time.0, timestamp(now));
    let Some(Effect::ApplyStaticRoute(spec)) = effect else { panic!("{effect:?}") };
    seen.route.as_mut().unwrap().spec = spec;
    let (_, decision) = effect_at(&world, &mut seen, now + 60);
    assert_eq!(decision.status.last_failover, Some(failover));

    // With none left nothing is switched; the one that comes back first takes over from the one that nodes still have first.
    let (world, mut seen, now) = calm();
    set(&mut seen, FIRST, DropletStatus::Off);
    set(&mut seen, SECOND, DropletStatus::Off);
    let (_, decision) = effect_at(&world, &mut seen, now);
    assert_eq!((decision.status.active, decision.status.last_failover), (None, None));
    set(&mut seen, SECOND, DropletStatus::Active);
    let (_, decision) = effect_at(&world, &mut seen, now + 60);
    let failover = decision.status.last_failover.unwrap();
    assert_eq!([failover.from.as_str(), &failover.to], ["demo-0-1a2b3c4d", "demo-1-1a2b3c4d"]);
    assert_eq!(failover.time.0, timestamp(now + 60));
}

struct Refusing(std::sync::Mutex<Vec<egress_api::EgressGatewayStatus>>);

impl Ports for Refusing {
    type Error = String;
    async fn add_finalizer(&self) -> Result<(), String> {
        Err("unexpected".into())
    }
    async fn remove_finalizer(&self) -> Result<(), String> {
        Err("unexpected".into())
    }
    async fn write_status(&self, status: &egress_api::EgressGatewayStatus) -> Result<(), String> {
        self.0.lock().unwrap().push(status.clone());
        Ok(())
    }
    async fn apply_route(&self, _: &egress_api::StaticRouteSpec) -> Result<(), String> {
        Err("unexpected".into())
    }
    async fn delete_route(&self, _: &str) -> Result<(), String> {
        Err("unexpected".into())
    }
    async fn create(&self, _: &Order) -> Result<DropletId, CreateFailure<String>> {
        Err(CreateFailure::Refused("creating this droplet will exceed your droplet limit".into()))
    }
    async fn power_on(&self, _: &OwnedDroplet) -> Result<(), String> {
        Err("unexpected".into())
    }
    async fn power_cycle(&self, _: &OwnedDroplet) -> Result<(), String> {
        Err("unexpected".into())
    }
    async fn create_firewall(&self, _: &FirewallSpec) -> Result<FirewallId, CallFailure<String>> {
        Err(CallFailure::Unknown("unexpected".into()))
    }
    async fn update_firewall(
        &self,
        _: &OwnedFirewall,
        _: &FirewallSpec,
    ) -> Result<bool, CallFailure<String>> {
        Err(CallFailure::Unknown("unexpected".into()))
    }
    async fn delete_firewall(&self, _: &OwnedFirewall) -> Result<(), CallFailure<String>> {
        Err(CallFailure::Unknown("unexpected".into()))
    }
    async fn assign(&self, _: &OwnedDroplet, _: &str) -> Result<(), String> {
        Err("unexpected".into())
    }
    async fn reserve_ip(&self, _: &OwnedDroplet) -> Result<Ipv4Addr, CallFailure<String>> {
        Err(CallFailure::Unknown("unexpected".into()))
    }
    async fn mark_ip(&self, _: &OwnedDroplet, _: Ipv4Addr) -> Result<(), CallFailure<String>> {
        Err(CallFailure::Unknown("unexpected".into()))
    }
    async fn assign_ip(&self, _: &OwnedIp, _: &OwnedDroplet) -> Result<(), CallFailure<String>> {
        Err(CallFailure::Unknown("unexpected".into()))
    }
    async fn release_ip(&self, _: &ReleasableIp) -> Result<(), CallFailure<String>> {
        Err(CallFailure::Unknown("unexpected".into()))
    }
    async fn admit(&self, _admission: &Admission) -> Result<(), Self::Error> {
        unreachable!()
    }

    async fn untag(&self, _: &OwnTag) -> Result<(), String> {
        Err("unexpected".into())
    }

    async fn delete(&self, _: &OwnedDroplet) -> Result<(), CallFailure<String>> {
        Err(CallFailure::Unknown("unexpected".into()))
    }
}

#[test]
fn the_selector_goes_to_the_static_route_and_nodes_beside_it_do_not_count() {
    let (world, mut seen, now) = calm();
    let select =
        |pool: &str| serde_json::from_value(serde_json::json!({"matchLabels": {"pool": pool}})).unwrap();
    seen.gateway.spec.node_selector = select("pool-1");
    let Some(Effect::ApplyStaticRoute(spec)) = effect_at(&world, &mut seen, now).0 else {
        panic!("the StaticRoute has no selector yet")
    };
    assert_eq!(spec.node_selector, seen.gateway.spec.node_selector);
    seen.route.as_mut().unwrap().spec = spec;
    let (effect, decision) = effect_at(&world, &mut seen, now);
    assert_eq!((effect, decision.status.nodes.as_deref()), (None, Some("1/1")));
    assert_eq!(reason(&decision, READY), yes("EgressWorks"));

    seen.gateway.spec.node_selector = select("none");
    let Some(Effect::ApplyStaticRoute(spec)) = effect_at(&world, &mut seen, now).0 else {
        panic!("the StaticRoute has the old selector")
    };
    seen.route.as_mut().unwrap().spec = spec;
    let (_, decision) = effect_at(&world, &mut seen, now);
    assert_eq!(decision.status.nodes.as_deref(), Some("0/0"));
    assert_eq!(reason(&decision, READY), no("NoNodes"));
}

#[test]
fn what_lasts_is_looked_at_without_haste() {
    let (world, mut seen, now) = calm();
    seen.gateway.metadata.deletion_timestamp = Some(Time(timestamp(now - 1)));
    seen.route = None;
    let (effect, decision) = effect_at(&world, &mut seen, now);
    assert_eq!((effect, reason(&decision, DEGRADED)), (None, yes("NodesHoldRoutes")));
    assert!(decision.requeue_after >= Duration::from_secs(5), "{:?}", decision.requeue_after);

    // Dead, and given up on by the cloud: nothing changes until somebody does something.
    let (world, mut seen, now) = calm();
    seen.health.insert(FIRST, HealthSeen::Silent("no connection".into()));
    for report in reports(&mut seen) {
        report
            .gateways
            .iter_mut()
            .filter(|view| view.address == private(FIRST.0))
            .for_each(|view| view.reachable = false);
    }
    let (_, _) = effect_at(&world, &mut seen, now);
    let (_, decision) = effect_at(&world, &mut seen, now + 5);
    assert!(decision.status.gateways.iter().any(|gateway| gateway.role == GatewayRole::Failed));
    seen.gateway.status.as_mut().unwrap().failed_bring_ups = Some(3);
    seen.gateway.status.as_mut().unwrap().gateways[0].power_cycled = Some(Time(timestamp(now)));
    seen.gateway.status.as_mut().unwrap().creating.clear();
    seen.route.as_mut().unwrap().spec.gateways.as_mut().unwrap().remove(0);
    let (effect, decision) = effect_at(&world, &mut seen, now + 3600);
    assert_eq!((effect, reason(&decision, DEGRADED)), (None, yes("BringUpFailed")));
    assert!(decision.requeue_after >= Duration::from_secs(5), "{:?}", decision.requeue_after);
}

#[test]
fn the_second_coming_later_than_the_first_is_no_warning() {
    let (world, mut seen, now) = calm();
    let status = seen.gateway.status.as_mut().unwrap();
    status.gateways[1].ready = false;
    status.gateways[1].role = GatewayRole::Starting;
    seen.health.insert(SECOND, HealthSeen::Silent("no connection".into()));
    for _ in 0..5 {
        let decision = at(&world, &seen, now);
        assert!(decision.events.iter().all(|told| !told.warning), "{:?}", decision.events);
        seen.gateway.status = Some(decision.status);
    }
}
