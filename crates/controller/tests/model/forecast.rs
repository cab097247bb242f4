//! What is forecast is what then happens, where all goes well.

use std::collections::BTreeMap;

use egress_api::PAUSED_ANNOTATION;
use egress_api::condition::{DEGRADED, READY, is_true};
use egress_controller::forecast::{Change, Forecast, Prices, Routes, Why, forecast};
use egress_controller::observation::Trouble;

use crate::world::{World, timestamp};
use crate::{ENOUGH, no_violation, prepared};

const BIGGER: &str = "s-2vcpu-2gb";

fn forecast_of(world: &World) -> Forecast {
    let prices = Prices::from([("s-1vcpu-1gb".to_owned(), 6.0), (BIGGER.to_owned(), 18.0)]);
    let state = world.state();
    forecast(&state.observe().unwrap(), &world.limits, &prices, timestamp(state.now))
}

/// In the words of the journal.
fn forecast_words(forecast: &Forecast) -> Vec<String> {
    let words = |change: &Change| match change {
        Change::CreateDroplet { name, .. } => Some(format!("create {name}")),
        Change::DeleteDroplet { name, .. } => Some(format!("delete {name}")),
        Change::PowerOn { name } => Some(format!("power on {name}")),
        Change::PowerCycle { name } => Some(format!("power cycle {name}")),
        Change::AssignToProject { name, project } => Some(format!("put {name} into {project}")),
        Change::MoveAddress { address, name } => Some(format!("assign {address} to {name}")),
        Change::ReleaseAddress { address } => Some(format!("release {address}")),
        _ => None,
    };
    forecast.changes.iter().filter_map(words).collect()
}

/// Forecasts, lets it happen, and compares; gives the forecast.
fn comes_true(what: &str, world: &World) -> Forecast {
    let before = world.state().journal.len();
    let forecast = forecast_of(world);
    assert_eq!(world.state().journal.len(), before, "{what}: nothing is done for a forecast");
    assert!(world.settle(ENOUGH), "{what}");
    no_violation(world, &what);
    let state = world.state();
    let verbs = ["create ", "delete ", "power ", "put ", "assign ", "release "];
    let done = state.journal[before..].iter().filter(|line| verbs.iter().any(|verb| line.starts_with(verb)));
    assert_eq!(forecast_words(&forecast), done.cloned().collect::<Vec<_>>(), "{what}");
    assert!(forecast.is_settled, "{what}");
    assert_eq!(forecast.is_gone, state.gateway.is_none(), "{what}");
    if !forecast.is_gone {
        assert_eq!(forecast.then.droplets, state.ours().len(), "{what}");
        let fine = |status: &egress_api::EgressGatewayStatus| {
            (is_true(&status.conditions, READY), is_true(&status.conditions, DEGRADED))
        };
        assert_eq!(fine(&forecast.status), fine(&state.status()), "{what}: {:#?}", forecast.status);
    }
    forecast
}

#[test]
fn a_pair_that_is_asked_for_is_made() {
    let forecast = comes_true("a pair", &World::new(Vec::new()));
    assert_eq!((forecast.now.droplets, forecast.then.droplets), (0, 2));
    assert_eq!((forecast.now.monthly_usd, forecast.then.monthly_usd), (Some(0.0), Some(12.0)));
    assert_eq!(forecast.routes, Some(Routes::Made));
    let walls =
        |change: &&Change| matches!(change, Change::CreateFirewall { .. } | Change::UpdateFirewall { .. });
    assert_eq!(forecast.changes.iter().filter(walls).count(), 1, "{:?}", forecast.changes);
}

#[test]
fn when_all_is_well_nothing_is_forecast() {
    let forecast = comes_true("nothing", &prepared());
    assert_eq!((forecast.changes, forecast.routes), (Vec::new(), None));
    assert_eq!((forecast.now, forecast.most), (forecast.then, forecast.then));
}

#[test]
fn another_size_rolls_both_one_more_at_a_time() {
    let world = prepared();
    world.state().ask_for_size(BIGGER);
    let forecast = comes_true("another size", &world);
    let rolled = |change: &Change| match change {
        Change::DeleteDroplet { why: Why::Rolled { by, reason }, .. } => Some((by.clone(), reason.clone())),
        _ => None,
    };
    let rolled: Vec<_> = forecast.changes.iter().filter_map(rolled).collect();
    let by: Vec<&str> = rolled.iter().map(|(by, _)| by.as_str()).collect();
    assert_eq!(by, ["demo-2-1a2b3c4d", "demo-1-1a2b3c4d"], "{:#?}", forecast.changes);
    assert!(rolled[0].1.contains("spec.droplet.size says s-2vcpu-2gb"), "{rolled:?}");
    let usd = |bill: egress_controller::forecast::Bill| (bill.droplets, bill.monthly_usd);
    assert_eq!(usd(forecast.now), (2, Some(12.0)));
    assert_eq!(usd(forecast.then), (2, Some(36.0)));
    assert_eq!(usd(forecast.most), (3, Some(42.0)));
}

