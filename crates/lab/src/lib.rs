//! A whole cloud and cluster on one machine.

pub mod cgroups;
pub mod error;
pub mod machine;
pub mod netns;
pub mod network;
pub mod processes;
pub mod relay;
pub mod state;
pub mod stop;
