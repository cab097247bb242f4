//! Much data over few connections.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::failover::namespace::Namespace;
use crate::interruption;

const TARGET: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PORT: u16 = 5_001;
const STREAMS: usize = 4;
/// As much as a socket takes at once.
const CHUNK: usize = 256 * 1024;
/// Small enough that the packets are the work, not the bytes.
const DATAGRAM: usize = 100;
/// Until every stream runs as fast as it will.
const WARM_UP: Duration = Duration::from_millis(500);
/// A stuck stream looks at the end this often.
const PATIENCE: Duration = Duration::from_millis(100);

/// Bits a second that arrive outside.
pub fn upload(node: &Namespace, outside: &Namespace, limit: Duration) -> anyhow::Result<f64> {
    streams(node, outside, limit, false)
}

/// Bits a second that arrive on the node.
pub fn download(node: &Namespace, outside: &Namespace, limit: Duration) -> anyhow::Result<f64> {
    streams(node, outside, limit, true)
}

fn streams(node: &Namespace, outside: &Namespace, limit: Duration, down: bool) -> anyhow::Result<f64> {
    let listener = outside.inside(|| TcpListener::bind((TARGET, PORT)))??;
    let mut pairs = Vec::new();
    for _ in 0..STREAMS {
        let near = node.inside(|| TcpStream::connect((TARGET, PORT)))?.context("a stream to the outside")?;
        let far = listener.accept()?.0;
        for end in [&near, &far] {
            end.set_read_timeout(Some(PATIENCE))?;
            end.set_write_timeout(Some(PATIENCE))?;
        }
        pairs.push(if down { (far, near) } else { (near, far) });
    }
    let (done, arrived) = (AtomicBool::new(false), AtomicU64::new(0));
    let bytes = std::thread::scope(|scope| {
        for (from, to) in &mut pairs {
            scope.spawn(|| pour(from, &done));
            scope.spawn(|| drain(to, &arrived, &done));
        }
        measure(&arrived, limit, &done)
    })?;
    Ok(bytes * 8.0)
}

fn pour(from: &mut TcpStream, done: &AtomicBool) {
    let chunk = vec![0; CHUNK];
    while !done.load(Ordering::Relaxed) {
        match from.write(&chunk) {
            Ok(_) => {}
            Err(error) if is_pause(&error) => {}
            Err(_) => return,
        }
    }
}

fn drain(to: &mut TcpStream, arrived: &AtomicU64, done: &AtomicBool) {
    let mut chunk = vec![0; CHUNK];
    while !done.load(Ordering::Relaxed) {
        match to.read(&mut chunk) {
            Ok(0) => return,
            Ok(size) => {
                arrived.fetch_add(size as u64, Ordering::Relaxed);
            }
            Err(error) if is_pause(&error) => {}
            Err(_) => return,
        }
    }
}

/// Datagrams a second that arrive outside, of as many as one sender can send.
pub fn datagrams(node: &Namespace, outside: &Namespace, limit: Duration) -> anyhow::Result<f64> {
    let to = outside.inside(|| UdpSocket::bind((TARGET, PORT)))??;
    to.set_read_timeout(Some(PATIENCE))?;
    let from = node.inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
    from.connect(SocketAddrV4::new(TARGET, PORT))?;
    let (done, arrived) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // One that finds no room is not sent: what arrives counts.
                let _full = from.send(&[0; DATAGRAM]);
            }
        });
        scope.spawn(|| {
            let mut datagram = [0; DATAGRAM];
            while !done.load(Ordering::Relaxed) {
                if to.recv(&mut datagram).is_ok() {
                    arrived.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        measure(&arrived, limit, &done)
    })
}

/// What came a second, after a warm-up; the others end, whatever comes of it.
fn measure(arrived: &AtomicU64, limit: Duration, done: &AtomicBool) -> anyhow::Result<f64> {
    let counted = count(arrived, limit);
    done.store(true, Ordering::Relaxed);
    counted
}

fn count(arrived: &AtomicU64, limit: Duration) -> anyhow::Result<f64> {
    interruption::sleep(WARM_UP)?;
    let (before, started) = (arrived.load(Ordering::Relaxed), Instant::now());
    interruption::sleep(limit)?;
    let (after, took) = (arrived.load(Ordering::Relaxed), started.elapsed());
    // Exact up to 2^53: petabytes.
    #[expect(clippy::cast_precision_loss, reason = "bytes of a few seconds")]
    let came = (after - before) as f64;
    Ok(came / took.as_secs_f64())
}

fn is_pause(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
