//! Token, region and VPC, by the controller's own code.

use std::collections::BTreeSet;
use std::sync::Arc;

use egress_api::EgressGatewaySpec;
use egress_controller::clock::Clock;
use egress_controller::cloud::Cloud;
use egress_controller::identity::node_droplet;
use egress_controller::metrics::{ControllerMetrics, PREFIX};
use egress_controller::observation::{Site, Trouble};
use egress_controller::settings::Settings;
use egress_controller::site::{Locator, of_cloud, pod_ranges};
use egress_digitalocean::DropletId;
use egress_runtime::kubernetes::within_deadline;
use egress_runtime::metrics::Metrics;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use serde_json::json;

use super::Finding;
use crate::access::Access;
use crate::view::{View, name};

/// Below this the controller may have to wait.
const FEW_CALLS: u64 = 500;

pub(super) async fn look(client: &Client, access: &Access, settings: &Settings, view: &View) -> Vec<Finding> {
    let about = "token";
    let cloud = match access.cloud(client, settings).await {
        Ok(cloud) => cloud,
        Err(error) => {
            return vec![Finding::unknown(about, format!("{error:#}"), "--token-file, or --skip-cloud")];
        }
    };
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let cluster = match within_deadline(namespaces.get("kube-system")).await {
        Ok(system) => system.metadata.uid.unwrap_or_default(),
        Err(error) => {
            return vec![Finding::unknown(
                about,
                format!("namespace kube-system: {error}"),
                "ask for the right to read it",
            )];
        }
    };
    let metrics = ControllerMetrics::register(&mut Metrics::new(PREFIX, env!("CARGO_PKG_VERSION")));
    let quota = cloud.clone();
    let cloud = Arc::new(Cloud::new(cloud, &cluster, metrics, Clock::default()));
    let providers = view.nodes.iter().filter_map(|node| node.spec.as_ref()?.provider_id.as_deref());
    let nodes: BTreeSet<DropletId> = providers.filter_map(node_droplet).collect();
    let mut findings = Vec::new();
    if let Some(node) = nodes.first() {
        let sees = cloud.sees(*node).await.map_err(|error| of_cloud(&error));
        findings.push(token(sees, &access.namespace, &settings.token_secret));
        if findings.iter().any(|one| one.level == super::Level::Wrong) {
            return findings;
        }
    }
    let ranges = view
        .nodes
        .iter()
        .filter_map(|node| node.spec.as_ref())
        .flat_map(|spec| spec.pod_cidrs.iter().flatten());
    let ranges = pod_ranges(settings.cluster_pod_range, ranges.map(String::as_str));
    let locator = Locator::default();
    // What an EgressGateway that asks for nothing in particular would get.
    let plain = json!({"destinations": ["0.0.0.0/0"], "publicIP": "Ephemeral"});
    if let Ok(plain) = serde_json::from_value::<EgressGatewaySpec>(plain) {
        findings.push(vpc("VPC", locator.locate(&cloud, &plain, &nodes, &ranges).await));
    }
    for gateway in view.gateways() {
        let site = locator.locate(&cloud, &gateway.spec, &nodes, &ranges).await;
        if let Err(Trouble { reason: "WrongVpc" | "WrongRegion", .. }) = &site {
            findings.push(vpc(&format!("EgressGateway {}", name(gateway)), site));
        }
    }
    if let Some(remaining) = quota.quota().remaining.filter(|remaining| *remaining < FEW_CALLS) {
        let message =
            format!("{remaining} calls are left in this hour, which others with the same token use too");
        findings.push(Finding::note("calls", message, "give the controller a token of its own"));
    }
    findings
}

fn token(sees: Result<bool, Trouble>, namespace: &str, secret: &str) -> Finding {
    let put = format!(
        "kubectl -n {namespace} create secret generic {secret} --from-literal=token=<token>, with the scopes of docs/token.md"
    );
    match sees {
        Ok(true) => Finding::fine("token", "it sees the cluster's nodes"),
        Ok(false) => {
            Finding::wrong("token", "it does not see a node of the cluster: it is of another team", put)
        }
        Err(Trouble { reason: reason @ ("TokenMissing" | "TokenRefused" | "CloudForbids"), message }) => {
            Finding::wrong("token", format!("{reason}: {message}"), put)
        }
        Err(Trouble { reason, message }) => Finding::unknown(
            "token",
            format!("{reason}: {message}"),
            "docs/troubleshooting.md has every reason",
        ),
    }
}

fn vpc(about: &str, site: Result<Site, Trouble>) -> Finding {
    match site {
        Ok(site) => Finding::fine(about, format!("the nodes are in VPC {} in {}", site.vpc, site.region)),
        Err(Trouble { reason, message }) => {
            let fix = match reason {
                "WrongVpc" | "WrongRegion" => "leave spec.droplet.vpcUUID and region out",
                "SeveralVpcs" => "use a cluster whose node pools are in one VPC",
                "VpcUnknown" => "give the token the scope vpc:read (docs/token.md)",
                _ => "docs/troubleshooting.md has every reason",
            };
            let is_outage = reason.starts_with("Cloud");
            let found = format!("{reason}: {message}");
            if is_outage { Finding::unknown(about, found, fix) } else { Finding::wrong(about, found, fix) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn what_the_cloud_says_leads_to_the_fix() {
        let trouble = |reason| Trouble { reason, message: "words".to_owned() };
        let judge = |sees| token(sees, "n", "my-token");
        assert_eq!(judge(Ok(true)).level, Level::Fine);
        assert!(judge(Ok(false)).message.contains("another team"));
        let fix = judge(Err(trouble("TokenRefused"))).fix.unwrap();
        assert!(fix.contains("kubectl -n n create secret generic my-token "), "{fix}");
        assert_eq!(judge(Err(trouble("CloudUnreachable"))).level, Level::Unknown);
        assert_eq!(vpc("VPC", Err(trouble("CloudUnreachable"))).level, Level::Unknown);
        let wrong = vpc("EgressGateway demo", Err(trouble("WrongVpc")));
        assert!(wrong.level == Level::Wrong && wrong.fix.unwrap().contains("spec.droplet.vpcUUID"));
    }
}
