//! Single looks: one thing is not as it should be, and this is what must come out.

use std::time::Duration;

use egress_api::condition::{DEGRADED, PROGRESSING, READY};
use egress_api::{GatewayRole, NodeEgressStatus};
use egress_controller::act::{CreateFailure, FirewallFailure, Ports, perform};
use egress_controller::decide::decide;
use egress_controller::decision::{Admission, Decision, Effect, Order};
use egress_controller::firewall::OwnedFirewall;
use egress_controller::identity::OwnedDroplet;
use egress_controller::observation::{HealthSeen, Observation, Trouble};
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
fn in_the_wrong_vpc_no_droplet_is_made() {
    let world = World::new(Vec::new());
    let mut seen = world.state().observe().unwrap();
    seen.gateway.metadata.finalizers = Some(vec![egress_api::EGRESS_GATEWAY_FINALIZER.into()]);
    seen.site = Err(Trouble { reason: "WrongVpc", message: "elsewhere".into() });
    let (effect, decision) = effect_at(&world, &mut seen, 1_800_000_000);
    assert_eq!((effect, decision.status.creating.len()), (None, 0));
    assert_eq!(reason(&decision, READY), no("WrongVpc"));
    assert_eq!(reason(&decision, PROGRESSING), no("WrongVpc"));
}

