//! Where public addresses come from, and what the status records of reserved ones.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Refused;

/// Where the public address of a gateway comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PublicIp {
    /// The Droplet's own address. It goes with the Droplet: a replaced gateway has another one.
    Ephemeral,
    /// Every gateway has a reserved address, which its successor takes over: what partners admit stays valid. A failover needs no call
    /// to the cloud. A gateway without its address carries no traffic.
    ReservedPerGateway,
    /// One reserved address for all gateways, which moves to the next when its holder fails: what partners admit is one address, and
    /// connections that send go on. A failover takes as long as the cloud needs to move it. A gateway that does not hold it carries no
    /// traffic.
    Floating,
}

impl PublicIp {
    /// Whether all gateways have one address, which moves between them.
    pub fn moves(self) -> bool {
        self == Self::Floating
    }

    /// Whether gateways leave with reserved addresses only.
    pub fn is_reserved(self) -> bool {
        match self {
            Self::Ephemeral => false,
            Self::ReservedPerGateway | Self::Floating => true,
        }
    }
}

/// A reserved address. It belongs to the EgressGateway, not to one of its Droplets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReservedIpStatus {
    /// The address.
    pub ip: String,

    /// Whether it is one of `spec.reservedIPs`: it is never given back.
    #[serde(default)]
    pub given: bool,

    /// The Droplet that holds it, as the cloud showed it last.
    #[serde(default, rename = "dropletID", skip_serializing_if = "Option::is_none")]
    pub droplet_id: Option<i64>,

    /// Since when it is held by that one, or by none.
    pub since: Time,

    /// That the cloud was asked to assign it and said yes, until it shows it there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigning: Option<Assigning>,

    /// What the cloud did not do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
}

/// An assignment that the cloud has accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Assigning {
    /// The Droplet that is to hold the address.
    #[serde(rename = "dropletID")]
    pub droplet_id: i64,

    /// When.
    pub since: Time,
}

/// An address that is being reserved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReservingIpStatus {
    /// The Droplet that it is reserved for.
    #[serde(rename = "dropletID")]
    pub droplet_id: i64,

    /// When it was decided.
    pub since: Time,

    /// When the cloud was asked, until its answer or the address has been seen. A second request waits for a settle time from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<Time>,

    /// What the cloud did not do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
}
