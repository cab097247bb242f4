//! Owned tasks: one that the process cannot live without ends the process when it ends.
//!
//! Order of stopping: the shutdown token is cancelled, ordinary tasks end, and only then the closing tasks are told to.
//! So a lease is given back when nothing that was done under it is under way any more. When an ordinary task does not end
//! in time the closing tasks are *not* told: a lease then runs out by itself, later but safely.

use std::error::Error;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

type Outcome = (&'static str, Result<(), Box<dyn Error + Send + Sync>>);

/// Why the process must end.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// A task ended although nobody had asked it to.
    #[error("task {0} ended, which the process cannot live without")]
    Ended(&'static str),
    /// A task failed.
    #[error("task {name} failed")]
    Failed {
        /// The task.
        name: &'static str,
        /// Its error.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A task panicked.
    #[error("a task panicked")]
    Panicked(#[source] JoinError),
    /// Tasks did not stop within the grace period.
    #[error("tasks did not stop within {0:?}")]
    Stuck(Duration),
}

/// The tasks of a process.
#[derive(Debug)]
pub struct Tasks {
    ordinary: JoinSet<Outcome>,
    closing: JoinSet<Outcome>,
    shutdown: CancellationToken,
    close: CancellationToken,
    grace: Duration,
}

impl Tasks {
    /// No tasks yet. `grace` is how long tasks may take to stop once `shutdown` is cancelled.
    pub fn new(shutdown: CancellationToken, grace: Duration) -> Self {
        Self {
            ordinary: JoinSet::new(),
            closing: JoinSet::new(),
            shutdown,
            close: CancellationToken::new(),
            grace,
        }
    }

    /// The token whose cancellation stops everything.
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Starts a task that must run until the shutdown token is cancelled, and end then.
    pub fn spawn<F, E>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.ordinary.spawn(async move { (name, task.await.map_err(Into::into)) });
    }

    /// Starts a task that must outlive the ordinary ones; the token it is given is cancelled after they have ended.
    pub fn spawn_closing<F, E>(&mut self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let task = task(self.close.clone());
        self.closing.spawn(async move { (name, task.await.map_err(Into::into)) });
    }

    /// Runs until shutdown or until a task ends by itself, then stops all of them in order.
    pub async fn run(mut self) -> Result<(), TaskError> {
        let first = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Ok(()),
            Some(ended) = self.ordinary.join_next() => unexpected(ended),
            Some(ended) = self.closing.join_next() => unexpected(ended),
            else => Ok(()),
        };
        if let Err(error) = &first {
            tracing::error!(%error, source = error.source().map(tracing::field::display), "stopping");
        }
        self.shutdown.cancel();
        let rest = self.stop().await;
        first.and(rest)
    }

    async fn stop(&mut self) -> Result<(), TaskError> {
        let ordinary = drain(&mut self.ordinary, self.grace).await;
        if matches!(ordinary, Err(TaskError::Stuck(_))) {
            return ordinary;
        }
        self.close.cancel();
        let closing = drain(&mut self.closing, self.grace).await;
        ordinary.and(closing)
    }
}

// The first failure is kept; the others still get their time to stop.
async fn drain(set: &mut JoinSet<Outcome>, grace: Duration) -> Result<(), TaskError> {
    let all = async {
        let mut result = Ok(());
        while let Some(ended) = set.join_next().await {
            let outcome = match ended {
                Ok((_, Ok(()))) => Ok(()),
                Ok((name, Err(source))) => Err(TaskError::Failed { name, source }),
                Err(error) => Err(TaskError::Panicked(error)),
            };
            result = result.and(outcome);
        }
        result
    };
    tokio::time::timeout(grace, all).await.unwrap_or(Err(TaskError::Stuck(grace)))
}

fn unexpected(ended: Result<Outcome, JoinError>) -> Result<(), TaskError> {
    match ended {
        Ok((name, Ok(()))) => Err(TaskError::Ended(name)),
        Ok((name, Err(source))) => Err(TaskError::Failed { name, source }),
        Err(error) => Err(TaskError::Panicked(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ends_stops_the_others_and_names_itself() {
        let mut tasks = Tasks::new(CancellationToken::new(), GRACE);
        let shutdown = tasks.shutdown();
        tasks.spawn("watcher", async { Ok::<_, Infallible>(()) });
        tasks.spawn("server", async move {
            shutdown.cancelled().await;
            Ok::<_, Infallible>(())
        });
        let error = tasks.run().await.unwrap_err();
        assert!(matches!(error, TaskError::Ended("watcher")), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn closing_tasks_hear_of_it_after_the_ordinary_ones_have_ended() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Tasks::new(CancellationToken::new(), GRACE);
        let (first, second, shutdown) = (order.clone(), order.clone(), tasks.shutdown());
        tasks.spawn_closing("lease", |close| async move {
            close.cancelled().await;
            second.lock().unwrap().push("lease");
            Ok::<_, Infallible>(())
        });
        tasks.spawn("worker", async move {
            shutdown.cancelled().await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            first.lock().unwrap().push("worker");
            Ok::<_, Infallible>(())
        });
        tasks.shutdown().cancel();
        tasks.run().await.unwrap();
        assert_eq!(*order.lock().unwrap(), ["worker", "lease"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stuck_worker_keeps_the_lease_from_being_given_back() {
        let released = Arc::new(Mutex::new(false));
        let mut tasks = Tasks::new(CancellationToken::new(), GRACE);
        let flag = released.clone();
        tasks.spawn_closing("lease", |close| async move {
            close.cancelled().await;
            *flag.lock().unwrap() = true;
            Ok::<_, Infallible>(())
        });
        tasks.spawn("worker", std::future::pending::<Result<(), Infallible>>());
        tasks.shutdown().cancel();
        assert!(matches!(tasks.run().await, Err(TaskError::Stuck(GRACE))));
        assert!(!*released.lock().unwrap());
    }
}
