//! How long a node sits on a dead gateway after it could know: from the verdict to the kernel's change.
//!
//! The harness cannot look into the agent, but it sees the probes on the gateway's wire and the nexthop's change in the kernel.
//! A probe has failed when it had no answer for [`PROBE_DEADLINE`]; the verdict falls with the last probe that had failed before
//! the change. What the agent needs beyond that moment is its own.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use egress_netlink::wire::{attributes, frames, kind};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::interruption;
use crate::network::{A, B, Network};

/// How long an agent waits for the answer to a probe (`REACHABILITY_DEADLINE` of the agent).
const PROBE_DEADLINE: Duration = Duration::from_millis(95);
/// Port of the probes.
const PROBE_PORT: u16 = 9181;
/// `RTNLGRP_NEXTHOP`.
const NEXTHOPS: u32 = 32;
/// `NHA_GATEWAY`.
const GATEWAY: u16 = 6;
/// Longest wait for one switch.
const DEADLINE: Duration = Duration::from_secs(20);

/// One switch.
#[derive(Clone, Copy, Debug)]
pub struct Switch {
    /// From the moment at which the deciding probe had failed to the kernel's change.
    pub after_verdict: Duration,
    /// From the first unanswered probe to the kernel's change.
    pub after_first_miss: Duration,
}

/// What watches the switches: the kernel on the node and the wire at gateway A.
pub struct Watch {
    nexthops: Socket,
    buffer: Vec<u8>,
    probes: mpsc::Receiver<Instant>,
}

impl Watch {
    /// Begins to watch.
    pub fn start(network: &Network) -> anyhow::Result<Self> {
        let mut nexthops = Socket::new(NETLINK_ROUTE)?;
        nexthops.bind_auto()?;
        nexthops.add_membership(NEXTHOPS)?;
        let probes = std::thread::scope(|scope| {
            scope
                .spawn(|| -> anyhow::Result<_> {
                    network.enter_a()?;
                    sniff()
                })
                .join()
                .map_err(|_| anyhow::anyhow!("no socket on gateway A"))?
        })?;
        Ok(Self { nexthops, buffer: vec![0; 64 << 10], probes })
    }

    /// Lets gateway A fall silent, waits until the node uses B, and wakes A again.
    pub fn measure(&mut self, network: &Network) -> anyhow::Result<Switch> {
        self.forget()?;
        network.silence()?;
        let silent = Instant::now();
        let changed = self.until_through(B);
        network.wake()?;
        let changed = changed?;
        let sent: Vec<Instant> = self.probes.try_iter().filter(|at| *at > silent).collect();
        let first = *sent.first().context("no probe was seen on the wire")?;
        let failed = |at: &&Instant| **at + PROBE_DEADLINE <= changed;
        let deciding = sent.iter().rev().find(failed).context("it left before a probe had failed")?;
        Ok(Switch {
            after_verdict: changed - (*deciding + PROBE_DEADLINE),
            after_first_miss: changed - first,
        })
    }

    /// What was heard until now is not about what comes.
    fn forget(&mut self) -> anyhow::Result<()> {
        setsockopt(&self.nexthops, sockopt::ReceiveTimeout, &TimeVal::milliseconds(1))?;
        while self.nexthops.recv_from(&mut &mut self.buffer[..], 0).is_ok() {}
        while self.probes.try_recv().is_ok() {}
        Ok(())
    }

    fn until_through(&mut self, gateway: Ipv4Addr) -> anyhow::Result<Instant> {
        setsockopt(&self.nexthops, sockopt::ReceiveTimeout, &TimeVal::seconds(1))?;
        let started = Instant::now();
        loop {
            interruption::check()?;
            ensure!(started.elapsed() < DEADLINE, "not through {gateway} after {DEADLINE:?}");
            let Ok((length, _)) = self.nexthops.recv_from(&mut &mut self.buffer[..], 0) else { continue };
            let heard = Instant::now();
            let is_it = |payload: &[u8]| {
                attributes(payload.get(8..).unwrap_or_default())
                    .any(|(kind, value)| kind == GATEWAY && value == gateway.octets())
            };
            let mut heard_frames = frames(&self.buffer[..length]).filter_map(Result::ok);
            if heard_frames.any(|frame| frame.kind == kind::NEW_NEXTHOP && is_it(frame.payload)) {
                return Ok(heard);
            }
        }
    }
}

/// Tells of every probe that arrives at the namespace of the calling thread, dropped there or not.
fn sniff() -> anyhow::Result<mpsc::Receiver<Instant>> {
    let wire = socket(AddressFamily::Packet, SockType::Datagram, SockFlag::empty(), SockProtocol::EthAll)?;
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new().name("wire".to_owned()).spawn(move || {
        let mut packet = [0; 128];
        while let Ok(length) = recv(wire.as_raw_fd(), &mut packet, nix::sys::socket::MsgFlags::empty()) {
            if is_probe(&packet[..length.min(packet.len())]) && sender.send(Instant::now()).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}

/// A SYN to the probe port; the packet begins with its IPv4 header.
fn is_probe(packet: &[u8]) -> bool {
    const TCP: u8 = 6;
    const SYN: u8 = 2;
    let Some(header) = packet.first().map(|byte| usize::from(byte & 0xf) * 4) else { return false };
    let port = packet.get(header + 2..header + 4);
    packet.get(9) == Some(&TCP)
        && port == Some(&PROBE_PORT.to_be_bytes()[..])
        && packet.get(header + 13) == Some(&SYN)
        && packet.get(16..20) == Some(&A.octets()[..])
}
