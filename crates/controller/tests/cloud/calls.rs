//! What the cloud is asked for, and how often: when all is well, when nothing works for hours, and after that.

use serde_json::{Value, json};

use crate::fleet::{Fleet, LOOK};

const EGRESS_GATEWAYS: u64 = 100;

/// Each EgressGateway looks every twelve seconds, spread over them.
async fn watch(fleet: &Fleet, seconds: u64) {
    for _ in 0..seconds {
        for _ in (0..EGRESS_GATEWAYS).filter(|number| number % LOOK == fleet.now() % LOOK) {
            let _outcome = fleet.look().await;
        }
        fleet.pass(1).await;
    }
}

async fn last(fleet: &Fleet) -> u64 {
    fleet.requests(0).await.last().map_or(0, |(number, _)| *number)
}

#[tokio::test]
async fn an_idle_hour_of_a_hundred_egress_gateways_costs_at_most_150_calls() {
    for droplets in [100, 200, 450] {
        let fleet = Fleet::of(droplets).await;
        assert_eq!(fleet.look().await, Ok(usize::try_from(droplets).unwrap()));
        let before = last(&fleet).await;
        watch(&fleet, 3600).await;
        let calls = fleet.requests(before).await;
        println!("{droplets} Droplets: {} calls in an idle hour", calls.len());
        assert!(calls.len() <= 150, "{droplets} Droplets: {}", calls.len());
        assert!(calls.len() >= 60, "a change by hand would stay unseen: {}", calls.len());
        assert!(calls.iter().all(|(_, method)| method == "GET"));
    }
}

#[tokio::test]
async fn hours_of_outage_are_borne_calmly_and_so_is_the_return() {
    let fleet = Fleet::of(200).await;
    assert_eq!(fleet.look().await, Ok(200));
    let hours: [Value; 7] = [
        json!({"status": 503, "body": "<html><body>Service Unavailable</body></html>"}),
        json!("reset_before_commit"),
        json!("truncate"),
        json!({"truncate": 40, "honest_length": true}),
        json!({"status": 504, "body": ""}),
        json!({"status": 401}),
        json!({"status": 403}),
    ];
    let mut before = last(&fleet).await;
    for kind in hours {
        fleet.mend().await;
        fleet.break_all(&kind).await;
        watch(&fleet, 60).await;
        assert!(fleet.look().await.is_err(), "{kind}");
        let first = last(&fleet).await;
        watch(&fleet, 3540).await;
        let hour = fleet.requests(first).await;
        println!("{kind}: {} calls in an hour", hour.len());
        // Every half minute, and by chance a quarter later: never in step with others.
        assert!((90..=120).contains(&hour.len()), "{kind}: {}", hour.len());
        let in_its_first_minute = first - before;
        assert!(in_its_first_minute <= 10, "{kind}: {in_its_first_minute}");
        before = last(&fleet).await;
    }
    fleet.mend().await;
    // Back within the longest pause, with no more calls than in any other minute.
    watch(&fleet, 60).await;
    assert_eq!(fleet.look().await, Ok(200));
    let back = fleet.requests(before).await;
    assert!(back.len() <= 8, "{back:?}");
    assert!(back.iter().all(|(_, method)| method == "GET"));
    before = last(&fleet).await;
    watch(&fleet, 3600).await;
    assert!(fleet.requests(before).await.len() <= 150);
}

#[tokio::test]
async fn every_fault_is_named_and_over_when_it_is_over() {
    let too_many = json!({"status": 429, "retry_after": 20});
    let faults: [(Value, &str); 9] = [
        (too_many, "CloudThrottles"),
        (json!({"status": 500}), "CloudRefused"),
        (json!({"status": 502, "body": "<html><body>Bad Gateway</body></html>"}), "CloudRefused"),
        (json!("reset_before_commit"), "CloudUnreachable"),
        (json!("reset_after_commit"), "CloudUnreachable"),
        (json!("truncate"), "CloudUnreachable"),
        (json!({"truncate": 40, "honest_length": true}), "CloudUnreachable"),
        (json!({"status": 401}), "TokenRefused"),
        (json!({"status": 403}), "CloudForbids"),
    ];
    let fleet = Fleet::of(10).await;
    for (kind, reason) in faults {
        assert_eq!(fleet.look().await, Ok(10), "before {kind}");
        fleet.break_all(&kind).await;
        fleet.pass(31).await;
        let (found, words) = fleet.look().await.unwrap_err();
        assert_eq!(found, reason, "{kind}: {words}");
        assert!(!words.contains('<'), "a page's markup: {words}");
        fleet.mend().await;
        fleet.pass(41).await;
    }
    assert_eq!(fleet.look().await, Ok(10));
}

#[tokio::test]
async fn a_429_is_obeyed_for_as_long_as_it_says() {
    let fleet = Fleet::of(10).await;
    fleet.break_all(&json!({"status": 429, "retry_after": 90})).await;
    assert_eq!(fleet.look().await.unwrap_err().0, "CloudThrottles");
    let before = last(&fleet).await;
    // A wait that is short enough is slept, and that sleep is real.
    watch(&fleet, 60).await;
    assert_eq!(fleet.requests(before).await.len(), 0);
    fleet.mend().await;
    fleet.pass(31).await;
    assert_eq!(fleet.look().await, Ok(10));
}
