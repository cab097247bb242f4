//! The whole controller, killed and stopped at every effect of a gateway's life.
//!
//! What runs is the controller itself: its watches, its election, observe, decide, act, in a runtime of its own whose time is driven.
//! What it is connected to is in memory: Kubernetes' API (`testkit::memory_api`), the simulator's cloud, gateways and nodes.
//!
//! ```text
//!  process (a runtime) ── gate ──► MemoryApi ◄── nodes' reports
//!       │                  └─────► do_simulator::Cloud ──► machines ──► endpoints
//!       └ dropped: SIGKILL, not driven: SIGSTOP             (world.rs)
//! ```
//!
//! A *point* is a changing call of an undisturbed run, a Lease's renewals left out, and a moment of it: before it is sent, after it was
//! done and before the reply, after the reply. Calls are counted over all processes of a run, so a second crash can hit the recovery.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so by ending"
)]

mod calls;
mod cloud;
mod gate;
mod ledger;
mod machines;
mod outcome;
mod points;
mod process;
mod run;
mod same_answers;
mod scenarios;
mod stops;
mod trial;
mod views;
mod world;
