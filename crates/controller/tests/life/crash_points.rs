//! A sample of the points at which `tests/crash` kills and stops a controller in memory: the real program, killed and stopped by
//! signals while a request of it is held in the cloud, or as soon as a write of it is seen.

use kube::api::DeleteParams;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::stage::{Controller, Fault, Stage, play, until};

/// Longer than anything waits.
const FOR_EVER: u32 = 3_600_000;

/// Where a request is held.
#[derive(Clone, Copy, Debug)]
enum Held {
    /// Before the cloud does anything.
    Request,
    /// When it was done.
    Reply,
}

/// Holds the next request of this route; returns when it is there.
async fn hold(stage: &Stage, route: &'static str, held: Held) {
    let before = lay_hold(stage, route, held).await;
    is_held(stage, route, held, before).await;
}

/// Holds the next request of this route, whenever it comes; gives the last of the journal until now.
async fn lay_hold(stage: &Stage, route: &'static str, held: Held) -> u64 {
    let before = stage.cloud.last().await;
    let kind = json!({"delay_ms": FOR_EVER, "before_commit": matches!(held, Held::Request)});
    stage.cloud.break_with(Fault { route, times: 1, kind }).await;
    before
}

async fn is_held(stage: &Stage, route: &'static str, held: Held, before: u64) {
    let method = route.split_once(' ').unwrap().0;
    until(&format!("{route}: {held:?} is held"), async || {
        let there = match held {
            Held::Request => stage.cloud.get("/simulator/held").await["held"].as_array().unwrap().len() == 1,
            Held::Reply => stage.cloud.journal(before).await.iter().any(|line| line.starts_with(method)),
        };
        if there { Ok(()) } else { Err(format!("{:?}", stage.cloud.journal(before).await)) }
    })
    .await;
}

/// Kills a controller at such a request, and starts the next one.
async fn killed_at(stage: &Stage, controller: Controller, route: &'static str, held: Held) -> Controller {
    hold(stage, route, held).await;
    killed(stage, controller).await
}

async fn killed(stage: &Stage, mut controller: Controller) -> Controller {
    controller.process.signal(Signal::SIGKILL);
    controller.process.wait();
    stage.cloud.mend().await;
    stage.controller("next")
}

fn count(changes: &[String], wanted: &str) -> usize {
    changes.iter().filter(|line| *line == wanted).count()
}

#[test]
fn killed_while_a_pair_is_made_the_program_leaves_neither_two_nor_one_too_many() {
    play(async |stage| {
        let mut controller = stage.controller("first");
        stage.ask_for("demo", 2, json!({})).await;
        until("an intent is written", async || {
            let status = stage.status("demo").await;
            if status.creating.is_empty() && status.gateways.is_empty() { Err(String::new()) } else { Ok(()) }
        })
        .await;
        controller = killed(&stage, controller).await;
        for (route, held) in [
            ("POST /v2/droplets", Held::Request),
            ("POST /v2/droplets", Held::Reply),
            ("POST /v2/firewalls", Held::Request),
            ("POST /v2/firewalls", Held::Reply),
        ] {
            controller = killed_at(&stage, controller, route, held).await;
        }
        let status = stage.whole("demo", 2).await;
        let changes = stage.cloud.changes(0).await;
        assert_eq!(count(&changes, "POST /v2/droplets"), 2, "{changes:?}");
        assert_eq!(count(&changes, "POST /v2/firewalls"), 1, "{changes:?}");
        assert_eq!((stage.cloud.droplets().await.len(), stage.cloud.firewalls().await.len()), (2, 1));
        assert!(changes.iter().all(|line| !line.starts_with("DELETE")), "{changes:?}");
        assert_eq!(status.gateways_ready.as_deref(), Some("2/2"));
        drop(controller);
    });
}

