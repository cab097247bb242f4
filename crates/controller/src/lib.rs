//! EgressGateway controller: observe, decide, act.

pub mod user_data;
