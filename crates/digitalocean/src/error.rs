//! What can go wrong with a call, and what to do then.

use std::time::Duration;

use crate::fence::FenceLost;
use crate::model::ids::InvalidValue;
use crate::refusal::{Refusal, RefusalKind};
use crate::token::TokenUnavailable;

/// When to try the same decision again. Durations are minima without jitter; callers add it and grow them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Not by this caller: it has lost the right to.
    Never,
    /// Not until someone changes what is asked for.
    AfterSpecChange,
    /// Not before this has passed.
    After(Duration),
    /// With the caller's usual growing pause.
    Soon,
    /// Look first: list by name and by tag for a settle time, adopt, and only then decide again.
    AmbiguousMayHaveHappened,
}

/// A failed call. `call` is its name: `droplets.create`.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The fence said no; nothing was sent.
    #[error("{call}: not sent, the claim is lost: {source}")]
    Fenced {
        /// The call.
        call: &'static str,
        /// Why the claim is lost.
        source: FenceLost,
    },
    /// There is no usable token; nothing was sent.
    #[error("{call}: not sent: {source}")]
    Token {
        /// The call.
        call: &'static str,
        /// What is wrong with it.
        source: TokenUnavailable,
    },
    /// The values asked for can not be sent; nothing was sent.
    #[error("{call}: not sent: {source}")]
    Invalid {
        /// The call.
        call: &'static str,
        /// Which value, and why.
        source: InvalidValue,
    },
    /// The rate budget has no room within the deadline; nothing was sent.
    #[error("{call}: not sent, the rate budget is used up for {} s more", wait.as_secs())]
    Throttled {
        /// The call.
        call: &'static str,
        /// When there is room again.
        wait: Duration,
    },
    /// No connection came about; nothing was sent.
    #[error("{call}: not sent, no connection: {reason}")]
    Unreachable {
        /// The call.
        call: &'static str,
        /// The chain of causes.
        reason: String,
    },
    /// The API refused; nothing happened.
    #[error("{call}: {refusal}")]
    Refused {
        /// The call.
        call: &'static str,
        /// What it said.
        refusal: Box<Refusal>,
    },
    /// No answer, or half of one, to a call that may be repeated.
    #[error("{call}: no answer: {reason}")]
    Lost {
        /// The call.
        call: &'static str,
        /// The chain of causes.
        reason: String,
    },
    /// The answer to a call that may be repeated was not understood.
    #[error("{call}: unreadable answer: {reason}")]
    Unreadable {
        /// The call.
        call: &'static str,
        /// Where and why.
        reason: String,
    },
    /// A list changed while it was read, again and again, or never ended.
    #[error("{call}: no consistent list: {reason}")]
    Unsteady {
        /// The call.
        call: &'static str,
        /// What was seen.
        reason: String,
    },
    /// The request was sent and it is open whether it happened. It must not be repeated unseen.
    #[error("{call}: ambiguous, it may have happened: {reason}")]
    Ambiguous {
        /// The call.
        call: &'static str,
        /// What came instead of a clear answer.
        reason: String,
        /// The API's refusal, when there was one (5xx).
        refusal: Option<Box<Refusal>>,
    },
}

impl Error {
    /// A word from a closed set, for metric labels and event reasons.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Fenced { .. } => "fenced",
            Self::Token { .. } => "no_token",
            Self::Invalid { .. } => "invalid_spec",
            Self::Throttled { .. } => "throttled",
            Self::Unreachable { .. } => "unreachable",
            Self::Refused { refusal, .. } => refusal.kind.category(),
            Self::Lost { .. } => "lost",
            Self::Unreadable { .. } => "unreadable",
            Self::Unsteady { .. } => "unsteady_list",
            Self::Ambiguous { .. } => "ambiguous",
        }
    }

    /// What to do.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Fenced { .. } => Retry::Never,
            Self::Invalid { .. } => Retry::AfterSpecChange,
            Self::Throttled { wait, .. } => Retry::After(*wait),
            Self::Refused { refusal, .. } => refusal.retry(),
            Self::Token { .. } => Retry::After(NO_TOKEN),
            Self::Unreachable { .. } | Self::Lost { .. } | Self::Unsteady { .. } => Retry::Soon,
            Self::Unreadable { .. } => Retry::After(UNREADABLE),
            Self::Ambiguous { .. } => Retry::AmbiguousMayHaveHappened,
        }
    }

    /// The API's refusal, also of an ambiguous call.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal),
            Self::Ambiguous { refusal, .. } => refusal.as_deref(),
            _ => None,
        }
    }

    /// What the refusal means, when it is a clear one.
    pub fn refused_as(&self) -> Option<RefusalKind> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal.kind),
            _ => None,
        }
    }

    /// Whether a read may be tried again at once: it failed on the way or at the far side's expense.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Lost { .. } => true,
            Self::Refused { refusal, .. } => refusal.kind == RefusalKind::Server && refusal.pause.is_none(),
            _ => false,
        }
    }
}

/// A missing token is put in place by people or another controller; a watch on the Secret comes sooner.
const NO_TOKEN: Duration = Duration::from_secs(30);
/// An answer that makes no sense will not make sense in a second.
const UNREADABLE: Duration = Duration::from_secs(60);
