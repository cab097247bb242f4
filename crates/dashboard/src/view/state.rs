//! How an EgressGateway is, in one word.

use egress_api::condition::{DEGRADED, PROGRESSING, READY, is_true};
use egress_api::{EgressGatewayStatus, GatewayRole};

/// How an EgressGateway is; the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Nothing leaves through it.
    Down,
    /// Some nodes leave through it, and some that should do not.
    Partial,
    /// It works, with less than was asked for: the next failure may be one too many.
    Degraded,
    /// It works or begins to, and something is being made, replaced or deleted.
    Changing,
    /// It works.
    Works,
}

impl State {
    /// All of them, worst first.
    pub const ALL: [Self; 5] = [Self::Down, Self::Partial, Self::Degraded, Self::Changing, Self::Works];

    /// The word on its label.
    pub fn word(self) -> &'static str {
        match self {
            Self::Down => "Down",
            Self::Partial => "Partial",
            Self::Degraded => "Degraded",
            Self::Changing => "Changing",
            Self::Works => "Works",
        }
    }

    /// The same as the end of a sentence about one, or several.
    pub(super) fn of_many(self, one: bool) -> &'static str {
        match (self, one) {
            (Self::Down, true) => "does not work",
            (Self::Down, false) => "do not work",
            (Self::Partial, true) => "works on some nodes only",
            (Self::Partial, false) => "work on some nodes only",
            (Self::Degraded, true) => "works with less than was asked for",
            (Self::Degraded, false) => "work with less than was asked for",
            (Self::Changing, true) => "is being changed",
            (Self::Changing, false) => "are being changed",
            (Self::Works, true) => "works",
            (Self::Works, false) => "work",
        }
    }

    /// How one that can be read is. `applied`: how many nodes have its routes, as far as that was counted. `condemned`: most nodes
    /// find that a gateway of its list does not work, which they act on before the controller's conditions say it.
    pub(super) fn of(
        status: Option<&EgressGatewayStatus>,
        deleting: bool,
        applied: usize,
        condemned: bool,
    ) -> Self {
        let Some(status) = status.filter(|status| !status.conditions.is_empty()) else {
            return Self::Changing;
        };
        if deleting {
            return if is_true(&status.conditions, DEGRADED) { Self::Degraded } else { Self::Changing };
        }
        if !is_true(&status.conditions, READY) {
            let carries = |one: &egress_api::GatewayStatus| one.ready && one.role == GatewayRole::Active;
            if applied > 0 && status.gateways.iter().any(carries) {
                return Self::Partial;
            }
            return if is_starting(status) { Self::Changing } else { Self::Down };
        }
        if condemned || is_true(&status.conditions, DEGRADED) {
            return Self::Degraded;
        }
        if is_true(&status.conditions, PROGRESSING) { Self::Changing } else { Self::Works }
    }
}

// A first pair that is on its way is no alarm: nothing was promised yet, and the age is shown.
fn is_starting(status: &EgressGatewayStatus) -> bool {
    let fresh = |one: &egress_api::GatewayStatus| one.role == GatewayRole::Starting && !one.existing;
    is_true(&status.conditions, PROGRESSING)
        && status.gateways.iter().all(fresh)
        && status.failed_bring_ups.unwrap_or_default() == 0
        && status.last_replacement.is_none()
        && status.last_failover.is_none()
        && status.creating.iter().all(|intent| intent.message.is_none())
}
