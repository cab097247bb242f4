//! Identifiers and values that are valid by construction.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A value that the API would refuse, caught before anything is sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct InvalidValue {
    /// What was wrong, in the API's words: `name`, `tags`, `user_data`.
    pub field: &'static str,
    /// Why, and what would be right.
    pub reason: String,
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id!(
    /// A Droplet: its only identity. Names and tags are not unique.
    DropletId
);
number_id!(
    /// An action (power-on, create, ...) on a Droplet.
    ActionId
);

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $field:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Checks the value.
            pub fn new(value: impl Into<String>) -> Result<Self, InvalidValue> {
                let value = value.into();
                let check: fn(&str) -> Result<(), &'static str> = $check;
                check(&value).map_err(|reason| InvalidValue { field: $field, reason: format!("{value:?} {reason}") })?;
                Ok(Self(value))
            }

            /// The value as the API spells it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

/// Slugs and ids go into URL paths, so they are kept to characters that mean nothing there.
fn plain(value: &str) -> Result<(), &'static str> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if value.is_empty() || value.len() > 255 {
        return Err("must have 1 to 255 characters");
    }
    if !value.bytes().all(fits) || value.bytes().all(|byte| byte == b'.') {
        return Err("may have letters, digits, '-', '_' and '.' only");
    }
    Ok(())
}

text!(
    /// A region, such as `nyc1`.
    RegionSlug, "region", plain
);
text!(
    /// A Droplet size, such as `s-1vcpu-1gb`.
    SizeSlug, "size", plain
);
text!(
    /// A public image, such as `ubuntu-24-04-x64`.
    ImageSlug, "image", plain
);
text!(
    /// A VPC network (a UUID).
    VpcId, "vpc_uuid", plain
);
text!(
    /// A project (a UUID).
    ProjectId, "project_id", plain
);
text!(
    /// A cloud firewall (a UUID): its only identity.
    FirewallId, "firewall_id", plain
);
text!(
    /// A firewall's name: letters, digits, `.` and `-`, beginning with a letter or digit, 2 to 255.
    FirewallName, "name", |value| {
        let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
        let bytes = value.as_bytes();
        if !(2..=255).contains(&bytes.len()) || !bytes.first().is_some_and(u8::is_ascii_alphanumeric) {
            return Err("must have 2 to 255 characters and begin with a letter or digit");
        }
        if !bytes.iter().all(fits) {
            return Err("may have letters, digits, '.' and '-' only");
        }
        Ok(())
    }
);
text!(
    /// A tag: letters, digits, `_`, `-` and `:`, at most 255. The first spelling the account has seen is the one to use.
    ///
    /// Names that begin with `k8s` belong to DOKS and are refused.
    TagName, "tags", |value| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b':');
        if value.is_empty() || value.len() > 255 {
            return Err("must have 1 to 255 characters");
        }
        if !value.bytes().all(fits) {
            return Err("may have letters, digits, '_', '-' and ':' only");
        }
        if value.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("k8s")) {
            return Err("must not begin with k8s: those tags belong to DigitalOcean Kubernetes");
        }
        Ok(())
    }
);
text!(
    /// A Droplet's name, which becomes its hostname: letters, digits, `.` and `-`, a letter or digit at both ends, at
    /// most 255. Not unique.
    DropletName, "name", |value| {
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = value.as_bytes();
        if !edge(bytes.first()) || !edge(bytes.last()) || bytes.len() > 255 {
            return Err("must have 1 to 255 characters and begin and end with a letter or digit");
        }
        if !bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-')) {
            return Err("may have letters, digits, '.' and '-' only");
        }
        Ok(())
    }
);

/// An image by slug, or by number for private images and snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ImageRef {
    /// A public image.
    Slug(ImageSlug),
    /// Any image.
    Id(u64),
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slug(slug) => slug.fmt(f),
            Self::Id(id) => id.fmt(f),
        }
    }
}

/// An SSH key of the team, by number or fingerprint. It must exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum SshKeyRef {
    /// The key's id.
    Id(u64),
    /// The key's MD5 fingerprint, `3b:16:...`.
    Fingerprint(String),
}

/// User data of a Droplet: ASCII, at most 64 KiB.
///
/// Longer data is refused by the API; other characters were accepted there and the Droplet never appeared
/// (terraform-provider-digitalocean, pull request 767). Anyone on the Droplet can read it: no secrets.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct UserData(String);

impl UserData {
    /// The API's limit in bytes.
    pub const MAX_BYTES: usize = 64 * 1024;

    /// Checks length and characters.
    pub fn new(value: impl Into<String>) -> Result<Self, InvalidValue> {
        let value = value.into();
        let refuse = |reason| Err(InvalidValue { field: "user_data", reason });
        if value.len() > Self::MAX_BYTES {
            return refuse(format!("has {} bytes, at most {} are allowed", value.len(), Self::MAX_BYTES));
        }
        if let Some(position) = value.bytes().position(|byte| !byte.is_ascii()) {
            return refuse(format!("has a character outside ASCII at byte {position}"));
        }
        Ok(Self(value))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for UserData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserData({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_tags_of_the_architecture_fit() {
        DropletName::new("egress-demo-0-1a2b3c4d").unwrap();
        TagName::new("egress-cluster:9f0c2a4e-5b1d-4c9e-9c55-3f4b0a1d2e3f").unwrap();
        for bad in ["", "-a", "a-", "a_b", "a b", "\u{e4}", "a/../b"] {
            assert!(DropletName::new(bad).is_err(), "{bad}");
        }
        for bad in ["", "a.b", "a/b", "k8s:worker", "K8S", "a b"] {
            assert!(TagName::new(bad).is_err(), "{bad}");
        }
        assert!(DropletName::new("a".repeat(256)).is_err());
    }

    #[test]
    fn nothing_that_goes_into_a_path_can_leave_it() {
        for bad in ["..", ".", "a/b", "a?b", "a#b", "%2e", ""] {
            assert!(ImageSlug::new(bad).is_err(), "{bad}");
            assert!(VpcId::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn user_data_is_ascii_of_at_most_64_kib_and_not_in_debug() {
        let whole = UserData::new("x".repeat(UserData::MAX_BYTES)).unwrap();
        assert_eq!(format!("{whole:?}"), "UserData(65536 bytes)");
        assert!(UserData::new("x".repeat(UserData::MAX_BYTES + 1)).is_err());
        assert_eq!(
            UserData::new("ok \u{1f600}").unwrap_err().reason,
            "has a character outside ASCII at byte 3"
        );
    }
}
