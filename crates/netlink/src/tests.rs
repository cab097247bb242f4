//! Most tests run against the real kernel, each in a network namespace of its own, judged by `ip`. They need root and
//! fail without it.

mod buckets;
mod bytes;
mod covers;
mod exchange;
mod kernel;
mod namespace;
mod neighbour;
mod traps;
mod written_by_ip;
