//! What arrived at the internet, and what follows from it. Pure: times are given.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// Arrivals kept of each kind; beyond that they are only counted as truncated. Some 100 MB.
const MOST: usize = 2_000_000;

/// One accepted connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// When, milliseconds since 1970.
    pub time_ms: u64,
    /// From where.
    pub source: Ipv4Addr,
    /// To which address.
    pub destination: Ipv4Addr,
    /// And port.
    pub port: u16,
}

/// One datagram of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    pub time_ms: u64,
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub stream: String,
    pub sequence: u64,
}

/// Payload of a counted datagram: `<stream> <sequence>`.
pub fn parse_payload(payload: &[u8]) -> Option<(String, u64)> {
    let text = std::str::from_utf8(payload).ok()?;
    let (stream, sequence) = text.trim_end().split_once(' ')?;
    let fits = !stream.is_empty() && stream.len() <= 64;
    fits.then_some((stream.to_owned(), sequence.parse().ok()?))
}

/// Everything since the last reset.
#[derive(Debug, Default)]
pub struct Arrivals {
    connections: Vec<Connection>,
    connections_by_source: BTreeMap<Ipv4Addr, u64>,
    datagrams: Vec<Datagram>,
    truncated: bool,
}

/// Datagrams of one stream with one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceCount {
    /// The source.
    pub source: Ipv4Addr,
    /// How many came from there.
    pub packets: u64,
    /// Arrival of the first, milliseconds since 1970.
    pub first_ms: u64,
    /// Arrival of the last.
    pub last_ms: u64,
}

/// Sequence numbers that did not arrive, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// First missing number.
    pub from: u64,
    /// Last missing number.
    pub to: u64,
}

/// One stream to one destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamReport {
    /// Its name.
    pub stream: String,
    /// Where it went.
    pub destination: Ipv4Addr,
    /// From where.
    pub sources: Vec<SourceCount>,
    /// Different sequence numbers that arrived.
    pub received: u64,
    /// Datagrams whose number had arrived before.
    pub duplicates: u64,
    /// Lowest number that arrived.
    pub lowest: u64,
    /// Highest number that arrived.
    pub highest: u64,
    /// What is missing between them.
    pub missing: Vec<Gap>,
    /// Arrival of the first, milliseconds since 1970.
    pub first_ms: u64,
    /// Arrival of the last.
    pub last_ms: u64,
}

/// What the oracle says of arrivals.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Datagrams to port 9999.
    pub streams: Vec<StreamReport>,
    /// Connections to the who-am-I server, in the order of their arrival.
    pub connections: Vec<Connection>,
    /// Whether there were more arrivals than are kept.
    pub truncated: bool,
}

impl Arrivals {
    /// Notes a connection; how many there were from that source.
    pub fn connection(&mut self, connection: Connection) -> u64 {
        let count = self.connections_by_source.entry(connection.source).or_default();
        *count += 1;
        let count = *count;
        if self.connections.len() < MOST {
            self.connections.push(connection);
        } else {
            self.truncated = true;
        }
        count
    }

    /// Notes a datagram.
    pub fn datagram(&mut self, datagram: Datagram) {
        if self.datagrams.len() < MOST {
            self.datagrams.push(datagram);
        } else {
            self.truncated = true;
        }
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// What arrived at `since_ms` or later.
    pub fn report(&self, since_ms: u64) -> Report {
        let mut streams: BTreeMap<(&str, Ipv4Addr), Vec<&Datagram>> = BTreeMap::new();
        for datagram in self.datagrams.iter().filter(|one| one.time_ms >= since_ms) {
            streams.entry((&datagram.stream, datagram.destination)).or_default().push(datagram);
        }
        let connections = self.connections.iter().filter(|one| one.time_ms >= since_ms).cloned().collect();
        let streams =
            streams.into_iter().map(|((stream, destination), all)| stream_report(stream, destination, &all));
        Report { streams: streams.collect(), connections, truncated: self.truncated }
    }
}

fn stream_report(stream: &str, destination: Ipv4Addr, datagrams: &[&Datagram]) -> StreamReport {
    let mut sources: BTreeMap<Ipv4Addr, SourceCount> = BTreeMap::new();
    let mut numbers = BTreeSet::new();
    for datagram in datagrams {
        numbers.insert(datagram.sequence);
        let (source, time_ms) = (datagram.source, datagram.time_ms);
        let count = sources.entry(source).or_insert(SourceCount {
            source,
            packets: 0,
            first_ms: time_ms,
            last_ms: time_ms,
        });
        count.packets += 1;
        count.last_ms = count.last_ms.max(time_ms);
    }
    let received = numbers.len() as u64;
    let numbers: Vec<_> = numbers.into_iter().collect();
    let missing = numbers.windows(2).filter(|pair| pair[1] - pair[0] > 1);
    let missing = missing.map(|pair| Gap { from: pair[0] + 1, to: pair[1] - 1 }).collect();
    StreamReport {
        stream: stream.to_owned(),
        destination,
        sources: sources.into_values().collect(),
        received,
        duplicates: datagrams.len() as u64 - received,
        lowest: numbers.first().copied().unwrap_or_default(),
        highest: numbers.last().copied().unwrap_or_default(),
        missing,
        first_ms: datagrams.iter().map(|one| one.time_ms).min().unwrap_or_default(),
        last_ms: datagrams.iter().map(|one| one.time_ms).max().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
    const NODE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 11);
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);

    fn datagram(time_ms: u64, source: Ipv4Addr, sequence: u64) -> Datagram {
        Datagram { time_ms, source, destination: HERE, stream: "s".into(), sequence }
    }

    #[test]
    fn a_payload_is_a_name_and_a_number() {
        assert_eq!(parse_payload(b"pod-1 42\n"), Some(("pod-1".into(), 42)));
        for wrong in [b"".as_slice(), b"pod-1", b" 1", b"a b", b"a -1", b"\xff 1"] {
            assert_eq!(parse_payload(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn gaps_duplicates_and_sources_are_told_apart() {
        let mut arrivals = Arrivals::default();
        for one in
            [datagram(10, GATEWAY, 1), datagram(20, GATEWAY, 2), datagram(50, NODE, 6), datagram(60, NODE, 6)]
        {
            arrivals.datagram(one);
        }
        let report = arrivals.report(0);
        let stream = &report.streams[0];
        assert_eq!((stream.received, stream.duplicates, stream.lowest, stream.highest), (3, 1, 1, 6));
        assert_eq!(stream.missing, [Gap { from: 3, to: 5 }]);
        let sources: Vec<_> =
            stream.sources.iter().map(|one| (one.source, one.packets, one.first_ms, one.last_ms)).collect();
        assert_eq!(sources, [(GATEWAY, 2, 10, 20), (NODE, 2, 50, 60)]);
    }

    #[test]
    fn what_came_before_is_left_out_and_reset_forgets() {
        let mut arrivals = Arrivals::default();
        arrivals.datagram(datagram(10, NODE, 1));
        arrivals.datagram(datagram(20, NODE, 2));
        let connection = Connection { time_ms: 10, source: NODE, destination: HERE, port: 80 };
        assert_eq!(arrivals.connection(connection.clone()), 1);
        assert_eq!(arrivals.connection(connection), 2);
        let report = arrivals.report(15);
        assert_eq!((report.streams[0].received, report.connections.len()), (1, 0));
        arrivals.reset();
        assert_eq!(arrivals.report(0), Report::default());
    }
}
