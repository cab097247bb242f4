//! Worker nodes: containerd, kubelet and kube-proxy as plain processes in the node's namespaces.
//!
//! A node has a mount namespace of its own in which folders of the lab stand in for `/run`, `/var/lib/kubelet` and the others
//! that its programs use: they keep their ordinary paths, two nodes do not meet, and every mount goes when the last process does.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;

use super::control_plane::url_for_nodes;
use super::{kubeconfig, kubectl};
use crate::cgroups;
use crate::error::{Doing, LabError, Result};
use crate::network::addresses::{DNS_SERVICE, Node, PODS, RESOLVERS};
use crate::processes::{self, Launch, ProcessRecord};
use crate::progress::Progress;
use crate::state::{Lab, Variant, create_private_dir, write_file, write_json};

/// Folders of the node that stand in for the machine's.
const STAND_INS: [(&str, &str); 6] = [
    ("run", "/run"),
    ("log", "/var/log"),
    ("kubelet", "/var/lib/kubelet"),
    ("containerd", "/var/lib/containerd"),
    ("cni", "/var/lib/cni"),
    ("etc-cni", "/etc/cni"),
];

/// What a kubelet would set on the whole machine: in a node it meets files that have these values.
const KERNEL_TUNABLES: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Starts the process that holds the node's mount namespace. Works without Kubernetes, too.
pub fn anchor(lab: &Lab, node: &Node) -> Result<ProcessRecord> {
    let folder = lab.dir.node(node.name);
    let mut stand_ins = Vec::new();
    for (name, target) in STAND_INS {
        create_private_dir(&folder.join(name))?;
        stand_ins.push((folder.join(name), PathBuf::from(target)));
    }
    for inner in ["run/lock", "run/netns", "log/pods", "log/containers", "etc-cni/net.d"] {
        create_private_dir(&folder.join(inner))?;
    }
    let resolvers = RESOLVERS.map(|address| format!("nameserver {address}\n")).concat();
    write_file(&folder.join("resolv.conf"), resolvers.as_bytes())?;
    stand_ins.push((folder.join("resolv.conf"), "/etc/resolv.conf".into()));
    create_private_dir(&folder.join("tunables"))?;
    for (key, value) in KERNEL_TUNABLES {
        let file = folder.join("tunables").join(key.replace('/', "-"));
        write_file(&file, format!("{value}\n").as_bytes())?;
        stand_ins.push((file, PathBuf::from("/proc/sys").join(key)));
    }
    Launch::own(node.name, lab)?
        .args(["hold"])
        .in_namespace(&lab.namespace(node.name))
        .with_own_mounts(&stand_ins)
        .start(lab)
}

fn in_node(lab: &Lab, node: &Node, launch: Launch) -> Result<Launch> {
    let anchor = processes::running(&lab.dir, node.name)?
        .ok_or_else(|| LabError::Usage(format!("{} is not running", node.name)))?;
    Ok(launch.in_namespace(&lab.namespace(node.name)).with_mounts_of(&anchor))
}

/// Starts containerd and waits until it answers.
pub fn start_containerd(lab: &Lab, node: &Node) -> Result<()> {
    let folder = lab.dir.node(node.name);
    write_file(&folder.join("containerd.toml"), CONTAINERD.as_bytes())?;
    // The overlay's tunnel takes 50 bytes of each packet.
    let mtu = if lab.settings.variant == Variant::Overlay { 1450 } else { 1500 };
    let network = json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {"type": "ptp", "ipMasq": false, "mtu": mtu, "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": format!("{}/24", node.pods)}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            }},
            {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true},
        ],
    });
    write_json(&folder.join("etc-cni/net.d/10-pods.conflist"), &network)?;
    let program = lab.asset("containerd")?;
    let assets = program.parent().map(|path| path.display().to_string()).unwrap_or_default();
    let launch = Launch::new(&format!("{}-containerd", node.name), &program)
        .args([format!("--config={}", folder.join("containerd.toml").display())])
        // containerd finds its shim there.
        .env("PATH", &format!("{assets}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"));
    in_node(lab, node, launch)?.start(lab)?;
    let deadline = Duration::from_secs(30);
    let started = Instant::now();
    while let Err(error) = super::images::ctr(lab, node, &["version"]) {
        if started.elapsed() > deadline {
            let what = format!("containerd of {} answers", node.name);
            return Err(LabError::Deadline { what, deadline, last: error.to_string() });
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

const CONTAINERD: &str = r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]

[grpc]
  address = "/run/containerd/containerd.sock"

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "registry.k8s.io/pause:3.10.1"

[plugins.'io.containerd.cri.v1.runtime']
  # Without CAP_SYS_RESOURCE runc may not lower an OOM score, and no pod would start.
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "/etc/cni/net.d"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = "/usr/sbin/runc"
      SystemdCgroup = false
"#;

/// Creates the Node objects, as DOKS' cloud controller would complete them: provider id, addresses, labels, pod range.
pub fn register(lab: &Lab, nodes: &[Node]) -> Result<()> {
    let items: Vec<_> = nodes.iter().map(node_object).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    kubectl(lab, &["apply", "-f", "-"], &list)?;
    for node in nodes {
        // apply leaves the status to the subresource.
        let status = json!({"status": {"addresses": [
            {"type": "InternalIP", "address": node.vpc.to_string()},
            {"type": "ExternalIP", "address": node.public.to_string()},
            {"type": "Hostname", "address": node.name},
        ]}});
        let patch = status.to_string();
        kubectl(
            lab,
            &["patch", "node", node.name, "--subresource=status", "--type=merge", "-p", &patch],
            "",
        )?;
    }
    Ok(())
}

fn node_object(node: &Node) -> serde_json::Value {
    let id = format!("7f0c6a1e-52a4-4c0b-9f57-{:012}", node.droplet);
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name, "labels": {
            "kubernetes.io/hostname": node.name,
            "kubernetes.io/os": "linux",
            "node.kubernetes.io/instance-type": "s-2vcpu-4gb",
            "region": REGION,
            "topology.kubernetes.io/region": REGION,
            "doks.digitalocean.com/managed": "true",
            "doks.digitalocean.com/node-id": id,
            "doks.digitalocean.com/node-pool": "pool-lab",
            "doks.digitalocean.com/node-pool-id": NODE_POOL,
            "doks.digitalocean.com/version": "1.35.4-do.0",
        }},
        "spec": {
            "providerID": format!("digitalocean://{}", node.droplet),
            "podCIDR": format!("{}/24", node.pods),
            "podCIDRs": [format!("{}/24", node.pods)],
        },
    })
}

