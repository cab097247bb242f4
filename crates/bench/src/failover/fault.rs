//! What is done to a gateway, and undone.

use std::time::Instant;

use super::world::{GatewayAt, World, port_of};

/// Larger than any segment that is not full, smaller than one that is.
const SMALL: u32 = 1_280;

/// Who could notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// The gateway no longer answers in the VPC.
    Dead,
    /// It answers there, and connections through it do not succeed.
    Gray,
}

/// What a gateway suffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Its power is off: the machine is gone.
    PowerOff,
    /// Its kernel stands still: links up, nothing answered, forwarded or sent, ARP not either.
    Frozen,
    /// The networks pass nothing to it or from it; its links stay up.
    LinksSilent,
    /// What the VPC sends does not arrive.
    VpcInDropped,
    /// What it sends into the VPC does not arrive.
    VpcOutDropped,
    /// It no longer forwards.
    ForwardingOff,
    /// It no longer translates; what it forwards would leave with a private source.
    NatGone,
    /// It does not know the way out.
    DefaultRouteMissing,
    /// Full-size packets do not get through it, and nobody is told.
    MtuBlackHole,
    /// Its public link has no carrier.
    PublicLinkDown,
    /// What comes from outside does not arrive.
    PublicInDropped,
    /// What it sends to the outside does not arrive.
    PublicOutDropped,
}

/// When a fault came about.
#[derive(Clone, Copy, Debug)]
pub struct Struck {
    /// Before this the gateway was whole.
    pub begun: Instant,
    /// From now on nothing gets through.
    pub done: Instant,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::PowerOff,
        Self::Frozen,
        Self::LinksSilent,
        Self::VpcInDropped,
        Self::VpcOutDropped,
        Self::ForwardingOff,
        Self::NatGone,
        Self::DefaultRouteMissing,
        Self::MtuBlackHole,
        Self::PublicLinkDown,
        Self::PublicInDropped,
        Self::PublicOutDropped,
    ];

    /// All of a class.
    pub fn of(class: Class) -> Vec<Self> {
        Self::ALL.into_iter().filter(|fault| fault.class() == class).collect()
    }

    /// Who could notice it.
    pub fn class(self) -> Class {
        match self {
            Self::PowerOff | Self::Frozen | Self::LinksSilent | Self::VpcInDropped | Self::VpcOutDropped => {
                Class::Dead
            }
            Self::ForwardingOff
            | Self::NatGone
            | Self::DefaultRouteMissing
            | Self::MtuBlackHole
            | Self::PublicLinkDown
            | Self::PublicInDropped
            | Self::PublicOutDropped => Class::Gray,
        }
    }

    /// What data and documents call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::PowerOff => "power-off",
            Self::Frozen => "frozen",
            Self::LinksSilent => "links-silent",
            Self::VpcInDropped => "vpc-in-dropped",
            Self::VpcOutDropped => "vpc-out-dropped",
            Self::ForwardingOff => "forwarding-off",
            Self::NatGone => "nat-gone",
            Self::DefaultRouteMissing => "default-route-missing",
            Self::MtuBlackHole => "mtu-black-hole",
            Self::PublicLinkDown => "public-link-down",
            Self::PublicInDropped => "public-in-dropped",
            Self::PublicOutDropped => "public-out-dropped",
        }
    }

    /// The fault of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.name() == name)
    }

    /// Lets the gateway suffer it.
    pub fn strike(self, world: &mut World, at: &GatewayAt) -> anyhow::Result<Struck> {
        let begun = Instant::now();
        match self {
            // Its kernel needs a tenth of a second to take everything down: it falls silent first.
            Self::PowerOff | Self::Frozen => {
                let hooks = ["ingress eth0", "egress eth0", "ingress eth1", "egress eth1"];
                world.gateway(at)?.nft(&dropping(&hooks, ""))?;
            }
            Self::LinksSilent => {
                for network in [&world.vpc, &world.outside] {
                    network.ip(&format!("link set dev {} nomaster", port_of(at)))?;
                }
            }
            Self::ForwardingOff => world.gateway(at)?.sysctl("net.ipv4.ip_forward", "0")?,
            Self::NatGone => world.gateway(at)?.nft("flush chain ip nat POSTROUTING\n")?,
            Self::DefaultRouteMissing => world.gateway(at)?.ip("route del default")?,
            Self::PublicLinkDown => world.outside.ip(&format!("link set dev {} down", port_of(at)))?,
            Self::VpcInDropped => world.gateway(at)?.nft(&dropping(&["ingress eth1"], ""))?,
            Self::VpcOutDropped => world.gateway(at)?.nft(&dropping(&["egress eth1"], ""))?,
            Self::PublicInDropped => world.gateway(at)?.nft(&dropping(&["ingress eth0"], ""))?,
            Self::PublicOutDropped => world.gateway(at)?.nft(&dropping(&["egress eth0"], ""))?,
            Self::MtuBlackHole => {
                let large = format!("meta length > {SMALL} ");
                world.gateway(at)?.nft(&dropping(&["egress eth0"], &large))?;
            }
        }
        let done = Instant::now();
        if self == Self::PowerOff {
            world.power_off(at)?;
        }
        Ok(Struck { begun, done })
    }

    /// Undoes it.
    pub fn heal(self, world: &mut World, at: &GatewayAt) -> anyhow::Result<()> {
        match self {
            Self::PowerOff => world.power_on(at),
            Self::LinksSilent => [&world.vpc, &world.outside]
                .into_iter()
                .try_for_each(|network| network.ip(&format!("link set dev {} master fabric0", port_of(at)))),
            Self::ForwardingOff => world.gateway(at)?.sysctl("net.ipv4.ip_forward", "1"),
            Self::NatGone => world.set_up(at),
            Self::DefaultRouteMissing => world.gateway(at)?.ip(&super::world::way_out()),
            Self::PublicLinkDown => world.outside.ip(&format!("link set dev {} up", port_of(at))),
            Self::Frozen
            | Self::VpcInDropped
            | Self::VpcOutDropped
            | Self::PublicInDropped
            | Self::PublicOutDropped
            | Self::MtuBlackHole => world.gateway(at)?.nft("delete table netdev fault\n"),
        }
    }
}

/// Drops at the named hooks, ahead of everything else, what matches.
fn dropping(hooks: &[&str], what: &str) -> String {
    format!("table netdev fault {{\n{}}}\n", chains(hooks, &format!("{what}drop")))
}

/// Chains with one rule at hooks such as `ingress eth0`.
pub fn chains(hooks: &[&str], rule: &str) -> String {
    let chain = |(number, hook): (usize, &&str)| {
        let (direction, link) = hook.split_once(' ').unwrap_or((hook, ""));
        format!(" chain c{number} {{ type filter hook {direction} device {link} priority -500; {rule}; }}\n")
    };
    hooks.iter().enumerate().map(chain).collect()
}
