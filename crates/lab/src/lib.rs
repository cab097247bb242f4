//! A whole cloud and cluster on one machine.

pub mod cgroups;
pub mod cloud;
pub mod cluster;
pub mod demo;
pub mod error;
pub mod exec;
pub mod faults;
pub mod internet;
pub mod machine;
pub mod netns;
pub mod network;
pub mod prerequisites;
pub mod processes;
pub mod progress;
pub mod relay;
pub mod start;
pub mod state;
pub mod status;
pub mod stop;
pub mod traffic;
