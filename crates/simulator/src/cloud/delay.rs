//! How long the cloud takes for things.
//!
//! Responsibility: the two profiles. The real one follows what clients of the API count on: the official Terraform
//! provider polls first after 10 s, pending events last 10 to 60 s, deletes are gone within 60 s.

use serde::{Deserialize, Serialize};

/// Delays of the state machines, in milliseconds. A value of 0 makes a step immediate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Delays {
    /// Create to `active` (networks still empty).
    pub active: u64,
    /// Create to networks filled and the create action completed; at least [`Delays::active`].
    pub networks: u64,
    /// Tag set to visible in `?tag_name=`.
    pub tag_index: u64,
    /// Accepted delete to 404.
    pub delete: u64,
    /// 404 to gone from `?tag_name=` lists as well.
    pub tag_ghost: u64,
    /// Shortest time of a Droplet action.
    pub action: u64,
    /// Shortest time of an assign or unassign of a Reserved IP.
    pub reserved_ip: u64,
    /// Change of a firewall to in force.
    pub firewall: u64,
}

impl Delays {
    /// Short enough for tests, long enough that no step can be skipped unseen.
    pub const fn quick() -> Self {
        Self {
            active: 300,
            networks: 500,
            tag_index: 700,
            delete: 300,
            tag_ghost: 200,
            action: 300,
            reserved_ip: 400,
            firewall: 300,
        }
    }

    /// What users of the real cloud see on an ordinary day.
    pub const fn real() -> Self {
        Self {
            active: 18_000,
            networks: 24_000,
            tag_index: 4_000,
            delete: 6_000,
            tag_ghost: 3_000,
            action: 8_000,
            reserved_ip: 12_000,
            firewall: 5_000,
        }
    }
}

impl Default for Delays {
    fn default() -> Self {
        Self::quick()
    }
}
