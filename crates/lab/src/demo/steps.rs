//! The nine steps. Each shows and checks one thing; see the table in the parent module for what and why.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::DemoArgs;
use super::report::{FailoverReport, LeftBehind, Report};
use super::stage::Stage;
use super::timeline::timeline;
use crate::traffic::Connection;

const GATEWAY_EXAMPLE: &str = "examples/egressgateway.yaml";
const GATEWAY: &str = "demo";
const NAMESPACE: &str = "egress-gateway";
/// The destination that `examples/egressgateway.yaml` lists.
const LISTED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
/// One that nothing lists.
const UNLISTED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 99);
/// Public address of the hand-made gateway at 10.116.0.5, which the seeds' manifests name.
const SEEDS_GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
/// The same for 10.116.0.12.
const SEEDS_STANDBY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 6);
const POD: &str = "curl-test";
/// So long the client is seen at work before the gateway dies.
const BEFORE_THE_LOSS: Duration = Duration::from_secs(2);
/// Longer than a connection waits until it counts as failed.
const AFTER_THE_LOSS: Duration = Duration::from_secs(4);
/// So long the client may take for the connections it has begun.
const TO_THE_LAST_CONNECTION: Duration = Duration::from_secs(20);

pub(super) fn cluster(stage: &Stage, args: &DemoArgs, _: &mut Report) -> anyhow::Result<()> {
    let assets = args.assets.display().to_string();
    let (variant, api_server) = (args.variant.as_str(), args.api_server.as_str());
    stage.lab_aloud(&["start", "--variant", variant, "--api-server", api_server, "--assets", &assets])?;
    stage.eventually("nodes are Ready", Duration::from_secs(120), || {
        let nodes = stage.kubectl_json(&["get", "nodes"])?;
        let ready = items(&nodes).iter().filter(|node| condition(node, "Ready") == Some("True")).count();
        ensure!(ready == 2, "{ready} of 2 nodes are Ready");
        Ok(())
    })?;
    stage.show(&["get", "nodes", "-o", "wide"])
}

pub(super) fn install(stage: &Stage, args: &DemoArgs, _: &mut Report) -> anyhow::Result<()> {
    for image in ["egress-controller.tar", "egress-agent.tar"] {
        stage.lab_aloud(&["load-image", &args.images.join(image).display().to_string()])?;
    }
    stage.show(&["apply", "--server-side", "-k", "deploy/crds"])?;
    stage.show(&["wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"])?;
    stage.show(&["apply", "-k", "deploy/overlays/lab"])?;
    let secret = ["create", "secret", "generic", "digitalocean-token", "--from-file=token=/dev/stdin"];
    stage.pipe(&["token"], &[&["-n", NAMESPACE], secret.as_slice()].concat())?;
    stage.voice.explain("the pods become Ready by their own probes ...");
    for workload in ["deployment/egress-controller", "daemonset/egress-agent"] {
        stage.show(&["-n", NAMESPACE, "rollout", "status", workload, "--timeout=120s"])?;
    }
    stage.show(&["-n", NAMESPACE, "get", "pods", "-o", "wide"])
}

pub(super) fn problem(stage: &Stage, _: &DemoArgs, _: &mut Report) -> anyhow::Result<()> {
    stage.show(&["apply", "-f", "tests/seeds/curl-test.yaml"])?;
    stage.show(&["wait", "--for=condition=Ready", "--timeout=60s", "pod", POD])?;
    let seen = curl(stage, &LISTED.to_string())?;
    let node = node_address(stage)?;
    ensure!(seen == node, "the outside saw {seen}, the node's public address is {node}");
    stage.say(&format!("the outside saw {seen}: the node's own address"));
    Ok(())
}

