//! What one step of the controller is: at most one effect, and the status that goes with it.

use std::net::Ipv4Addr;
use std::time::Duration;

use egress_api::{EgressGatewayStatus, StaticRouteSpec};
use egress_digitalocean::FirewallSpec;

use crate::firewall::OwnedFirewall;
use crate::identity::{OwnTag, OwnedDroplet};
use crate::reserved_ip::{OwnedIp, ReleasableIp};

/// Times that rule the decisions.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long after a create with unknown outcome only adoption may happen. Longer than the latest success that can come.
    pub settle: Duration,
    /// How long a Droplet may take from its creation until it is proven.
    pub bring_up: Duration,
    /// How long a gateway must be condemned without interruption before anything is done about it that cannot be taken back.
    pub replace_after: Duration,
    /// How long a Droplet that was powered on or power-cycled may take until it is proven.
    pub power_on: Duration,
    /// How long a Droplet whose creation was accepted may be not found before it counts as lost.
    pub lost_after: Duration,
    /// How long all gateways must have worked before one is rolled.
    pub roll_pause: Duration,
    /// Over how long the gateways of all EgressGateways are rolled for another version of the user data.
    pub user_data_spread: Duration,
    /// How many Droplets there may be for all EgressGateways of the cluster together.
    pub most_droplets: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            settle: Duration::from_secs(60),
            bring_up: Duration::from_secs(600),
            replace_after: Duration::from_secs(30),
            power_on: Duration::from_secs(120),
            lost_after: Duration::from_secs(120),
            roll_pause: Duration::from_secs(120),
            user_data_spread: Duration::from_secs(86_400),
            most_droplets: 100,
        }
    }
}

/// How long a proven gateway must be condemned without interruption before it leaves the list.
pub const CONDEMNED_AFTER: Duration = Duration::from_secs(3);

/// How long to wait for nodes to let go of a gateway that is dead anyway.
pub const LET_GO: Duration = Duration::from_secs(30);

/// How long to wait before a create that the cloud refused is tried again.
pub const REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// How long to wait before a delete that was accepted is asked for again.
pub const DELETE_AGAIN: Duration = Duration::from_secs(20);

/// How long to wait for an address to be where the cloud accepted to assign it, once it is not locked, before that is asked for again.
pub const ASSIGN_AGAIN: Duration = Duration::from_secs(20);

/// How long nodes have to see an address that moves through the gateway that the cloud shows it at, before it counts that they do not. The
/// machine asks the metadata service each second, and nodes ask through the machine as often, in the largest clusters every ten seconds.
pub const SEEN_WITHIN: Duration = Duration::from_secs(30);

/// Between two replacements of one EgressGateway there is at least so much: should the nodes be wrong about gateways, no more than
/// one is made anew until somebody can look. Recorded in the status, so that a restart does not begin anew.
pub const REPLACEMENT_PAUSE: Duration = Duration::from_secs(600);

/// What was tried for a gateway is forgotten when it has worked for so long since: one that fails again and again is replaced, not
/// powered on and cycled for ever.
pub const REPAIR_MEMORY: Duration = Duration::from_secs(600);

/// A power cycle that was decided is asked for within this time, or not at all. Longer than a request and the next leader's start,
/// shorter than a boot: a second one then lengthens the boot and does no harm.
pub const POWER_CYCLE_WINDOW: Duration = Duration::from_secs(30);

/// After so many failed bring-ups in a row no Droplet is made until something changes.
pub const MOST_FAILED_BRING_UPS: i32 = 3;

/// One step.
#[derive(Clone, Debug)]
pub struct Decision {
    /// What to do, if anything. The status has been written when anything else than a status write comes out.
    pub effect: Option<Effect>,
    /// The whole status as it should be.
    pub status: EgressGatewayStatus,
    /// When to look again if nothing happens before.
    pub requeue_after: Duration,
    /// What to tell people once the effect is done.
    pub events: Vec<Happening>,
}

