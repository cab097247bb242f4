//! One cluster's network: nodes, a pair of gateways, what is outside, and a control plane, in namespaces without a way out.
//!
//! ```text
//!  node-1 … node-n  eth0 203.0.113.11 … ──┐
//!  A                eth0 203.0.113.5    ──┼── outside: 192.0.2.0/24 answers, 198.18.0.0/24 refuses ── control plane
//!  B                eth0 203.0.113.6    ──┘                                                          198.51.100.10
//!  node-1 … node-n  eth1 10.116.0.21 …  ──┐
//!  A                eth1 10.116.0.5     ──┼── VPC
//!  B                eth1 10.116.0.12    ──┘
//! ```

use std::net::Ipv4Addr;

use super::gateway;
use super::namespace::Namespace;

/// The VPC.
pub const VPC: &str = "10.116.0.0/20";
/// The provider's gateway on the public side.
pub const PROVIDER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The API server, as on DOKS: outside the VPC.
pub const CONTROL_PLANE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// What is routed through the gateways.
pub const ROUTED: &str = "192.0.2.0/24";
/// Targets of the health check: off the gateways' subnet, refused by the outside's kernel.
pub const HEALTH_TARGETS: [&str; 3] = ["198.18.0.53:53", "198.18.0.54:53", "198.18.0.55:53"];

/// Where a gateway is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewayAt {
    /// 0 or 1: its place in the StaticRoute's list.
    pub slot: usize,
    /// In the VPC.
    pub private: Ipv4Addr,
    /// Outside.
    pub public: Ipv4Addr,
}

/// The gateways in their order.
pub const GATEWAYS: [GatewayAt; 2] = [
    GatewayAt { slot: 0, private: Ipv4Addr::new(10, 116, 0, 5), public: Ipv4Addr::new(203, 0, 113, 5) },
    GatewayAt { slot: 1, private: Ipv4Addr::new(10, 116, 0, 12), public: Ipv4Addr::new(203, 0, 113, 6) },
];

/// Addresses of the n-th node, from 0: VPC and public.
pub fn node_addresses(n: u8) -> (Ipv4Addr, Ipv4Addr) {
    (Ipv4Addr::new(10, 116, 0, 21 + n), Ipv4Addr::new(203, 0, 113, 21 + n))
}

/// Probes that have arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbesSeen {
    /// At the first gateway's probe port in the VPC.
    pub in_the_vpc: u64,
    /// At its probe port outside, through the other gateway.
    pub of_peers: u64,
    /// At the targets of the health check, through both.
    pub of_targets: u64,
}

impl ProbesSeen {
    /// Those that were not there `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            in_the_vpc: self.in_the_vpc.saturating_sub(before.in_the_vpc),
            of_peers: self.of_peers.saturating_sub(before.of_peers),
            of_targets: self.of_targets.saturating_sub(before.of_targets),
        }
    }
}

/// The namespaces; dropping it removes them.
#[derive(Debug)]
pub struct World {
    prefix: String,
    /// What everybody else is.
    pub outside: Namespace,
    /// The private network.
    pub vpc: Namespace,
    /// Where the API server runs.
    pub control: Namespace,
    /// The nodes.
    pub nodes: Vec<Namespace>,
    /// The gateways; none where the power is off.
    gateways: [Option<Namespace>; 2],
}

impl World {
    /// Makes everything; `number` tells worlds of one run apart.
    pub fn new(number: usize, nodes: u8) -> anyhow::Result<Self> {
        let prefix = format!("fo{}w{number}", std::process::id());
        let outside = Namespace::fabric(format!("{prefix}-outside"))?;
        let vpc = Namespace::fabric(format!("{prefix}-vpc"))?;
        let control = Namespace::new(format!("{prefix}-control"))?;
        outside.ip(&format!("addr add {PROVIDER}/24 dev fabric0"))?;
        for range in [ROUTED, "198.18.0.0/24"] {
            outside.ip(&format!("route add local {range} dev lo"))?;
        }
        // Refused at once: there is no metadata service here.
        outside.ip("addr add 169.254.169.254/32 dev lo")?;
        outside.sysctl("net.ipv4.ip_forward", "1")?;
        outside.nft(&oracle())?;
        connect_control_plane(&control, &outside)?;
        let mut world = Self { prefix, outside, vpc, control, nodes: Vec::new(), gateways: [None, None] };
        for n in 0..nodes {
            let (private, public) = node_addresses(n);
            let node = Namespace::new(world.name(&format!("node-{}", n + 1)))?;
            world.attach(&node, &format!("node-{}", n + 1), private, public)?;
            world.nodes.push(node);
        }
        for at in &GATEWAYS {
            world.power_on(at)?;
        }
        Ok(world)
    }

    /// A gateway's machine, unless its power is off.
    pub fn gateway(&self, at: &GatewayAt) -> anyhow::Result<&Namespace> {
        self.gateways[at.slot].as_ref().ok_or_else(|| anyhow::anyhow!("gateway {} is off", at.private))
    }

