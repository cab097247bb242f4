//! Typed client for the part of the DigitalOcean v2 API that the controller uses.
//!
//! Responsibility: one Rust call is one decision of the caller turned into HTTP, with a deadline, a place in the rate
//! budget, and an error that says whether it may have happened.
//!
//! What holds for every call:
//!
//! - It ends: [`deadline`] has the number and the reason. Waiting for the rate budget counts.
//! - A call that changes something takes a [`Fence`], asked after every wait and right before the request is sent. It
//!   is sent at most once: neither this crate nor the HTTP library repeats it.
//! - A `POST` whose answer was lost comes back as [`Error::Ambiguous`]. It is then the caller's to look before acting
//!   again; the API has no idempotency key.
//! - Reads are repeated at most twice, on connection errors and 5xx.
//! - The token is read from the [`TokenSource`] for each request, so it can be rotated without a restart. It is in no
//!   `Debug` output, log line or error, not even when the other side sends it back.
//! - Answers are read leniently: fields disappear with the token's scopes, enums grow.
//!
//! Droplets and firewalls are deleted by id only. The API's delete-by-tag call is left out on purpose: a tag proves nothing.
//!
//! Cancel safety: dropping the future of a changing call leaves it open whether the call happened, like
//! [`Error::Ambiguous`] but without anyone being told. Let such calls run to their deadline.

pub mod budget;
pub mod deadline;

mod body;
mod client;
mod error;
mod exchange;
mod fence;
mod model;
mod paging;
mod refusal;
mod reserved_ips;
mod token;
mod transport;

pub use budget::{Clock, Quota, SystemClock};
pub use client::{Client, ConfigError, Deletion, DropletFilter, TagCreation};
pub use error::{Error, Retry};
pub use exchange::{Exchange, Exchanged, SendError};
pub use fence::{Fence, FenceLost};
pub use model::account::Account;
pub use model::action::{Action, ActionStatus, DropletAction};
pub use model::catalog::{Image, Region, Size, SshKey};
pub use model::droplet::{AddressKind, AddressV4, Droplet, DropletStatus};
pub use model::firewall::{Firewall, FirewallRule, FirewallSpec, FirewallStatus, Peers, Ports, Protocol};
pub use model::ids::{
    ActionId, DropletId, DropletName, FirewallId, FirewallName, ImageRef, ImageSlug, InvalidValue, ProjectId,
    RegionSlug, SizeSlug, SshKeyRef, TagName, UserData, VpcId,
};
pub use model::project::Project;
pub use model::request::{CreateDroplet, CreatedDroplet};
pub use model::reserved_ip::ReservedIp;
pub use model::vpc::Vpc;
pub use paging::PER_PAGE;
pub use refusal::{Refusal, RefusalKind};
pub use token::{SharedToken, TokenSource, TokenUnavailable};
