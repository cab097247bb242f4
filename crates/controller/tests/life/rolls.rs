//! Gateways that work are replaced one by one.

use egress_api::EgressGatewayStatus;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::stage::{Fault, Stage, play, until};

const SOON: [&str; 1] = ["--roll-pause-seconds=1"];

async fn change(stage: &Stage, spec: Value) {
    let patch = Patch::Merge(json!({"spec": spec}));
    stage.gateways().patch("demo", &PatchParams::default(), &patch).await.unwrap();
}

async fn all_are(stage: &Stage, size: &str) -> EgressGatewayStatus {
    until(&format!("all are {size}"), async || {
        let status = stage.status("demo").await;
        let as_asked = status.gateways.len() == 2
            && status.gateways.iter().all(|gateway| gateway.size.as_deref() == Some(size));
        if as_asked { Ok(()) } else { Err(format!("{status:#?}")) }
    })
    .await;
    stage.whole("demo", 2).await
}

fn of_droplets(changes: Vec<String>) -> Vec<String> {
    changes.into_iter().filter(|line| line.contains("/v2/droplets")).collect()
}

fn ids(status: &EgressGatewayStatus) -> Vec<i64> {
    status.gateways.iter().map(|gateway| gateway.droplet_id).collect()
}

#[test]
fn another_size_makes_each_gateway_anew_before_the_old_one_goes_also_when_the_leader_is_killed_in_between() {
    play(async |stage| {
        let mut first = stage.controller_with("a", &SOON);
        stage.ask_for("demo", 2, json!({"drainSeconds": 4})).await;
        let before = stage.whole("demo", 2).await;
        let calls = stage.cloud.last().await;
        change(&stage, json!({"droplet": {"size": "s-2vcpu-2gb"}})).await;
        until("a new one is made", async || {
            let roll = stage.status("demo").await.roll;
            if roll.as_ref().is_some_and(|roll| roll.to.is_some()) {
                Ok(())
            } else {
                Err(format!("{roll:?}"))
            }
        })
        .await;
        first.process.signal(nix::sys::signal::Signal::SIGKILL);
        first.process.wait();
        let _second = stage.controller_with("b", &SOON);
        let after = all_are(&stage, "s-2vcpu-2gb").await;
        let [active, standby] = [before.gateways[0].droplet_id, before.gateways[1].droplet_id];
        let expected = [
            "POST /v2/droplets".to_owned(),
            format!("DELETE /v2/droplets/{standby}"),
            "POST /v2/droplets".to_owned(),
            format!("DELETE /v2/droplets/{active}"),
        ];
        assert_eq!(of_droplets(stage.cloud.changes(calls).await), expected);
        assert_eq!(stage.cloud.droplets().await.len(), 2);
        assert!(ids(&after).iter().all(|id| !ids(&before).contains(id)));
        until("people are told", async || {
            let told = stage.told().await;
            let all =
                ["Rolling", "Draining", "Rolled"].iter().all(|wanted| told.iter().any(|one| one == wanted));
            if all { Ok(()) } else { Err(format!("{told:?}")) }
        })
        .await;
    });
}

#[test]
fn one_that_never_comes_up_stops_it_and_says_so_and_the_next_change_begins_anew() {
    play(async |stage| {
        let _controller = stage.controller_with("a", &SOON);
        stage.ask_for("demo", 2, json!({"drainSeconds": 4})).await;
        let before = stage.whole("demo", 2).await;
        let vanishes = Fault { route: "POST /v2/droplets", times: 1, kind: json!("vanish") };
        stage.cloud.break_with(vanishes).await;
        let calls = stage.cloud.last().await;
        change(&stage, json!({"droplet": {"size": "s-2vcpu-2gb"}})).await;
        until("it is stopped", async || {
            let (status, reason, message) = stage.condition("demo", "Degraded").await;
            let said = status == "True" && reason == "RollStopped" && message.contains("begins anew");
            if said { Ok(()) } else { Err(format!("{status} {reason}: {message}")) }
        })
        .await;
        assert_eq!(of_droplets(stage.cloud.changes(calls).await), ["POST /v2/droplets"], "one try");
        let status = stage.status("demo").await;
        assert_eq!((ids(&status), status.gateways_ready.as_deref()), (ids(&before), Some("2/2")));
        change(&stage, json!({"droplet": {"size": "s-2vcpu-4gb"}})).await;
        all_are(&stage, "s-2vcpu-4gb").await;
    });
}

#[test]
fn with_reserved_addresses_each_new_droplet_takes_over_the_address_of_the_old_one() {
    play(async |stage| {
        let _controller = stage.controller_with("a", &[SOON[0], "--reserved-ip-age-seconds=5"]);
        stage.ask_for("demo", 2, json!({"drainSeconds": 4, "publicIP": "ReservedPerGateway"})).await;
        let before = stage.whole("demo", 2).await;
        let calls = stage.cloud.last().await;
        change(&stage, json!({"droplet": {"size": "s-2vcpu-2gb"}})).await;
        let after = all_are(&stage, "s-2vcpu-2gb").await;
        assert_eq!(after.public_ips, before.public_ips);
        let is_told = |line: &String| line.contains("/v2/droplets") || line.contains("/v2/reserved_ips");
        let done: Vec<String> = stage.cloud.changes(calls).await.into_iter().filter(is_told).collect();
        let of_one = |old: usize| {
            let address = before.gateways[old].public_address.as_deref().unwrap();
            [
                "POST /v2/droplets".to_owned(),
                format!("POST /v2/reserved_ips/{address}/actions"),
                format!("DELETE /v2/droplets/{}", before.gateways[old].droplet_id),
            ]
        };
        assert_eq!(done, [of_one(1), of_one(0)].concat());
        let mut held: Vec<(String, Option<u64>)> = stage.cloud.reserved_ips().await;
        held.retain(|(_, holder)| ids(&after).iter().any(|id| u64::try_from(*id).ok() == *holder));
        assert_eq!(held.len(), 2, "{held:?}");
    });
}
