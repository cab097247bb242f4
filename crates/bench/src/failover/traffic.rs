//! New connections, one after the other on each node, and who answers them outside.
//!
//! Each carries two full-size segments each way, so that a path on which only small packets pass is no path; the answer begins
//! with the address that the outside sees, so that each tells which gateway it took.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{MissedTickBehavior, timeout};

use super::namespace::Namespace;

/// Time between two connections of a node: half of it is what a first success is seen too late on average.
pub const EVERY: Duration = Duration::from_millis(10);
/// A connection that takes longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes each way: two segments and a bit.
const LENGTH: usize = 3_000;
/// Where the outside answers.
const PORT: u16 = 8_000;
/// Destinations that are taken in turn.
const DESTINATIONS: u8 = 100;

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was begun.
    Begun {
        /// In the order of their beginnings.
        number: u64,
        /// When its first SYN was sent.
        at: Instant,
    },
    /// It came to its end.
    Ended {
        /// Which.
        number: u64,
        /// When the last byte of the answer was there, or it was known to have failed.
        at: Instant,
        /// The address that the outside saw; none for one that failed.
        seen: Option<Ipv4Addr>,
    },
}

/// A node's connections. Dropping it ends them.
#[derive(Debug)]
pub struct Connections {
    events: mpsc::Receiver<Event>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Connections {
    /// Begins one every [`EVERY`], from this node.
    pub fn start(node: &Namespace) -> anyhow::Result<Self> {
        let (sender, events) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread =
            living(node, "connections", move |runtime| runtime.block_on(connect(&sender, &stopped)))?;
        Ok(Self { events, stop, thread: Some(thread) })
    }

    /// What happened since it was last asked.
    pub fn news(&self) -> impl Iterator<Item = Event> {
        self.events.try_iter()
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            let _ended = thread.join();
        }
    }
}

/// Answers outside. Dropping it ends it.
#[derive(Debug)]
pub struct Answers {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Answers {
    /// Begins to answer at every address of `outside`.
    pub fn start(outside: &Namespace) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (sender, listens) = mpsc::channel();
        let thread = living(outside, "answers", move |runtime| {
            runtime.block_on(async {
                let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await;
                // Whoever waits for it has gone only when the whole run has.
                let _told = sender.send(listener.as_ref().map(|_| ()).map_err(ToString::to_string));
                if let Ok(listener) = listener {
                    answer_all(listener, &stopped).await;
                }
            });
        })?;
        listens.recv()?.map_err(anyhow::Error::msg)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            let _ended = thread.join();
        }
    }
}

/// A thread with a runtime of its own in a namespace: its sockets are made there.
fn living(
    namespace: &Namespace,
    name: &str,
    what: impl FnOnce(tokio::runtime::Runtime) + Send + 'static,
) -> anyhow::Result<JoinHandle<()>> {
    let enter = namespace.entrance()?;
    let (sender, entered) = mpsc::channel();
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let made = enter
            .enter()
            .and_then(|()| Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?));
        match made {
            Ok(runtime) => {
                let _told = sender.send(Ok(()));
                what(runtime);
            }
            Err(error) => {
                let _told = sender.send(Err(error));
            }
        }
    })?;
    entered.recv().context("a thread died")??;
    Ok(thread)
}

async fn connect(events: &mpsc::Sender<Event>, stop: &AtomicBool) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for (number, last) in (0_u64..).zip((1..=DESTINATIONS).cycle()) {
        ticks.tick().await;
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let target = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, last), PORT);
        let events = events.clone();
        // Its own end is in its patience.
        drop(tokio::spawn(async move {
            // Who asks no more is about to stop this.
            let _told = events.send(Event::Begun { number, at: Instant::now() });
            let seen = timeout(PATIENCE, exchange(target)).await;
            let seen = seen.ok().and_then(Result::ok);
            let _told = events.send(Event::Ended { number, at: Instant::now(), seen });
        }));
    }
}

async fn exchange(target: SocketAddrV4) -> std::io::Result<Ipv4Addr> {
    let mut stream = TcpStream::connect(target).await?;
    // Closed with a reset: a hundred a second would leave thousands of sockets waiting.
    stream.set_zero_linger()?;
    let mut bytes = [0; LENGTH];
    stream.write_all(&bytes).await?;
    stream.read_exact(&mut bytes).await?;
    Ok(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]))
}

async fn answer_all(listener: TcpListener, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        // Asked now and then whether it is to stop.
        let Ok(Ok((stream, caller))) = timeout(Duration::from_millis(200), listener.accept()).await else {
            continue;
        };
        // Its own end is in its patience.
        drop(tokio::spawn(timeout(PATIENCE, answer(stream, caller))));
    }
}

async fn answer(mut stream: TcpStream, caller: SocketAddr) -> std::io::Result<()> {
    let IpAddr::V4(address) = caller.ip() else { return Ok(()) };
    let mut bytes = [0; LENGTH];
    stream.read_exact(&mut bytes).await?;
    bytes[..4].copy_from_slice(&address.octets());
    stream.write_all(&bytes).await?;
    // The caller closes; were it this side, the port would stay taken for a minute.
    stream.read(&mut bytes).await.map(drop)
}
