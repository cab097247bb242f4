//! Numbered datagrams at full speed, and of each one whether it arrived and with which source address.
//!
//! The source tells the way that a datagram took, the number whether one is missing. At most [`WINDOW`] are under way at a
//! time, so that no queue can overflow, on however busy a machine: what is missing was lost by the routing under test.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Datagrams under way. A processor's receive queue (`netdev_max_backlog`) takes 1,000, a socket's default buffer about 200.
const WINDOW: u64 = 128;

/// What has not arrived after that long will not: the paths are links of this machine.
const PATIENCE: Duration = Duration::from_millis(500);

/// Datagrams that are being sent and judged. Dropping it ends them too.
#[derive(Debug)]
pub struct Traffic {
    counts: Arc<Counts>,
    sender: JoinHandle<Vec<u64>>,
    receiver: JoinHandle<Vec<Arrival>>,
    started: Instant,
}

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    arrived: AtomicU64,
    stop: AtomicBool,
    all_sent: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct Arrival {
    number: u64,
    source: Ipv4Addr,
}

impl Traffic {
    /// Sends from `sender` to the targets in turn, until it is stopped; `receiver` is bound where all of them lead. Sockets
    /// stay in the network namespace in which they were made, whoever uses them.
    pub fn start(sender: UdpSocket, receiver: UdpSocket, targets: Vec<SocketAddrV4>) -> Self {
        let counts = Arc::new(Counts::default());
        let (ours, theirs) = (Arc::clone(&counts), Arc::clone(&counts));
        Self {
            counts,
            sender: std::thread::spawn(move || send(&sender, &targets, &ours)),
            receiver: std::thread::spawn(move || receive(&receiver, &theirs)),
            started: Instant::now(),
        }
    }

    /// Waits until so many more were sent; false when they were not within ten seconds.
    pub fn goes_on(&self, more: u64) -> bool {
        let goal = self.counts.sent.load(Ordering::Relaxed) + more;
        let begun = Instant::now();
        while self.counts.sent.load(Ordering::Relaxed) < goal {
            if begun.elapsed() > Duration::from_secs(10) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// Stops, waits for what is under way, and judges.
    pub fn stop(self) -> anyhow::Result<Verdict> {
        self.counts.stop.store(true, Ordering::Relaxed);
        let died = |_| anyhow::anyhow!("a thread of the traffic died");
        let refused = self.sender.join().map_err(died)?;
        let took = self.started.elapsed();
        self.counts.all_sent.store(true, Ordering::Relaxed);
        let arrivals = self.receiver.join().map_err(died)?;
        Ok(Verdict::new(self.counts.sent.load(Ordering::Relaxed), refused, &arrivals, took))
    }
}

/// What became of the datagrams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// How many were sent, those that the kernel refused included.
    pub sent: u64,
    /// Numbers of those that the kernel refused to send.
    pub refused: Vec<u64>,
    /// Numbers of those that did not arrive.
    pub lost: Vec<u64>,
    /// How many arrived more than once.
    pub repeated: u64,
    /// How many arrived with which source address.
    pub by_source: BTreeMap<Ipv4Addr, u64>,
    /// First and last number with that source address.
    pub range: BTreeMap<Ipv4Addr, (u64, u64)>,
    /// How long sending took.
    pub took: Duration,
}

impl Verdict {
    fn new(sent: u64, refused: Vec<u64>, arrivals: &[Arrival], took: Duration) -> Self {
        let mut verdict = Self {
            sent,
            refused,
            lost: Vec::new(),
            repeated: 0,
            by_source: BTreeMap::new(),
            range: BTreeMap::new(),
            took,
        };
        let mut seen = vec![false; usize::try_from(sent).unwrap_or(usize::MAX)];
        for number in &verdict.refused {
            if let Some(seen) = seen.get_mut(*number as usize) {
                *seen = true;
            }
        }
        for Arrival { number, source } in arrivals {
            let Some(seen) = seen.get_mut(*number as usize) else { continue };
            verdict.repeated += u64::from(*seen);
            *seen = true;
            *verdict.by_source.entry(*source).or_default() += 1;
            let range = verdict.range.entry(*source).or_insert((*number, *number));
            *range = (range.0.min(*number), range.1.max(*number));
        }
        verdict.lost = (0..sent).zip(&seen).filter(|(_, seen)| !**seen).map(|(number, _)| number).collect();
        verdict
    }