pub(super) fn egress_gateway(stage: &Stage, _: &DemoArgs, report: &mut Report) -> anyhow::Result<()> {
    stage.show(&["apply", "-f", GATEWAY_EXAMPLE])?;
    stage.eventually("the EgressGateway is Ready", Duration::from_secs(180), || {
        let gateway = stage.kubectl_json(&["get", "egressgateway", GATEWAY])?;
        ensure!(condition(&gateway, "Ready") == Some("True"), "{}", progress(&gateway));
        let ready = gateway["status"]["gatewaysReady"].as_str().unwrap_or_default();
        ensure!(ready == "2/2", "gateways ready: {ready}");
        Ok(())
    })?;
    stage.show(&["wait", "--for=condition=Ready", "--timeout=10s", "egressgateway/demo"])?;
    stage.show(&["get", "egw,sr"])?;
    let droplets = our_droplets(stage)?;
    for droplet in &droplets {
        stage.say(&format!(
            "in the cloud: Droplet {} {}, {}",
            droplet["id"], droplet["name"], droplet["status"]
        ));
    }
    ensure!(droplets.len() == 2, "{} Droplets instead of 2", droplets.len());
    report.egress_ip = Some(egress_address(stage)?.to_string());
    Ok(())
}

pub(super) fn fixed_address(stage: &Stage, _: &DemoArgs, _: &mut Report) -> anyhow::Result<()> {
    let expected = egress_address(stage)?;
    let seen = curl(stage, &LISTED.to_string())?;
    ensure!(seen == expected, "the outside saw {seen} instead of the gateway's {expected}");
    stage.say(&format!("the outside saw {seen}: the gateway's address"));
    let (node, unlisted) = (node_address(stage)?, curl(stage, &UNLISTED.to_string())?);
    ensure!(unlisted == node, "a destination that is not listed saw {unlisted} instead of the node's {node}");
    stage.say(&format!("a destination that is not listed saw {unlisted}: the node's, as before"));
    Ok(())
}

pub(super) fn failover(stage: &Stage, args: &DemoArgs, report: &mut Report) -> anyhow::Result<()> {
    let status = stage.kubectl_json(&["get", "egressgateway", GATEWAY])?["status"].clone();
    let active = status["active"].as_str().context("no active gateway")?.to_owned();
    let mut all = status["gateways"].as_array().into_iter().flatten();
    report.killed = all.find(|one| one["name"] == active.as_str()).cloned();
    let addresses = public_addresses(&status)?;
    let dead = egress_address(stage)?;
    let folder = args.report.parent().map(PathBuf::from).unwrap_or_default();
    let folder = std::path::absolute(folder)?;
    std::fs::create_dir_all(&folder)?;
    let (out, until) = (folder.join("connections.jsonl"), folder.join("traffic.stop"));
    if until.exists() {
        std::fs::remove_file(&until)?;
    }
    stage.voice.explain("a client in the pod's network makes a new connection every 20 ms ...");
    stage.lab(&["oracle", "reset"])?;
    let lab = stage.lab.display().to_string();
    let target = SocketAddrV4::new(LISTED, 80).to_string();
    let client = ["exec", "pod:default/curl-test", "--", lab.as_str(), "traffic", "--target", &target];
    let files = [("--out", &out), ("--until", &until)].map(|(flag, path)| (flag, path.display().to_string()));
    let files: Vec<_> = files.iter().flat_map(|(flag, path)| [*flag, path.as_str()]).collect();
    let client = [client.as_slice(), &files].concat();
    let client = stage.lab_beside(&client)?;
    watch(stage, &out, BEFORE_THE_LOSS);
    let killed_ms = crate::traffic::now_ms();
    let killed = stage.lab(&["kill", &active]);
    stage.say(&format!("{active} ({dead}) lost power"));
    watch(stage, &out, AFTER_THE_LOSS);
    std::fs::write(&until, "").with_context(|| format!("cannot write {}", until.display()))?;
    client.finish(TO_THE_LAST_CONNECTION, |_| {})?;
    killed?;

    let connections = read_connections(&out)?;
    let timeline = timeline(&connections, killed_ms, dead, &addresses);
    let leaked_packets = leaked_packets(stage, &addresses)?;
    let time = |at: Option<f64>| at.map_or("never".to_owned(), |ms| format!("{ms:+.0} ms"));
    stage.say(&format!("  last answer through it          {}", time(timeline.last_through_dead_ms)));
    stage.say(&format!("  first answer through the other  {}", time(timeline.first_through_other_ms)));
    stage.say(&format!(
        "  of {} connections: {} failed, {} waited (longest {:.0} ms; a lost SYN is sent again after 1 s)",
        timeline.connections,
        timeline.failed_connections,
        timeline.waited_connections,
        timeline.longest_wait_ms
    ));
    stage.say(&format!("  packets that left with another address than a gateway's: {leaked_packets}"));
    let leaked_connections = timeline.leaked_connections;
    let switched = timeline.gap_ms.is_some();
    report.failover = Some(FailoverReport {
        failed_connections: timeline.failed_connections,
        gap_ms: timeline.gap_ms,
        leaked_packets,
        timeline,
    });
    ensure!(switched, "no connection succeeded through another gateway");
    ensure!(
        leaked_packets == 0 && leaked_connections == 0,
        "traffic left with an address that is no gateway's"
    );
    Ok(())
}

