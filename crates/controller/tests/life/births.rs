//! Creates whose outcome is open: exactly one Droplet comes of each.

use egress_api::EgressGatewayStatus;
use kube::api::DeleteParams;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::stage::{Fault, play, until};

fn creates(changes: &[String]) -> usize {
    changes.iter().filter(|line| *line == "POST /v2/droplets").count()
}

fn ids(status: &EgressGatewayStatus) -> Vec<i64> {
    status.gateways.iter().map(|gateway| gateway.droplet_id).collect()
}

#[test]
fn a_lost_reply_a_vanished_droplet_and_a_delete_in_between_leave_neither_two_nor_one_too_many() {
    play(async |stage| {
        let controller = stage.controller("a");

        stage
            .cloud
            .break_with(Fault { route: "POST /v2/droplets", times: 1, kind: json!("reset_after_commit") })
            .await;
        stage.ask_for("lost", 1, json!({})).await;
        let calls = stage.cloud.last().await;
        stage.whole("lost", 1).await;
        assert_eq!(stage.cloud.droplets().await.len(), 1);
        assert!(creates(&stage.cloud.changes(0).await) == 1, "{calls} {:?}", stage.cloud.changes(0).await);

        // Accepted, and never seen again: given up, and made once more.
        let before = stage.cloud.last().await;
        stage.cloud.break_with(Fault { route: "POST /v2/droplets", times: 1, kind: json!("vanish") }).await;
        stage.ask_for("lost-0", 1, json!({})).await;
        stage.whole("lost-0", 1).await;
        assert_eq!(creates(&stage.cloud.changes(before).await), 2);
        assert_eq!(stage.cloud.droplets().await.len(), 2);

        // Deleted while the answer to the create is under way.
        let before = stage.cloud.last().await;
        stage
            .cloud
            .break_with(Fault { route: "POST /v2/droplets", times: 1, kind: json!({"delay_ms": 1500}) })
            .await;
        stage.ask_for("short", 2, json!({})).await;
        until("the create was sent", async || {
            if creates(&stage.cloud.changes(before).await) == 1 { Ok(()) } else { Err(String::new()) }
        })
        .await;
        stage.gateways().delete("short", &DeleteParams::default()).await.unwrap();
        stage.gone("short").await;
        assert_eq!(stage.cloud.droplets().await.len(), 2, "{:?}", stage.cloud.changes(before).await);

        // Both survive a neighbour whose name theirs begin with.
        let kept = ids(&stage.whole("lost-0", 1).await);
        stage.gateways().delete("lost", &DeleteParams::default()).await.unwrap();
        stage.gone("lost").await;
        assert_eq!(ids(&stage.whole("lost-0", 1).await), kept);
        assert_eq!(stage.cloud.droplets().await.len(), 1);
        drop(controller);
    });
}

#[test]
fn a_leader_killed_right_after_the_request_leaves_one_droplet_and_two_controllers_make_one_pair() {
    play(async |stage| {
        let mut first = stage.controller("a");
        // The answer comes late, so that the leader dies between request and answer.
        stage
            .cloud
            .break_with(Fault { route: "POST /v2/droplets", times: 1, kind: json!({"delay_ms": 3000}) })
            .await;
        stage.ask_for("demo", 2, json!({})).await;
        until("the create was sent", async || {
            if creates(&stage.cloud.changes(0).await) == 1 { Ok(()) } else { Err(first.log()) }
        })
        .await;
        first.process.signal(Signal::SIGKILL);
        first.process.wait();
        let mut second = stage.controller("b");
        let third = stage.controller("c");
        let status = stage.whole("demo", 2).await;
        assert_eq!(creates(&stage.cloud.changes(0).await), 2);
        assert_eq!(stage.cloud.droplets().await.len(), 2);

        // A hand-over changes nothing in the cloud, and takes less than two seconds.
        let before = stage.cloud.last().await;
        let (mut leader, follower) =
            if second.log().contains("leading") { (second, third) } else { (third, second) };
        leader.process.signal(Signal::SIGTERM);
        let asked = std::time::Instant::now();
        until("the other leads", async || {
            if follower.log().contains("leading") { Ok(()) } else { Err(follower.log()) }
        })
        .await;
        let took = asked.elapsed();
        assert!(took < std::time::Duration::from_secs(2), "{took:?}");
        assert_eq!(leader.process.wait(), Some(0), "{}", leader.log());
        println!("hand-over {} ms", took.as_millis());
        second = follower;
        assert_eq!(ids(&stage.whole("demo", 2).await), ids(&status));
        assert!(stage.cloud.changes(before).await.is_empty());

        // Asleep in the middle, it wakes up into somebody else's term.
        let third = stage.controller("d");
        stage
            .cloud
            .break_with(Fault { route: "POST /v2/droplets", times: 1, kind: json!({"delay_ms": 500}) })
            .await;
        let before = stage.cloud.last().await;
        stage.ask_for("late", 1, json!({})).await;
        until("the create was sent", async || {
            if creates(&stage.cloud.changes(before).await) == 1 { Ok(()) } else { Err(second.log()) }
        })
        .await;
        second.process.signal(Signal::SIGSTOP);
        stage.whole("late", 1).await;
        second.process.signal(Signal::SIGCONT);
        until("the sleeper ends", async || {
            if second.log().contains("leadership lost") { Ok(()) } else { Err(second.log()) }
        })
        .await;
        stage.whole("late", 1).await;
        assert_eq!(creates(&stage.cloud.changes(before).await), 1);
        assert_eq!(stage.cloud.droplets().await.len(), 3);
        drop(third);
    });
}
