//! The page in a real Chromium. Screenshots are left in `target/dashboard/`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so by ending"
)]

#[path = "../made_up/mod.rs"]
mod made_up;
#[path = "../stage/mod.rs"]
mod stage;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use egress_api::GatewayRole;
use egress_api::condition::{DEGRADED, READY};
use made_up::{Cluster, at, say};
use serde_json::{Value, json};
use stage::Stage;
use testkit::browser::{Browser, DESK, Look, PHONE};

const CHECKS: &str = include_str!("checks.js");

/// Everything that can be wrong at once: one down, one degraded, one being made, nodes that are cut off or not Ready.
fn bad_night() -> Cluster {
    let mut cluster = Cluster::of(4, 6);
    let status = cluster.gateways[3].status.as_mut().unwrap();
    for one in &mut status.gateways {
        (one.role, one.ready) = (GatewayRole::Failed, false);
        one.message = Some("Its own endpoint says: no route to the internet".into());
    }
    status.gateways_ready = Some("0/2".into());
    say(status, READY, false, "NoGatewayProven", "No gateway is proven; the nodes keep the list they have");
    say(status, DEGRADED, true, "LessRedundancy", "0 of 2 gateways are proven");
    cluster.fail_over(1, at(600));
    cluster.seen(2, 2, 1).full_size = Some(false);
    cluster.seen(2, 2, 1).message = Some("packets of 1,500 bytes get no answer".into());
    cluster.nodes[4].1.cut_off = true;
    cluster.unready.push("pool-0005".into());
    cluster
}

/// The same as people would have it: names that mean something, and times that have just been.
fn bad_night_of_somebody() -> Cluster {
    let names =
        [("gw-000", "registry"), ("gw-001", "payments"), ("gw-002", "database"), ("gw-003", "partners")];
    let nodes = [("pool-000", "pool-k3x7-")];
    let now = jiff::Timestamp::now();
    let moved = |made_up: i64, minutes: i64| {
        let ago = now - jiff::SignedDuration::from_mins(minutes);
        (at(made_up).to_string(), ago.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
    };
    let words = names.into_iter().chain(nodes).map(|(old, new)| (old.to_owned(), new.to_owned()));
    bad_night().renamed(&words.chain([moved(0, 340), moved(600, 3)]).collect::<Vec<_>>())
}

async fn check(browser: &Browser, what: &str) {
    let wrong = browser.run(CHECKS).await.unwrap();
    assert_eq!(wrong, json!([]), "{what}");
}

/// A picture of the page for people to look at.
async fn keep(browser: &Browser, name: &str) {
    browser.screenshot(&picture(name), true).await.unwrap();
}

fn picture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/dashboard").join(format!("{name}.png"))
}

async fn is_live(browser: &Browser) {
    browser
        .until("the page is live", "document.getElementById('live').dataset.state === 'live'")
        .await
        .unwrap();
}

const LOOKS: [(&str, Look); 4] = [
    ("desk-light", DESK),
    ("desk-dark", Look { dark: true, ..DESK }),
    ("phone-light", PHONE),
    ("phone-dark", Look { dark: true, ..PHONE }),
];

