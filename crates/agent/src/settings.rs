//! Command line and environment of the agent.

use std::net::SocketAddr;

use clap::Parser;
use ipnet::Ipv4Net;

/// Keeps the routes of StaticRoutes in this node's kernel, whatever happens to the node.
#[derive(Debug, Clone, Parser)]
#[command(name = "egress-agent", version)]
pub struct Settings {
    /// Name of the node this agent runs on.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,

    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, default_value = "0.0.0.0:9191")]
    pub admin_listen: SocketAddr,

    /// Namespace of the agent's DaemonSet.
    #[arg(long, env = "POD_NAMESPACE", default_value = "egress-gateway")]
    pub namespace: String,

    /// Name of the agent's DaemonSet: when it is deleted, the agent takes its routes with it. Empty: never.
    #[arg(long, default_value = "egress-agent")]
    pub daemonset: String,

    /// Prefixes that never go through a gateway, beside those the agent finds by itself.
    #[arg(long, value_delimiter = ',')]
    pub protected: Vec<Ipv4Net>,

    /// Names whose addresses never go through a gateway: the cloud's API must stay reachable to mend a dead gateway.
    #[arg(long, value_delimiter = ',', default_value = "api.digitalocean.com,registry.digitalocean.com")]
    pub protected_names: Vec<String>,

    /// Pods of the whole cluster, where the nodes' own ranges do not tell.
    #[arg(long, default_value = "10.244.0.0/16")]
    pub pod_range: Ipv4Net,

    /// Log filter, such as `info` or `info,egress_agent=debug`.
    #[arg(long, env = "LOG", default_value = "info")]
    pub log: String,

    /// `json` or `text`.
    #[arg(long, env = "LOG_FORMAT", default_value = "json")]
    pub log_format: egress_runtime::telemetry::Format,

    /// Services of the cluster.
    #[arg(long, default_value = "10.245.0.0/16")]
    pub service_range: Ipv4Net,
}
