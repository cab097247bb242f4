//! Command line and environment of the agent.

use std::net::SocketAddr;

use clap::Parser;
use egress_routing::Numbers;
use ipnet::Ipv4Net;

use crate::watches::ListName;

/// Keeps the routes of StaticRoutes in this node's kernel, whatever happens to the node.
#[derive(Debug, Clone, Parser)]
#[command(name = "egress-agent", version)]
pub struct Settings {
    /// Name of the node this agent runs on.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,

    /// Where /livez, /readyz and /metrics are served. With the host's network, an address that the internet does not reach.
    #[arg(long, default_value = "127.0.0.1:9191")]
    pub admin_listen: SocketAddr,

    /// Namespace of the agent's DaemonSet.
    #[arg(long, env = "POD_NAMESPACE", default_value = "egress-gateway")]
    pub namespace: String,

    /// Name of the agent's DaemonSet: when it is deleted, the agent takes its routes with it. Empty: never.
    #[arg(long, default_value = "egress-agent")]
    pub daemonset: String,

    /// Name of the API server as the node knows it, `host` or `host:port`: all its addresses are kept off the gateways. Left
    /// out, it follows from the node's own metadata (`<cluster id>.k8s.ondigitalocean.com`).
    #[arg(long, value_parser = parse_host)]
    pub api_server_name: Option<Host>,

    /// Prefixes that never go through a gateway, beside those the agent finds by itself.
    #[arg(long, value_delimiter = ',')]
    pub protected: Vec<Ipv4Net>,

    /// Names whose addresses never go through a gateway: the cloud's API must stay reachable to mend a dead gateway.
    #[arg(long, value_delimiter = ',', default_value = "api.digitalocean.com,registry.digitalocean.com")]
    pub protected_names: Vec<String>,

    /// Seconds between two look-ups of the protected names and the API server's.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub names_interval: u64,

    /// ConfigMap with more of both, `name` or `namespace/name`, in keys `ranges` and `names`, one a line; it is followed and
    /// may be missing. Empty: none.
    #[arg(long, default_value = "egress-protected")]
    pub protected_list: String,

    /// Pods of the whole cluster, where the nodes' own ranges do not tell.
    #[arg(long, default_value = "10.244.0.0/16")]
    pub pod_range: Ipv4Net,

    /// Take the routes that the older StaticRoute operator left in the main table away, once this agent's own are in force. Only
    /// those with the destination and the gateway of a StaticRoute, and each of them once.
    #[arg(long)]
    pub remove_leftovers_of_older_operator: bool,

    /// Routing table of all StaticRoutes. Never 135, 200, 253-255, 2004 or 2005.
    #[arg(long, default_value_t = Numbers::default().table)]
    pub table: u32,

    /// First of 32 routing tables through which gateways are probed.
    #[arg(long, default_value_t = Numbers::default().probe_tables)]
    pub probe_tables: u32,

    /// First of 102 rule priorities, 113 to 15033.
    #[arg(long, default_value_t = Numbers::default().rule_priorities)]
    pub rule_priorities: u32,

    /// First of 2112 source ports of probes, 61000 to 63424.
    #[arg(long, default_value_t = Numbers::default().probe_ports)]
    pub probe_ports: u16,

    /// First of 1000000 ids of nexthop objects: a whole million from 241000000 to 249000000.
    #[arg(long, default_value_t = Numbers::default().nexthop_ids)]
    pub nexthop_ids: u32,

    /// Log filter, such as `info` or `info,egress_agent=debug`.
    #[arg(long, env = "EGRESS_LOG", default_value = egress_runtime::telemetry::DEFAULT_FILTER)]
    pub log: String,

    /// `json` or `text`.
    #[arg(long, env = "EGRESS_LOG_FORMAT", default_value = "json")]
    pub log_format: egress_runtime::telemetry::Format,

    /// Services of the cluster.
    #[arg(long, default_value = "10.245.0.0/16")]
    pub service_range: Ipv4Net,
}

impl Settings {
    /// The ConfigMap with the user's list.
    pub fn protected_list(&self) -> Option<ListName> {
        let text = self.protected_list.as_str();
        let (namespace, name) = text.split_once('/').unwrap_or((&self.namespace, text));
        (!name.is_empty()).then(|| ListName { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// The numbers of tables, rules, ports and nexthop objects as given; whether they can be used says `Layout::new`.
    pub fn numbers(&self) -> Numbers {
        Numbers {
            table: self.table,
            probe_tables: self.probe_tables,
            rule_priorities: self.rule_priorities,
            probe_ports: self.probe_ports,
            nexthop_ids: self.nexthop_ids,
        }
    }
}

/// A host name, perhaps with a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The name.
    pub name: String,
    /// The port.
    pub port: Option<u16>,
}

fn parse_host(text: &str) -> Result<Host, String> {
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, Some(port.parse().map_err(|_| format!("'{port}' is no port"))?)),
        None => (text, None),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(format!(
            "'{name}' is no host name; write it like api.example.com or api.example.com:6443"
        ));
    }
    Ok(Host { name: name.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protected_list_is_in_the_agents_namespace_unless_it_names_another() {
        let list = |arguments: &[&str]| {
            let all = ["egress-agent", "--node-name=node-1", "--namespace=egress"].iter().chain(arguments);
            Settings::parse_from(all).protected_list().map(|list| format!("{}/{}", list.namespace, list.name))
        };
        assert_eq!(list(&[]).as_deref(), Some("egress/egress-protected"));
        assert_eq!(list(&["--protected-list=mine"]).as_deref(), Some("egress/mine"));
        assert_eq!(list(&["--protected-list=ops/mine"]).as_deref(), Some("ops/mine"));
        assert_eq!(list(&["--protected-list="]), None);
    }

    #[test]
    fn a_host_has_a_name_and_perhaps_a_port() {
        let host = |name: &str, port| Ok(Host { name: name.to_owned(), port });
        assert_eq!(parse_host("api.example.com"), host("api.example.com", None));
        assert_eq!(parse_host("198.51.100.10:6443"), host("198.51.100.10", Some(6443)));
        for bad in ["", "https://api.example.com", "api.example.com:", "api.example.com:x", "a b"] {
            assert!(parse_host(bad).is_err(), "{bad}");
        }
    }
}
