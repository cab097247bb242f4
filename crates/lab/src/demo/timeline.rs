//! What a failover looked like to a client that made new connections all the time.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::Serialize;

use crate::traffic::Connection;

/// A connection that took longer waited for something: healthy ones take a few milliseconds.
const WAITED_MS: f64 = 300.0;

/// The measured failover. Times are milliseconds after the gateway lost power; before it they are negative.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Timeline {
    /// Connections made in all.
    pub connections: usize,
    /// Last answer that came through the gateway that died.
    pub last_through_dead_ms: Option<f64>,
    /// First answer through another gateway to a connection that was begun after the power went.
    pub first_through_other_ms: Option<f64>,
    /// From the loss of power to the first new connection that succeeded.
    pub gap_ms: Option<f64>,
    /// Connections that got no answer.
    pub failed_connections: usize,
    /// Connections that got one, but waited for it (a lost SYN is sent again after a second).
    pub waited_connections: usize,
    /// Longest wait of one that succeeded.
    pub longest_wait_ms: f64,
    /// Answers that named an address which is no gateway's.
    pub leaked_connections: usize,
    /// Answers by the address that the server saw.
    pub seen_as: BTreeMap<Ipv4Addr, usize>,
}

/// Reads the timeline off the connections. `dead` lost power at `killed_ms`; `gateways` are all addresses that are no leak.
pub fn timeline(
    connections: &[Connection],
    killed_ms: f64,
    dead: Ipv4Addr,
    gateways: &[Ipv4Addr],
) -> Timeline {
    let answered = || connections.iter().filter_map(|one| one.seen_as.map(|address| (one, address)));
    let mut seen_as = BTreeMap::new();
    for (_, address) in answered() {
        *seen_as.entry(address).or_default() += 1;
    }
    let last_through_dead_ms = answered()
        .filter(|(_, address)| *address == dead)
        .map(|(one, _)| one.ended_ms - killed_ms)
        .reduce(f64::max);
    let first_through_other_ms = answered()
        .filter(|(one, address)| *address != dead && one.begun_ms >= killed_ms)
        .map(|(one, _)| one.ended_ms - killed_ms)
        .reduce(f64::min);
    Timeline {
        connections: connections.len(),
        last_through_dead_ms,
        first_through_other_ms,
        gap_ms: first_through_other_ms,
        failed_connections: connections.iter().filter(|one| one.seen_as.is_none()).count(),
        waited_connections: answered().filter(|(one, _)| one.ended_ms - one.begun_ms > WAITED_MS).count(),
        longest_wait_ms: answered().map(|(one, _)| one.ended_ms - one.begun_ms).fold(0.0, f64::max),
        leaked_connections: answered().filter(|(_, address)| !gateways.contains(address)).count(),
        seen_as,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 100);
    const B: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 101);
    const NODE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 11);

    fn connection(begun_ms: f64, took_ms: f64, seen_as: Option<Ipv4Addr>) -> Connection {
        let error = seen_as.is_none().then(|| "timed out".to_owned());
        Connection { begun_ms, ended_ms: begun_ms + took_ms, seen_as, error }
    }

    #[test]
    fn gap_failures_waits_and_leaks_are_told_apart() {
        let connections = [
            connection(900.0, 2.0, Some(A)),
            connection(1010.0, 1020.0, Some(B)),
            connection(1200.0, 3000.0, None),
            connection(1380.0, 3.0, Some(B)),
            connection(1390.0, 3.0, Some(NODE)),
        ];
        let timeline = timeline(&connections, 1000.0, A, &[A, B]);
        assert_eq!(timeline.last_through_dead_ms, Some(-98.0));
        assert_eq!(timeline.gap_ms, Some(383.0));
        assert_eq!((timeline.failed_connections, timeline.waited_connections), (1, 1));
        assert_eq!(timeline.leaked_connections, 1);
        assert_eq!(timeline.seen_as[&B], 2);
    }

    #[test]
    fn without_a_switch_there_is_no_gap_to_tell() {
        let timeline = timeline(&[connection(1010.0, 3000.0, None)], 1000.0, A, &[A, B]);
        assert_eq!((timeline.gap_ms, timeline.failed_connections), (None, 1));
    }
}
