//! Probe results in, verdicts out; pure, time is an argument.
//!
//! A [`detector::Detector`] turns the probes of one level of one gateway into a [`Standing`]; [`watch::Watch`] has those of all gateways
//! and condemns by difference; [`selection::select`] turns the standings of an ordered list into the gateway to use, [`sharing::share`]
//! into those that share the traffic. None reads a clock, sends a packet or keeps a task: the agent probes, reports each outcome, and
//! asks again when a probe has ended or [`watch::Watch::next_deadline`] has come.

pub mod config;
pub mod detector;
mod loss;
pub mod selection;
pub mod sharing;
pub mod tick;
pub mod watch;

pub use config::Config;
pub use detector::{Detector, Outcome, Signal, Standing, Transition, Verdict};
pub use selection::{Candidate, Choice, Why, select};
pub use sharing::share;
pub use tick::Tick;
pub use watch::{Evidence, Fault, Level, Noticed, Probe, Wanted, Watch, is_cut_off};
