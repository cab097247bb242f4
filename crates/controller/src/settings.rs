//! Command line and environment of the controller.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use egress_dashboard::Listen;
use egress_runtime::telemetry::Format;
use ipnet::Ipv4Net;

use crate::decision::Limits;

/// Keeps the gateways of every EgressGateway alive and tells the nodes which ones work.
#[derive(Debug, Clone, Parser)]
#[command(name = "egress-controller", version)]
pub struct Settings {
    /// Address of DigitalOcean's API; another one only for a simulator or proxy.
    #[arg(long, value_name = "URL", default_value = egress_digitalocean::Client::DEFAULT_ADDRESS)]
    pub digitalocean_api: String,

    /// Namespace of the Lease and of the Secret `digitalocean-token`.
    #[arg(long, env = "POD_NAMESPACE", default_value = "egress-gateway")]
    pub namespace: String,

    /// Name of this pod: what the Lease and events show.
    #[arg(long, env = "POD_NAME", default_value = "egress-controller")]
    pub pod_name: String,

    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, default_value = "0.0.0.0:9190")]
    pub admin_listen: SocketAddr,

    /// Where the health page is served: on a loopback address to whoever reaches it, as `kubectl egress dashboard` does; elsewhere,
    /// for an ingress, to who shows a token of Kubernetes that may list EgressGateways and NodeEgresses. Several with commas between
    /// them, or `off`.
    #[arg(long, value_name = "ADDRESS:PORT,...", default_value = "127.0.0.1:9192")]
    pub dashboard_listen: Listen,

    /// Range of all pods, for clusters whose pods reach the VPC with their own addresses. Left out: a /16 or wider prefix
    /// around the pod ranges of the nodes.
    #[arg(long)]
    pub cluster_pod_range: Option<Ipv4Net>,

    /// How long after a create whose outcome is unknown nothing is created in its place. Below 60 only for a simulator.
    #[arg(long, default_value_t = 60)]
    pub settle_seconds: u32,

    /// How long a Droplet may take from its creation until it is proven.
    #[arg(long, default_value_t = 600)]
    pub bring_up_seconds: u32,

    /// How long a gateway must be condemned by a quorum of nodes without interruption before it is power-cycled or replaced.
    #[arg(long, default_value_t = 30)]
    pub replace_after_seconds: u32,

    /// How long a Droplet that was powered on or power-cycled may take until it is proven.
    #[arg(long, default_value_t = 120)]
    pub power_on_seconds: u32,

    /// How long a Droplet whose creation was accepted may be not found before it counts as lost.
    #[arg(long, default_value_t = 120)]
    pub lost_after_seconds: u32,

    /// How long all gateways of an EgressGateway must have worked before one of them is replaced because it is not as the spec has it, or
    /// too old.
    #[arg(long, default_value_t = 120)]
    pub roll_pause_seconds: u32,

    /// Over how long gateways are replaced when this controller makes other user data than the one before: each EgressGateway at a time
    /// of its own, none in the first twenty-fourth. 0: all at once.
    #[arg(long, default_value_t = 86_400)]
    pub user_data_spread_seconds: u32,

    /// How many Droplets the controller may have for all EgressGateways of the cluster together. It makes none beyond that, whatever the
    /// objects ask for. Leave room for one more than they ask for: a gateway that is replaced is there beside its successor for a while.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_droplets: u32,

    /// How old the list of the account's firewalls may be while nothing is known to change: within this time drift of a gateway's
    /// firewall is found. At least 5: that is one call in seven of those that the API takes in an hour, and Droplets need them more.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(5..))]
    pub firewall_age_seconds: u32,

    /// How old the list of the account's reserved addresses may be while nothing is known to change: within this time an address that
    /// was moved by hand is found, if the gateway's own endpoint does not tell before. At least 5, as with firewalls.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(5..))]
    pub reserved_ip_age_seconds: u32,

    /// How long a node may be gone before its report is deleted, should Kubernetes' garbage collector not have done so.
    #[arg(long, default_value_t = 60)]
    pub forget_node_after_seconds: u32,

    /// What is logged, such as `info,egress_controller=debug`.
    #[arg(long, env = "EGRESS_LOG", default_value = egress_runtime::telemetry::DEFAULT_FILTER)]
    pub log: String,

    /// `json` or `text`.
    #[arg(long, env = "EGRESS_LOG_FORMAT", default_value = "json")]
    pub log_format: Format,
}

impl Settings {
    /// The times that rule decisions.
    pub fn limits(&self) -> Limits {
        let seconds = |value: u32| Duration::from_secs(value.into());
        Limits {
            settle: seconds(self.settle_seconds),
            bring_up: seconds(self.bring_up_seconds),
            replace_after: seconds(self.replace_after_seconds),
            power_on: seconds(self.power_on_seconds),
            lost_after: seconds(self.lost_after_seconds),
            roll_pause: seconds(self.roll_pause_seconds),
            user_data_spread: seconds(self.user_data_spread_seconds),
            most_droplets: usize::try_from(self.max_droplets).unwrap_or(usize::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_health_page_is_on_the_loopback_unless_somebody_says_otherwise() {
        let listen = |arguments: &[&str]| {
            let all = ["egress-controller"].iter().chain(arguments).copied();
            Settings::try_parse_from(all).map(|settings| settings.dashboard_listen.0)
        };
        let [one] = listen(&[]).unwrap()[..] else { panic!("one address") };
        assert!(one.ip().is_loopback() && one.port() == 9192);
        assert!(listen(&["--dashboard-listen=off"]).unwrap().is_empty());
        assert_eq!(listen(&["--dashboard-listen=127.0.0.1:9192,0.0.0.0:9193"]).unwrap().len(), 2);
        let refused = listen(&["--dashboard-listen=9192"]).unwrap_err().to_string();
        assert!(
            refused.contains("--dashboard-listen") && refused.contains("'9192' is no address"),
            "{refused}"
        );
    }

    #[test]
    fn the_list_of_firewalls_cannot_use_up_the_calls_that_droplets_need() {
        let age = |seconds: &str| {
            let argument = format!("--firewall-age-seconds={seconds}");
            Settings::try_parse_from(["egress-controller", &argument])
                .ok()
                .map(|settings| settings.firewall_age_seconds)
        };
        assert_eq!(age("5"), Some(5));
        assert_eq!(age("4"), None);
        assert_eq!(age("0"), None);
    }
}
