//! The packet oracle: what arrived, by source.
//!
//! Two independent records. The fabric's nftables set counts every packet, SYNs included, that left for the internet or the
//! provider's services, by source and destination. The internet itself notes each connection and each datagram of a stream.

use std::io::IoSliceMut;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::arrivals::{Connection, Datagram, Report, StreamReport, parse_payload};
use super::{STREAM_PORT, Seen, now_ms};
use crate::error::{Doing, LabError, Result};
use crate::netns;
use crate::network::CLOUD;
use crate::state::{Lab, StateDir};

/// Where the oracle is asked.
pub fn socket_path(dir: &StateDir) -> PathBuf {
    dir.join("oracle.sock")
}

pub(super) fn stream_socket() -> Result<UdpSocket> {
    let what = || format!("listen for datagrams on port {STREAM_PORT}");
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, STREAM_PORT)).doing(what)?;
    // The destination address of each: every address is ours.
    setsockopt(&socket, sockopt::Ipv4PacketInfo, &true).doing(what)?;
    // A burst must not be lost here. More than rmem_max is cut to it.
    setsockopt(&socket, sockopt::RcvBuf, &(8 << 20)).doing(what)?;
    Ok(socket)
}

pub(super) fn receive(socket: &UdpSocket, seen: &Seen) {
    let mut payload = [0; 512];
    let mut control = nix::cmsg_space!(nix::libc::in_pktinfo);
    loop {
        let mut parts = [IoSliceMut::new(&mut payload)];
        let message =
            recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
        let Ok(message) = message else { continue };
        let destination = message.cmsgs().ok().and_then(|mut all| {
            all.find_map(|one| match one {
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)))
                }
                _ => None,
            })
        });
        let (source, length) = (message.address.map(|address| address.ip()), message.bytes);
        if let (Some(source), Some(destination), Some((stream, sequence))) =
            (source, destination, payload.get(..length).and_then(parse_payload))
        {
            let datagram = Datagram { time_ms: now_ms(), source, destination, stream, sequence };
            seen.with(|arrivals| arrivals.datagram(datagram));
        }
    }
}

/// Answers `report <since_ms>` and `reset`, one a connection, until killed.
pub(super) async fn answer(path: &Path, seen: Seen) -> Result<()> {
    let what = || format!("listen at {}", path.display());
    if path.exists() {
        std::fs::remove_file(path).doing(what)?;
    }
    let listener = UnixListener::bind(path).doing(what)?;
    loop {
        let (stream, _) = listener.accept().await.doing(what)?;
        tokio::spawn(answer_one(stream, seen.clone()));
    }
}

async fn answer_one(stream: UnixStream, seen: Seen) {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    if BufReader::new(reader).read_line(&mut line).await.is_err() {
        return;
    }
    let mut words = line.split_whitespace();
    let answer = match words.next() {
        Some("report") => {
            let since = words.next().and_then(|word| word.parse().ok()).unwrap_or_default();
            serde_json::to_vec(&seen.with(|arrivals| arrivals.report(since))).unwrap_or_default()
        }
        Some("reset") => {
            seen.with(super::arrivals::Arrivals::reset);
            b"{}".to_vec()
        }
        _ => return,
    };
    // Whoever asked has gone: nothing to be done.
    let _gone = writer.write_all(&answer).await;
}

/// Packets of one protocol from one source to one destination, as the fabric counted them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketCount {
    /// The source.
    pub source: Ipv4Addr,
    /// The destination.
    pub destination: Ipv4Addr,
    /// "tcp", "udp", "icmp" or the protocol's number.
    pub protocol: String,
    /// How many, since the last reset.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What `egress-lab oracle -o json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Every packet since the last reset, whatever `--since` says.
    pub packets: Vec<PacketCount>,
    /// Datagrams to port 9999.
    pub streams: Vec<StreamReport>,
    /// Connections to the who-am-I server.
    pub connections: Vec<Connection>,
    /// Whether there were more arrivals than are kept.
    pub truncated: bool,
}