    /// Boots a gateway that is off.
    pub fn power_on(&mut self, at: &GatewayAt) -> anyhow::Result<()> {
        let machine = Namespace::new(self.name(port_of(at)))?;
        self.attach(&machine, port_of(at), at.private, at.public)?;
        self.gateways[at.slot] = Some(machine);
        self.set_up(at)
    }

    /// A gateway loses power. Its links go first: a namespace ends some time after it was removed.
    pub fn power_off(&mut self, at: &GatewayAt) -> anyhow::Result<()> {
        self.vpc.ip(&format!("link del dev {}", port_of(at)))?;
        self.outside.ip(&format!("link del dev {}", port_of(at)))?;
        self.gateways[at.slot] = None;
        Ok(())
    }

    /// Packets since the beginning that reached the outside for a routed destination with a source that is no gateway's.
    pub fn leaked_packets(&self) -> anyhow::Result<u64> {
        self.outside.counted("oracle", "leaked")
    }

    /// Lets the first gateway and the outside count probes from now on.
    pub fn count_probes(&self) -> anyhow::Result<()> {
        let GatewayAt { private, public, .. } = GATEWAYS[0];
        let syn = "tcp flags & (syn | ack) == syn";
        self.gateway(&GATEWAYS[0])?.nft(&format!(
            "table ip price {{\n counter vpc {{ }}\n counter peers {{ }}\n chain arriving {{ type filter hook prerouting priority -350\n \
             ip daddr {private} tcp dport 9181 {syn} counter name vpc\n ip daddr {public} tcp dport 9181 {syn} counter name peers\n }}\n}}\n"
        ))?;
        self.outside.nft(&format!(
            "table ip price {{\n counter targets {{ }}\n chain arriving {{ type filter hook prerouting priority -350\n \
             ip daddr 198.18.0.0/24 {syn} counter name targets\n }}\n}}\n"
        ))
    }

    /// Probes since then.
    pub fn probes(&self) -> anyhow::Result<ProbesSeen> {
        let first = self.gateway(&GATEWAYS[0])?;
        Ok(ProbesSeen {
            in_the_vpc: first.counted("price", "vpc")?,
            of_peers: first.counted("price", "peers")?,
            of_targets: self.outside.counted("price", "targets")?,
        })
    }

    /// Lets a gateway's connection table forget what had no answer, as ten seconds would: else probes of one kill meet what the one
    /// before left, with a translation that may no longer be made.
    pub fn forget_unanswered(&self, at: &GatewayAt) -> anyhow::Result<()> {
        let unanswered = ["-D", "--proto", "tcp", "--state", "SYN_SENT"];
        loop {
            let Err(error) = self.gateway(at)?.run("conntrack", &unanswered, "") else { return Ok(()) };
            let told = format!("{error:#}");
            if told.contains("0 flow entries") {
                return Ok(());
            }
            // One ran out between being listed and being deleted: those after it are still there.
            if !told.contains("doesn't exist") {
                return Err(error);
            }
        }
    }

    fn attach(
        &self,
        machine: &Namespace,
        port: &str,
        private: Ipv4Addr,
        public: Ipv4Addr,
    ) -> anyhow::Result<()> {
        machine.plug("eth0", &self.outside, port, public, 24)?;
        machine.plug("eth1", &self.vpc, port, private, 20)?;
        machine.ip(&way_out())
    }

    /// Applies what a gateway's own script applies, as at its boot.
    pub fn set_up(&self, at: &GatewayAt) -> anyhow::Result<()> {
        gateway::set_up(self.gateway(at)?, at, GATEWAYS[1 - at.slot].public)
    }

    fn name(&self, role: &str) -> String {
        format!("{}-{role}", self.prefix)
    }
}

/// The default route of nodes and gateways, for `ip`.
pub fn way_out() -> String {
    format!("route add default via {PROVIDER}")
}

/// Name of a gateway's ports in both networks.
pub fn port_of(at: &GatewayAt) -> &'static str {
    ["a", "b"][at.slot]
}

fn connect_control_plane(control: &Namespace, outside: &Namespace) -> anyhow::Result<()> {
    let peer = Ipv4Addr::new(198, 51, 100, 1);
    outside.ip(&format!("link add control type veth peer name eth0 netns {}", control.name()))?;
    outside.ip(&format!("addr add {peer}/24 dev control"))?;
    outside.ip("link set control up")?;
    control.ip(&format!("addr add {CONTROL_PLANE}/24 dev eth0"))?;
    control.ip("link set eth0 up")?;
    control.ip(&format!("route add default via {peer}"))?;
    // The API server listens on its loopback.
    control.sysctl("net.ipv4.conf.all.route_localnet", "1")?;
    control.nft(&format!(
        "table ip reachable {{\n chain arriving {{ type nat hook prerouting priority -100; ip daddr {CONTROL_PLANE} \
         ip protocol tcp dnat to 127.0.0.1; }}\n}}\n"
    ))
}

/// Counts what no node and no gateway may let out.
fn oracle() -> String {
    let [a, b] = GATEWAYS.map(|at| at.public);
    format!(
        "table ip oracle {{\n counter leaked {{ }}\n chain arriving {{ type filter hook prerouting priority -300; \
         ip daddr {ROUTED} ip saddr != {{ {a}, {b} }} counter name leaked; }}\n}}\n"
    )
}