pub(super) fn repair(stage: &Stage, _: &DemoArgs, report: &mut Report) -> anyhow::Result<()> {
    let killed = report.killed.clone().context("no gateway was killed")?;
    let mended = stage.eventually("the pair is whole again", Duration::from_secs(240), || {
        let gateway = stage.kubectl_json(&["get", "egressgateway", GATEWAY])?;
        let ready = gateway["status"]["gatewaysReady"].as_str().unwrap_or_default();
        let now = gateways(&gateway);
        let same = now.iter().find(|one| one["dropletID"] == killed["dropletID"]).cloned();
        // As it was before the controller noticed.
        let is_unnoticed = same.as_ref().is_some_and(|same| same["since"] == killed["since"]);
        ensure!(
            ready == "2/2" && now.len() == 2 && !is_unnoticed && condition(&gateway, "Ready") == Some("True"),
            "{ready} proven, {}",
            roles(&gateway)
        );
        let droplets = our_droplets(stage)?.len();
        ensure!(droplets == 2, "{droplets} Droplets in the cloud");
        Ok(same)
    })?;
    let name = killed["name"].as_str().unwrap_or_default();
    stage.say(&match mended {
        Some(same) => format!(
            "{name} runs again, with its address {}",
            same["publicAddress"].as_str().unwrap_or_default()
        ),
        None => format!("{name} was replaced"),
    });
    stage.show(&["get", "egw,sr"])
}

pub(super) fn older_operator(stage: &Stage, _: &DemoArgs, _: &mut Report) -> anyhow::Result<()> {
    let all = ["tests/seeds/static-route-ifconfig.me.yaml", "tests/seeds/static-route-ipinfo.io.yaml"];
    for file in all {
        stage.show(&["apply", "-f", file])?;
    }
    for name in ["ifconfig.me", "ipinfo.io"] {
        expect_seen(stage, name, SEEDS_GATEWAY)?;
    }
    stage.show(&["get", "staticroutes", "-o", "wide"])?;
    for file in all {
        stage.show(&["delete", "-f", file])?;
    }
    stage.voice.explain("its failover by hand: delete the primary, apply the secondary; here without a wait");
    stage.show(&["apply", "-f", "tests/seeds/primary.yaml"])?;
    expect_seen(stage, "ifconfig.me", SEEDS_GATEWAY)?;
    stage.show(&["delete", "-f", "tests/seeds/primary.yaml"])?;
    stage.show(&["apply", "-f", "tests/seeds/secondary.yaml"])?;
    expect_seen(stage, "ifconfig.me", SEEDS_STANDBY)?;
    stage.show(&["delete", "-f", "tests/seeds/secondary.yaml"])?;
    let node = node_address(stage)?;
    expect_seen(stage, "ifconfig.me", node)
}