#[test]
fn its_own_endpoint_alone_condemns_nobody() {
    let (world, mut seen, now) = calm();
    seen.health.insert(FIRST, HealthSeen::Silent("no connection".into()));
    seen.failing_since.insert(FIRST, timestamp(now));
    let (effect, decision) = effect_at(&world, &mut seen, now + 5);
    assert_eq!(effect, None);
    assert_eq!(reason(&decision, DEGRADED), no("AsAskedFor"));
    let (effect, decision) = effect_at(&world, &mut seen, now + 600);
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
fn what_is_not_provably_ours_is_not_deleted_and_the_condition_says_so() {
    let (world, mut seen, now) = calm();
    seen.gateway.metadata.deletion_timestamp = Some(Time(timestamp(now)));
    seen.route = None;
    reports(&mut seen).for_each(|report| report.routes.clear());
    if let Ok(cloud) = &mut seen.cloud {
        cloud.taken = timestamp(now);
        for droplet in cloud.droplets.values_mut() {
            droplet.tags.as_mut().unwrap().retain(|tag| !tag.starts_with("egress-owner:"));
        }
    }
    let (effect, decision) = effect_at(&world, &mut seen, now);
    assert_eq!(effect, None);
    assert_eq!(reason(&decision, DEGRADED), yes("NotProvablyOurs"));
}

#[test]
fn without_a_token_deletion_waits_if_something_was_made_and_not_otherwise() {
    let (world, mut seen, now) = calm();
    seen.gateway.metadata.deletion_timestamp = Some(Time(timestamp(now)));
    seen.route = None;
    reports(&mut seen).for_each(|report| report.routes.clear());
    seen.cloud = Err(trouble());
    let (effect, decision) = effect_at(&world, &mut seen, now);
    assert_eq!(effect, None);
    assert_eq!(reason(&decision, DEGRADED), yes("TokenMissing"));
    seen.gateway.status.as_mut().unwrap().gateways.clear();
    let (effect, decision) = effect_at(&world, &mut seen, now);
    assert_eq!((effect, reason(&decision, DEGRADED)), (None, yes("TokenMissing")), "there is a firewall");
    seen.gateway.status.as_mut().unwrap().firewall = None;
    let (effect, _) = effect_at(&world, &mut seen, now);
    assert_eq!(effect, Some(Effect::RemoveFinalizer));
}

#[test]
fn a_delete_that_was_accepted_is_given_time() {
    let (world, mut seen, now) = calm();
    seen.gateway.metadata.deletion_timestamp = Some(Time(timestamp(now)));
    seen.route = None;
    reports(&mut seen).for_each(|report| report.routes.clear());
    let ids = |effect: Option<Effect>| match effect {
        Some(Effect::DeleteDroplet(droplet)) => Some(droplet.id()),
        _ => None,
    };
    assert_eq!(ids(effect_at(&world, &mut seen, now).0), Some(FIRST));
    seen.cloud.as_mut().unwrap().delete_accepted.insert(FIRST, timestamp(now));
    assert_eq!(ids(effect_at(&world, &mut seen, now + 1).0), Some(SECOND));
    assert_eq!(ids(effect_at(&world, &mut seen, now + 30).0), Some(FIRST));
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

#[test]
fn a_droplet_that_was_accepted_and_then_is_not_there_is_lost_after_a_while() {
    let (world, mut seen, now) = calm();
    let status = seen.gateway.status.as_mut().unwrap();
    status.gateways[1].role = GatewayRole::Starting;
    status.gateways[1].ready = false;
    status.gateways[1].since = Some(Time(timestamp(now)));
    let cloud = seen.cloud.as_mut().unwrap();
    cloud.droplets.remove(&SECOND);
    cloud.gone.insert(SECOND);
    let (_, decision) = effect_at(&world, &mut seen, now + 20);
    assert_eq!(decision.status.gateways.len(), 2);
    let decision = at(&world, &seen, now + 31);
    assert_eq!(decision.status.gateways.len(), 1);
    assert_eq!(decision.status.failed_bring_ups, Some(1));
    // One that was proven before is simply gone.
    let (world, mut seen, now) = calm();
    let cloud = seen.cloud.as_mut().unwrap();
    cloud.droplets.remove(&SECOND);
    cloud.gone.insert(SECOND);
    let decision = at(&world, &seen, now);
    assert_eq!(decision.status.gateways.len(), 1);
    assert_eq!(decision.status.failed_bring_ups, None);
    assert_eq!(decision.status.creating.len(), 1);
}

#[test]
fn before_the_settle_time_is_over_nothing_is_created_in_its_place() {
    let (world, mut seen, now) = calm();
    without_second(&mut seen);
    let (effect, _) = effect_at(&world, &mut seen, now);
    assert_eq!(effect, None, "it was not looked for by name yet");
    let look_at = |seen: &mut Observation, taken: i64| {
        let cloud = seen.cloud.as_mut().unwrap();
        cloud.taken = timestamp(taken);
        cloud.looked_up.insert("demo-1-1a2b3c4d".into());
    };
    look_at(&mut seen, now - 1);
    assert_eq!(effect_at(&world, &mut seen, now).0, None, "the list is older than the intent");
    look_at(&mut seen, now);
    assert!(matches!(effect_at(&world, &mut seen, now).0, Some(Effect::CreateDroplet(_))));
    seen.gateway.status.as_mut().unwrap().creating[0].sent = Some(Time(timestamp(now)));
    look_at(&mut seen, now + 39);
    assert_eq!(effect_at(&world, &mut seen, now + 39).0, None);
    // What was read before the settle time was over proves nothing.
    assert_eq!(effect_at(&world, &mut seen, now + 50).0, None);
    look_at(&mut seen, now + 41);
    assert!(matches!(effect_at(&world, &mut seen, now + 41).0, Some(Effect::CreateDroplet(_))));
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
    async fn create_firewall(&self, _: &FirewallSpec) -> Result<FirewallId, FirewallFailure<String>> {
        Err(FirewallFailure::Unknown("unexpected".into()))
    }
    async fn update_firewall(
        &self,
        _: &OwnedFirewall,
        _: &FirewallSpec,
    ) -> Result<bool, FirewallFailure<String>> {
        Err(FirewallFailure::Unknown("unexpected".into()))
    }
    async fn delete_firewall(&self, _: &OwnedFirewall) -> Result<(), FirewallFailure<String>> {
        Err(FirewallFailure::Unknown("unexpected".into()))
    }
    async fn admit(&self, _admission: &Admission) -> Result<(), Self::Error> {
        unreachable!()
    }

    async fn delete(&self, _: &OwnedDroplet) -> Result<(), String> {
        Err("unexpected".into())
    }
}

#[test]
fn a_refused_create_says_so_in_the_clouds_words_and_waits() {
    let (world, mut seen, now) = calm();
    without_second(&mut seen);
    let cloud = seen.cloud.as_mut().unwrap();
    cloud.looked_up.insert("demo-1-1a2b3c4d".into());
    cloud.taken = timestamp(now);
    let (effect, decision) = effect_at(&world, &mut seen, now);
    assert!(matches!(effect, Some(Effect::CreateDroplet(_))));
    let cloud = Refusing(std::sync::Mutex::default());
    futures::executor::block_on(perform(&decision, &cloud, timestamp(now))).unwrap();
    let written = cloud.0.into_inner().unwrap();
    assert!(written[0].creating[0].sent.is_some(), "marked before it was sent");
    seen.gateway.status = written.last().cloned();
    let (effect, decision) = effect_at(&world, &mut seen, now + 30);
    assert_eq!(effect, None);
    assert_eq!(reason(&decision, DEGRADED), yes("CreateRefused"));
    let degraded = decision.status.conditions.iter().find(|condition| condition.type_ == DEGRADED).unwrap();
    assert!(degraded.message.contains("exceed your droplet limit"), "{}", degraded.message);
    assert!(matches!(effect_at(&world, &mut seen, now + 61).0, Some(Effect::CreateDroplet(_))));
}

#[test]
fn a_droplet_goes_only_when_every_live_node_has_let_go_of_it_or_it_is_dead_long_enough() {
    let leaving = |ready: bool| {
        let (world, mut seen, now) = calm();
        seen.gateway.spec.replicas = 1;
        let gateway = &mut seen.gateway.status.as_mut().unwrap().gateways[1];
        gateway.role = GatewayRole::Leaving;
        gateway.ready = ready;
        gateway.since = Some(Time(timestamp(now)));
        let route = seen.route.as_mut().unwrap();
        route.spec.gateways.as_mut().unwrap().pop();
        route.metadata.generation = route.metadata.generation.map(|generation| generation + 1);
        (world, seen, now)
    };
    let deletes = |world: &World, seen: &mut Observation, now: i64| {
        matches!(effect_at(world, seen, now).0, Some(Effect::DeleteDroplet(_)))
    };
    for (ready, patience) in [(false, 30), (true, 300)] {
        let (world, mut seen, now) = leaving(ready);
        assert!(!deletes(&world, &mut seen, now + patience - 1), "a node still has the old list");
        assert!(deletes(&world, &mut seen, now + patience));
        let (world, mut seen, now) = leaving(ready);
        seen.nodes[0].live = false;
        assert!(!deletes(&world, &mut seen, now + 1));
        let generation = seen.route.as_ref().and_then(|route| route.metadata.generation).unwrap();
        seen.nodes[1].report.as_mut().unwrap().routes[0].observed_generation = generation;
        assert!(deletes(&world, &mut seen, now + 1), "the dead node blocks nothing");

        let (world, mut seen, now) = leaving(ready);
        let first = serde_json::json!({"matchLabels": {"pool": "pool-1"}});
        let route = &mut seen.route.as_mut().unwrap().spec;
        for selector in [&mut seen.gateway.spec.node_selector, &mut route.node_selector] {
            *selector = Some(serde_json::from_value(first.clone()).unwrap());
        }
        seen.nodes[0].report.as_mut().unwrap().routes[0].observed_generation = generation;
        assert!(!deletes(&world, &mut seen, now + 1), "a node that is no longer selected still has routes");
        seen.nodes[1].report.as_mut().unwrap().routes.clear();
        assert!(deletes(&world, &mut seen, now + 1));
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
fn somebody_elses_droplet_under_our_name_costs_a_slot_and_nothing_else() {
    let world = World::new(Vec::new());
    world.state().foreign(50, "demo-0-1a2b3c4d");
    assert!(world.settle(600), "{:#?}", world.state().status());
    let state = world.state();
    assert!(state.violations.is_empty(), "{:?}", state.violations);
    assert_eq!(state.names().into_iter().collect::<Vec<_>>(), ["demo-1-1a2b3c4d", "demo-2-1a2b3c4d"]);
    assert!(state.machines.contains_key(&50));
    assert_eq!(state.status().gateways_ready.as_deref(), Some("2/2"));
}

#[test]
fn a_slot_that_cannot_be_had_is_said_and_asked_for_at_leisure() {
    let world = World::new(Vec::new());
    for slot in 0..3_u64 {
        world.state().foreign(50 + slot, &format!("demo-{slot}-1a2b3c4d"));
    }
    for _ in 0..400 {
        let decision = world.next().unwrap();
        let _ = world.carry_out(&decision, None);
        world.state().tick(1);
    }
    assert!(
        world.state().journal.iter().all(|line| !line.starts_with("create")),
        "{:?}",
        world.state().journal
    );
    let looks: Vec<Duration> = (0..200)
        .map(|_| {
            let decision = world.next().unwrap();
            let _ = world.carry_out(&decision, None);
            world.state().tick(1);
            decision.requeue_after
        })
        .collect();
    let hasty = looks.iter().filter(|pause| **pause < Duration::from_secs(5)).count();
    assert!(hasty <= 20, "{hasty} of {} looks in haste", looks.len());
    let status = world.state().status();
    let degraded = status.conditions.iter().find(|condition| condition.type_ == DEGRADED).unwrap();
    assert_eq!(degraded.reason, "UnknownDroplet", "{}", degraded.message);
}

#[test]
fn while_our_vpc_is_not_known_nothing_that_may_be_ours_is_let_go_of() {
    let (world, mut seen, now) = calm();
    seen.gateway.metadata.deletion_timestamp = Some(Time(timestamp(now - 1)));
    seen.gateway.status = None;
    seen.route = None;
    reports(&mut seen).for_each(|report| report.routes.clear());
    seen.site = Err(Trouble { reason: "NodesNotFound", message: "no node".into() });
    let (effect, decision) = effect_at(&world, &mut seen, now);
    assert_eq!(effect, None);
    assert_eq!(reason(&decision, DEGRADED), yes("NodesNotFound"));
    let degraded = decision.status.conditions.iter().find(|condition| condition.type_ == DEGRADED).unwrap();
    for words in ["demo-0-1a2b3c4d", "spec.droplet.vpcUUID", "remove the finalizer"] {
        assert!(degraded.message.contains(words), "{words}: {}", degraded.message);
    }
    // Naming the VPC is a way out.
    seen.gateway.spec.droplet.vpc_uuid = Some(crate::world::VPC.into());
    assert!(matches!(effect_at(&world, &mut seen, now).0, Some(Effect::DeleteDroplet(_))));
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
