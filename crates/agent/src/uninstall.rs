//! Whether the agent is being uninstalled, as opposed to restarted or upgraded.
//!
//! Routes outlive the agent (I6); only the deletion of its DaemonSet, or of the namespace that it is in, takes them along. The
//! proof is a watch that saw the DaemonSet and then saw it go, or, after it was seen, a read that is answered "gone" or finds the
//! namespace on its way out: there Kubernetes deletes the pods first and the DaemonSet when none is left, and nobody can take the
//! deletion of a namespace back. An API server that does not answer, that refuses the agent, or in which there never was such a
//! DaemonSet (another name, an agent started by hand) proves nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::task::JoinSet;

/// Of the DaemonSet nothing is read but when its deletion began.
type Seen = PartialObjectMeta<DaemonSet>;

/// How long the last question before the end may take.
const LAST_QUESTION: Duration = Duration::from_secs(3);

/// Follows the agent's own DaemonSet.
pub struct Uninstall {
    api: Api<Seen>,
    name: String,
    namespaces: Api<PartialObjectMeta<Namespace>>,
    namespace: String,
    presence: Arc<Mutex<Presence>>,
}

impl Uninstall {
    /// Begins to follow DaemonSet `name`; an empty name is "never uninstalled".
    pub fn follow(client: &Client, namespace: &str, name: &str, tasks: &mut JoinSet<()>) -> Self {
        let api: Api<Seen> = Api::namespaced(client.clone(), namespace);
        let presence = Arc::default();
        if !name.is_empty() {
            tasks.spawn(watch(api.clone(), name.to_owned(), Arc::clone(&presence)));
        }
        let namespaces = Api::all(client.clone());
        Self { api, name: name.to_owned(), namespaces, namespace: namespace.to_owned(), presence }
    }

    /// Whether the DaemonSet is gone, or it or its namespace is being deleted. Asked when the agent is told to end.
    pub async fn is_confirmed(&self) -> bool {
        let Presence { was_there, going, .. } = *self.presence.lock().unwrap_or_else(PoisonError::into_inner);
        // Never seen: there is nothing that could have gone.
        if self.name.is_empty() || !was_there || going {
            return going;
        }
        match tokio::time::timeout(LAST_QUESTION, self.asked()).await {
            Ok(Ok(going)) => going,
            Ok(Err(error)) => {
                tracing::info!(%error, "no word about the DaemonSet; the routes stay");
                false
            }
            Err(_) => {
                tracing::info!("the API server does not answer; the routes stay");
                false
            }
        }
    }

    async fn asked(&self) -> kube::Result<bool> {
        match self.api.get_opt(&self.name).await? {
            Some(daemon_set) if daemon_set.metadata.deletion_timestamp.is_none() => {
                let namespace = self.namespaces.get(&self.namespace).await?;
                Ok(namespace.metadata.deletion_timestamp.is_some())
            }
            _ => Ok(true),
        }
    }
}

async fn watch(api: Api<Seen>, name: String, presence: Arc<Mutex<Presence>>) {
    let config = egress_runtime::kubernetes::watch_settings().fields(&format!("metadata.name={name}"));
    let mut events = watcher(api, config).default_backoff().boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => presence.lock().unwrap_or_else(PoisonError::into_inner).after(&event),
            Err(error) => tracing::debug!(%error, "watch of the DaemonSet broke"),
        }
    }
}

/// What the watch has shown so far.
#[derive(Clone, Copy, Debug, Default)]
struct Presence {
    was_there: bool,
    in_this_list: bool,
    going: bool,
}

impl Presence {
    /// Takes one event.
    fn after(&mut self, event: &watcher::Event<Seen>) {
        match event {
            watcher::Event::Init => self.in_this_list = false,
            watcher::Event::InitApply(daemon_set) | watcher::Event::Apply(daemon_set) => {
                self.was_there = true;
                self.in_this_list = true;
                self.going = daemon_set.metadata.deletion_timestamp.is_some();
            }
            // A list without it proves something only where it was seen before: an agent started by hand has none.
            watcher::Event::InitDone => self.going |= self.was_there && !self.in_this_list,
            watcher::Event::Delete(_) => self.going = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use kube::runtime::watcher::Event;

    use super::*;

    fn going() -> Seen {
        let mut daemon_set = Seen::default();
        daemon_set.metadata.deletion_timestamp = Some(Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
        daemon_set
    }

    fn verdict(events: &[Event<Seen>]) -> bool {
        let mut presence = Presence::default();
        for event in events {
            presence.after(event);
        }
        presence.going
    }

    #[test]
    fn only_a_daemonset_that_was_seen_and_went_is_an_uninstall() {
        let there = Seen::default;
        assert!(!verdict(&[Event::Init, Event::InitApply(there()), Event::InitDone]));
        assert!(!verdict(&[Event::Init, Event::InitDone]), "never seen");
        assert!(verdict(&[Event::InitApply(there()), Event::InitDone, Event::Delete(there())]));
        assert!(verdict(&[Event::InitApply(there()), Event::InitDone, Event::Apply(going())]));
        assert!(
            verdict(&[Event::InitApply(there()), Event::InitDone, Event::Init, Event::InitDone]),
            "missed"
        );
        assert!(!verdict(&[Event::Delete(there()), Event::Apply(there())]), "installed again");
    }
}
