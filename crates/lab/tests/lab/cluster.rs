//! All of it: a cluster that an ordinary kubectl is used on.

use std::process::Command;

use egress_lab::network::addresses::{HAND_MADE_GATEWAYS, NODES};

use crate::api::assets;
use crate::world::{World, eventually};

fn kubectl(world: &World, arguments: &[&str]) -> String {
    let mut command = Command::new(format!("{}/kubectl", assets()));
    command.arg("--kubeconfig").arg(world.state_dir().join("kubeconfig")).args(arguments);
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kubectl {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Pods on both nodes, cluster DNS, exec and logs, the nodes' own addresses outside and a gateway's when a route says so.
fn check(arguments: &[&str]) -> World {
    let assets = assets();
    let world = World::start(&[&["--assets", &assets], arguments].concat());
    let nodes = kubectl(&world, &["get", "nodes", "-o", "jsonpath={.items[*].spec.providerID}"]);
    assert_eq!(nodes, "digitalocean://400000001 digitalocean://400000002");
    for node in &NODES {
        let overrides = format!(r#"{{"spec":{{"nodeName":"{}"}}}}"#, node.name);
        let run = [
            "run",
            node.name,
            "--image=curlimages/curl:7.80.0",
            "--overrides",
            &overrides,
            "--",
            "sleep",
            "600",
        ];
        kubectl(&world, &run);
    }
    for node in &NODES {
        kubectl(&world, &["wait", "--for=condition=Ready", "--timeout=60s", "pod", node.name]);
        let ask = ["exec", node.name, "--", "curl", "-sS", "--max-time", "5", "http://whoami.example.com/"];
        // One of the pods asks CoreDNS on the other node: through the tunnel, or routed by the VPC.
        assert_eq!(kubectl(&world, &ask).trim(), node.public.to_string());
        let service = [
            "exec",
            node.name,
            "--",
            "curl",
            "-sSk",
            "--max-time",
            "5",
            "https://kubernetes.default/version",
        ];
        assert!(kubectl(&world, &service).contains("gitVersion"));
        let gateway = HAND_MADE_GATEWAYS[0];
        world.shell(node.name, &format!("ip route add 192.0.2.80/32 via {}", gateway.vpc));
        assert_eq!(kubectl(&world, &ask).trim(), gateway.public.to_string());
    }
    let overrides = r#"{"spec":{"restartPolicy":"Never"}}"#;
    kubectl(
        &world,
        &["run", "said", "--image=curlimages/curl:8.5.0", "--overrides", overrides, "--", "--version"],
    );
    eventually("the pod's log can be read", || {
        let phase = kubectl(&world, &["get", "pod", "said", "-o", "jsonpath={.status.phase}"]);
        (phase == "Succeeded").then(|| assert!(kubectl(&world, &["logs", "said"]).starts_with("curl ")))
    });
    let links = world.run(&["exec", "pod:default/node-1", "--", "ip", "-o", "-4", "address"]);
    assert!(links.contains("10.244.0."), "{links}");
    assert_eq!(whoami(&world, "pod:node-2"), NODES[1].public.to_string());
    world
}

fn whoami(world: &World, part: &str) -> String {
    let ask = ["exec", part, "--", "curl", "-sS", "--max-time", "5", "http://ifconfig.me/ip"];
    world.run(&ask).trim().to_owned()
}

fn nodes_are_ready(world: &World) -> bool {
    let path = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}";
    kubectl(world, &["get", "nodes", "-o", path]) == "True True"
}

#[test]
fn pods_of_an_overlay_cluster_reach_everything() {
    let world = check(&["--variant", "overlay"]);
    without_a_control_plane_pods_go_on_and_with_one_new_ones_start(&world);
}

fn without_a_control_plane_pods_go_on_and_with_one_new_ones_start(world: &World) {
    world.run(&["stop", "control-plane"]);
    let mut ask = Command::new(format!("{}/kubectl", assets()));
    ask.arg("--kubeconfig").arg(world.state_dir().join("kubeconfig"));
    let answered = ask.args(["get", "nodes", "--request-timeout=2s"]).output().unwrap().status.success();
    assert!(!answered, "the API server answers after its stop");
    assert_eq!(whoami(world, "pod:node-2"), NODES[1].public.to_string());
    world.run(&["start", "control-plane"]);
    // Scheduler, controllers and kubelets are back at work: together they make a pod of a Deployment run.
    kubectl(
        world,
        &["create", "deployment", "later", "--image=curlimages/curl:7.80.0", "--", "sleep", "600"],
    );
    kubectl(world, &["rollout", "status", "deployment/later", "--timeout=60s"]);
    assert!(nodes_are_ready(world));
}

#[test]
fn pods_of_a_vpc_native_cluster_reach_everything() {
    let world = check(&["--variant", "vpc-native", "--api-server", "name"]);
    nodes_follow_the_api_servers_name_to_other_addresses(&world);
}

fn nodes_follow_the_api_servers_name_to_other_addresses(world: &World) {
    let endpoints = ["get", "endpointslices", "kubernetes", "-o", "jsonpath={.endpoints[*].addresses[*]}"];
    let endpoints = kubectl(world, &endpoints);
    let tags = world.shell("node-1", "curl -sS --max-time 5 http://169.254.169.254/metadata/v1/tags/");
    let id = tags.lines().find_map(|tag| tag.strip_prefix("k8s:").filter(|id| id.contains('-'))).unwrap();
    let name = format!("{id}.k8s.ondigitalocean.com");
    let resolved = || {
        let said = world.shell("node-1", &format!("getent ahostsv4 {name} | cut -d' ' -f1 | sort -u"));
        said.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    // A connection that only listens learns late that its peer is gone; one that asks learns it at once.
    let kubelet_asks = |node: &str, address: &str| {
        let said = world.shell(node, "ss -Htnp state established '( dport = :6443 )'");
        said.lines().any(|line| line.contains("\"kubelet\"") && line.contains(address))
    };
    let mut before = resolved();
    assert_eq!(before.len(), 2);
    assert!(!before.contains(&endpoints), "{before:?}");
    for moved in [["198.51.100.13", "198.51.100.14"], ["198.51.100.14", "198.51.100.15"]] {
        world.run(&["api-addresses", moved[0], moved[1]]);
        assert_eq!(resolved(), moved);
        for node in &NODES {
            eventually("the kubelet asks at the new addresses", || {
                moved.iter().any(|address| kubelet_asks(node.name, address)).then_some(())
            });
        }
        before.retain(|address| !moved.contains(&address.as_str()));
        for old in &before {
            let ask = format!("curl -sSk --max-time 2 https://{old}:6443/version");
            assert!(
                !world.output(&["exec", "node-1", "--", "sh", "-c", &ask]).status.success(),
                "{old} answers"
            );
        }
        before = moved.map(str::to_owned).into();
    }
    assert!(nodes_are_ready(world));
    let taken = world.output(&["api-addresses", "169.254.169.254"]);
    assert!(!taken.status.success(), "the metadata service's address was given away");
}
