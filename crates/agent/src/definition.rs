//! The definitions (CRDs) of StaticRoutes and EgressGateways, as the API server has them when it is asked.
//!
//! Responsibility: fresh answers. A StaticRoute that vanished may have been deleted, or may have gone with its definition: the
//! manifest of the older operator has the definition in it, and whoever deletes that manifest deletes every StaticRoute. The same is
//! true of an EgressGateway that is being deleted. Which of the two it was is asked after the object was seen to be gone or going, so
//! that the answer is younger than that; a watch of the definitions could lag behind those of the objects. Between questions nothing
//! is held open.

use std::sync::Arc;
use std::time::Duration;

pub use egress_api::Definition;
use egress_api::{
    EgressGateway, GatewayObservation, NodeEgress, NodeEgressStatus, NodeFailover, StaticRoute,
};
use egress_runtime::kubernetes::{CallError, within_deadline};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, CustomResourceExt};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

/// First and longest pause after a question without answer.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

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
    /// What was found of StaticRoutes.
    pub definition: Definition,
    /// What was found of EgressGateways.
    pub of_gateways: Definition,
    /// StaticRoutes in the report that this node's last agent left, as (uid, name): it knows names that the kernel does not.
    pub reported: Vec<(String, String)>,
    /// What that report says of gateways.
    pub gateways: Vec<GatewayObservation>,
    /// The last failover that it tells of.
    pub last_failover: Option<NodeFailover>,
}

/// Where the loop asks.
#[derive(Clone)]
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

    /// Waits until all that was asked until now is answered; for ever when nobody answers.
    pub async fn known(&self) {
        let asked = *self.asked.borrow();
        let is_answered = |answer: &Option<Answer>| answer.as_ref().is_some_and(|answer| answer.to >= asked);
        if self.answers.clone().wait_for(is_answered).await.is_err() {
            std::future::pending::<()>().await;
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
                Ok((definition, of_gateways)) => {
                    if reported.is_none() {
                        reported = Some(self.last_report().await);
                    }
                    let NodeEgressStatus { routes, gateways, last_failover, .. } =
                        reported.clone().unwrap_or_default();
                    // Names are words for people: without them routes stay all the same.
                    let reported = routes.into_iter().map(|route| (route.uid, route.name)).collect();
                    let answer = Answer { to, definition, of_gateways, reported, gateways, last_failover };
                    replies.send_replace(Some(answer));
                    changed.notify_one();
                    pause = RETRY.0;
                    if questions.changed().await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "no word about the definitions; what vanished or is being deleted stays");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY.1);
                }
            }
        }
    }

    async fn look(&self) -> Result<(Definition, Definition), CallError> {
        futures::try_join!(self.look_at(StaticRoute::crd_name()), self.look_at(EgressGateway::crd_name()))
    }

    async fn look_at(&self, name: &str) -> Result<Definition, CallError> {
        let found = within_deadline(self.definitions.get_metadata_opt(name)).await?;
        Ok(Definition::of(found.map(|found| found.metadata)))
    }

    async fn last_report(&self) -> NodeEgressStatus {
        let report = within_deadline(self.reports.get_opt(&self.node_name)).await.ok().flatten();
        report.and_then(|report| report.status).unwrap_or_default()
    }
}