/// The one thing to do in a step. Each is safe to repeat.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Before anything that would have to be cleaned up.
    AddFinalizer,
    /// Writes [`Decision::status`]: intents, adopted ids, roles, conditions.
    WriteStatus,
    /// Marks the intent as sent, sends one create, records the id.
    CreateDroplet(Order),
    /// Server-side apply of our StaticRoute.
    ApplyStaticRoute(StaticRouteSpec),
    /// Deletes our StaticRoute, on condition that it is still this one.
    DeleteStaticRoute {
        /// Its uid.
        uid: String,
    },
    /// Powers a Droplet on and records that it was tried.
    PowerOn(OwnedDroplet),
    /// Power-cycles a Droplet that is `active` and condemned. That it is to be tried has been recorded.
    PowerCycle(OwnedDroplet),
    /// Deletes a Droplet by id.
    DeleteDroplet(OwnedDroplet),
    /// Marks the firewall as asked for, sends one create, records the id.
    CreateFirewall(FirewallSpec),
    /// Takes a tag of ours off a Droplet that stays.
    Untag(OwnTag),
    /// Makes the firewall what it is to be.
    UpdateFirewall(OwnedFirewall, FirewallSpec),
    /// Deletes a firewall by id.
    DeleteFirewall(OwnedFirewall),
    /// Marks the next address as asked for, sends one request that reserves it and begins to assign it, records it.
    ReserveIp(OwnedDroplet),
    /// Puts the tag on a Droplet that says of an address that it was made for the Droplet's owner.
    MarkIp(OwnedDroplet, Ipv4Addr),
    /// Begins to assign an address, and records that the cloud said yes.
    AssignIp(OwnedIp, OwnedDroplet),
    /// Gives an address back.
    ReleaseIp(ReleasableIp),
    /// Tells a gateway which others may probe its public side.
    AdmitPeers(Admission),
    /// Puts a Droplet into this project, and records that.
    AssignToProject(OwnedDroplet, String),
    /// Lets the EgressGateway go.
    RemoveFinalizer,
}

impl Effect {
    /// Label for logs and metrics, from a closed list.
    pub fn label(&self) -> &'static str {
        match self {
            Self::AddFinalizer => "add_finalizer",
            Self::WriteStatus => "write_status",
            Self::CreateDroplet(_) => "create_droplet",
            Self::ApplyStaticRoute(_) => "apply_static_route",
            Self::DeleteStaticRoute { .. } => "delete_static_route",
            Self::PowerOn(_) => "power_on",
            Self::PowerCycle(_) => "power_cycle",
            Self::DeleteDroplet(_) => "delete_droplet",
            Self::Untag(_) => "untag",
            Self::CreateFirewall(_) => "create_firewall",
            Self::UpdateFirewall(..) => "update_firewall",
            Self::DeleteFirewall(_) => "delete_firewall",
            Self::ReserveIp(_) => "reserve_ip",
            Self::MarkIp(..) => "mark_ip",
            Self::AssignIp(..) => "assign_ip",
            Self::ReleaseIp(_) => "release_ip",
            Self::AdmitPeers(_) => "admit_peers",
            Self::AssignToProject(..) => "assign_to_project",
            Self::RemoveFinalizer => "remove_finalizer",
        }
    }
}

/// Which gateways may probe the public side of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Name of the gateway that is told.
    pub name: String,
    /// Its address in the VPC.
    pub gateway: Ipv4Addr,
    /// Addresses in the VPC of those that it is to ask for their public address; nobody else is admitted from then on.
    pub peers: Vec<Ipv4Addr>,
}

/// A Droplet to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Slot of the intent.
    pub slot: i32,
    /// Name of the Droplet and of the intent.
    pub name: String,
    /// Region slug.
    pub region: String,
    /// VPC.
    pub vpc: String,
    /// Size slug.
    pub size: String,
    /// Image slug or number.
    pub image: String,
    /// Ids or fingerprints.
    pub ssh_keys: Vec<String>,
    /// Ours and the user's.
    pub tags: Vec<String>,
    /// Install the metrics agent.
    pub monitoring: bool,
    /// Cloud-config.
    pub user_data: String,
    /// Its version.
    pub user_data_version: String,
}

/// Something that people should hear of, once, on the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// Whether it is a warning.
    pub warning: bool,
    /// One CamelCase word.
    pub reason: &'static str,
    /// A sentence.
    pub note: String,
}
