//! What the older StaticRoute operator left on objects.
//!
//! It puts a finalizer on every StaticRoute, and the whole spec into an annotation. Once it is gone nobody takes the finalizer
//! off: a deleted object would hang for ever, and with it a definition that is being deleted. While its DaemonSet is there, both
//! are its own business.

use std::collections::BTreeMap;
use std::time::Duration;

use egress_api::StaticRoute;
use egress_runtime::guarded::Guarded;
use egress_runtime::kubernetes::{CallError, within_deadline};
use egress_runtime::lease::{Claim, LeadershipLost};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::watches::Mirrors;

const FINALIZER: &str = "kopf.zalando.org/KopfFinalizerMarker";
const ANNOTATION: &str = "kopf.zalando.org/last-handled-configuration";

/// Namespace and name that its manifest gives its DaemonSet.
const DAEMONSET: (&str, &str) = ("static-routes", "k8s-staticroute-operator");

/// Time between two looks while some object carries its marks.
const LOOK: Duration = Duration::from_secs(5);

/// First and longest pause before the marks of one object are taken off again: one that still runs, under another name, puts them
/// back, and shall not be fought with.
const AGAIN: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(3600));

#[derive(Debug, thiserror::Error)]
enum MarkError {
    #[error(transparent)]
    Lease(#[from] LeadershipLost),
    #[error(transparent)]
    Call(#[from] CallError),
}

/// When the marks of an object may be taken off next, and how long the pause after that is.
#[derive(Clone, Copy, Debug)]
struct Patience {
    next: Instant,
    pause: Duration,
}

/// Takes the marks off objects, for ever, while its DaemonSet is not there.
pub async fn clear(client: Client, mirrors: Mirrors, claim: Claim, mut changes: watch::Receiver<u64>) {
    let routes: Api<Guarded<StaticRoute>> = Api::all(client.clone());
    let daemonsets: Api<DaemonSet> = Api::namespaced(client, DAEMONSET.0);
    let mut patience: BTreeMap<String, Patience> = BTreeMap::new();
    loop {
        changes.mark_unchanged();
        let objects: Vec<ObjectMeta> =
            mirrors.routes_as_read().iter().map(|route| route.meta().clone()).collect();
        patience.retain(|uid, _| objects.iter().any(|object| object.uid.as_ref() == Some(uid)));
        let marked: Vec<ObjectMeta> = objects.into_iter().filter(is_marked).collect();
        if marked.is_empty() {
            if changes.changed().await.is_err() {
                return;
            }
            continue;
        }
        match within_deadline(daemonsets.get_metadata_opt(DAEMONSET.1)).await {
            Ok(None) => {
                for object in &marked {
                    take_off(&routes, object, &claim, &mut patience).await;
                }
            }
            Ok(Some(_)) => {}
            Err(error) => tracing::debug!(%error, "no word about the older operator; its marks stay"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn take_off(
    routes: &Api<Guarded<StaticRoute>>,
    object: &ObjectMeta,
    claim: &Claim,
    patience: &mut BTreeMap<String, Patience>,
) {
    let (Some(name), Some(uid)) = (&object.name, &object.uid) else { return };
    let now = Instant::now();
    let before = patience.get(uid).copied();
    if before.is_some_and(|before| now < before.next) {
        return;
    }
    let attempt = async {
        claim.check()?;
        within_deadline(routes.patch(name, &PatchParams::default(), &Patch::Merge(without_marks(object))))
            .await?;
        Ok::<_, MarkError>(())
    };
    match attempt.await {
        Ok(()) => {
            tracing::info!(static_route = name, "took off what the older operator, which is gone, had left");
            let pause = before.map_or(AGAIN.0, |before| (before.pause * 2).min(AGAIN.1));
            patience.insert(uid.clone(), Patience { next: now + pause, pause });
        }
        // Somebody else changed it first, or it is gone: the next look sees.
        Err(error) => tracing::debug!(static_route = name, %error, "the older operator's marks stay for now"),
    }
}

fn is_marked(object: &ObjectMeta) -> bool {
    object.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
        || object.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(ANNOTATION))
}

/// The patch that takes exactly its marks off, and only off this version: a list of finalizers can only be written whole.
fn without_marks(object: &ObjectMeta) -> Value {
    let others: Vec<&String> =
        object.finalizers.iter().flatten().filter(|finalizer| *finalizer != FINALIZER).collect();
    json!({"metadata": {
        "resourceVersion": object.resource_version,
        "finalizers": others,
        "annotations": {ANNOTATION: null},
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_older_operators_marks_are_taken_off_and_only_off_what_was_seen() {
        let mut object = ObjectMeta {
            finalizers: Some(vec!["example.com/mine".to_owned(), FINALIZER.to_owned()]),
            resource_version: Some("7".to_owned()),
            ..ObjectMeta::default()
        };
        assert!(is_marked(&object));
        let patch = without_marks(&object);
        assert_eq!(patch["metadata"]["finalizers"], json!(["example.com/mine"]));
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert_eq!(patch["metadata"]["annotations"], json!({ANNOTATION: null}));
        object.finalizers = Some(vec!["example.com/mine".to_owned()]);
        assert!(!is_marked(&object));
        object.annotations = Some([(ANNOTATION.to_owned(), "{}".to_owned())].into());
        assert!(is_marked(&object));
    }
}
