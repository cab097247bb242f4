//! Whether this node itself is cut off: it reaches no gateway, and nobody else in the VPC either.
//!
//! Responsibility: whom to ask, and asking them once. Its own trouble is no vote against anybody, and no reason to move. The API
//! server is never asked: it may be what is away, and it is not in the VPC.
//!
//! Asked are other nodes and whom the kernel knows on the VPC link, a few of them at random: who answers, by accepting or
//! refusing a connection, shows that the node is connected.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use egress_health::Outcome;
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::probe::{self, connect_from};

/// The kernel's neighbours, of every link.
const TABLE: &str = "/proc/net/arp";

/// `ATF_COM`: its Ethernet address is known, so it answered once.
const COMPLETE: u32 = 0x2;

/// So many are asked at a time. When a whole cluster has lost its gateways, a node is asked by as many others on average.
const ASKED: usize = 4;

/// The kubelet's port: a node accepts or refuses, and so does whoever has no such port.
const PORT: u16 = 10250;

/// How long they may take. Within a VPC an answer takes well under a millisecond.
const DEADLINE: Duration = Duration::from_millis(500);

/// Pause between two tests, while no gateway answers.
pub const PAUSE: Duration = Duration::from_secs(1);

/// Neighbours on the link of that name that the kernel knows; none where it can't be read.
pub fn known_neighbours(link: &str) -> BTreeSet<Ipv4Addr> {
    std::fs::read_to_string(TABLE).map(|table| neighbours_in(&table, link)).unwrap_or_default()
}

/// `address type flags hardware-address mask link`, after a line of headings.
fn neighbours_in(table: &str, link: &str) -> BTreeSet<Ipv4Addr> {
    let neighbour = |line: &str| {
        let mut fields = line.split_whitespace();
        let (address, flags) = (fields.next()?, fields.nth(1)?);
        let flags = u32::from_str_radix(flags.strip_prefix("0x")?, 16).ok()?;
        let is_known = flags & COMPLETE != 0 && fields.last() == Some(link);
        if is_known { address.parse().ok() } else { None }
    };
    table.lines().skip(1).filter_map(neighbour).collect()
}

/// Asks a few of `neighbours` from `source`, up to the first answer. Cancel safe.
pub async fn test(source: Ipv4Addr, neighbours: &BTreeSet<Ipv4Addr>) -> Vec<Outcome> {
    let mut chosen: Vec<Ipv4Addr> = neighbours.iter().copied().collect();
    fastrand::shuffle(&mut chosen);
    let ask = |address| connect_from(source, SocketAddrV4::new(address, PORT), DEADLINE);
    let mut answers: FuturesUnordered<_> = chosen.into_iter().take(ASKED).map(ask).collect();
    let mut outcomes = Vec::new();
    while let Some(outcome) = answers.next().await {
        match outcome {
            probe::Outcome::Answered => outcomes.push(Outcome::Answered),
            probe::Outcome::Missed(_) => outcomes.push(Outcome::Missed),
            // The node's own trouble: it did not ask.
            probe::Outcome::Inconclusive(_) => {}
        }
        if outcomes.last() == Some(&Outcome::Answered) {
            break;
        }
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
IP address       HW type     Flags       HW address            Mask     Device
10.116.0.5       0x1         0x2         02:00:0a:74:00:05     *        eth1
10.116.0.9       0x1         0x0         00:00:00:00:00:00     *        eth1
203.0.113.1      0x1         0x2         02:00:00:00:00:01     *        eth0
10.116.0.12      0x1         0x6         02:00:0a:74:00:0c     *        eth1
";

    #[test]
    fn neighbours_are_those_that_answered_once_on_that_link() {
        let found = neighbours_in(TABLE, "eth1");
        assert_eq!(found, ["10.116.0.5", "10.116.0.12"].map(|text| text.parse().unwrap()).into());
        assert!(
            neighbours_in("", "eth1").is_empty() && neighbours_in("heading\nrubbish\n", "eth1").is_empty()
        );
    }

    #[tokio::test]
    async fn one_that_refuses_is_an_answer_and_who_was_not_asked_is_none() {
        let source = Ipv4Addr::LOCALHOST;
        let refuses = Ipv4Addr::new(127, 0, 0, 2);
        assert_eq!(test(source, &[refuses].into()).await, [Outcome::Answered]);
        assert_eq!(test(source, &BTreeSet::new()).await, []);
        // An address that is not this node's: it did not ask.
        assert_eq!(test(Ipv4Addr::new(192, 0, 2, 1), &[refuses].into()).await, []);
    }
}
