//! The account.

use serde::Deserialize;

use super::lenient;

/// The account that the token belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Account {
    /// How many Droplets it may have at once.
    #[serde(default, deserialize_with = "lenient::optional")]
    pub droplet_limit: Option<u64>,
    /// How many reserved IPs it may have (the API's old name for them).
    #[serde(default, rename = "floating_ip_limit", deserialize_with = "lenient::optional")]
    pub reserved_ip_limit: Option<u64>,
    /// `active`, `warning` or `locked`.
    #[serde(default, deserialize_with = "lenient::optional")]
    pub status: Option<String>,
}
