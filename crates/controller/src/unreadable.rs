//! An EgressGateway that this controller can't read, or whose StaticRoute it can't: stored by a newer version, or past the schema.
//!
//! It is told of in the conditions and with an event, and nothing else happens: what can't be read can't be judged, so nothing is
//! made, changed or deleted for it. Its status may hold what only the version that wrote it knows, so its conditions alone are
//! written.

use egress_api::condition::{DEGRADED, PROGRESSING, READY, Verdict, set};
use egress_api::{CONTROLLER_FIELD_MANAGER, EGRESS_GATEWAY_FINALIZER, EgressGateway};
use egress_runtime::guarded::{Guarded, InvalidObject};
use egress_runtime::kubernetes::within_deadline;
use egress_runtime::lease::Claim;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::decision::Happening;
use crate::live::ActError;

/// Reason of the conditions and of the event.
pub const UNREADABLE: &str = "Unreadable";

/// What is known of it.
#[derive(Clone, Debug)]
pub struct Unreadable {
    metadata: ObjectMeta,
    conditions: Vec<Condition>,
    message: String,
}

impl Unreadable {
    /// The EgressGateway itself can't be read.
    pub fn itself(invalid: InvalidObject) -> Self {
        let conditions = invalid.status.get("conditions").map(Vec::deserialize);
        let metadata = *invalid.metadata;
        let name = metadata.name.as_deref().unwrap_or_default();
        let let_go = match metadata.deletion_timestamp {
            Some(_) => format!(
                "; to let the object go and its Droplets stay, take the finalizer {EGRESS_GATEWAY_FINALIZER} off it"
            ),
            None => String::new(),
        };
        let message = format!(
            "This version can't read the object: {}. Correct the field (kubectl edit egressgateway {name}) or run the version \
             that wrote it. Until then nodes keep their routes, and nothing is made, changed or deleted{let_go}",
            invalid.error
        );
        Self { conditions: conditions.and_then(Result::ok).unwrap_or_default(), metadata, message }
    }

    /// It can be read, but not its StaticRoute.
    pub fn route(gateway: EgressGateway, invalid: &InvalidObject) -> Self {
        let name = gateway.metadata.name.as_deref().unwrap_or_default();
        let message = format!(
            "This version can't read StaticRoute {name}: {}. Correct the field (kubectl edit staticroute {name}) or run the \
             version that wrote it. Until then nodes keep their routes, and nothing is made, changed or deleted",
            invalid.error
        );
        let conditions = gateway.status.map(|status| status.conditions).unwrap_or_default();
        Self { metadata: gateway.metadata, conditions, message }
    }

    /// Says so in its conditions, if they don't say it yet; gives what is to be told when that is news.
    pub async fn say(
        &self,
        client: &Client,
        claim: &Claim,
        now: Timestamp,
    ) -> Result<Option<Happening>, ActError> {
        let conditions = self.conditions(now);
        if conditions == self.conditions {
            return Ok(None);
        }
        let name = self.metadata.name.as_deref().unwrap_or_default();
        let gateways: Api<Guarded<EgressGateway>> = Api::all(client.clone());
        let patch = Patch::Merge(self.patch(&conditions));
        let manager = PatchParams {
            field_manager: Some(CONTROLLER_FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        claim.check()?;
        within_deadline(gateways.patch_status(name, &manager, &patch)).await?;
        let known = self.conditions.iter().any(|condition| condition.reason == UNREADABLE);
        let note = self.message.clone();
        Ok((!known).then_some(Happening { warning: true, reason: UNREADABLE, note }))
    }

    /// What is wrong, with the way out.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What an event is about.
    pub fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn patch(&self, conditions: &[Condition]) -> Value {
        json!({
            "metadata": {"resourceVersion": self.metadata.resource_version},
            "status": {"conditions": conditions},
        })
    }

    fn conditions(&self, now: Timestamp) -> Vec<Condition> {
        let mut conditions = self.conditions.clone();
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        for (type_, status) in [(READY, false), (PROGRESSING, false), (DEGRADED, true)] {
            let (status, message) = (Some(status), self.message.clone());
            let verdict = Verdict { type_, status, reason: UNREADABLE, message };
            set(&mut conditions, verdict, self.metadata.generation, now);
        }
        conditions
    }
}
