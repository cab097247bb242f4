//! The nodes of a large cluster as the API server has them: as much text as kubelets write, and as often.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::{Value, json};

/// A kubelet writes the status of its node so often when nothing happens (`nodeStatusReportFrequency`).
pub const REPORTED_EVERY: Duration = Duration::from_secs(300);

/// Images that a kubelet lists at most (`nodeStatusMaxImages`).
const IMAGES: usize = 50;

/// Name of the n-th node, from 0.
pub fn name(n: usize) -> String {
    format!("node-{}", n + 1)
}

/// Addresses of the n-th node, from 1, in the VPC and outside: none of them is anybody's, and no list of the benchmark has them.
pub fn addresses(n: usize) -> (Ipv4Addr, Ipv4Addr) {
    let (block, host) = (octet(n / 200), octet(n % 200) + 10);
    (Ipv4Addr::new(10, 116, 2 + block, host), Ipv4Addr::new(198, 19, block, host))
}

/// The n-th node with these addresses, as large as one of a managed cluster.
pub fn node(n: usize, (private, public): (Ipv4Addr, Ipv4Addr)) -> Value {
    let name = name(n);
    let pods = format!("10.244.{}.{}/25", octet(n / 2), 128 * (n % 2));
    json!({"apiVersion": "v1", "kind": "Node",
    "metadata": {"name": name, "labels": labels(&name), "annotations": {
        "alpha.kubernetes.io/provided-node-ip": private,
        "csi.volume.kubernetes.io/nodeid": format!("{{\"dobs.csi.digitalocean.com\":\"{}\"}}", 500_000_000 + n),
        "network.cilium.io/ipv4-cilium-host": format!("10.244.{}.{}", octet(n / 2), 128 * (n % 2) + 40),
        "network.cilium.io/ipv4-pod-cidr": &pods,
        "node.alpha.kubernetes.io/ttl": "0",
        "volumes.kubernetes.io/controller-managed-attach-detach": "true",
    }},
    "spec": {"podCIDR": &pods, "podCIDRs": [&pods], "providerID": format!("digitalocean://{}", 500_000_000 + n)},
    "status": {
        "addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": private},
            {"type": "ExternalIP", "address": public}],
        "capacity": {"cpu": "4", "memory": "8144640Ki", "pods": "110", "ephemeral-storage": "165057792Ki"},
        "allocatable": {"cpu": "3900m", "memory": "6706Mi", "pods": "110", "ephemeral-storage": "152117260000"},
        "conditions": conditions(0),
        "images": images(),
        "nodeInfo": {"architecture": "amd64", "bootID": uuid(n), "machineID": uuid(n), "systemUUID": uuid(n),
            "containerRuntimeVersion": "containerd://1.6.31", "kernelVersion": "6.1.0-32-amd64",
            "kubeProxyVersion": "", "kubeletVersion": "v1.33.1", "operatingSystem": "linux",
            "osImage": "Debian GNU/Linux 12 (bookworm)"},
    }})
}

/// What a kubelet changes with its `turn`-th report, when nothing happened: the times of the conditions.
pub fn report(turn: u32) -> Value {
    json!({"status": {"conditions": conditions(turn)}})
}

fn labels(name: &str) -> Value {
    json!({
        "beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
        "kubernetes.io/os": "linux", "kubernetes.io/hostname": name, "node.kubernetes.io/instance-type": "s-4vcpu-8gb",
        "beta.kubernetes.io/instance-type": "s-4vcpu-8gb", "topology.kubernetes.io/region": "fra1", "region": "fra1",
        "failure-domain.beta.kubernetes.io/region": "fra1", "doks.digitalocean.com/managed": "true",
        "doks.digitalocean.com/node-id": uuid(name.len()), "doks.digitalocean.com/node-pool": "web",
        "doks.digitalocean.com/node-pool-id": uuid(0), "doks.digitalocean.com/version": "1.33.1-do.0",
    })
}

fn conditions(turn: u32) -> Value {
    let (hours, minutes, seconds) = (turn / 3_600 % 24, turn / 60 % 60, turn % 60);
    let now = format!("2026-01-02T{hours:02}:{minutes:02}:{seconds:02}Z");
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": message, "lastHeartbeatTime": now,
            "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    json!([
        condition("NetworkUnavailable", "False", "CiliumIsUp", "Cilium is running on this node"),
        condition(
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available"
        ),
        condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ])
}

fn images() -> Value {
    let image = |n: usize| {
        let repository = format!("registry.example.com/team-{}/service-{n}", n % 7);
        let digest = format!("{:064x}", 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(n as u64 + 1));
        json!({"names": [format!("{repository}@sha256:{digest}"), format!("{repository}:1.{n}.0")],
            "sizeBytes": 20_000_000 + 1_000_003 * n})
    };
    (0..IMAGES).map(image).collect()
}

fn uuid(n: usize) -> String {
    format!("0d1c4f5e-6b1a-4c3d-8e2f-{n:012x}")
}

/// Numbers of nodes and blocks are far below: a cluster has 512 nodes at most.
fn octet(n: usize) -> u8 {
    u8::try_from(n % 256).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn nodes_are_as_large_as_real_ones_and_have_addresses_of_their_own() {
        let one = node(299, addresses(299));
        let length = one.to_string().len();
        assert!((9_000..30_000).contains(&length), "{length}");
        let all: BTreeSet<_> =
            (1..512).map(addresses).flat_map(|(private, public)| [private, public]).collect();
        assert_eq!(all.len(), 2 * 511);
    }
}
