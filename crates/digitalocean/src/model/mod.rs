//! What the API sends and takes, as types. Decoding is lenient, encoding strict.

pub mod account;
pub mod action;
pub mod catalog;
pub mod droplet;
pub mod firewall;
pub mod ids;
pub mod lenient;
pub mod project;
pub mod request;
pub mod reserved_ip;
pub mod vpc;