pub(super) fn delete(stage: &Stage, _: &DemoArgs, report: &mut Report) -> anyhow::Result<()> {
    stage.show(&["delete", "egressgateway", GATEWAY, "--timeout=120s"])?;
    let left = stage.eventually("nothing is left", Duration::from_secs(30), || {
        let left = left_behind(stage)?;
        report.left_behind = Some(left);
        ensure!(left == LeftBehind { droplets: 0, reserved_ips: 0, routes: 0 }, "left behind: {left:?}");
        Ok(left)
    })?;
    stage.say(&format!(
        "Droplets: {}, reserved addresses: {}, routes, rules and nexthop objects on the nodes: {}",
        left.droplets, left.reserved_ips, left.routes
    ));
    let (node, seen) = (node_address(stage)?, curl(stage, &LISTED.to_string())?);
    ensure!(seen == node, "the outside saw {seen} instead of the node's {node}");
    Ok(())
}

fn expect_seen(stage: &Stage, name: &str, expected: Ipv4Addr) -> anyhow::Result<()> {
    stage.eventually(&format!("{name} sees {expected}"), Duration::from_secs(20), || {
        let seen = curl(stage, name)?;
        ensure!(seen == expected, "it sees {seen}");
        Ok(())
    })?;
    stage.say(&format!("{name} sees {expected}"));
    Ok(())
}

/// What the who-am-I server at `host` answers to the pod.
fn curl(stage: &Stage, host: &str) -> anyhow::Result<Ipv4Addr> {
    let url = format!("http://{host}/ip");
    let answer = stage.kubectl(&["exec", POD, "--", "curl", "-sS", "--max-time", "5", &url])?;
    answer.trim().parse().with_context(|| format!("curl {url}: no address in {answer:?}"))
}

/// Public address of the node that the pod is on.
fn node_address(stage: &Stage) -> anyhow::Result<Ipv4Addr> {
    let pod = stage.kubectl_json(&["get", "pod", POD])?;
    let node = pod["spec"]["nodeName"].as_str().context("the pod is on no node")?;
    let node = stage.kubectl_json(&["get", "node", node])?;
    let addresses = node["status"]["addresses"].as_array().context("the node has no addresses")?;
    addresses
        .iter()
        .find(|address| address["type"] == "ExternalIP")
        .and_then(|address| address["address"].as_str())
        .context("the node has no ExternalIP")?
        .parse()
        .context("ExternalIP is no address")
}

fn egress_address(stage: &Stage) -> anyhow::Result<Ipv4Addr> {
    let gateway = stage.kubectl_json(&["get", "egressgateway", GATEWAY])?;
    let address = gateway["status"]["egressIP"].as_str().context("status.egressIP is empty")?;
    address.parse().context("status.egressIP is no address")
}

fn public_addresses(status: &Value) -> anyhow::Result<Vec<Ipv4Addr>> {
    let list = status["publicIPs"].as_array().context("status.publicIPs is empty")?;
    list.iter().map(|one| Ok(one.as_str().unwrap_or_default().parse()?)).collect()
}

/// Droplets with our fleet tag, as the cloud says.
fn our_droplets(stage: &Stage) -> anyhow::Result<Vec<Value>> {
    let answer = stage.lab(&["cloud", "GET", "/v2/droplets?tag_name=egress-gateway&per_page=200"])?;
    let answer: Value = serde_json::from_str(&answer)?;
    Ok(answer["droplets"].as_array().cloned().unwrap_or_default())
}

/// What to ask a node's `ip` for everything that an agent can have put into its kernel.
const QUESTIONS: [&[&str]; 3] =
    [&["route", "show", "table", "all"], &["-d", "rule", "show"], &["nexthop", "show"]];

/// How many of the objects that `ip` lists are an agent's: they bear its protocol.
fn ours(listed: &str) -> usize {
    listed.lines().filter(|line| format!("{line} ").contains(" proto 157 ")).count()
}

fn left_behind(stage: &Stage) -> anyhow::Result<LeftBehind> {
    let addresses: Value = serde_json::from_str(&stage.lab(&["cloud", "GET", "/v2/reserved_ips"])?)?;
    let mut routes = 0;
    for node in ["node-1", "node-2"] {
        for question in QUESTIONS {
            routes += ours(&stage.lab(&[&["exec", node, "--", "ip"], question].concat())?);
        }
    }
    Ok(LeftBehind {
        droplets: our_droplets(stage)?.len(),
        reserved_ips: addresses["reserved_ips"].as_array().map_or(0, Vec::len),
        routes,
    })
}

