//! The command socket: asks and changes the kernel.
//!
//! [`CommandSocket`] blocks. [`Commands`] is its face for async code: one thread owns the socket and serves one
//! request after the other.
//!
//! Cancel safety: a request whose future is dropped, or that ran into its deadline, is not taken back once begun; in the
//! queue it is skipped. It may have happened, so after dropping one the caller takes a new snapshot. No answer is ever
//! taken for that of another request.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use egress_routing::kernel_state::{Change, Observed};
use tokio::sync::{mpsc, oneshot};

use crate::apply::Applied;
use crate::connection::{Connection, RECEIVE_BUFFER};
use crate::error::{ChangeError, Error};
use crate::exchange::Reply;
use crate::leftover::Leftover;
use crate::ownership::Claim;
use crate::reading::{Interface, Lookup, MainRoute, Query};
use crate::rule::SeenRule;
use crate::wire::{Frame, Request};

/// How long one exchange with the kernel (a batch or a dump) may take. 10,000 routes are dumped in 17 ms; the margin is
/// for a kernel whose configuration lock others hold.
const EXCHANGE: Duration = Duration::from_secs(2);

/// How long an async caller waits for a whole request, time in the queue included.
const REQUEST: Duration = Duration::from_secs(10);

/// How often a dump is begun again when the tables change meanwhile.
const ATTEMPTS: usize = 5;

/// Requests that wait for the thread. The agent has one loop that asks one thing at a time; this is room for a status
/// page and a shutdown beside it.
const QUEUE: usize = 16;

/// A blocking conversation with the kernel, in the network namespace of the thread that uses it.
pub struct CommandSocket {
    connection: Option<Connection>,
    port: Arc<AtomicU32>,
    /// Exchanges that came to an end, well or not.
    exchanges: Arc<AtomicU64>,
    receive_buffer: usize,
    deadline: Duration,
}

impl CommandSocket {
    /// Opens the socket.
    pub fn open() -> Result<Self, Error> {
        Self::with_limits(RECEIVE_BUFFER, EXCHANGE)
    }

    pub(crate) fn with_limits(receive_buffer: usize, deadline: Duration) -> Result<Self, Error> {
        let (port, exchanges) = Default::default();
        let mut socket = Self { connection: None, port, exchanges, receive_buffer, deadline };
        socket.connection()?;
        Ok(socket)
    }

    fn connection(&mut self) -> Result<&mut Connection, Error> {
        if self.connection.is_none() {
            let connection = Connection::open(self.receive_buffer)?;
            self.port.store(connection.port(), Ordering::Relaxed);
            self.connection = Some(connection);
        }
        self.connection.as_mut().ok_or(Error::Unavailable)
    }

    /// One batch; a broken socket is thrown away.
    pub(crate) fn exchange(
        &mut self,
        requests: &[Request],
        on_data: impl FnMut(&Frame<'_>),
    ) -> Result<Vec<Reply>, Error> {
        let deadline = self.deadline;
        let result = self.connection()?.exchange(requests, deadline, on_data);
        self.exchanges.fetch_add(1, Ordering::Relaxed);
        if result.as_ref().is_err_and(Error::spoils_socket) {
            self.connection = None;
        }
        result
    }

    /// One dump; what `parse` makes nothing of is left out.
    pub(crate) fn dump<T>(
        &mut self,
        request: &Request,
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        for _ in 0..ATTEMPTS {
            let mut found = Vec::new();
            let replies = self.exchange(std::slice::from_ref(request), |frame| {
                let value = parse(frame.payload);
                if value.is_none() {
                    tracing::debug!(kind = frame.kind, "a message of a dump means nothing to us");
                }
                found.extend(value);
            })?;
            match replies.into_iter().next() {
                Some(Reply::Done) => return Ok(found),
                Some(Reply::Refused(error)) => return Err(error.into()),
                Some(Reply::Interrupted) | None => {}
            }
        }
        Err(Error::Unsteady)
    }
}

type Job = Box<dyn FnOnce(&mut CommandSocket) + Send>;

/// The command socket for async code; cloning it shares the one thread, which ends with the last clone.
#[derive(Clone)]
pub struct Commands {
    jobs: mpsc::Sender<Job>,
    port: Arc<AtomicU32>,
    exchanges: Arc<AtomicU64>,
    answering: Arc<AtomicBool>,
    patience: Duration,
}

impl Commands {
    /// Opens the socket and starts its thread, in the network namespace of the calling thread.
    pub fn start() -> Result<Self, Error> {
        Self::with_patience(REQUEST)
    }