/// Asks both records.
pub fn ask(lab: &Lab, since_ms: u64) -> Result<Answer> {
    let text = request(&lab.dir, &format!("report {since_ms}\n"))?;
    let path = socket_path(&lab.dir);
    let report: Report =
        serde_json::from_str(&text).map_err(|source| LabError::State { path: path.clone(), source })?;
    let cloud = lab.namespace(CLOUD);
    let counted = netns::run(&cloud, "nft", &["-j", "list", "set", "ip", "fabric", "packets"])?;
    let counted = serde_json::from_str(&counted).map_err(|source| LabError::State { path, source })?;
    let Report { streams, connections, truncated } = report;
    Ok(Answer { packets: parse_packets(&counted), streams, connections, truncated })
}

/// Forgets everything that arrived.
pub fn reset(lab: &Lab) -> Result<()> {
    netns::nft(&lab.namespace(CLOUD), "flush set ip fabric packets\n")?;
    request(&lab.dir, "reset\n").map(drop)
}

/// The answer for a person.
pub fn print(answer: &Answer) {
    for count in &answer.packets {
        println!(
            "{:15} -> {:15} {:4} {:8} packets",
            count.source, count.destination, count.protocol, count.packets
        );
    }
    for stream in &answer.streams {
        let missing: u64 = stream.missing.iter().map(|gap| gap.to - gap.from + 1).sum();
        println!(
            "stream {} -> {}: {} received, {missing} missing",
            stream.stream, stream.destination, stream.received
        );
        for source in &stream.sources {
            println!("  from {}: {} packets", source.source, source.packets);
        }
    }
    println!("{} connections", answer.connections.len());
}

fn request(dir: &StateDir, words: &str) -> Result<String> {
    use std::io::{Read, Write};
    let path = socket_path(dir);
    let what = || "ask the oracle".to_owned();
    let mut stream = std::os::unix::net::UnixStream::connect(&path).doing(what)?;
    stream.write_all(words.as_bytes()).doing(what)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).doing(what)?;
    Ok(answer)
}

/// The elements of the fabric's set in nftables' JSON.
fn parse_packets(listing: &serde_json::Value) -> Vec<PacketCount> {
    let objects = listing["nftables"].as_array().into_iter().flatten();
    let elements = objects.filter_map(|object| object["set"]["elem"].as_array()).flatten();
    let counts = elements.filter_map(|element| {
        let (element, counter) = (&element["elem"], &element["elem"]["counter"]);
        let key = element["val"]["concat"].as_array()?;
        let word = |index: usize| match key.get(index)? {
            serde_json::Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        Some(PacketCount {
            source: word(0)?.parse().ok()?,
            destination: word(1)?.parse().ok()?,
            protocol: word(2)?,
            packets: counter["packets"].as_u64()?,
            bytes: counter["bytes"].as_u64()?,
        })
    });
    let mut counts: Vec<_> = counts.collect();
    counts.sort_by(|one, other| {
        (one.destination, one.source, &one.protocol).cmp(&(other.destination, other.source, &other.protocol))
    });
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_listing_of_nftables() {
        let listing = serde_json::json!({"nftables": [{"metainfo": {}}, {"set": {"elem": [
            {"elem": {"val": {"concat": ["203.0.113.11", "192.0.2.80", "tcp"]}, "counter": {"packets": 3, "bytes": 180}}},
            {"elem": {"val": {"concat": ["203.0.113.11", "192.0.2.10", 200]}, "counter": {"packets": 1, "bytes": 20}}},
        ]}}]});
        let counts = parse_packets(&listing);
        assert_eq!(counts.len(), 2);
        assert_eq!((counts[0].protocol.as_str(), counts[0].packets), ("200", 1));
        assert_eq!((counts[1].source, counts[1].packets), (Ipv4Addr::new(203, 0, 113, 11), 3));
    }
}
