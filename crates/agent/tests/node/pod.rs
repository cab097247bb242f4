//! A pod on the node, attached as Cilium attaches it: a veth of its own, and a route for its one address.

use std::fs::File;
use std::net::Ipv4Addr;
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, setns};

use crate::cloud::{Cloud, ip, seen_from, sh};

/// Runs `work` in a thread that lives in the namespace, `None` being the node's.
pub fn inside<T: Send + 'static>(
    namespace: Option<&str>,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let namespace = namespace.map(|name| File::open(format!("/run/netns/{name}")).unwrap());
    std::thread::spawn(move || {
        if let Some(namespace) = namespace {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        }
        work()
    })
}

pub struct Pod {
    pub namespace: String,
    pub address: Ipv4Addr,
    /// The node's end of its link.
    pub link: String,
}

impl Pod {
    /// Makes the pod 10.244.0.`number`.
    pub fn new(cloud: &Cloud, number: u8) -> Self {
        let (namespace, link) = (cloud.name(&format!("pod{number}")), format!("lxc{number}"));
        let address = Ipv4Addr::new(10, 244, 0, number);
        ip(&format!("netns add {namespace}"));
        ip(&format!("-n {namespace} link set lo up"));
        ip(&format!("link add {link} type veth peer name eth0 netns {namespace}"));
        ip(&format!("addr add 10.244.0.1/32 dev {link}"));
        ip(&format!("link set {link} up"));
        ip(&format!("-n {namespace} addr add {address}/32 dev eth0"));
        ip(&format!("-n {namespace} link set eth0 up"));
        ip(&format!("-n {namespace} route add 10.244.0.1 dev eth0"));
        ip(&format!("-n {namespace} route add default via 10.244.0.1"));
        ip(&format!("route add {address}/32 dev {link}"));
        sh("sysctl -qw net.ipv4.ip_forward=1");
        Self { namespace, address, link }
    }

    /// The address that the outside sees when the pod connects to `target`.
    pub fn seen_from(&self, target: Ipv4Addr) -> Option<Ipv4Addr> {
        inside(Some(&self.namespace), move || seen_from(target)).join().unwrap()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.namespace));
    }
}