    fn with_patience(patience: Duration) -> Result<Self, Error> {
        let mut socket = CommandSocket::open()?;
        let (port, exchanges) = (Arc::clone(&socket.port), Arc::clone(&socket.exchanges));
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        std::thread::Builder::new()
            .name("netlink".to_owned())
            .spawn(move || {
                while let Some(job) = queue.blocking_recv() {
                    job(&mut socket);
                }
            })
            .map_err(|error: io::Error| Error::Open(error))?;
        Ok(Self { jobs, port, exchanges, answering: Arc::new(AtomicBool::new(true)), patience })
    }

    /// Whether the thread served the last request in time, or at least got on meanwhile: false while it hangs in the kernel,
    /// and when it is gone. A kernel that is slow to answer the thread is none of that, nor are ten thousand routes that take
    /// longer to write than anybody waits.
    pub fn is_answering(&self) -> bool {
        self.answering.load(Ordering::Relaxed)
    }

    /// Port number of the socket as of now: notifications about our own changes carry it.
    pub fn port(&self) -> u32 {
        self.port.load(Ordering::Relaxed)
    }

    /// Brings changes into the kernel; see [`CommandSocket::apply`].
    pub async fn apply(&self, changes: impl Into<Arc<Vec<Change>>>) -> Vec<Applied> {
        let changes = changes.into();
        let count = changes.len();
        match self.run(move |socket| socket.apply(&changes)).await {
            Ok(outcomes) => outcomes,
            Err(error) => vec![Err(ChangeError::Unknown { category: error.category() }); count],
        }
    }

    /// What the kernel holds of ours; see [`CommandSocket::snapshot`].
    pub async fn snapshot(&self, claim: Claim) -> Result<Observed, Error> {
        self.run(move |socket| socket.snapshot(&claim)).await?
    }

    /// The node's links with their addresses.
    pub async fn interfaces(&self) -> Result<Vec<Interface>, Error> {
        self.run(CommandSocket::interfaces).await?
    }

    /// The main routing table.
    pub async fn main_routes(&self) -> Result<Vec<MainRoute>, Error> {
        self.run(CommandSocket::main_routes).await?
    }

    /// All IPv4 rules, whoever made them, in the kernel's order.
    pub async fn rules(&self) -> Result<Vec<SeenRule>, Error> {
        self.run(CommandSocket::rules).await?
    }

    /// The kernel's own route lookup.
    pub async fn route_get(&self, query: Query) -> Result<Lookup, Error> {
        self.run(move |socket| socket.route_get(&query)).await?
    }

    /// Deletes the older operator's routes; see [`CommandSocket::remove_leftovers`].
    pub async fn remove_leftovers(&self, leftovers: Vec<Leftover>) -> Vec<Applied> {
        let count = leftovers.len();
        match self.run(move |socket| socket.remove_leftovers(&leftovers)).await {
            Ok(outcomes) => outcomes,
            Err(error) => vec![Err(ChangeError::Unknown { category: error.category() }); count],
        }
    }

    /// Makes the kernel ask anew for a neighbour's Ethernet address; see [`CommandSocket::forget_neighbour`].
    pub async fn forget_neighbour(&self, interface: u32, address: Ipv4Addr) -> Result<bool, Error> {
        self.run(move |socket| socket.forget_neighbour(interface, address)).await?
    }

    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut CommandSocket) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |socket| {
            // What nobody waits for any more is not begun.
            if !answer.is_closed() {
                drop(answer.send(job(socket)));
            }
        });
        let served = async {
            self.jobs.send(job).await.map_err(|_| Error::Unavailable)?;
            answered.await.map_err(|_| Error::Unavailable)
        };
        let before = self.exchanges.load(Ordering::Relaxed);
        let answer = tokio::time::timeout(self.patience, served).await;
        let is_at_work = || self.exchanges.load(Ordering::Relaxed) != before;
        let is_answering = answer.as_ref().map_or_else(|_| is_at_work(), Result::is_ok);
        self.answering.store(is_answering, Ordering::Relaxed);
        answer.unwrap_or(Err(Error::Deadline(self.patience)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_that_gets_on_with_more_than_anybody_waits_for_is_answering_and_one_that_hangs_is_not() {
        let commands = Commands::with_patience(Duration::from_secs(1)).unwrap();
        let (finish, finished) = std::sync::mpsc::channel::<()>();
        let long = commands.run(move |socket| {
            let links = socket.interfaces();
            // Until nobody can say so any more.
            finished.recv().unwrap_err();
            links
        });
        assert!(matches!(long.await, Err(Error::Deadline(_))));
        assert!(commands.is_answering(), "it read the links meanwhile");

        assert!(matches!(commands.interfaces().await, Err(Error::Deadline(_))));
        assert!(!commands.is_answering(), "it did nothing for as long as anybody waits");

        drop(finish);
        commands.interfaces().await.unwrap();
        assert!(commands.is_answering());
    }
}
