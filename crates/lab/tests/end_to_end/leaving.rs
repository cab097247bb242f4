//! Every way to install, and every way to be rid of the installation while an EgressGateway lives: no route of ours is left on any
//! node, nothing hangs, and what stays (the object and its Droplets) goes on with the next installation, whichever way that comes.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::lab::{Lab, until};

const MINUTE: Duration = Duration::from_secs(60);
/// What is promised: so long after it was removed, no node has anything of ours.
const CLEAN: Duration = Duration::from_secs(120);
const NODES: [&str; 2] = ["node-1", "node-2"];
/// What `examples/egressgateway.yaml` sends through its gateways.
const LISTED: &str = "192.0.2.80";
const DEFINITIONS: [&str; 3] = [
    "egressgateways.networking.digitalocean.com",
    "staticroutes.networking.digitalocean.com",
    "nodeegresses.networking.digitalocean.com",
];
const FINALIZER: &str = "networking.digitalocean.com/egress-gateway";

#[test]
fn whichever_way_it_is_removed_no_route_is_left_and_nothing_hangs() {
    let lab = Lab::new("e2eleave");
    lab.lab(&["start", "--assets", lab.assets.to_str().unwrap()]);
    for image in ["egress-controller.tar", "egress-agent.tar"] {
        lab.lab(&["load-image", &format!("target/images/{image}")]);
    }
    let chart = Chart::of(&lab);

    apply(&lab);
    ready(&lab);
    lab.kubectl(&["apply", "-f", "examples/egressgateway.yaml"]);
    lab.apply(&sender());
    until("demo is ready", &true, 3 * MINUTE, || lab.is_ready("demo"));
    let gateways = lab.gateway_ids("demo");
    let goes_on = |what: &str| {
        until(&format!("{what}: demo is ready"), &true, 2 * MINUTE, || lab.is_ready("demo"));
        for node in NODES {
            until(&format!("{what}: {node} routes"), &true, MINUTE, || lab.ours(node).contains(LISTED));
        }
        let mut now = lab.gateway_ids("demo");
        now.sort_unstable();
        let mut before = gateways.clone();
        before.sort_unstable();
        assert_eq!(now, before, "{what}: the Droplets are those that were there before");
    };

    goes_on("kubectl apply");
    leave(&lab, "delete -k", || {
        lab.kubectl(&["delete", "-k", "deploy/overlays/lab", "--timeout=120s"]);
    });

    chart.run(&["install", "egress-gateway", "deploy/chart", "--create-namespace"]);
    ready(&lab);
    goes_on("helm install over the definitions that kubectl applied");
    an_upgrade_changes_no_route(&lab, &chart);
    leave(&lab, "helm uninstall", || {
        chart.run(&["uninstall", "egress-gateway", "--timeout=120s"]);
    });
    lab.kubectl(&["delete", "namespace", "egress-gateway", "--timeout=120s"]);

    apply(&lab);
    ready(&lab);
    goes_on("kubectl apply after helm");
    leave(&lab, "delete -f", || {
        let file = lab.root.join("target/e2e/install.yaml");
        let file = file.to_str().unwrap();
        lab.kubectl(&["kustomize", "deploy/overlays/lab", "-o", file]);
        lab.kubectl(&["delete", "-f", file, "--timeout=120s"]);
    });

    apply(&lab);
    ready(&lab);
    goes_on("kubectl apply again");
    leave(&lab, "namespace first", || {
        lab.kubectl(&["delete", "namespace", "egress-gateway", "--timeout=120s"]);
    });
    lab.kubectl(&["delete", "-k", "deploy/overlays/lab", "--ignore-not-found", "--timeout=120s"]);

    apply(&lab);
    ready(&lab);
    goes_on("kubectl apply after the namespace");
    definitions_first(&lab);
    lab.lab(&["stop"]);
}

/// The object is held by its finalizer and says how to go on. What it says is done, and nothing is left but the Droplets it names.
fn definitions_first(lab: &Lab) {
    lab.kubectl(&[["delete", "crd", "--wait=false"].as_slice(), &DEFINITIONS].concat());
    let degraded = || {
        let object = lab.get(&["egressgateway", "demo"]);
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let degraded = conditions.into_iter().find(|one| one["type"] == "Degraded");
        degraded.map(|one| one["message"].as_str().unwrap_or_default().to_owned()).unwrap_or_default()
    };
    until("the object names the way out", &true, MINUTE, || {
        let message = degraded();
        message.contains("take the finalizer") && message.contains("egress-owner:")
    });
    leave(lab, "definitions first", || {
        lab.kubectl(&["delete", "-k", "deploy/overlays/lab", "--timeout=120s"]);
    });
    let droplets = lab.gateway_ids("demo");
    let patch = json!({"metadata": {"finalizers": null}}).to_string();
    assert!(lab.get(&["egressgateway", "demo"])["metadata"]["finalizers"].to_string().contains(FINALIZER));
    lab.kubectl(&["patch", "egressgateway", "demo", "--type=merge", "-p", &patch]);
    until("the definitions are gone", &false, MINUTE, || {
        lab.kubectl(&["get", "crd", "-o", "name"]).contains("networking.digitalocean.com")
    });
    for id in droplets {
        lab.lab(&["cloud", "DELETE", &format!("/v2/droplets/{id}")]);
    }
    until("no Droplet is left", &0, MINUTE, || lab.droplets());
}

