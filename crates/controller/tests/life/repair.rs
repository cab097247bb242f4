//! A gateway that the cloud calls active and that does nothing.

use serde_json::json;

use crate::stage::{Stage, play, until};

#[test]
fn a_gateway_that_is_active_and_dead_is_power_cycled_once_and_keeps_its_address() {
    play(async |stage| {
        let _controller = stage.controller("a");
        stage.ask_for("demo", 2, json!({})).await;
        let before = stage.whole("demo", 2).await;
        let dead = before.gateways[0].clone();
        let address = dead.private_address.clone().unwrap();
        let calls = stage.cloud.last().await;
        stage.world.freeze(&address);
        let asked_for = format!("POST /v2/droplets/{}/actions", dead.droplet_id);
        until("a power cycle", async || {
            let changes = stage.cloud.changes(calls).await;
            if changes.contains(&asked_for) {
                Ok(())
            } else {
                Err(format!("{:#?}", stage.status("demo").await))
            }
        })
        .await;
        let recorded = stage.status("demo").await;
        assert!(recorded.gateways[0].power_cycled.is_some(), "recorded before it is sent: {recorded:#?}");
        assert_eq!(
            recorded.active,
            Some(before.gateways[1].name.clone()),
            "the other one carries the traffic"
        );
        let actions = format!("/v2/droplets/{}/actions", dead.droplet_id);
        let actions = stage.cloud.by_hand(reqwest::Method::GET, &actions, None).await;
        assert_eq!(actions["actions"][0]["type"], "power_cycle", "{actions}");
        stage.world.thaw(&address);
        let after = stage.whole("demo", 2).await;
        let kept = |status: &egress_api::EgressGatewayStatus| {
            let gateways = status.gateways.iter();
            gateways.map(|gateway| (gateway.droplet_id, gateway.public_address.clone())).collect::<Vec<_>>()
        };
        assert_eq!(kept(&before), kept(&after));
        assert_eq!(stage.cloud.changes(calls).await, [asked_for], "once, and nothing was replaced");
        told(&stage, "PowerCycled").await;
    });
}

async fn told(stage: &Stage, reason: &str) {
    until(reason, async || {
        let reasons = stage.told().await;
        if reasons.iter().any(|one| one == reason) { Ok(()) } else { Err(format!("{reasons:?}")) }
    })
    .await;
}
