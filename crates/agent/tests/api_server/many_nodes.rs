//! Many nodes, the real API server, the real controller: how fast a change is reported by all, what that costs the API server, and
//! how large the controller grows. Some nodes in `make test`, a thousand with `make bench-status`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use egress_agent::pacing::SUSTAINED;
use egress_api::{AGENT_FIELD_MANAGER, NodeEgress, NodeRouteState, StaticRoute};
use futures::StreamExt;
use kube::api::{ListParams, ObjectMeta, Patch, PatchParams};
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use testkit::ApiServer;

use crate::fleet::{Fleet, SHARE, node_name};
use crate::stage::{apply, install, kubectl, server, until};

/// The controller, built beside this test. Ends with the test.
struct Controller(Child);

impl Controller {
    fn start(server: &ApiServer) -> Self {
        let programs = std::env::current_exe().unwrap();
        let program: PathBuf = programs.parent().unwrap().parent().unwrap().join("egress-controller");
        // Without one it waits for a while before it leads.
        let token = format!("--from-literal=token=dop_v1_{}", "0".repeat(64));
        let secret =
            ["create", "secret", "generic", "digitalocean-token", "--namespace=egress-gateway", &token];
        kubectl(server, &secret);
        assert!(program.exists(), "{} is missing: cargo build --workspace --bins", program.display());
        let child = Command::new(program)
            .env("KUBECONFIG", server.kubeconfig())
            .args(["--digitalocean-api=http://127.0.0.1:1", "--admin-listen=127.0.0.1:0"])
            .args(["--forget-node-after-seconds=2", "--log=warn"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn resident_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<f64>().unwrap() / 1024.0
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        // Already gone is as good.
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Requests that change something, by resource, since the API server started.
async fn writes(client: &Client) -> BTreeMap<String, u64> {
    let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
    let text = client.request_text(request).await.unwrap();
    let label = |line: &str, name: &str| {
        let from = line.find(&format!("{name}=\""))? + name.len() + 2;
        Some(line[from..].split('"').next()?.to_owned())
    };
    let mut counts = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
        let verb = label(line, "verb").unwrap();
        if ["POST", "PUT", "PATCH", "APPLY", "DELETE"].contains(&verb.as_str()) {
            let count: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            *counts.entry(label(line, "resource").unwrap()).or_default() += count;
        }
    }
    counts
}

fn route(name: &str, more: &serde_json::Value) -> serde_json::Value {
    let mut spec = json!({"destinations": ["192.0.2.0/24"], "gateway": "10.116.0.5"});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"apiVersion": "networking.digitalocean.com/v1", "kind": "StaticRoute",
        "metadata": {"name": name}, "spec": spec})
}

/// When each node's report said that it has all of this object, counted from `start`, sorted.
async fn reported_by_all(client: &Client, nodes: usize, route: StaticRoute, start: Instant) -> Vec<Duration> {
    let reports: Api<NodeEgress> = Api::all(client.clone());
    let mut events = watcher(reports, Config::default()).boxed();
    let mut when = BTreeMap::new();
    while when.len() < nodes {
        let next = tokio::time::timeout(Duration::from_secs(120), events.next()).await;
        let Some(event) = next.expect("every node reports within two minutes") else {
            break;
        };
        let Ok(Event::Apply(report) | Event::InitApply(report)) = event else { continue };
        let has = report.status.iter().flat_map(|status| &status.routes).any(|entry| {
            Some(&entry.uid) == route.metadata.uid.as_ref()
                && Some(entry.observed_generation) == route.metadata.generation
                && entry.state == NodeRouteState::Applied
        });
        if has {
            when.entry(report.metadata.name.unwrap()).or_insert(start.elapsed());
        }
    }
    let mut when: Vec<Duration> = when.into_values().collect();
    when.sort_unstable();
    when
}

async fn summed(client: &Client, name: &str, generation: Option<i64>, nodes: &str) -> StaticRoute {
    let all: Api<StaticRoute> = Api::all(client.clone());
    until(&format!("{name} on {nodes}"), async || {
        let route = all.get(name).await.unwrap();
        let status = route.status.clone()?;
        (status.nodes.as_deref() == Some(nodes) && status.observed_generation == generation).then_some(route)
    })
    .await
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1].as_secs_f64()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_many_nodes_report_is_summed_told_once_and_forgotten_with_them() {
    const NODES: usize = 50;
    let server = server().await;
    let client = server.admin().unwrap();
    install(&server, &["namespace.yaml"]);
    let controller = Controller::start(&server);
    let _fleet = Fleet::start(&server, NODES).await;
    let routes: Api<StaticRoute> = Api::all(client.clone());
    let apply_route = async |name: &str, more: &serde_json::Value| {
        let patch = Patch::Apply(route(name, more));
        routes.patch(name, &PatchParams::apply("test").force(), &patch).await.unwrap()
    };

    // One object, one change of it: each node writes once, the controller a few times, and people are told once.
    let made = apply_route("first", &json!({})).await;
    summed(&client, "first", made.metadata.generation, "50/50").await;
    // Told after it is written: the event of the first version is not to be counted with that of the second.
    until("told of the first version", async || {
        let events = kubectl(&server, &["get", "events", "-A", "-o", "name"]);
        (events.lines().count() == 1).then_some(())
    })
    .await;
    let before = writes(&client).await;
    let changed = apply_route("first", &json!({"destinations": ["192.0.2.0/24", "198.51.100.0/24"]})).await;
    let at = Instant::now();
    let when = reported_by_all(&client, NODES, changed.clone(), at).await;
    eprintln!("reported by 50 nodes after {:.3} s (p99)", percentile(&when, 99));
    summed(&client, "first", changed.metadata.generation, "50/50").await;
    let events = || {
        let selector = format!("involvedObject.uid={}", changed.metadata.uid.as_deref().unwrap());
        let events = kubectl(&server, &["get", "events", "-A", "--field-selector", &selector, "-o", "json"]);
        let events: serde_json::Value = serde_json::from_str(&events).unwrap();
        let notes = events["items"].as_array().unwrap().iter();
        notes
            .map(|event| (event["reason"].as_str().unwrap().to_owned(), event["type"].clone()))
            .collect::<Vec<_>>()
    };
    until("told", async || {
        let told: u64 = serde_json::from_str(&kubectl(
            &server,
            &["get", "events", "-A", "-o", "jsonpath={.items[0].series.count}"],
        ))
        .unwrap_or(1);
        (told == 2).then_some(())
    })
    .await;
    assert_eq!(
        events(),
        [("Applied".to_owned(), json!("Normal"))],
        "one for each change, counted as a series"
    );
    let described = kubectl(&server, &["describe", "sr", "first"]);
    assert!(described.contains("All 50 nodes have every route"), "{described}");
    let events_shown = described.split("Events:").nth(1).unwrap();
    assert!(events_shown.contains("Applied") && events_shown.contains("egress-controller"), "{described}");
    let after = writes(&client).await;
    let more = |resource: &str| {
        after.get(resource).copied().unwrap_or_default() - before.get(resource).copied().unwrap_or_default()
    };
    assert_eq!(more("nodeegresses"), 50, "each node writes once for a change");
    // The change itself, that it is pending, how far it has come, that all have it.
    assert!(more("staticroutes") <= 6, "{after:?}");
    assert_eq!(more("events"), 1, "{after:?}");

    // Half of the nodes.
    let selecting = json!({"destinations": ["192.0.3.0/24"], "nodeSelector": {"matchLabels": {"half": "1"}}});
    let half = apply_route("half", &selecting).await;
    summed(&client, "half", half.metadata.generation, "25/25").await;

    // One dies, one is taken away; nobody here collects garbage.
    let dead = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}).to_string();
    kubectl(&server, &["patch", "node", &node_name(3), "--subresource=status", "-p", &dead]);
    kubectl(&server, &["delete", "node", &node_name(4)]);
    let first = summed(&client, "first", changed.metadata.generation, "48/48").await;
    let message = &first.status.unwrap().conditions[0].message;
    assert!(message.contains("not counted: pool-web-0003 (NotReady)"), "{message}");
    let reports: Api<NodeEgress> = Api::all(client.clone());
    until("the report of the node that is gone is deleted", async || {
        reports.get_opt(&node_name(4)).await.unwrap().is_none().then_some(())
    })
    .await;
    until("only the dead one is marked", async || {
        let status = routes.get("first").await.unwrap().status?;
        (status.nodes_stale == Some(1)).then_some(())
    })
    .await;
    assert!(reports.get_opt(&node_name(3)).await.unwrap().is_some());

    // Bad for all of them, told once.
    apply_route("lost", &json!({"gateway": "10.99.0.5"})).await;
    until("what the nodes say of it", async || {
        let status = routes.get("lost").await.unwrap().status?;
        let condition = &status.conditions[0];
        let told =
            condition.reason == "NodesFailed" && condition.message.contains("is not in the VPC subnet");
        (told && status.nodes.as_deref() == Some("0/48")).then_some(())
    })
    .await;
    eprintln!("controller: {:.1} MiB", controller.resident_mib());
    assert!(controller.resident_mib() < 128.0, "its limit");
    // The object goes, and with it what nodes say of it.
    apply(&server, &route("lost", &json!({})));
    kubectl(&server, &["delete", "staticroute", "--all"]);
}

