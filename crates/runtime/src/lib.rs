//! What every binary needs: telemetry, metrics, admin server, Kubernetes client, lease, shutdown, owned tasks.
//!
//! Responsibility: the scaffolding of a process, so that controller and agent hold only their own work.
//! Invariants: every wait on the network has an end ([`kubernetes`]); leadership is a claim that runs out by itself and is
//! asked for at each write ([`lease`]); a task the process cannot live without ends the process when it ends ([`tasks`]); a process
//! that is told to end waits for no thread ([`process`]).

pub mod admin;
pub mod core_dump;
pub mod guarded;
pub mod kubernetes;
pub mod lease;
pub mod metrics;
pub mod process;
pub mod shutdown;
pub mod tasks;
pub mod telemetry;