/// Packets to the listed destination that reached the outside with an address that is none of `gateways`.
fn leaked_packets(stage: &Stage, gateways: &[Ipv4Addr]) -> anyhow::Result<u64> {
    let oracle: Value = serde_json::from_str(&stage.lab(&["oracle", "-o", "json"])?)?;
    let listed = LISTED.to_string();
    let mut leaked = 0;
    for entry in oracle["packets"].as_array().context("the oracle counted nothing")? {
        let source = entry["source"].as_str().unwrap_or_default();
        if entry["destination"] == listed.as_str() && !gateways.iter().any(|one| one.to_string() == source) {
            leaked += entry["packets"].as_u64().unwrap_or_default();
        }
    }
    Ok(leaked)
}

/// Tells every second what the client sees.
fn watch(stage: &Stage, out: &Path, how_long: Duration) {
    let started = Instant::now();
    while started.elapsed() < how_long {
        std::thread::sleep(Duration::from_secs(1));
        // The client may be in the middle of its last line.
        let so_far = std::fs::read_to_string(out).unwrap_or_default();
        let connections: Vec<Connection> =
            so_far.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let by = connections.last().and_then(|last| last.seen_as);
        let by =
            by.map_or("the last one unanswered".to_owned(), |address| format!("the last one as {address}"));
        let failed = connections.iter().filter(|one| one.seen_as.is_none()).count();
        stage.say(&format!("  {} connections so far, {failed} failed, {by}", connections.len()));
    }
}

fn read_connections(path: &Path) -> anyhow::Result<Vec<Connection>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let connections: Vec<_> =
        text.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("unreadable connection")?;
    if connections.is_empty() {
        bail!("the client made no connection");
    }
    Ok(connections)
}

fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map_or(&[], Vec::as_slice)
}

fn condition<'a>(object: &'a Value, type_: &str) -> Option<&'a str> {
    let conditions = object["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == type_)?["status"].as_str()
}

fn gateways(object: &Value) -> &[Value] {
    object["status"]["gateways"].as_array().map_or(&[], Vec::as_slice)
}

/// Every gateway with its role.
fn roles(object: &Value) -> String {
    let word = |one: &Value, field: &str| one[field].as_str().unwrap_or_default().to_owned();
    let roles: Vec<_> =
        gateways(object).iter().map(|one| format!("{} {}", word(one, "name"), word(one, "role"))).collect();
    roles.join(", ")
}

/// What the object itself says of how far it is.
fn progress(object: &Value) -> String {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let words: Vec<_> = conditions
        .iter()
        .filter(|condition| condition["type"] != "Degraded")
        .filter_map(|condition| condition["message"].as_str())
        .collect();
    if words.is_empty() { "no condition yet".to_owned() } else { words.join("; ") }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::process::Command;

    use super::*;

    #[test]
    fn routes_rules_and_nexthop_objects_of_an_agent_are_counted_and_those_of_others_are_not() {
        // A bridge: a link that any kernel has, and that is up without a second end.
        let mut script = "set -e; exec 2>&1; ip link add vpc type bridge; ip link set vpc up;".to_owned();
        for (protocol, number) in [("157", 1), ("static", 2)] {
            write!(
                script,
                "ip nexthop add id {number} dev vpc proto {protocol}; ip route add 192.0.2.{number} nhid {number} proto {protocol};
                ip rule add priority {number} table 1157 proto {protocol};"
            )
            .unwrap();
        }
        for question in QUESTIONS {
            let asked = format!("{script} ip {}", question.join(" "));
            let output = Command::new("unshare").args(["--net", "sh", "-c", &asked]).output().unwrap();
            let said = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success(), "{said}");
            assert_eq!(ours(&said), 1, "{question:?}: {said}");
        }
    }
}
