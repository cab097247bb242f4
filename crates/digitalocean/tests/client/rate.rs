//! The rate budget as the network sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use egress_digitalocean::{Client, Clock, Retry, SharedToken};

use crate::fake::{CANARY, Fake, json, provide_tls, with_headers};

/// A clock that stands still until it is moved.
#[derive(Default)]
struct HandClock(AtomicU64);

impl Clock for HandClock {
    fn elapsed(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
    fn unix_seconds(&self) -> u64 {
        1_000_000 + self.0.load(Ordering::SeqCst)
    }
}

fn client_with(clock: &Arc<HandClock>, fake: &Fake) -> Client {
    provide_tls();
    let token = Arc::new(SharedToken::new(CANARY.to_owned().into()));
    Client::with_clock(&fake.address, token, clock.clone()).unwrap()
}

#[tokio::test]
async fn after_a_429_nothing_is_sent_until_the_api_allows_it() {
    let body = r#"{"id": "too_many_requests", "message": "API Rate limit exceeded."}"#;
    let fake = Fake::start(move |_, number| match number {
        0 => with_headers(
            429,
            "ratelimit-limit: 5000\r\nratelimit-remaining: 0\r\nratelimit-reset: 1000090\r\n",
            body,
        ),
        _ => {
            with_headers(200, "ratelimit-limit: 5000\r\nratelimit-remaining: 4321\r\n", r#"{"account": {}}"#)
        }
    })
    .await;
    let clock = Arc::new(HandClock::default());
    let client = client_with(&clock, &fake);

    let limited = client.account().await.unwrap_err();
    assert_eq!(
        (limited.category(), limited.retry()),
        ("rate_limited", Retry::After(Duration::from_secs(90)))
    );
    clock.0.store(50, Ordering::SeqCst);
    let throttled = client.account().await.unwrap_err();
    assert_eq!(
        (throttled.category(), throttled.retry()),
        ("throttled", Retry::After(Duration::from_secs(40)))
    );
    assert_eq!((fake.count(), client.quota().paused_for), (1, Duration::from_secs(40)));

    clock.0.store(90, Ordering::SeqCst);
    client.account().await.unwrap();
    let quota = client.quota();
    assert_eq!((quota.limit, quota.remaining, quota.paused_for), (Some(5000), Some(4321), Duration::ZERO));
}

#[tokio::test]
async fn a_storm_of_calls_is_held_back_before_the_api_has_to() {
    let fake = Fake::start(|_, _| json(200, r#"{"account": {}}"#)).await;
    // The clock stands still, so the bucket does not refill: only the burst may leave.
    let client = client_with(&Arc::new(HandClock::default()), &fake);
    let storm = async {
        loop {
            client.account().await.unwrap();
        }
    };
    let ended: Result<(), _> = tokio::time::timeout(Duration::from_secs(2), storm).await;
    assert!(ended.is_err());
    assert_eq!(fake.count(), 40);
}
