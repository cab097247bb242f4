//! The one way out of a process: here its calls are counted, and here it dies or stands still.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::world::World;

/// What happens to a process at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// SIGKILL: nothing was sent.
    BeforeSent,
    /// SIGKILL: it was done, nobody heard.
    ReplyLost,
    /// SIGKILL, with the reply in hand.
    AfterReply,
    /// SIGSTOP: sent when it wakes.
    StopBefore,
    /// SIGSTOP: it was done, the reply is read when it wakes.
    StopAfter,
    /// SIGTERM while the call is under way.
    Terminate,
}

/// A call on its way.
#[derive(Default)]
pub struct Pass {
    change: Option<String>,
    moment: Option<Moment>,
}

/// Of one process.
pub struct Gate {
    world: World,
    /// Of the process.
    pub name: String,
    pub shutdown: CancellationToken,
    dead: AtomicBool,
    stopped: watch::Sender<bool>,
    /// Told when the process is to be driven no further.
    halted: Notify,
    /// Calls that were let through while somebody else held the lease.
    pub stale: Mutex<Vec<String>>,
}

impl Gate {
    pub fn new(world: World, name: &str, shutdown: CancellationToken) -> Self {
        Self {
            world,
            name: name.to_owned(),
            shutdown,
            dead: AtomicBool::new(false),
            stopped: watch::Sender::new(false),
            halted: Notify::new(),
            stale: Mutex::default(),
        }
    }

    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    pub fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    pub fn wake(&self) {
        self.stopped.send_replace(false);
    }

    pub async fn halted(&self) {
        if !self.is_dead() && !self.is_stopped() {
            self.halted.notified().await;
        }
    }

    /// A call is about to leave; `change` is its name if it changes something. Nothing of a dead process leaves.
    pub async fn enter(&self, change: Option<String>) -> Pass {
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
        self.awake().await;
        let Some(change) = change else { return Pass::default() };
        let moment = self.world.count(&change);
        match moment {
            Some(Moment::BeforeSent) => self.die().await,
            Some(Moment::StopBefore) => {
                self.stop();
                self.awake().await;
            }
            Some(Moment::Terminate) => self.shutdown.cancel(),
            _ => {}
        }
        Pass { change: Some(change), moment }
    }

    /// Nothing holds the call any more.
    pub fn sends(&self, pass: &Pass) {
        let anothers = self.world.leader().is_some_and(|leader| leader != self.name);
        if let Some(change) = pass.change.as_ref().filter(|_| anothers) {
            self.stale.lock().unwrap().push(change.clone());
        }
    }

    /// It was done, and here is the reply.
    pub async fn leave(&self, pass: Pass) {
        match pass.moment {
            Some(Moment::ReplyLost) => self.die().await,
            Some(Moment::AfterReply) => self.mark_dead(),
            Some(Moment::StopAfter) => {
                self.stop();
                self.awake().await;
            }
            _ => {}
        }
    }

    async fn die(&self) {
        self.mark_dead();
        std::future::pending::<()>().await;
    }

    fn mark_dead(&self) {
        self.dead.store(true, Ordering::SeqCst);
        self.halted.notify_one();
    }

    fn stop(&self) {
        self.stopped.send_replace(true);
        self.halted.notify_one();
    }

    async fn awake(&self) {
        // The sender is ours: it never goes.
        let mut stopped = self.stopped.subscribe();
        let _goes_on = stopped.wait_for(|stopped| !stopped).await;
    }
}
