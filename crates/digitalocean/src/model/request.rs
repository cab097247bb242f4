//! Request bodies: only fields that DigitalOcean's description knows.

use serde::Serialize;

use super::action::DropletAction;
use super::droplet::Droplet;
use super::ids::{
    ActionId, DropletId, DropletName, ImageRef, RegionSlug, SizeSlug, SshKeyRef, TagName, UserData, VpcId,
};

/// One Droplet to make.
///
/// Region and VPC are required although the API would guess: a gateway in another VPC is useless. Backups, IPv6 and
/// volumes are left at the API's default, which is off; public networking likewise, which is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CreateDroplet {
    /// Its name. Not unique to the API: make it unique per attempt, it is how a lost answer is resolved.
    pub name: DropletName,
    /// Where.
    pub region: RegionSlug,
    /// How big.
    pub size: SizeSlug,
    /// What to boot.
    pub image: ImageRef,
    /// The VPC, in the same region.
    pub vpc_uuid: VpcId,
    /// Keys that may log in as root.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh_keys: Vec<SshKeyRef>,
    /// Tags, created when missing and attached some time after the Droplet appears.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<TagName>,
    /// Given to cloud-init.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data: Option<UserData>,
    /// Install the metrics agent.
    pub monitoring: bool,
    /// Install the console agent: `None` tries and ignores failure, `Some(false)` does not install it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub with_droplet_agent: Option<bool>,
}

/// The API's yes to a create. It proves nothing yet: the Droplet can still vanish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedDroplet {
    /// The Droplet as it was at that moment, without addresses.
    pub droplet: Droplet,
    /// The action that makes it, when named.
    pub create_action: Option<ActionId>,
}

#[derive(Serialize)]
pub struct PostAction {
    #[serde(rename = "type")]
    pub kind: DropletAction,
}

#[derive(Serialize)]
pub struct CreateTag<'a> {
    pub name: &'a TagName,
}

/// One Droplet that carries a tag, or is to.
#[derive(Serialize)]
pub struct TaggedDroplet {
    resources: [TaggedResource; 1],
}

#[derive(Serialize)]
struct TaggedResource {
    // A text, unlike everywhere else.
    resource_id: String,
    resource_type: &'static str,
}

impl TaggedDroplet {
    pub fn new(droplet: DropletId) -> Self {
        Self { resources: [TaggedResource { resource_id: droplet.to_string(), resource_type: "droplet" }] }
    }
}