#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_read_by_everybody_on_a_desk_and_a_phone_in_light_and_dark() {
    let browser = Browser::start().await.unwrap();
    let scenes = [
        ("none", Cluster::of(0, 0)),
        ("one", Cluster::of(1, 3)),
        ("night", bad_night()),
        ("somebodys-night", bad_night_of_somebody()),
    ];
    for (scene, cluster) in scenes {
        let stage = Stage::set(cluster).await;
        for (look_name, look) in LOOKS {
            browser.look(look).await.unwrap();
            browser.open(&stage.url("/")).await.unwrap();
            is_live(&browser).await;
            if scene != "none" {
                browser.until("headroom is shown", "document.querySelector('meter')").await.unwrap();
            }
            check(&browser, &format!("{scene} {look_name}")).await;
            keep(&browser, &format!("{scene}-{look_name}")).await;
            if scene == "somebodys-night" {
                // What is seen first, for the README.
                browser.screenshot(&picture(&format!("first-look-{look_name}")), false).await.unwrap();
            }
        }
        if scene == "night" {
            for (look_name, look) in LOOKS {
                browser.look(look).await.unwrap();
                browser.open(&stage.url("/?gateway=gw-001")).await.unwrap();
                is_live(&browser).await;
                check(&browser, &format!("gw-001 {look_name}")).await;
                keep(&browser, &format!("gateway-{look_name}")).await;
            }
        }
        // Its server ends with the scene.
        browser.open("about:blank").await.unwrap();
        assert_eq!(browser.complaints().await.unwrap(), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_dies_is_seen_and_so_is_who_takes_over_without_a_reload() {
    let stage = Stage::set(Cluster::of(2, 3)).await;
    let browser = Browser::start().await.unwrap();
    browser.look(DESK).await.unwrap();
    browser.open(&stage.url("/")).await.unwrap();
    is_live(&browser).await;
    browser.run("window.sameDocument = true").await.unwrap();
    let headline = async || browser.run("return document.querySelector('h1').textContent").await.unwrap();
    assert_eq!(headline().await, "All 2 EgressGateways work");
    assert_eq!(browser.run("return document.title").await.unwrap(), "all work – Egress gateways");

    // First nodes find it, then the controller's conditions say it.
    stage.change(|cluster| cluster.kill_active(0, at(5)));
    let took = browser
        .until("it is seen", "document.querySelector('h1').textContent.includes('less than was asked for')")
        .await
        .unwrap();
    assert!(took < Duration::from_secs(1), "{took:?}");
    let red =
        "document.querySelector('.matrix .sight.fails')?.textContent.includes('does not answer in the VPC')";
    browser.until("the matrix says what fails", red).await.unwrap();
    stage.change(|cluster| cluster.fail_over(0, at(8)));
    let active = "[...document.querySelectorAll('#gateway-gw-000 .machine')].some((one) => /Active.*gw-000-1/.test(one.textContent))";
    let took = browser.until("the other one is active", active).await.unwrap();
    assert!(took < Duration::from_secs(1), "{took:?}");
    let told = "document.getElementById('moments').textContent.includes('Failover')";
    browser.until("it is in the history", told).await.unwrap();
    // What a screen reader says of it, and what a tab in the background shows.
    let said = browser.run("return document.getElementById('said').textContent").await.unwrap();
    assert_eq!(said, "1 of 2 EgressGateways works with less than was asked for: gw-000");
    assert_eq!(browser.run("return document.title").await.unwrap(), "1 degraded – Egress gateways");
    assert_eq!(browser.run("return window.sameDocument === true").await.unwrap(), json!(true));
    check(&browser, "after the failover").await;
    keep(&browser, "failover").await;
    assert_eq!(browser.complaints().await.unwrap(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_reader_opened_stays_open_and_the_keyboard_stays_where_it_was() {
    let stage = Stage::set(Cluster::of(2, 3)).await;
    let browser = Browser::start().await.unwrap();
    browser.look(DESK).await.unwrap();
    browser.open(&stage.url("/")).await.unwrap();
    is_live(&browser).await;
    browser.run("document.querySelector('#gateway-gw-001 details').open = true; document.querySelector('#gateway-gw-001 summary').focus()").await.unwrap();
    stage.change(|cluster| cluster.fail_over(1, at(5)));
    browser
        .until("it moved to the top", "document.querySelector('article').textContent.includes('gw-001')")
        .await
        .unwrap();
    let kept = browser
        .run("return document.querySelector('#gateway-gw-001 details').open && document.activeElement === document.querySelector('#gateway-gw-001 summary')")
        .await.unwrap();
    assert_eq!(kept, json!(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_reached_by_the_keyboard_and_the_focus_is_seen() {
    const TAB: char = '\u{e004}';
    const ENTER: char = '\u{e007}';
    let stage = Stage::set(bad_night()).await;
    let browser = Browser::start().await.unwrap();
    browser.look(DESK).await.unwrap();
    browser.open(&stage.url("/")).await.unwrap();
    is_live(&browser).await;
    browser.press(TAB).await.unwrap();
    let focused = "const one = document.activeElement; return one.className + '|' + one.textContent.trim().slice(0, 30)";
    assert_eq!(browser.run(focused).await.unwrap(), "skip|Skip to the content");
    let mut reached = BTreeSet::new();
    for _ in 0..40 {
        browser.press(TAB).await.unwrap();
        let seen = browser
            .run("const one = document.activeElement; const style = getComputedStyle(one); return one === document.body ? null : {what: one.localName + ' ' + one.className + ' ' + one.textContent.trim().slice(0, 30), outline: style.outlineStyle}")
            .await.unwrap();
        if seen.is_null() {
            break;
        }
        assert_eq!(seen["outline"], "solid", "{seen}");
        reached.insert(seen["what"].as_str().unwrap().to_owned());
    }
    for wanted in
        ["a  gw-003", "a  gw-000", "summary  Conditions", "div scroll", "summary  What the signs mean"]
    {
        assert!(reached.iter().any(|one| one.starts_with(wanted)), "{wanted}: {reached:?}");
    }
    browser.run("document.querySelector('article a').focus()").await.unwrap();
    browser.press(ENTER).await.unwrap();
    browser
        .until("its page is open", "document.querySelector('h1').textContent === 'gw-003: Down'")
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_comes_from_elsewhere_and_nothing_is_kept() {
    let stage = Stage::set(bad_night()).await;
    let browser = Browser::start().await.unwrap();
    browser.open(&stage.url("/")).await.unwrap();
    is_live(&browser).await;
    browser.open(&stage.url("/?gateway=gw-003")).await.unwrap();
    is_live(&browser).await;
    let own = stage.url("/");
    let requests = browser.requests().await.unwrap();
    let ours: Vec<_> =
        requests.iter().filter(|url| url.starts_with("http") || url.starts_with("ws")).collect();
    assert!(ours.len() > 4, "{requests:?}");
    assert!(ours.iter().all(|url| url.starts_with(&own)), "{requests:?}");
    let kept =
        browser.run("return [document.cookie, localStorage.length, sessionStorage.length]").await.unwrap();
    assert_eq!(kept, json!(["", 0, 0]));
    assert_eq!(browser.complaints().await.unwrap(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_whose_controller_is_gone_says_so() {
    let stage = Stage::set(Cluster::of(1, 1)).await;
    let browser = Browser::start().await.unwrap();
    browser.open(&stage.url("/")).await.unwrap();
    is_live(&browser).await;
    drop(stage);
    browser
        .until(
            "it says that it is not live",
            "document.getElementById('live').textContent.startsWith('Not live')",
        )
        .await
        .unwrap();
    // What was shown last is still there to be read.
    assert_eq!(
        browser.run("return document.querySelector('h1').textContent").await.unwrap(),
        "EgressGateway gw-000 works"
    );
    keep(&browser, "not-live").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_javascript_it_is_the_same_page() {
    let stage = Stage::set(bad_night()).await;
    let browser = Browser::start().await.unwrap();
    browser.look(DESK).await.unwrap();
    browser.command("Emulation.setScriptExecutionDisabled", json!({"value": true})).await.unwrap();
    browser.open(&stage.url("/")).await.unwrap();
    keep(&browser, "without-javascript").await;
    let tree = browser.command("Accessibility.getFullAXTree", json!({})).await.unwrap();
    let text = tree.to_string();
    for wanted in ["1 of 4 EgressGateways does not work: gw-003", "Without JavaScript: reload to see changes"]
    {
        assert!(text.contains(wanted), "{wanted}");
    }
}

/// Names of what a screen reader finds, by role.
fn names(tree: &Value, role: &str) -> Vec<String> {
    let nodes = tree["nodes"].as_array().unwrap().iter();
    let of_role = nodes.filter(|node| node["role"]["value"] == role && node["ignored"] != true);
    of_role.map(|node| node["name"]["value"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_screen_reader_finds_landmarks_headings_and_what_each_node_sees() {
    let stage = Stage::set(bad_night()).await;
    let browser = Browser::start().await.unwrap();
    browser.look(DESK).await.unwrap();
    browser.open(&stage.url("/")).await.unwrap();
    is_live(&browser).await;
    browser.until("headroom is shown", "document.querySelector('meter')").await.unwrap();
    browser.command("Accessibility.enable", json!({})).await.unwrap();
    let tree = browser.command("Accessibility.getFullAXTree", json!({})).await.unwrap();
    for landmark in ["banner", "main", "contentinfo", "navigation"] {
        assert_eq!(names(&tree, landmark).len(), 1, "{landmark}");
    }
    let headings = names(&tree, "heading");
    for wanted in [
        "1 of 4 EgressGateways does not work: gw-003",
        "gw-003",
        "What nodes see of the gateways",
        "What happened",
    ] {
        assert!(headings.iter().any(|heading| heading == wanted), "{wanted}: {headings:?}");
    }
    assert!(names(&tree, "article").contains(&"gw-001".to_owned()));
    assert!(names(&tree, "meter").iter().all(|name| name.contains(" of gw-")), "{:?}", names(&tree, "meter"));
    let cells = names(&tree, "cell").join("\n") + &names(&tree, "gridcell").join("\n");
    assert!(cells.contains("gw-001-0 does not answer in the VPC"), "{cells}");
    assert!(cells.contains("in use"), "{cells}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_gateways_and_a_thousand_nodes_are_shown_and_stay_live() {
    let mut cluster = Cluster::of(200, 1_000);
    cluster.fail_over(150, at(5));
    let stage = Stage::set(cluster).await;
    let browser = Browser::start().await.unwrap();
    browser.look(DESK).await.unwrap();
    browser.open(&stage.url("/")).await.unwrap();
    is_live(&browser).await;
    check(&browser, "two hundred").await;
    let first = browser.run("return document.querySelector('article').textContent").await.unwrap();
    assert!(first.as_str().unwrap().contains("gw-150"), "{first}");
    stage.change(|cluster| cluster.fail_over(7, at(9)));
    let took = browser
        .until("the change is shown", "document.querySelector('h1').textContent.startsWith('2 of 200')")
        .await
        .unwrap();
    // Built for debugging this is no measure of what is shipped; that it comes is.
    println!("{took:?}");
    keep(&browser, "two-hundred").await;
    browser.look(PHONE).await.unwrap();
    check(&browser, "two hundred on a phone").await;
    browser.open(&stage.url("/?gateway=gw-150&page=5")).await.unwrap();
    is_live(&browser).await;
    check(&browser, "a thousand nodes").await;
    let rows = browser.run("return document.querySelectorAll('.matrix tbody tr').length").await.unwrap();
    assert_eq!(rows, json!(200));
    keep(&browser, "thousand-nodes-phone").await;
}
