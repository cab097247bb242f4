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
fn check(variant: &str) {
    let world = World::start(&["--assets", &assets(), "--variant", variant]);
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
    let named =
        world.run(&["exec", "pod:node-2", "--", "curl", "-sS", "--max-time", "5", "http://ifconfig.me/ip"]);
    assert_eq!(named.trim(), NODES[1].public.to_string());
}

#[test]
fn pods_of_an_overlay_cluster_reach_everything() {
    check("overlay");
}

#[test]
fn pods_of_a_vpc_native_cluster_reach_everything() {
    check("vpc-native");
}
