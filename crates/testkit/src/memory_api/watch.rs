//! Watches: what happened after a version, and what happens from then on.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Clock, Reply};

/// Something that happened to an object.
#[derive(Clone, Debug)]
pub struct Change {
    /// Version of the whole store after it.
    pub revision: u64,
    /// Plural name of the kind, such as `nodes`.
    pub kind: String,
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub verb: &'static str,
    /// The object after it; for a deletion, as it was last.
    pub object: Value,
}

/// When a change reaches those who watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// At once.
    Now,
    /// So much later.
    After(Duration),
    /// Never: the event is lost, as if it had not happened.
    Never,
}

/// How somebody's watches see the world.
pub type Lens = Arc<dyn Fn(&Change) -> Delivery + Send + Sync>;

/// What a watcher asked for.
pub(super) struct Selection {
    pub(super) kind: String,
    pub(super) namespace: Option<String>,
    pub(super) labels: Vec<(String, String)>,
    pub(super) name: Option<String>,
}

impl Selection {
    pub(super) fn selects(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        let at_home = self.namespace.as_deref().is_none_or(|wanted| metadata["namespace"] == wanted);
        let named = self.name.as_deref().is_none_or(|wanted| metadata["name"] == wanted);
        let labelled =
            self.labels.iter().all(|(key, value)| metadata["labels"][key.as_str()] == value.as_str());
        at_home && named && labelled
    }
}

/// A change on its way to a watcher.
pub(super) struct Sent {
    change: Change,
    /// When it is delivered; `None` for one that is lost.
    due: Option<Timestamp>,
}

pub(super) struct Watcher {
    pub(super) selection: Selection,
    pub(super) lens: Lens,
    pub(super) sender: mpsc::UnboundedSender<Sent>,
}

impl Watcher {
    /// False once nobody listens any more.
    pub(super) fn tell(&self, change: &Change, now: Timestamp) -> bool {
        if change.kind != self.selection.kind || !self.selection.selects(&change.object) {
            return !self.sender.is_closed();
        }
        let due = match (self.lens)(change) {
            Delivery::Now => Some(now),
            Delivery::After(pause) => Some(now + pause),
            Delivery::Never => None,
        };
        self.sender.send(Sent { change: change.clone(), due }).is_ok()
    }
}

/// What a watch shows, and for how long.
pub(super) struct Show {
    pub(super) changes: mpsc::UnboundedReceiver<Sent>,
    /// Received, and not due yet.
    pub(super) held: Option<Sent>,
    pub(super) lasts: Duration,
    pub(super) clock: Clock,
    /// An object as it was asked for.
    pub(super) shown: Box<dyn Fn(&Value) -> Value + Send>,
    /// A bookmark at the version that everything was shown of; without one, at the present version.
    pub(super) bookmark: Box<dyn Fn(Option<u64>) -> Value + Send>,
    /// Version of what was shown last.
    pub(super) seen: u64,
}

/// The body of a watch: the changes as they come, and a bookmark when its time is over.
pub(super) fn body(show: Show) -> Reply {
    let end = tokio::time::Instant::now() + show.lasts;
    let lines = stream::unfold(Some(show), move |show| async move {
        let mut show = show?;
        match tokio::time::timeout_at(end, next(&mut show)).await {
            Ok(Some(change)) => {
                show.seen = change.revision;
                let line = json!({"type": change.verb, "object": (show.shown)(&change.object)});
                Some((line, Some(show)))
            }
            Ok(None) => None,
            Err(_over) => {
                let all = show.changes.is_empty() && show.held.is_none();
                let object = (show.bookmark)((!all).then_some(show.seen));
                Some((json!({"type": "BOOKMARK", "object": object}), None))
            }
        }
    });
    let frames = lines.map(|line| Ok::<_, Infallible>(Frame::data(Bytes::from(format!("{line}\n")))));
    StreamBody::new(frames).boxed_unsync()
}

// The next change that is delivered. One that waits for its time keeps those after it waiting, as a watch has an order.
async fn next(show: &mut Show) -> Option<Change> {
    loop {
        if show.held.is_none() {
            show.held = Some(show.changes.recv().await?);
        }
        let due = show.held.as_ref().and_then(|held| held.due);
        if let Some(due) = due {
            let pause = Duration::try_from(due.duration_since((show.clock)())).unwrap_or_default();
            tokio::time::sleep(pause).await;
        }
        let held = show.held.take().map(|held| held.change);
        if due.is_some() {
            return held;
        }
    }
}