#[test]
fn more_fewer_other_destinations_and_a_deletion_are_forecast() {
    let world = prepared();
    let change = |change: fn(&mut egress_api::EgressGatewaySpec)| {
        let mut state = world.state();
        let gateway = state.gateway.as_mut().unwrap();
        change(&mut gateway.spec);
        gateway.metadata.generation = gateway.metadata.generation.map(|generation| generation + 1);
    };
    change(|spec| spec.replicas = 3);
    assert_eq!(forecast_words(&comes_true("one more", &world)), ["create demo-2-1a2b3c4d"]);
    change(|spec| spec.replicas = 1);
    let fewer = comes_true("two less", &world);
    let surplus = |change: &&Change| matches!(change, Change::DeleteDroplet { why: Why::Surplus, .. });
    assert_eq!(fewer.changes.iter().filter(surplus).count(), 2, "{:?}", fewer.changes);
    change(|spec| spec.destinations.push("192.0.2.1".into()));
    let routes = comes_true("another destination", &world);
    assert_eq!((forecast_words(&routes), routes.routes), (Vec::new(), Some(Routes::Changed)));
    change(|spec| spec.droplet.project_id = Some("4e1bfbc3-dc3e-41f2-a18f-1b4d7ba71679".to_owned()));
    comes_true("a project", &world);
    world.state().delete();
    let deleted = comes_true("deleted", &world);
    assert_eq!((deleted.routes, deleted.then.droplets), (Some(Routes::TakenAway), 0));
    let firewall = |change: &Change| matches!(change, Change::DeleteFirewall { .. });
    assert!(deleted.changes.iter().any(firewall), "{:?}", deleted.changes);
}

#[test]
fn what_fails_is_mended_in_the_forecast_too() {
    let world = prepared();
    world.state().first().off = true;
    comes_true("one that is off", &world);
    let world = prepared();
    world.state().first().frozen = true;
    comes_true("one that is frozen", &world);
    let world = prepared();
    world.state().delete_droplet(103);
    world.state().tick(5);
    comes_true("one that somebody deleted", &world);
}

#[test]
fn droplets_of_the_users_own_are_neither_made_nor_deleted_nor_billed() {
    let world = World::new(Vec::new());
    world.state().foreign(50, "my-nat");
    world.state().gateway.as_mut().unwrap().spec.existing_droplets = vec![50];
    let forecast = forecast_of(&world);
    assert_eq!(forecast_words(&forecast), ["create demo-0-1a2b3c4d"]);
    assert_eq!((forecast.then.droplets, forecast.then.monthly_usd), (1, Some(6.0)));
}

#[test]
fn what_stands_in_the_way_is_in_the_status_of_the_forecast() {
    let world = World::new(Vec::new());
    let message = "spec.droplet.size x is no size; the nearest is y".to_owned();
    world.state().offer.trouble = Some(Trouble { reason: "InvalidSize", message });
    let forecast = forecast_of(&world);
    assert!(forecast.changes.is_empty() && forecast.is_settled);
    let ready = forecast.status.conditions.iter().find(|condition| condition.type_ == READY).unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "InvalidSize"));

    let paused = prepared();
    paused.state().ask_for_size(BIGGER);
    let annotations = BTreeMap::from([(PAUSED_ANNOTATION.to_owned(), "true".to_owned())]);
    paused.state().gateway.as_mut().unwrap().metadata.annotations = Some(annotations);
    assert!(forecast_of(&paused).changes.is_empty());

    let mut full = World::new(Vec::new());
    full.limits.most_droplets = 3;
    let forecast = forecast_of(&full);
    assert_eq!(forecast.then.droplets, 1, "two of others count");
    assert!(is_true(&forecast.status.conditions, DEGRADED), "{:#?}", forecast.status.conditions);
}

#[test]
fn with_reserved_addresses_each_is_reserved_once_moves_with_a_roll_and_is_given_back() {
    let world = World::reserved(Vec::new(), &[]);
    let made = comes_true("a pair", &world);
    let reserved = |change: &&Change| matches!(change, Change::ReserveAddress { .. });
    assert_eq!(made.changes.iter().filter(reserved).count(), 2, "{:?}", made.changes);
    world.state().ask_for_size(BIGGER);
    let rolled = comes_true("another size", &world);
    let moved = |change: &&Change| matches!(change, Change::MoveAddress { .. });
    assert_eq!(rolled.changes.iter().filter(moved).count(), 2, "{:?}", rolled.changes);
    world.state().delete();
    comes_true("deleted", &world);
}

#[test]
fn what_is_retained_is_left() {
    let world = prepared();
    world.state().retain();
    world.state().delete();
    let forecast = comes_true("retained", &world);
    let left = |change: &&Change| matches!(change, Change::LeaveDroplet { .. });
    assert_eq!(forecast.changes.iter().filter(left).count(), 2, "{:?}", forecast.changes);
}