/// What the same reports, one of each node at once, take this API server when nobody else wants anything from it: no agent, no
/// controller, no watch. Through as many connections as the agents had.
async fn plain_writes(server: &ApiServer, rounds: usize) -> Vec<serde_json::Value> {
    let reports: Api<NodeEgress> = Api::all(server.admin().unwrap());
    let mut all = reports.list(&ListParams::default()).await.unwrap().items;
    let clients: Vec<Client> =
        (0..all.len().div_ceil(SHARE)).map(|_number| server.admin().unwrap()).collect();
    let ours = PatchParams::apply(AGENT_FIELD_MANAGER).force();
    let mut measured = Vec::new();
    for _round in 0..rounds {
        for report in &mut all {
            report.metadata = ObjectMeta { name: report.metadata.name.take(), ..ObjectMeta::default() };
            for gateway in report.status.iter_mut().flat_map(|status| &mut status.gateways) {
                gateway.reachable = !gateway.reachable;
            }
        }
        let start = Instant::now();
        let writes = all.iter().enumerate().map(|(number, report)| {
            let reports: Api<NodeEgress> = Api::all(clients[number / SHARE].clone());
            let (name, ours) = (report.name_any(), &ours);
            async move {
                reports.patch_status(&name, ours, &Patch::Apply(report)).await.unwrap();
                start.elapsed()
            }
        });
        let mut when = futures::future::join_all(writes).await;
        when.sort_unstable();
        let of = |percent| percentile(&when, percent);
        eprintln!("as many plain writes: p50 {:.3} s, p99 {:.3} s, last {:.3} s", of(50), of(99), of(100));
        measured.push(json!({"p50": of(50), "p99": of(99), "max": of(100)}));
    }
    measured
}

