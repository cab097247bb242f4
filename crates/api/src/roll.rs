//! Rolling replacement: a gateway that is not as the spec has it, or too old, makes room for a new one.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The replacement of one gateway that works by a new one: made, proven and used before the old one goes. One at a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Roll {
    /// When that was decided.
    pub since: Time,

    /// Why, in a sentence.
    pub reason: String,

    /// What it costs whoever sends through the gateways, in a sentence.
    pub impact: String,

    /// Name of the gateway that goes.
    pub from: String,

    /// Id of its Droplet.
    #[serde(rename = "fromDropletID")]
    pub from_droplet_id: i64,

    /// Its public address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_public_address: Option<String>,

    /// Name of the new one, once it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,

    /// Id of its Droplet.
    #[serde(default, rename = "toDropletID", skip_serializing_if = "Option::is_none")]
    pub to_droplet_id: Option<i64>,

    /// Its public address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_public_address: Option<String>,

    /// Since when the old one comes last: new connections go elsewhere, and open ones that are used keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_since: Option<Time>,

    /// When what still uses the old one is moved at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_until: Option<Time>,

    /// Seconds left until then, in steps of ten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub drain_seconds_left: Option<i64>,

    /// When the old one was gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Time>,

    /// Why it was stopped, in a sentence. The next one begins when the spec or the controller's user data changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,

    /// Version of the user data that the new one is made with, or was to be.
    pub user_data_version: String,
}

impl Roll {
    /// Whether it goes on.
    pub fn is_under_way(&self) -> bool {
        self.ended.is_none() && self.failure.is_none()
    }
}

/// A rolling replacement that will come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NextRoll {
    /// Not before this.
    pub not_before: Time,

    /// Name of the gateway that goes.
    pub gateway: String,

    /// Why, in a sentence.
    pub reason: String,

    /// What it costs whoever sends through the gateways, in a sentence.
    pub impact: String,
}
