//! The server as whoever reaches its port meets it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so by ending")]

mod made_up;
mod stage;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use egress_dashboard::server::{HEADER_TIMEOUT, MOST_CONNECTIONS, MOST_STREAMS};
use egress_runtime::kubernetes::install_crypto_provider;
use made_up::{Cluster, at};
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;
use stage::Stage;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn client() -> Client {
    install_crypto_provider();
    Client::builder().no_proxy().tls_certs_only([]).timeout(Duration::from_secs(30)).build().unwrap()
}

/// What comes over a stream of events, by name.
struct Events {
    answer: reqwest::Response,
    text: String,
}

impl Events {
    async fn open(stage: &Stage, path: &str) -> Self {
        let answer = client().get(stage.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { answer, text: String::new() }
    }

    /// The next change; `None` when the stream has ended.
    async fn change(&mut self) -> Option<Value> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let event = event.to_owned();
                self.text = rest.to_owned();
                if let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: "))
                    && event.contains("event: change")
                {
                    return Some(serde_json::from_str(data).unwrap());
                }
                continue;
            }
            let chunk = self.answer.chunk().await.ok()??;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}

fn ids(change: &Value) -> Vec<&str> {
    change["blocks"].as_array().unwrap().iter().map(|block| block["id"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_read_only_without_cookies_and_under_a_strict_policy() {
    let stage = Stage::set(Cluster::of(2, 3)).await;
    let client = client();
    for (path, status) in [
        ("/", StatusCode::OK),
        ("/?gateway=gw-001", StatusCode::OK),
        ("/?gateway=gw-001&page=nonsense", StatusCode::OK),
        ("/?gateway=none", StatusCode::NOT_FOUND),
        ("/?gateway=%3Cscript%3E", StatusCode::BAD_REQUEST),
        ("/?gateway=", StatusCode::BAD_REQUEST),
        ("/style.css", StatusCode::OK),
        ("/live.js", StatusCode::OK),
        ("/icon.svg", StatusCode::OK),
        ("/metrics", StatusCode::NOT_FOUND),
        ("/../../etc/passwd", StatusCode::NOT_FOUND),
    ] {
        let answer = client.get(stage.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
        let headers = answer.headers().clone();
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert!(!headers.contains_key("set-cookie"), "{path}");
        let text = answer.text().await.unwrap();
        // What is linked is here, and by a path that an ingress may prefix.
        for attribute in ["src=\"", "href=\""] {
            let mut links = text.split(attribute).skip(1);
            assert!(links.all(|link| link.starts_with("./") || link.starts_with('#')), "{path}: {text}");
        }
    }
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        for path in ["/", "/events", "/live.js"] {
            let answer = client.request(method.clone(), stage.url(path)).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_here_from_elsewhere_is_not_answered() {
    let stage = Stage::set(Cluster::of(1, 1)).await;
    let answer = client().get(stage.url("/")).header("host", "evil.example:9192").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::MISDIRECTED_REQUEST);
    assert!(!answer.text().await.unwrap().contains("gw-000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_reaches_an_open_page_within_a_second_and_holds_what_is_new_only() {
    let stage = Stage::set(Cluster::of(3, 3)).await;
    let mut events = Events::open(&stage, "/events").await;
    let first = events.change().await.unwrap();
    assert_eq!(first["order"].as_array().unwrap().len(), ids(&first).len());
    // What gateways have left comes once somebody looks.
    let started = Instant::now();
    stage.change(|cluster| cluster.fail_over(1, at(9)));
    let change = loop {
        let change = events.change().await.unwrap();
        if change["blocks"].to_string().contains("state-degraded") {
            break change;
        }
    };
    let took = started.elapsed();
    println!("{took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    let changed = ids(&change);
    for id in ["headline", "gateway-gw-001", "nodes", "moments"] {
        assert!(changed.contains(&id), "{changed:?}");
    }
    // A page that is loaded now has it, too.
    let page = client().get(stage.url("/")).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("Failover") && page.contains("gw-001-1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_egress_gateway_that_is_deleted_while_its_page_is_open_is_said_to_be_gone() {
    let stage = Stage::set(Cluster::of(2, 1)).await;
    let mut events = Events::open(&stage, "/events?gateway=gw-001").await;
    events.change().await.unwrap();
    stage.change(|cluster| cluster.gateways.remove(1));
    loop {
        let change = events.change().await.unwrap();
        if change["blocks"].to_string().contains("There is no EgressGateway gw-001") {
            assert_eq!(change["order"], serde_json::json!(["headline"]));
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_are_told_of_changes_are_counted_and_a_place_that_was_given_up_is_free() {
    let stage = Stage::set(Cluster::of(1, 1)).await;
    let mut open = Vec::new();
    for _ in 0..MOST_STREAMS {
        open.push(Events::open(&stage, "/events").await);
    }
    let ask = async || client().get(stage.url("/events")).send().await.unwrap();
    let refused = ask().await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    // The page itself is still there.
    assert_eq!(client().get(stage.url("/")).send().await.unwrap().status(), StatusCode::OK);
    drop(open.pop());
    let patience = Instant::now() + Duration::from_secs(30);
    while ask().await.status() != StatusCode::OK {
        assert!(Instant::now() < patience, "a place that was given up is not free");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn status_of(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET /icon.svg HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_say_nothing_hold_nobody_up_for_longer_than_a_request_may_take() {
    let stage = Stage::set(Cluster::of(1, 1)).await;
    let mut mute = Vec::new();
    for _ in 0..2 * MOST_CONNECTIONS {
        mute.push(TcpStream::connect(stage.address).await.unwrap());
    }
    let answered = tokio::time::timeout(4 * HEADER_TIMEOUT, status_of(stage.address)).await;
    assert_eq!(answered.unwrap(), "HTTP/1.1 200 OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn open_pages_do_not_keep_a_controller_from_ending() {
    let stage = Stage::set(Cluster::of(1, 1)).await;
    let mut events = Events::open(&stage, "/events").await;
    events.change().await.unwrap();
    stage.end();
    let ended =
        tokio::time::timeout(Duration::from_secs(10), async { while events.change().await.is_some() {} });
    assert!(ended.await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_gateways_and_a_thousand_nodes_come_soon() {
    let stage = Stage::set(Cluster::of(200, 1_000)).await;
    let started = Instant::now();
    let page = client().get(stage.url("/")).send().await.unwrap().text().await.unwrap();
    let took = started.elapsed();
    println!("{} kB in {took:?}", page.len() / 1024);
    // Built for debugging, on a busy machine: a tenth of that as it is shipped.
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(page.contains("All 200 EgressGateways work"));
}