/// The measurement of `make bench-status`: results in `target/bench/status.json`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of some minutes: make bench-status"]
async fn measure_a_thousand_nodes() {
    let setting =
        |name: &str, usual: usize| std::env::var(name).ok().map_or(usual, |text| text.parse().unwrap());
    let nodes = setting("NODES", 1000);
    let server = server().await;
    let client = server.admin().unwrap();
    install(&server, &["namespace.yaml"]);
    let controller = Controller::start(&server);
    let started = Instant::now();
    let fleet = Fleet::start(&server, nodes).await;
    eprintln!("{nodes} nodes after {:?}", started.elapsed());
    let routes: Api<StaticRoute> = Api::all(client.clone());
    let all = format!("{nodes}/{nodes}");
    // So many objects, each once everybody has reported the one before and may report at once again.
    let mut changes = Vec::new();
    for number in 0..setting("CHANGES", 10) {
        // In that time a node regains one report.
        tokio::time::sleep(Duration::from_secs(1) * u32::try_from(nodes).unwrap() / SUSTAINED).await;
        let before = writes(&client).await;
        let name = format!("route-{number}");
        let patch = Patch::Apply(route(&name, &json!({"destinations": [format!("192.0.{number}.0/24")]})));
        let made = routes.patch(&name, &PatchParams::apply("bench").force(), &patch).await.unwrap();
        let at = Instant::now();
        let when = reported_by_all(&client, nodes, made.clone(), at).await;
        summed(&client, &name, made.metadata.generation, &all).await;
        let ready = at.elapsed().as_secs_f64();
        let after = writes(&client).await;
        let more: BTreeMap<&String, u64> = after
            .iter()
            .map(|(resource, count)| (resource, count - before.get(resource).copied().unwrap_or_default()))
            .filter(|(_, more)| *more > 0)
            .collect();
        eprintln!(
            "{name}: p50 {:.3} s, p99 {:.3} s, last {:.3} s, Ready {ready:.3} s, writes {more:?}",
            percentile(&when, 50),
            percentile(&when, 99),
            percentile(&when, 100)
        );
        changes.push(json!({"reported_s": {"p50": percentile(&when, 50), "p99": percentile(&when, 99),
            "max": percentile(&when, 100)}, "ready_s": ready, "writes": more}));
    }
    let controller_mib = controller.resident_mib();
    // Every node's verdicts flap five times a second; the bursts first, then the pace that holds.
    let mut flapping = Vec::new();
    let started = Instant::now();
    let mut count = writes(&client).await.values().sum::<u64>();
    while started.elapsed() < Duration::from_secs(90) {
        let second = Instant::now();
        while second.elapsed() < Duration::from_secs(1) {
            fleet.verdicts.send_modify(|number| *number += 1);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let now = writes(&client).await.values().sum::<u64>();
        flapping.push(now - count);
        count = now;
    }
    let tail = &flapping[flapping.len() - 30..];
    let sustained = tail.iter().sum::<u64>() / 30;
    eprintln!("flapping, writes a second: {flapping:?}; the last 30 s: {sustained}");
    eprintln!("controller: {controller_mib:.1} MiB");
    drop((fleet, controller));
    let plain = plain_writes(&server, setting("CHANGES", 10)).await;
    let results = json!({"nodes": nodes, "static_routes": changes.len(), "changes": changes, "controller_rss_mib": controller_mib,
        "flapping_writes_per_s": {"each": flapping, "sustained": sustained}, "plain_writes_s": plain});
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/bench");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("status.json"), serde_json::to_string_pretty(&results).unwrap()).unwrap();
}
