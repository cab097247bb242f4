//! What becomes of what was made in the cloud.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What becomes of what was made in the cloud when the EgressGateway is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It is deleted.
    #[default]
    Delete,
    /// It stays, and is billed: our tags are taken off the Droplets, and nobody here touches them any more.
    Retain,
}
