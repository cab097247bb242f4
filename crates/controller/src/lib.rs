//! EgressGateway controller: observe, decide, act.
//!
//! One step for one EgressGateway: read everything that matters ([`observe`]), choose at most one effect ([`decide`], pure),
//! carry it out ([`act`]), begin again. Every state that a crash can leave between two effects is one that `decide` knows.

pub mod act;
pub mod agents;
pub mod backoff;
pub mod catalogue;
pub mod clock;
pub mod cloud;
pub mod credentials;
pub mod dashboard;
pub mod decide;
pub mod decision;
pub mod firewall;
pub mod forecast;
pub mod health;
pub mod hearing;
pub mod identity;
pub mod leader;
pub mod live;
pub mod metrics;
pub mod observation;
pub mod observe;
pub mod older_operator;
pub mod orphans;
pub mod process;
pub mod reconcile;
pub mod relisting;
pub mod reserved_ip;
pub mod route_status;
pub mod settings;
pub mod site;
pub mod startup_taint;
pub mod unreadable;
pub mod user_data;
pub mod watches;