const REGION: &str = "nyc1";
const NODE_POOL: &str = "3d3c9a53-6f0d-4d5c-9b0e-5c1f6a1d0b11";

/// Starts kubelet and kube-proxy.
pub fn start_kubelet(lab: &Lab, node: &Node) -> Result<()> {
    let folder = lab.dir.node(node.name);
    let url = url_for_nodes(lab);
    let (kubelet_config, proxy_config) =
        (folder.join("kubelet.kubeconfig"), folder.join("kube-proxy.kubeconfig"));
    kubeconfig(lab, &kubelet_config, node.name, &url)?;
    kubeconfig(lab, &proxy_config, "kube-proxy", &url)?;
    let group = cgroups::create_for_node(lab.name(), node.name)?;
    let kubelet = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": lab.dir.pki().join("ca.pem")},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": group,
        "failCgroupV1": false,
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "resolvConf": "/etc/resolv.conf",
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": "cluster.local",
        "providerID": format!("digitalocean://{}", node.droplet),
        // The machine's disk is not the node's: it may be as full as it likes.
        "evictionHard": {"nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "localStorageCapacityIsolation": false,
    });
    write_json(&folder.join("kubelet.json"), &kubelet)?;
    let launch = Launch::new(&format!("{}-kubelet", node.name), &lab.asset("kubelet")?).args([
        format!("--config={}", folder.join("kubelet.json").display()),
        format!("--kubeconfig={}", kubelet_config.display()),
        format!("--hostname-override={}", node.name),
        format!("--node-ip={}", node.vpc),
        "--cloud-provider=external".to_owned(),
    ]);
    in_node(lab, node, launch)?.start(lab)?;

    let proxy = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": proxy_config},
        "clusterCIDR": PODS,
        "hostnameOverride": node.name,
        // At the public address, too, as on DOKS; this mode's default is the node's first address alone.
        "nodePortAddresses": ["0.0.0.0/0"],
        // The table's size belongs to the whole machine.
        "conntrack": {"maxPerCore": 0, "min": 0},
    });
    write_json(&folder.join("kube-proxy.json"), &proxy)?;
    let launch = Launch::new(&format!("{}-kube-proxy", node.name), &lab.asset("kube-proxy")?)
        .args([format!("--config={}", folder.join("kube-proxy.json").display())]);
    in_node(lab, node, launch)?.start(lab).map(drop)
}

/// Waits until every node says that it is Ready, and pods can be created in the default namespace.
pub fn wait_until_nodes_ready(lab: &Lab, nodes: &[Node], progress: &Progress) -> Result<()> {
    let deadline = Duration::from_secs(120);
    let started = Instant::now();
    let path = "jsonpath={range .items[*]}{.metadata.name}={.status.conditions[?(@.type=='Ready')].status}:\
                {.status.conditions[?(@.type=='Ready')].message}{'\\n'}{end}";
    loop {
        let last = match kubectl(lab, &["get", "nodes", "-o", path], "") {
            Ok(said) => {
                let ready = said.lines().filter(|line| line.contains("=True:")).count();
                // Without it the first pod that somebody creates is refused.
                let account =
                    kubectl(lab, &["get", "serviceaccount", "default", "-n", "default", "-o", "name"], "");
                match account {
                    Ok(_) if ready == nodes.len() => return Ok(()),
                    Err(error) if ready == nodes.len() => error.to_string(),
                    _ => said.trim().to_owned(),
                }
            }
            Err(error) => error.to_string(),
        };
        if started.elapsed() > deadline {
            return Err(LabError::Deadline { what: "the nodes are Ready".into(), deadline, last });
        }
        progress.waiting("the nodes to be Ready");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Reads a file of the machine that goes into an image.
pub(super) fn read(path: &std::path::Path) -> Result<Vec<u8>> {
    std::fs::read(path).doing(|| format!("read {}", path.display()))
}
