use egress_api::EgressGateway;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::json;

use super::*;

const UID: &str = "1a2b3c4d-5e6f-4000-8000-000000000001";

fn stored(is_new: bool) -> Stored {
    let gateway: EgressGateway = serde_json::from_value(json!({
        "apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway",
        "metadata": {"name": "demo", "uid": UID}, "spec": {"destinations": ["0.0.0.0/0"], "publicIP": "Ephemeral"}
    }))
    .unwrap();
    Stored { gateway, is_new }
}

fn bill(droplets: usize, monthly_usd: f64) -> Bill {
    Bill { droplets, monthly_usd: Some(monthly_usd) }
}

fn forecast(changes: Vec<Change>, most: Bill) -> Forecast {
    Forecast {
        changes,
        routes: None,
        status: EgressGatewayStatus::default(),
        is_gone: false,
        is_settled: true,
        now: bill(2, 12.0),
        most,
        then: bill(2, 24.0),
    }
}

fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Condition {
    Condition {
        type_: type_.into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        last_transition_time: Time(jiff::Timestamp::UNIX_EPOCH),
        observed_generation: None,
    }
}

fn create(name: &str) -> Change {
    let (size, image, region) = ("s-2vcpu-2gb".into(), "debian-12-x64".into(), "nyc1".into());
    Change::CreateDroplet { name: name.into(), size, image, region }
}

#[test]
fn a_roll_says_who_goes_who_comes_why_and_what_it_costs_meanwhile() {
    let why = Why::Rolled { by: "demo-2-1a2b3c4d".into(), reason: "its size is s-1vcpu-1gb".into() };
    let delete = Change::DeleteDroplet { name: "demo-0-1a2b3c4d".into(), id: Some(103), why };
    let forecast = forecast(vec![create("demo-2-1a2b3c4d"), delete], bill(3, 30.0));
    let prices = Prices::from([("s-2vcpu-2gb".to_owned(), 18.0)]);
    let plan = Plan::new(&stored(false), &prices, forecast);
    assert_eq!(
        plan.to_string(),
        "EgressGateway demo\n  \
           create   Droplet demo-2-1a2b3c4d: s-2vcpu-2gb, debian-12-x64, nyc1, 18.00 USD a month\n  \
           roll     Droplet demo-0-1a2b3c4d (103), demo-2-1a2b3c4d takes its place: its size is s-1vcpu-1gb\n  \
           cost     2 Droplets for 12.00 USD a month now, 2 Droplets for 24.00 USD a month then, at most 3 Droplets for 30.00 USD a month meanwhile\n"
    );
    assert!(!plan.is_obstructed());
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(json["changes"][0]["do"], "createDroplet");
    assert_eq!(json["changes"][0]["monthlyPriceUSD"], 18.0);
    assert_eq!(
        (&json["changes"][1]["id"], &json["changes"][1]["why"]["because"]),
        (&json!(103), &json!("rolled"))
    );
    assert_eq!(json["most"], json!({"droplets": 3, "monthlyPriceUSD": 30.0}));
}

#[test]
fn the_uid_of_a_dry_run_is_not_shown_and_what_is_in_the_way_is() {
    let mut forecast = forecast(vec![create("demo-0-1a2b3c4d")], bill(2, 24.0));
    forecast.status.conditions = vec![
        condition(READY, "False", "InvalidSize", "no such size for demo-0-1a2b3c4d"),
        condition(DEGRADED, "False", "AsAskedFor", ""),
    ];
    let plan = Plan::new(&stored(true), &Prices::new(), forecast);
    let text = plan.to_string();
    assert!(text.starts_with("EgressGateway demo (new)\n"), "{text}");
    assert!(text.contains("Droplet demo-0-xxxxxxxx: ") && text.contains("at a price not known"), "{text}");
    assert!(text.ends_with("  but      InvalidSize: no such size for demo-0-xxxxxxxx\n"), "{text}");
    assert!(plan.is_obstructed() && !text.contains("1a2b3c4d"));
}

#[test]
fn nothing_to_do_is_said() {
    let plan = Plan::new(&stored(false), &Prices::new(), forecast(Vec::new(), bill(2, 24.0)));
    assert!(plan.to_string().contains("  nothing  is made, rolled or deleted\n"));
}