/// Removes the installation; within the promised time no node has anything of ours. The object and its Droplets are there.
fn leave(lab: &Lab, way: &str, remove: impl FnOnce()) {
    let droplets = lab.droplets();
    let started = Instant::now();
    remove();
    for node in NODES {
        let rest = CLEAN.saturating_sub(started.elapsed());
        until(&format!("{way}: nothing of ours is on {node}"), &String::new(), rest, || lab.ours(node));
    }
    assert_eq!(lab.droplets(), droplets, "{way}: Droplets stay while their object does");
    lab.kubectl(&["get", "egressgateway", "demo"]);
    eprintln!("ok   {way}: clean after {:.1} s", started.elapsed().as_secs_f64());
}

/// Agents and controllers are all replaced, one by one; no node's kernel is written to, and every packet leaves through a gateway.
fn an_upgrade_changes_no_route(lab: &Lab, chart: &Chart<'_>) {
    let before = NODES.map(|node| lab.ours(node));
    let expected = lab.egress_ip("demo").unwrap();
    lab.lab(&["oracle", "reset"]);
    let upgrade = ["upgrade", "egress-gateway", "deploy/chart"];
    let again = ["--set=agent.podAnnotations.again=yes", "--set=controller.podAnnotations.again=yes"];
    chart.run(&[upgrade.as_slice(), &again].concat());
    ready(lab);
    until("demo is ready after the upgrade", &true, MINUTE, || lab.is_ready("demo"));
    assert_eq!(NODES.map(|node| lab.ours(node)), before, "an upgrade changed routes");
    let oracle: Value = serde_json::from_str(&lab.lab(&["oracle", "-o", "json"])).unwrap();
    let packets: Vec<_> = oracle["packets"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["destination"] == LISTED)
        .map(|one| one["source"].as_str().unwrap().to_owned())
        .collect();
    assert!(!packets.is_empty(), "nobody sent anything");
    assert!(packets.iter().all(|source| *source == expected), "{packets:?} and not {expected} alone");
}

fn apply(lab: &Lab) {
    lab.kubectl(&["apply", "--server-side", "--force-conflicts", "-k", "deploy/crds"]);
    lab.kubectl(
        &[["wait", "--for=condition=Established", "--timeout=30s", "crd"].as_slice(), &DEFINITIONS].concat(),
    );
    lab.kubectl(&["apply", "-k", "deploy/overlays/lab"]);
}

/// The token is put there, as often as its namespace was deleted, and all that runs is what was installed last.
fn ready(lab: &Lab) {
    if lab.kubectl_tried(&["-n", "egress-gateway", "get", "secret", "digitalocean-token"]).is_err() {
        let token = format!("--from-literal=token={}", lab.lab(&["token"]).trim());
        lab.kubectl(&["-n", "egress-gateway", "create", "secret", "generic", "digitalocean-token", &token]);
    }
    for workload in ["deployment/egress-controller", "daemonset/egress-agent"] {
        lab.kubectl(&["-n", "egress-gateway", "rollout", "status", workload, "--timeout=120s"]);
    }
}

/// Sends all the time, from its first instruction to the last.
fn sender() -> Value {
    let script = format!("while :; do curl -sS --max-time 1 http://{LISTED}/ip; echo; sleep 0.05; done");
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "sender"},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "curl", "image": "curlimages/curl:7.80.0", "command": ["sh", "-c", script]}],
        },
    })
}

/// Helm, with the values of the lab.
struct Chart<'a> {
    lab: &'a Lab,
    helm: PathBuf,
}

impl<'a> Chart<'a> {
    fn of(lab: &'a Lab) -> Self {
        let helm = std::env::var_os("HELM").expect("HELM is Helm; scripts/e2e.sh sets it");
        Self { lab, helm: helm.into() }
    }

    fn run(&self, arguments: &[&str]) {
        let mut command = Command::new(&self.helm);
        command.current_dir(&self.lab.root).arg("--namespace=egress-gateway").args(arguments);
        command.env("KUBECONFIG", self.lab.state.join("kubeconfig"));
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(variable, self.lab.state.join("helm"));
        }
        if arguments[0] != "uninstall" {
            // Whatever kubectl applied before is the release's from now on.
            command.args(["--values=tests/helm/lab.yaml", "--take-ownership", "--force-conflicts"]);
        }
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "helm {arguments:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
