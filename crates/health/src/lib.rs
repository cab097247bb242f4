//! Probe results in, verdicts out; pure, time is an argument.
//!
//! [`detector::Detector`] turns the probes of one gateway into a [`Standing`]; [`selection::select`] turns the standings
//! of an ordered list into the gateway to use, [`sharing::share`] into the gateways that share the traffic. None reads a clock, sends a packet or keeps a task: the agent probes
//! every [`Config::interval`], reports each outcome, and asks again when a probe has ended or
//! [`detector::Detector::next_deadline`] has come.

pub mod config;
pub mod detector;
pub mod selection;
pub mod sharing;
pub mod tick;

pub use config::Config;
pub use detector::{Detector, Outcome, Signal, Standing, Transition, Verdict};
pub use selection::{Candidate, Choice, Why, select};
pub use sharing::share;
pub use tick::Tick;
