//! Other programs that route, or make gateways: DigitalOcean's routing agent, the older StaticRoute operator, Crossplane.

use egress_routing::prefix::parse_destination;
use egress_runtime::kubernetes::within_deadline;
use ipnet::Ipv4Net;
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, Client};

use super::Finding;
use crate::output::some;
use crate::view::{View, name, why};

/// Namespace and name that its manifest gives the older operator's DaemonSet.
pub const OLDER_OPERATOR: (&str, &str) = ("static-routes", "k8s-staticroute-operator");

pub(super) async fn look(client: &Client, view: &View) -> Vec<Finding> {
    let mut findings = Vec::new();
    let about = "routing agent";
    let routes = GroupVersionKind::gvk("networking.doks.digitalocean.com", "v1alpha1", "Route");
    findings.push(match objects(client, &routes, "routes").await {
        Ok(routes) => routing_agent(routes.unwrap_or_default().as_slice(), view),
        Err(message) => Finding::unknown(about, message, "ask for the right to list its Routes"),
    });
    let about = "older operator";
    let daemonsets: Api<DaemonSet> = Api::namespaced(client.clone(), OLDER_OPERATOR.0);
    findings.push(match within_deadline(daemonsets.get_metadata_opt(OLDER_OPERATOR.1)).await {
        Ok(Some(_)) => Finding::wrong(
            about,
            "the older StaticRoute operator runs: it writes the same objects' routes into the main table, and there they win",
            "kubectl egress migrate older-operator",
        ),
        Ok(None) => Finding::fine(about, "does not run"),
        Err(error) => Finding::unknown(about, why(&error), "ask for the right to read DaemonSets in namespace static-routes"),
    });
    let about = "Crossplane";
    findings.push(match objects(client, &blueprint_kind(), "droplets").await {
        Ok(droplets) => match droplets.unwrap_or_default() {
            droplets if droplets.is_empty() => Finding::fine(about, "makes no Droplets here"),
            droplets => {
                let names: Vec<String> = droplets.iter().map(|one| name(one).to_owned()).collect();
                let message = format!(
                    "makes Droplets: {}; a gateway among them is neither watched nor replaced",
                    some(&names)
                );
                Finding::note(about, message, "kubectl egress migrate blueprint <name>, if it is a gateway")
            }
        },
        Err(message) => Finding::unknown(about, message, "ask for the right to list its Droplets"),
    });
    findings
}

/// The kind of Droplets that Crossplane's provider makes.
pub fn blueprint_kind() -> GroupVersionKind {
    GroupVersionKind::gvk("compute.do.crossplane.io", "v1alpha1", "Droplet")
}

/// `None`: the API server does not know the kind.
async fn objects(
    client: &Client,
    kind: &GroupVersionKind,
    plural: &str,
) -> Result<Option<Vec<DynamicObject>>, String> {
    let resource = ApiResource::from_gvk_with_plural(kind, plural);
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    match within_deadline(api.list(&ListParams::default())).await {
        Ok(listed) => Ok(Some(listed.items)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(why(&error)),
    }
}

fn routing_agent(routes: &[DynamicObject], view: &View) -> Finding {
    let about = "routing agent";
    if routes.is_empty() {
        return Finding::fine(about, "DigitalOcean's routing agent has no Route");
    }
    let theirs = |route: &DynamicObject| -> Vec<Ipv4Net> {
        let listed = route.data["spec"]["destinations"].as_array().cloned().unwrap_or_default();
        listed.iter().filter_map(|one| parse_destination("", one.as_str()?).ok()).collect()
    };
    let ours: Vec<Ipv4Net> = view
        .routes()
        .flat_map(|route| &route.spec.destinations)
        .filter_map(|one| parse_destination("", &one.0).ok())
        .collect();
    // What is listed more exactly than theirs is answered by theirs all the same: the main table comes first.
    let shadows = |route: &&DynamicObject| {
        theirs(route).iter().any(|range| ours.iter().any(|own| range.contains(own) && range.prefix_len() > 0))
    };
    let shadowing: Vec<String> = routes.iter().filter(shadows).map(|route| name(route).to_owned()).collect();
    if shadowing.is_empty() {
        let message = "DigitalOcean's routing agent has Routes, none of them for a destination of ours";
        return Finding::note(about, message, "nothing; docs/comparison.md says how the two go together");
    }
    Finding::wrong(
        about,
        format!("its Routes {} have destinations of ours, and win", some(&shadowing)),
        "decide for one of the two for each destination: docs/comparison.md, \"Side by side\"",
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Level;
    use super::*;
    use crate::view::fixture::{static_route, view};

    #[test]
    fn a_route_of_the_routing_agent_is_trouble_where_it_covers_a_destination_of_ours() {
        let view = view(&[static_route("mine", 1, &["192.0.2.7", "0.0.0.0/0"], &["10.116.0.5"])]);
        let told = |destinations: &[&str]| {
            let route = json!({"apiVersion": "networking.doks.digitalocean.com/v1alpha1", "kind": "Route",
                "metadata": {"name": "theirs"}, "spec": {"destinations": destinations, "gateways": ["10.116.0.9"]}});
            routing_agent(&[serde_json::from_value(route).unwrap()], &view).level
        };
        assert_eq!(routing_agent(&[], &view).level, Level::Fine);
        assert_eq!(told(&["198.51.100.0/24"]), Level::Note);
        assert_eq!(told(&["192.0.2.0/24"]), Level::Wrong);
        assert_eq!(told(&["192.0.2.7"]), Level::Wrong);
    }
}
