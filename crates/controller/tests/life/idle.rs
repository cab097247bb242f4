//! What it costs when nothing happens.

use std::time::Duration;

use serde_json::json;

use crate::stage::{Fault, Stage, play};

/// A reading is renewed when it is 30 s old and somebody looks, every 12 s at least.
const QUIET: Duration = Duration::from_secs(45);
const OUTAGE: Duration = Duration::from_secs(37);
const MANY: usize = 20;

async fn calls_in(stage: &Stage, window: Duration) -> Vec<String> {
    let before = stage.cloud.last().await;
    tokio::time::sleep(window).await;
    stage.cloud.journal(before).await
}

fn a_minute(calls: &[String], window: Duration) -> f64 {
    f64::from(u32::try_from(calls.len()).unwrap()) * 60.0 / window.as_secs_f64()
}

#[test]
fn one_costs_no_more_than_a_reading_every_half_minute() {
    play(async |stage| {
        let _controller = stage.controller("a");
        stage.ask_for("gw-0", 2, json!({})).await;
        stage.whole("gw-0", 2).await;
        let calls = calls_in(&stage, QUIET).await;
        println!("cloud calls a minute when quiet, 1 EgressGateway: {:.1}", a_minute(&calls, QUIET));
        assert_cheap(&calls);
    });
}

// A reading of Droplets every 30 s, and one of firewalls every five minutes.
fn assert_cheap(calls: &[String]) {
    let of = |path: &str| calls.iter().filter(|line| **line == format!("GET {path}")).count();
    let (droplets, firewalls) = (of("/v2/droplets"), of("/v2/firewalls"));
    assert!((1..=2).contains(&droplets) && firewalls <= 1, "{calls:?}");
    assert_eq!(droplets + firewalls, calls.len(), "{calls:?}");
}

#[test]
fn twenty_cost_no_more_than_one() {
    play(async |stage| {
        let _controller = stage.controller("a");
        for index in 0..MANY {
            stage.ask_for(&format!("gw-{index}"), 1, json!({})).await;
        }
        for index in 0..MANY {
            stage.whole(&format!("gw-{index}"), 1).await;
        }
        let calls = calls_in(&stage, QUIET).await;
        println!("cloud calls a minute when quiet, {MANY} EgressGateways: {:.1}", a_minute(&calls, QUIET));
        assert_cheap(&calls);

        // An outage is asked about by one for all. The last reading is young, so the first half minute may be silent.
        let kind = json!({"status": 503, "body": "<html>bad gateway</html>"});
        stage.cloud.break_with(Fault { route: "* /v2/**", times: 10_000, kind }).await;
        let calls = calls_in(&stage, OUTAGE).await;
        println!("cloud calls a minute in an outage, {MANY} EgressGateways: {:.1}", a_minute(&calls, OUTAGE));
        assert!(calls.len() <= 18, "{} calls in {OUTAGE:?}", calls.len());
        stage.cloud.mend().await;
        stage.whole("gw-0", 1).await;
    });
}
