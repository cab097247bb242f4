//! Packets that no well-behaved client sends, and the look of a port scanner.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

pub const ACK: u8 = 0x10;
pub const RST: u8 = 0x04;
pub const FIN: u8 = 0x01;

const SCAN_BATCH: usize = 512;
const SCAN_WAIT: Duration = Duration::from_millis(100);

/// How a port answered a connection attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Open,
    Refused,
    Other,
}

/// Tries all ports, in the namespace of the calling thread; those that answered in whatever way.
pub fn scan(target: Ipv4Addr, ports: impl Iterator<Item = u16>) -> Vec<(u16, Answer)> {
    let ports: Vec<u16> = ports.collect();
    let mut answers = Vec::new();
    for batch in ports.chunks(SCAN_BATCH) {
        let mut pending: Vec<(u16, Socket)> = Vec::new();
        for port in batch {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("socket");
            socket.set_nonblocking(true).expect("nonblocking");
            // In progress, always: the outcome is read from the socket.
            let _ = socket.connect(&SockAddr::from(SocketAddr::from((target, *port))));
            pending.push((*port, socket));
        }
        let ends = Instant::now() + SCAN_WAIT;
        while let Some(left) = ends.checked_duration_since(Instant::now()) {
            let mut waiting: Vec<PollFd> =
                pending.iter().map(|(_, socket)| PollFd::new(socket.as_fd(), PollFlags::POLLOUT)).collect();
            poll(&mut waiting, PollTimeout::try_from(left).expect("timeout")).expect("poll");
            let ready: Vec<bool> = waiting.iter().map(|fd| fd.any() == Some(true)).collect();
            drop(waiting);
            let mut ready = ready.into_iter();
            pending.retain(|(port, socket)| {
                if ready.next() != Some(true) {
                    return true;
                }
                let answer = match socket.take_error().expect("outcome") {
                    None => Answer::Open,
                    Some(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Answer::Refused,
                    Some(_) => Answer::Other,
                };
                answers.push((*port, answer));
                false
            });
        }
    }
    answers
}

/// Sends one TCP segment of no connection and waits for a reset in answer; whether one came.
pub fn stray_segment(source: Ipv4Addr, target: SocketAddrV4, flags: u8) -> bool {
    const SOURCE_PORT: u16 = 45_678;
    let mut socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)).expect("raw socket");
    socket.bind(&SockAddr::from(SocketAddr::from((source, 0)))).expect("bind");
    let mut segment = [0_u8; 20];
    segment[..2].copy_from_slice(&SOURCE_PORT.to_be_bytes());
    segment[2..4].copy_from_slice(&target.port().to_be_bytes());
    segment[4..8].copy_from_slice(&1_u32.to_be_bytes());
    segment[8..12].copy_from_slice(&1_u32.to_be_bytes());
    segment[12] = 5 << 4;
    segment[13] = flags;
    segment[14..16].copy_from_slice(&1024_u16.to_be_bytes());
    let sum = tcp_checksum(source, *target.ip(), &segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    socket.send_to(&segment, &SockAddr::from(SocketAddr::from((*target.ip(), 0)))).expect("send");
    answered(&mut socket, |from, answer| {
        from == *target.ip()
            && answer.len() >= 20
            && answer[2..4] == SOURCE_PORT.to_be_bytes()
            && answer[13] & RST != 0
    })
}

/// Whether the target answers an ICMP echo within half a second.
pub fn ping(target: Ipv4Addr) -> bool {
    let mut socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).expect("raw socket");
    let mut request = [8, 0, 0, 0, 0x12, 0x34, 0, 1];
    let sum = checksum(&request);
    request[2..4].copy_from_slice(&sum.to_be_bytes());
    socket.send_to(&request, &SockAddr::from(SocketAddr::from((target, 0)))).expect("send");
    // The reply: type 0 with our identifier.
    answered(&mut socket, |_, answer| {
        answer.len() >= 8 && answer.starts_with(&[0, 0]) && answer[4..6] == [0x12, 0x34]
    })
}

/// Whether a packet comes within half a second that is it, by its source and what follows its IP header.
fn answered(socket: &mut Socket, is_it: impl Fn(Ipv4Addr, &[u8]) -> bool) -> bool {
    let ends = Instant::now() + Duration::from_millis(500);
    while let Some(left) = ends.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        socket.set_read_timeout(Some(left)).expect("timeout");
        let mut packet = [0_u8; 256];
        let Ok(length) = socket.read(&mut packet) else { return false };
        let header = usize::from(packet[0] & 15) * 4;
        let source = Ipv4Addr::new(packet[12], packet[13], packet[14], packet[15]);
        if packet.get(header..length).is_some_and(|answer| is_it(source, answer)) {
            return true;
        }
    }
    false
}

fn tcp_checksum(source: Ipv4Addr, target: Ipv4Addr, segment: &[u8]) -> u16 {
    let mut bytes = Vec::from(source.octets());
    bytes.extend(target.octets());
    bytes.extend([0, 6, 0, 20]);
    bytes.extend(segment);
    checksum(&bytes)
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
