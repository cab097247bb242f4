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
use tokio::time::Instant;

/// First and longest pause after a question without answer.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// How long the last agent's report is asked for. Without it a node forgets what was wrong with gateways, which is worth waiting for,
/// as what the kernel holds is kept and watched meanwhile; but not for ever, as new routes wait too.
const PATIENCE: Duration = Duration::from_secs(30);

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
                        reported = Some(recollect(|| self.last_report()).await);
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

    /// That there is none is an answer, and so is one that this version can't read.
    async fn last_report(&self) -> Result<NodeEgressStatus, CallError> {
        let found = match within_deadline(self.reports.get_opt(&self.node_name)).await {
            Err(CallError::Kubernetes(error @ kube::Error::SerdeError(_))) => {
                tracing::warn!(%error, "the last agent's report can't be read; going on without it");
                None
            }
            found => found?,
        };
        Ok(found.and_then(|report| report.status).unwrap_or_default())
    }
}

/// What the last agent said, asked for until there is an answer or [`PATIENCE`] is at an end.
async fn recollect<F>(ask: impl Fn() -> F) -> NodeEgressStatus
where
    F: Future<Output = Result<NodeEgressStatus, CallError>>,
{
    let started = Instant::now();
    let mut pause = RETRY.0;
    loop {
        match ask().await {
            Ok(said) => return said,
            Err(error) if started.elapsed() < PATIENCE => {
                tracing::warn!(%error, "no word about what the last agent reported; asking again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY.1);
            }
            Err(error) => {
                tracing::warn!(%error, "going on without what the last agent reported");
                return NodeEgressStatus::default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use egress_runtime::kubernetes::with_timeouts;
    use serde_json::{Value, json};

    use super::*;

    fn said() -> NodeEgressStatus {
        NodeEgressStatus { boot_id: Some("b".to_owned()), ..NodeEgressStatus::default() }
    }

    /// An API server that gives one answer.
    fn source(status: u16, body: &Value) -> Source {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let body = body.to_string();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _request = stream.read(&mut [0; 4096]).unwrap();
            let head = format!(
                "HTTP/1.1 {status} Word\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        });
        let config = with_timeouts(kube::Config::new(url.parse().unwrap()));
        let client = Client::try_from(config).unwrap();
        Source {
            definitions: Api::all(client.clone()),
            reports: Api::all(client),
            node_name: "node-1".to_owned(),
        }
    }

    #[tokio::test]
    async fn only_what_the_api_server_says_of_the_report_is_an_answer() {
        let refused = |code: u16, reason: &str| json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "m"});
        for (code, reason) in
            [(403, "Forbidden"), (429, "TooManyRequests"), (500, "InternalError"), (503, "x")]
        {
            let asked = source(code, &refused(code, reason)).last_report().await;
            assert!(asked.is_err(), "{code}: {asked:?}");
        }
        let none = source(404, &refused(404, "NotFound")).last_report().await;
        assert_eq!(none.unwrap(), NodeEgressStatus::default());
        let report = |status: &Value| {
            json!({"apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "NodeEgress",
                "metadata": {"name": "node-1"}, "status": status})
        };
        let found = source(200, &report(&json!({"bootID": "b"}))).last_report().await;
        assert_eq!(found.unwrap(), said());
        let strange = source(200, &report(&json!({"gateways": 7}))).last_report().await;
        assert_eq!(strange.unwrap(), NodeEgressStatus::default(), "and will not become readable");
    }

    #[tokio::test(start_paused = true)]
    async fn a_report_that_can_not_be_had_at_once_is_asked_for_again() {
        let asked = Cell::new(0);
        let remembered = recollect(|| {
            asked.set(asked.get() + 1);
            std::future::ready(if asked.get() < 4 { Err(CallError::Deadline) } else { Ok(said()) })
        });
        assert_eq!(remembered.await, said());
        assert_eq!(asked.get(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn routes_do_not_wait_for_ever_for_a_report() {
        let started = Instant::now();
        let remembered = recollect(|| std::future::ready(Err(CallError::Deadline))).await;
        assert_eq!(remembered, NodeEgressStatus::default());
        let took = started.elapsed();
        assert!(took >= PATIENCE && took < PATIENCE + RETRY.1, "{took:?}");
    }
}
