//! Droplets as the API shows them.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

use super::ids::{DropletId, RegionSlug, SizeSlug, VpcId};
use super::lenient;

/// One Droplet.
///
/// Only the id is always there. `None` means that the API did not say, which happens when the token lacks a read scope
/// (`tag:read`, `vpc:read`, ...): absence proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Droplet {
    /// Its identity.
    pub id: DropletId,
    /// Its name; anyone with access to the account can change it.
    #[serde(default)]
    pub name: String,
    /// Where in its life it is. `Active` does not imply addresses.
    #[serde(default)]
    pub status: DropletStatus,
    /// An event holds it; changing calls are refused meanwhile.
    #[serde(default, deserialize_with = "lenient::optional")]
    pub locked: Option<bool>,
    /// When it was made.
    #[serde(default, deserialize_with = "lenient::optional")]
    pub created_at: Option<Timestamp>,
    /// IPv4 addresses. Empty for a while after the create, even when `Active`.
    #[serde(default, rename = "networks", deserialize_with = "v4_of_networks")]
    pub v4: Vec<AddressV4>,
    /// Its tags. They are attached some time after the create.
    #[serde(default, deserialize_with = "lenient::optional")]
    pub tags: Option<Vec<String>>,
    /// Its VPC.
    #[serde(default, deserialize_with = "lenient::optional")]
    pub vpc_uuid: Option<VpcId>,
    /// Its region.
    #[serde(default, deserialize_with = "lenient::slug")]
    pub region: Option<RegionSlug>,
    /// Its size.
    #[serde(default, deserialize_with = "lenient::optional")]
    pub size_slug: Option<SizeSlug>,
    /// Slug of its image; private images have none.
    #[serde(default, rename = "image", deserialize_with = "lenient::slug")]
    pub image_slug: Option<String>,
}

impl Droplet {
    /// Its address in the VPC; the thing to wait for after a create.
    pub fn private_v4(&self) -> Option<Ipv4Addr> {
        self.v4.iter().find(|address| address.kind == AddressKind::Private).map(|address| address.ip)
    }

    /// Its own public address: the first that is none of `reserved`.
    ///
    /// An assigned reserved IP shows up as one more public address of the Droplet. Pass the account's reserved IPs;
    /// an empty slice is right only where there are none.
    pub fn public_v4(&self, reserved: &[Ipv4Addr]) -> Option<Ipv4Addr> {
        let mut public = self.v4.iter().filter(|address| address.kind == AddressKind::Public);
        public.find(|address| !reserved.contains(&address.ip)).map(|address| address.ip)
    }

    /// Whether it carries a tag; `None` when the token may not see tags.
    pub fn has_tag(&self, tag: &str) -> Option<bool> {
        self.tags.as_ref().map(|tags| tags.iter().any(|held| held == tag))
    }
}

/// Where a Droplet is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DropletStatus {
    /// Accepted. It may still vanish.
    New,
    /// Powered on.
    Active,
    /// Powered off; still billed.
    Off,
    /// Archived.
    Archive,
    /// A word this version does not know, or none.
    Unknown(String),
    /// The API did not say.
    #[default]
    Absent,
}

impl<'de> Deserialize<'de> for DropletStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word: Option<String> = lenient::optional(deserializer)?;
        Ok(match word.as_deref() {
            Some("new") => Self::New,
            Some("active") => Self::Active,
            Some("off") => Self::Off,
            Some("archive") => Self::Archive,
            Some(other) => Self::Unknown(other.to_owned()),
            None => Self::Absent,
        })
    }
}

/// One IPv4 address of a Droplet. Netmask and gateway are left out: the description's own examples have the string
/// `nil` there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct AddressV4 {
    /// The address.
    #[serde(rename = "ip_address")]
    pub ip: Ipv4Addr,
    /// Which side it is on.
    #[serde(rename = "type")]
    pub kind: AddressKind,
}

/// Which side of a Droplet an address is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressKind {
    /// The internet.
    Public,
    /// The VPC.
    Private,
    /// A word this version does not know.
    #[serde(other)]
    Unknown,
}

#[derive(Deserialize, Default)]
struct Networks {
    #[serde(default, deserialize_with = "lenient::list")]
    v4: Vec<AddressV4>,
}

fn v4_of_networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<AddressV4>, D::Error> {
    let networks: Option<Networks> = lenient::optional(deserializer)?;
    Ok(networks.unwrap_or_default().v4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn droplet(json: &str) -> Droplet {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn addresses_are_found_by_kind_and_a_reserved_one_is_not_the_droplets_own() {
        let seen = droplet(
            r#"{"id": 7, "networks": {"v4": [
                {"ip_address": "198.51.100.200", "netmask": "255.255.255.0", "gateway": "nil", "type": "public"},
                {"ip_address": "203.0.113.21", "netmask": "255.255.255.0", "gateway": "203.0.113.1", "type": "public"},
                {"ip_address": "10.116.0.21", "netmask": "255.255.240.0", "gateway": "nil", "type": "private"},
                {"ip_address": "not yet", "type": "public"}, {"ip_address": "10.9.9.9", "type": "overlay"}], "v6": []}}"#,
        );
        let reserved = [Ipv4Addr::new(198, 51, 100, 200)];
        assert_eq!(seen.public_v4(&reserved), Some(Ipv4Addr::new(203, 0, 113, 21)));
        assert_eq!(seen.private_v4(), Some(Ipv4Addr::new(10, 116, 0, 21)));
        assert_eq!(seen.v4.len(), 4);
    }

    #[test]
    fn a_new_droplet_has_no_addresses_in_any_of_the_ways_the_api_says_so() {
        for networks in ["{}", "[]", "null", r#"{"v4": [], "v6": []}"#, r#"{"v4": null}"#, r#"{"v4": {}}"#] {
            let seen = droplet(&format!(r#"{{"id": 7, "status": "new", "networks": {networks}}}"#));
            assert_eq!((seen.private_v4(), seen.status), (None, DropletStatus::New), "{networks}");
        }
    }

    #[test]
    fn what_scopes_hide_is_unknown_not_false() {
        let seen = droplet(r#"{"id": 7, "status": "hibernating", "tags": null}"#);
        assert_eq!(seen.has_tag("egress-gateway"), None);
        assert_eq!(seen.vpc_uuid, None);
        assert_eq!(seen.status, DropletStatus::Unknown("hibernating".to_owned()));
        assert_eq!(droplet(r#"{"id": 7, "tags": []}"#).has_tag("egress-gateway"), Some(false));
    }
}