#[test]
fn killed_while_one_is_replaced_the_program_makes_one_and_keeps_the_other() {
    play(async |stage| {
        let mut controller = stage.controller("first");
        stage.ask_for("demo", 2, json!({})).await;
        let status = stage.whole("demo", 2).await;
        let (lost, kept) = (status.gateways[0].droplet_id, status.gateways[1].droplet_id);
        let create = "POST /v2/droplets";
        let before = lay_hold(&stage, create, Held::Request).await;
        let by_hand = format!("/v2/droplets/{lost}");
        stage.cloud.by_hand(reqwest::Method::DELETE, &by_hand, None).await;
        is_held(&stage, create, Held::Request, before).await;
        controller = killed(&stage, controller).await;
        for (route, held) in [
            (create, Held::Reply),
            ("PUT /v2/firewalls/*", Held::Request),
            ("PUT /v2/firewalls/*", Held::Reply),
        ] {
            controller = killed_at(&stage, controller, route, held).await;
        }
        let ids: Vec<i64> =
            stage.whole("demo", 2).await.gateways.iter().map(|gateway| gateway.droplet_id).collect();
        let changes = stage.cloud.changes(before).await;
        assert_eq!(count(&changes, create), 1, "{changes:?}");
        assert_eq!((stage.cloud.droplets().await.len(), stage.cloud.firewalls().await.len()), (2, 1));
        assert!(ids.contains(&kept) && !ids.contains(&lost), "{ids:?}");
        let of_lost = format!("DELETE {by_hand}");
        assert!(changes.iter().all(|line| !line.starts_with("DELETE") || *line == of_lost), "{changes:?}");
        drop(controller);
    });
}

#[test]
fn killed_while_a_pair_is_deleted_the_program_leaves_nothing_and_touches_nothing_else() {
    play(async |stage| {
        let mut controller = stage.controller("first");
        stage.ask_for("demo", 2, json!({})).await;
        let status = stage.whole("demo", 2).await;
        let foreign = stage.cloud.foreign("demo-0-0", crate::stage::VPC, &[]).await;
        let before = stage.cloud.last().await;
        stage.gateways().delete("demo", &DeleteParams::default()).await.unwrap();
        until("the StaticRoute is gone", async || {
            if stage.route("demo").await.is_none() { Ok(()) } else { Err(String::new()) }
        })
        .await;
        controller = killed(&stage, controller).await;
        for (route, held) in [
            ("DELETE /v2/droplets/*", Held::Request),
            ("DELETE /v2/droplets/*", Held::Reply),
            ("DELETE /v2/firewalls/*", Held::Reply),
        ] {
            controller = killed_at(&stage, controller, route, held).await;
        }
        stage.gone("demo").await;
        let left: Vec<u64> = stage.cloud.droplets().await.into_iter().map(|(id, _)| id).collect();
        assert_eq!((left, stage.cloud.firewalls().await.len()), (vec![foreign], 0));
        let mut deleted = stage.cloud.changes(before).await;
        deleted.sort_unstable();
        deleted.dedup();
        let mut expected: Vec<String> = status
            .gateways
            .iter()
            .map(|gateway| format!("DELETE /v2/droplets/{}", gateway.droplet_id))
            .collect();
        expected.push(format!("DELETE /v2/firewalls/{}", status.firewall.unwrap().id.unwrap()));
        assert_eq!(deleted, expected);
        drop(controller);
    });
}

#[test]
fn a_leader_that_is_stopped_at_a_delete_wakes_up_into_anothers_term_and_does_nothing() {
    play(async |stage| {
        let first = stage.controller("first");
        stage.ask_for("demo", 2, json!({})).await;
        let status = stage.whole("demo", 2).await;
        let second = stage.controller("second");
        stage.gateways().delete("demo", &DeleteParams::default()).await.unwrap();
        let before = stage.cloud.last().await;
        hold(&stage, "DELETE /v2/droplets/*", Held::Request).await;
        first.process.signal(Signal::SIGSTOP);
        // What is held already stays held.
        stage.cloud.mend().await;
        stage.gone("demo").await;
        let changes = stage.cloud.changes(before).await;
        stage.ask_for("other", 1, json!({})).await;
        let other = stage.whole("other", 1).await;
        let quiet = stage.cloud.last().await;
        first.process.signal(Signal::SIGCONT);
        until("the sleeper ends", async || {
            if first.log().contains("leadership lost") { Ok(()) } else { Err(first.log()) }
        })
        .await;
        assert_eq!(stage.whole("other", 1).await.gateways[0].droplet_id, other.gateways[0].droplet_id);
        let late = stage.cloud.changes(quiet).await;
        assert_eq!(late, Vec::<String>::new(), "{changes:?}");
        assert!(
            status.gateways.iter().all(|gateway| {
                count(&changes, &format!("DELETE /v2/droplets/{}", gateway.droplet_id)) == 1
            })
        );
        drop(second);
    });
}