    /// How many took the way whose source address that is.
    pub fn from(&self, source: Ipv4Addr) -> u64 {
        self.by_source.get(&source).copied().unwrap_or_default()
    }

    /// Whether every datagram arrived exactly once, with one of these source addresses.
    pub fn is_whole(&self, sources: &[Ipv4Addr]) -> bool {
        self.refused.is_empty()
            && self.lost.is_empty()
            && self.repeated == 0
            && self.by_source.keys().all(|source| sources.contains(source))
    }
}

/// Returns the numbers of those that the kernel refused.
fn send(socket: &UdpSocket, targets: &[SocketAddrV4], counts: &Counts) -> Vec<u64> {
    let mut refused = Vec::new();
    let mut given_up = 0;
    for (number, target) in (0_u64..).zip(targets.iter().cycle()) {
        let begun = Instant::now();
        let under_way =
            |given_up: u64| number.saturating_sub(counts.arrived.load(Ordering::Relaxed) + given_up);
        while under_way(given_up) >= WINDOW {
            if begun.elapsed() > PATIENCE {
                given_up += under_way(given_up);
            }
            // Two threads that never rest would take both processors from what is tested.
            std::thread::sleep(Duration::from_micros(100));
        }
        if counts.stop.load(Ordering::Relaxed) {
            break;
        }
        if socket.send_to(&number.to_be_bytes(), target).is_err() {
            refused.push(number);
            given_up += 1;
        }
        counts.sent.store(number + 1, Ordering::Relaxed);
    }
    refused
}

fn receive(socket: &UdpSocket, counts: &Counts) -> Vec<Arrival> {
    // An error here shows as datagrams that are missing.
    let _set = socket.set_read_timeout(Some(PATIENCE));
    let mut arrivals = Vec::new();
    let mut buffer = [0; 16];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((8, sender)) => {
                let IpAddr::V4(source) = sender.ip() else { continue };
                let mut number = [0; 8];
                number.copy_from_slice(&buffer[..8]);
                arrivals.push(Arrival { number: u64::from_be_bytes(number), source });
                counts.arrived.fetch_add(1, Ordering::Relaxed);
            }
            // Silence: all that will come has come.
            Err(_) if counts.all_sent.load(Ordering::Relaxed) => return arrivals,
            Ok(_) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    #[test]
    fn a_verdict_tells_what_is_missing_repeated_and_astray() {
        let arrival = |number, source| Arrival { number, source };
        let arrivals = [arrival(0, ONE), arrival(1, OTHER), arrival(1, OTHER), arrival(4, ONE)];
        let verdict = Verdict::new(5, vec![2], &arrivals, Duration::ZERO);
        assert_eq!((verdict.lost.as_slice(), verdict.repeated), (&[3][..], 1));
        assert_eq!((verdict.from(ONE), verdict.from(OTHER), verdict.range[&ONE]), (2, 2, (0, 4)));
        assert!(!verdict.is_whole(&[ONE, OTHER]));
        let whole = Verdict::new(2, Vec::new(), &[arrival(1, ONE), arrival(0, ONE)], Duration::ZERO);
        assert!(whole.is_whole(&[ONE]) && !whole.is_whole(&[OTHER]));
    }

    #[test]
    fn over_loopback_every_datagram_arrives_once_and_its_source_is_told() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let std::net::SocketAddr::V4(target) = receiver.local_addr().unwrap() else { panic!() };
        let traffic = Traffic::start(UdpSocket::bind("127.0.0.1:0").unwrap(), receiver, vec![target]);
        assert!(traffic.goes_on(5_000));
        let verdict = traffic.stop().unwrap();
        assert!(verdict.is_whole(&[Ipv4Addr::LOCALHOST]), "{verdict:?}");
        assert_eq!(verdict.from(Ipv4Addr::LOCALHOST), verdict.sent);
    }
}
