//! What the kernel routes, seen from outside the program under test.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use egress_netlink::reading::{Lookup, Query};
use egress_netlink::wire::{attributes, frames, kind};
use egress_netlink::{CommandSocket, route};
use ipnet::Ipv4Net;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::interruption;

/// `RTN_UNICAST`: a route that goes somewhere. A guard that drops is none.
const UNICAST: u8 = 1;
/// `RTA_DST`.
const DESTINATION: u16 = 1;
/// Time between two looks at one destination. Shorter would take from the program what is to be measured.
const PAUSE: Duration = Duration::from_micros(500);
/// Destinations that are asked for before all are dumped.
const SAMPLES: usize = 16;

/// A view of the node's kernel.
pub struct Kernel {
    dumps: Socket,
    buffer: Vec<u8>,
    lookups: CommandSocket,
}

impl Kernel {
    /// Opens it, on the node of the calling thread.
    pub fn open() -> anyhow::Result<Self> {
        let mut dumps = Socket::new(NETLINK_ROUTE)?;
        dumps.bind_auto()?;
        dumps.set_netlink_get_strict_chk(true)?;
        Ok(Self { dumps, buffer: vec![0; 64 << 10], lookups: CommandSocket::open()? })
    }

    /// Waits until a dump of `table` shows a way for every destination, and returns when that dump had ended.
    ///
    /// A few destinations are asked for first, the last of the list among them: dumps of a table that is being filled would
    /// take the time that the program under test needs.
    pub fn until_routed(
        &mut self,
        table: u32,
        wanted: &[Ipv4Net],
        via: Ipv4Addr,
        deadline: Duration,
    ) -> anyhow::Result<Option<Instant>> {
        let goes = move |found: Option<Ipv4Addr>| found == Some(via);
        self.until(wanted, deadline, goes, |kernel| {
            let present = kernel.routed(table)?;
            Ok(wanted.iter().all(|one| present.binary_search(one).is_ok()))
        })
    }

    /// Waits until a dump of `table` shows none of the destinations.
    pub fn until_gone(
        &mut self,
        table: u32,
        unwanted: &[Ipv4Net],
        via: Ipv4Addr,
        deadline: Duration,
    ) -> anyhow::Result<Option<Instant>> {
        let went = move |found: Option<Ipv4Addr>| found != Some(via);
        self.until(unwanted, deadline, went, |kernel| {
            let present = kernel.routed(table)?;
            Ok(unwanted.iter().all(|one| present.binary_search(one).is_err()))
        })
    }

    fn until(
        &mut self,
        destinations: &[Ipv4Net],
        deadline: Duration,
        is_so: impl Fn(Option<Ipv4Addr>) -> bool,
        all_are_so: impl Fn(&mut Self) -> anyhow::Result<bool>,
    ) -> anyhow::Result<Option<Instant>> {
        let started = Instant::now();
        let step = (destinations.len() / SAMPLES).max(1);
        for destination in destinations.iter().rev().step_by(step) {
            while !is_so(self.gateway_to(*destination)?) {
                if started.elapsed() > deadline {
                    return Ok(None);
                }
                interruption::check()?;
                std::thread::sleep(PAUSE);
            }
        }
        while !all_are_so(self)? {
            if started.elapsed() > deadline {
                return Ok(None);
            }
            interruption::check()?;
            std::thread::sleep(PAUSE);
        }
        Ok(Some(Instant::now()))
    }

    fn gateway_to(&mut self, destination: Ipv4Net) -> anyhow::Result<Option<Ipv4Addr>> {
        match self.lookups.route_get(&Query::to(destination.addr()))? {
            Lookup::Found { gateway, .. } => Ok(gateway),
            Lookup::None(_) => Ok(None),
        }
    }

    /// Destinations in `table` that lead somewhere, in ascending order.
    pub fn routed(&mut self, table: u32) -> anyhow::Result<Vec<Ipv4Net>> {
        let mut message = Vec::new();
        route::dump(Some(table), None).write(1, 0, &mut message);
        self.dumps.send_to(&message, &SocketAddr::new(0, 0), 0)?;
        let mut found = Vec::new();
        loop {
            let (length, _) = self.dumps.recv_from(&mut &mut self.buffer[..], nix::libc::MSG_TRUNC)?;
            ensure!(length <= self.buffer.len(), "a datagram of {length} bytes");
            for frame in frames(&self.buffer[..length]) {
                let frame = frame?;
                match frame.kind {
                    kind::NEW_ROUTE => found.extend(destination(frame.payload)),
                    kind::DONE => {
                        found.sort_unstable();
                        return Ok(found);
                    }
                    // The table comes into being with its first route.
                    kind::ERROR => return Ok(Vec::new()),
                    other => bail!("message {other} in a dump of routes"),
                }
            }
        }
    }
}

/// `struct rtmsg`: family, prefix length, two more, table, protocol, scope, type, four bytes of flags; then attributes.
fn destination(body: &[u8]) -> Option<Ipv4Net> {
    let (length, what) = (*body.get(1)?, *body.get(7)?);
    let address = attributes(body.get(12..)?).find(|(kind, _)| *kind == DESTINATION)?.1;
    let address: [u8; 4] = address.try_into().ok().filter(|_| what == UNICAST)?;
    Ipv4Net::new(address.into(), length).ok()
}
