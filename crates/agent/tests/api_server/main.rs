//! The agent's side of the API server, a real one: rights, bad input, many nodes, what wakes the loop.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at what it did not expect")]

mod fleet;
mod many_nodes;
mod own_report;
mod served;
mod stage;
