//! The question every changing call asks right before it is sent: may I still?

/// A claim (leadership, as a rule) that expires by itself.
///
/// The check is asked immediately before a changing request is sent, after all waiting. It must not block. A claim
/// that stays valid for [`deadline::CHANGE`](crate::deadline::CHANGE) after saying yes covers the whole request.
pub trait Fence: Send + Sync {
    /// Says whether the claim is still held.
    fn check(&self) -> Result<(), FenceLost>;
}

/// The claim is gone; the request was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct FenceLost {
    /// Why, in words for a log line: "the lease ran out 3 s ago".
    pub reason: String,
}

impl FenceLost {
    /// A lost claim with its reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

impl<F> Fence for F
where
    F: Fn() -> Result<(), FenceLost> + Send + Sync,
{
    fn check(&self) -> Result<(), FenceLost> {
        self()
    }
}
