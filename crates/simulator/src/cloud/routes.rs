//! Which call is meant.
//!
//! Responsibility: method and path to the function that answers. A method that a known path does not have is a 405, every other path
//! a 404. Of reserved IPv6 there is only the list, and it is empty.

use jiff::Timestamp;

use super::firewall::Change;
use super::{Answer, Cloud, Refusal, Request, Variant};

/// Answers a request.
///
/// # Errors
/// What the API refuses.
#[expect(
    clippy::match_same_arms,
    reason = "a line for each route: what is held against the description reads them here"
)]
pub(super) fn dispatch(
    cloud: &mut Cloud,
    request: &Request,
    variant: Option<&Variant>,
    now: Timestamp,
) -> Result<Answer, Refusal> {
    let segments: Vec<String> = request.path.trim_matches('/').split('/').map(decoded).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let Some(("v2", path)) = segments.split_first().map(|(first, rest)| (*first, rest)) else {
        return Err(Refusal::NotFound);
    };
    match (request.method.as_str(), path) {
        ("GET", ["account"]) => Ok(cloud.get_account()),
        ("GET", ["account", "keys"]) => cloud.list_ssh_keys(request),
        ("POST", ["account", "keys"]) => cloud.create_ssh_key(request),
        ("GET", ["account", "keys", key]) => cloud.get_ssh_key(key),
        ("PUT", ["account", "keys", key]) => cloud.rename_ssh_key(key, request),
        ("DELETE", ["account", "keys", key]) => cloud.delete_ssh_key(key),
        ("GET", ["regions"]) => cloud.list_regions(request),
        ("GET", ["sizes"]) => cloud.list_sizes(request),
        ("GET", ["images"]) => cloud.list_images(request),
        ("GET", ["images", image]) => cloud.get_image(image),

        ("GET", ["droplets"]) => cloud.list_droplets(request, now),
        ("POST", ["droplets"]) => cloud.create_droplets(request, variant, now),
        ("DELETE", ["droplets"]) => cloud.delete_droplets_by_tag(request, now),
        ("POST", ["droplets", "actions"]) => cloud.post_action_by_tag(request, now),
        ("GET", ["droplets", id]) => cloud.get_droplet(id),
        ("DELETE", ["droplets", id]) => cloud.delete_droplet(id, now),
        ("GET", ["droplets", id, "actions"]) => cloud.list_droplet_actions(id, request),
        ("POST", ["droplets", id, "actions"]) => cloud.post_droplet_action(id, request, now),
        ("GET", ["droplets", id, "actions", action]) => cloud.get_droplet_action(id, action),
        ("GET", ["droplets", id, "firewalls"]) => cloud.list_firewalls_of(id, request, now),
        ("GET", ["actions"]) => cloud.page_of_actions(request, |_| true),
        ("GET", ["actions", id]) => cloud.get_action(id, |_| true),

        ("GET", ["tags"]) => cloud.list_tags(request),
        ("POST", ["tags"]) => cloud.create_tag(request),
        ("GET", ["tags", name]) => cloud.get_tag(name),
        ("DELETE", ["tags", name]) => cloud.delete_tag(name),
        ("POST", ["tags", name, "resources"]) => cloud.tag_resources(name, request, true, now),
        ("DELETE", ["tags", name, "resources"]) => cloud.tag_resources(name, request, false, now),

        ("GET", ["vpcs"]) => cloud.list_vpcs(request),
        ("GET", ["vpcs", id]) => cloud.get_vpc(id),
        ("GET", ["vpcs", id, "members"]) => cloud.list_vpc_members(id, request),

        ("GET", ["reserved_ips"]) => cloud.list_reserved_ips(request),
        ("POST", ["reserved_ips"]) => cloud.create_reserved_ip(request, now),
        ("GET", ["reserved_ips", ip]) => cloud.get_reserved_ip(ip),
        ("DELETE", ["reserved_ips", ip]) => cloud.delete_reserved_ip(ip),
        ("GET", ["reserved_ips", ip, "actions"]) => cloud.list_reserved_ip_actions(ip, request),
        ("POST", ["reserved_ips", ip, "actions"]) => cloud.post_reserved_ip_action(ip, request, now),
        ("GET", ["reserved_ips", ip, "actions", action]) => cloud.get_reserved_ip_action(ip, action),

        ("GET", ["firewalls"]) => cloud.list_firewalls(request),
        ("POST", ["firewalls"]) => cloud.create_firewall(request, now),
        ("GET", ["firewalls", id]) => cloud.get_firewall(id),
        ("PUT", ["firewalls", id]) => cloud.update_firewall(id, request, now),
        ("DELETE", ["firewalls", id]) => cloud.delete_firewall(id, now),
        ("POST", ["firewalls", id, part @ ("droplets" | "tags" | "rules")]) => {
            cloud.change_firewall(id, part, Change::Add, request, now)
        }
        ("DELETE", ["firewalls", id, part @ ("droplets" | "tags" | "rules")]) => {
            cloud.change_firewall(id, part, Change::Remove, request, now)
        }

        ("GET", ["projects"]) => cloud.list_projects(request),
        ("POST", ["projects"]) => cloud.create_project(request, now),
        ("GET", ["projects", id]) => cloud.get_project(id),
        ("PUT", ["projects", id]) => cloud.update_project(id, request, now),
        ("PATCH", ["projects", id]) => cloud.update_project(id, request, now),
        ("DELETE", ["projects", id]) => cloud.delete_project(id),
        ("GET", ["projects", id, "resources"]) => cloud.list_project_resources(id, request, now),
        ("POST", ["projects", id, "resources"]) => cloud.assign_resources(id, request, now),
        ("GET", ["reserved_ipv6"]) => {
            super::paging::page(request, "reserved_ipv6s", 0, |_| serde_json::Value::Null)
        }
        (
            _,
            [
                "account" | "regions" | "sizes" | "images" | "droplets" | "actions" | "tags" | "vpcs"
                | "reserved_ips" | "firewalls" | "projects" | "reserved_ipv6",
            ]
            | ["account", "keys"]
            | ["account", "keys", _]
            | [
                "droplets" | "tags" | "vpcs" | "actions" | "images" | "reserved_ips" | "firewalls"
                | "projects",
                _,
            ]
            | ["projects", _, "resources"]
            | ["firewalls", _, "droplets" | "tags" | "rules"],
        ) => Err(Refusal::MethodNotAllowed),
        _ => Err(Refusal::NotFound),
    }
}

/// Percent-decoding of one path segment; what cannot be decoded stays as it is.
fn decoded(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| segment.into())
}
