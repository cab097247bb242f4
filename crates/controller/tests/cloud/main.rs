//! The shared view of the cloud against `do-simulator`, through real sockets and in virtual time: both clocks are driven.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so by ending"
)]

mod calls;
mod fleet;
