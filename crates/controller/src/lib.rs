//! EgressGateway controller: observe, decide, act.
