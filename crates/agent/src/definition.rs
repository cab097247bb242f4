//! The definition (CRD) of StaticRoutes, as the API server has it when it is asked.
//!
//! Responsibility: fresh answers. A StaticRoute that vanished may have been deleted, or may have gone with its definition: the
//! manifest of the older operator has the definition in it, and whoever deletes that manifest deletes every StaticRoute.
//! Which of the two it was is asked after the object was seen to be gone, so that the answer is younger than its end; a watch of
//! the definition could lag behind that of the objects. Between questions nothing is held open.

use std::sync::Arc;
use std::time::Duration;

use egress_api::{GatewayObservation, NodeEgress, NodeEgressStatus, NodeFailover};
use egress_runtime::kubernetes::{CallError, within_deadline};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

/// Name of the definition.
const NAME: &str = "staticroutes.networking.digitalocean.com";

/// First and longest pause after a question without answer.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// What the API server says of the definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Definition {
    /// It is there. Objects older than `created` belonged to another one of that name.
    There {
        /// Its uid: another one after it was deleted and applied again.
        uid: String,
        /// When it was made, seconds since 1970.
        created: i64,
    },
    /// It is being deleted, or gone.
    Going,
}

/// Number of a question; later ones are greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question(u64);

#[cfg(test)]
impl Question {
    pub(crate) fn numbered(number: u64) -> Self {
        Self(number)
    }
}

/// An answer, to the question with that number and all before it.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The question.
    pub to: Question,
    /// What was found.
    pub definition: Definition,
    /// StaticRoutes in the report that this node's last agent left, as (uid, name): it knows names that the kernel does not.
    pub reported: Vec<(String, String)>,
    /// What that report says of gateways.
    pub gateways: Vec<GatewayObservation>,
    /// The last failover that it tells of.
    pub last_failover: Option<NodeFailover>,
}

/// Where the loop asks.
pub struct Definitions {
    asked: watch::Sender<Question>,
    answers: watch::Receiver<Option<Answer>>,
}

impl Definitions {
    /// Starts to answer, the first question at once; `changed` is notified of every answer. The task lives in `tasks`.
    pub fn follow(client: &Client, node_name: &str, changed: &Arc<Notify>, tasks: &mut JoinSet<()>) -> Self {
        let (asked, questions) = watch::channel(Question(1));
        let (replies, answers) = watch::channel(None);
        let source = Source {
            definitions: Api::all(client.clone()),
            reports: Api::all(client.clone()),
            node_name: node_name.to_owned(),
        };
        tasks.spawn(source.answer(questions, replies, Arc::clone(changed)));
        Self { asked, answers }
    }

    /// Asks anew.
    pub fn ask(&self) -> Question {
        self.asked.send_modify(|question| question.0 += 1);
        *self.asked.borrow()
    }

    /// The last answer.
    pub fn answer(&self) -> Option<Answer> {
        self.answers.borrow().clone()
    }

    /// Waits for the first answer; for ever when there is none.
    pub fn known(&self) -> impl Future<Output = ()> + use<> {
        let mut answers = self.answers.clone();
        async move {
            if answers.wait_for(Option::is_some).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

struct Source {
    definitions: Api<CustomResourceDefinition>,
    reports: Api<NodeEgress>,
    node_name: String,
}

impl Source {
    async fn answer(
        self,
        mut questions: watch::Receiver<Question>,
        replies: watch::Sender<Option<Answer>>,
        changed: Arc<Notify>,
    ) {
        let mut pause = RETRY.0;
        let mut reported = None;
        loop {
            let to = *questions.borrow_and_update();
            match self.look().await {
                Ok(definition) => {
                    if reported.is_none() {
                        reported = Some(self.last_report().await);
                    }
                    let NodeEgressStatus { routes, gateways, last_failover, .. } =
                        reported.clone().unwrap_or_default();
                    // Names are words for people: without them routes stay all the same.
                    let reported = routes.into_iter().map(|route| (route.uid, route.name)).collect();
                    replies.send_replace(Some(Answer { to, definition, reported, gateways, last_failover }));
                    changed.notify_one();
                    pause = RETRY.0;
                    if questions.changed().await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "no word about the definition of StaticRoutes; what vanished stays");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY.1);
                }
            }
        }
    }

    async fn look(&self) -> Result<Definition, CallError> {
        let found = within_deadline(self.definitions.get_metadata_opt(NAME)).await?;
        Ok(match found.map(|found| found.metadata) {
            Some(metadata) if metadata.deletion_timestamp.is_none() => Definition::There {
                uid: metadata.uid.unwrap_or_default(),
                created: metadata.creation_timestamp.map_or(0, |time| time.0.as_second()),
            },
            _ => Definition::Going,
        })
    }

    async fn last_report(&self) -> NodeEgressStatus {
        let report = within_deadline(self.reports.get_opt(&self.node_name)).await.ok().flatten();
        report.and_then(|report| report.status).unwrap_or_default()
    }
}
