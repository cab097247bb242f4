//! Every answer of every route against DigitalOcean's own description (schemas.json, JSON Schema per operation).

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;

use jsonschema::{Draft, Validator};
use serde_json::{Value, json};

use crate::simulator::{Simulator, VPC, Wanted, client, wish};
use do_simulator::rate::Limits;

/// The description, and which of its operations were exercised how.
struct Description {
    document: Value,
    compiled: BTreeMap<(String, String), Option<Validator>>,
    seen: BTreeSet<(String, bool)>,
    simulator: Simulator,
}

/// The folder of the description; beside the checkout unless the environment says otherwise.
pub fn folder() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("DIGITALOCEAN_OPENAPI_DIR") {
        let folder = PathBuf::from(folder);
        assert!(folder.join("schemas.json").is_file(), "DIGITALOCEAN_OPENAPI_DIR has no schemas.json");
        return Some(folder);
    }
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/digitalocean");
    if beside.join("schemas.json").is_file() {
        return Some(beside);
    }
    // Straight to the file descriptor: the test harness swallows what is printed.
    let _ = writeln!(
        std::io::stderr(),
        "\nNOT TESTED: the simulator's answers against DigitalOcean's description: no {}; set DIGITALOCEAN_OPENAPI_DIR\n",
        beside.display()
    );
    None
}

impl Description {
    async fn open() -> Option<Self> {
        let text = std::fs::read_to_string(folder()?.join("schemas.json")).unwrap();
        let limits = Limits { hourly: 5_000, burst: 5_000 };
        let simulator = Simulator::with(Wanted { limits, ..Wanted::default() }).await;
        let document = serde_json::from_str(&text).unwrap();
        Some(Self { document, compiled: BTreeMap::new(), seen: BTreeSet::new(), simulator })
    }

    /// The operation a request belongs to: literal segments win over parameters.
    fn operation(&self, method: &str, path: &str) -> String {
        let segments: Vec<&str> = path.split('/').collect();
        let mut best: Option<(usize, &String)> = None;
        for (name, operation) in self.document["operations"].as_object().unwrap() {
            let template: Vec<&str> = operation["path"].as_str().unwrap().split('/').collect();
            let fits = operation["method"] == method
                && template.len() == segments.len()
                && template
                    .iter()
                    .zip(&segments)
                    .all(|(part, segment)| part.starts_with('{') || part == segment);
            let literal = template.iter().filter(|part| !part.starts_with('{')).count();
            if fits && best.is_none_or(|(most, _)| literal > most) {
                best = Some((literal, name));
            }
        }
        best.unwrap_or_else(|| panic!("{method} {path} is not in the description")).1.clone()
    }

    /// The operations that the simulator's routes lead to, read from their source: what is added there is judged here, or this fails.
    fn routed(&self) -> BTreeSet<String> {
        let mut operations = BTreeSet::new();
        for line in include_str!("../../src/cloud/routes.rs").lines() {
            let Some(rest) = line.trim().strip_prefix("(\"") else { continue };
            let Some((method, rest)) = rest.split_once("\", [") else { continue };
            let segments = rest.split_once("])").expect("a route").0;
            let mut paths = vec!["/v2".to_owned()];
            for segment in segments.split(", ") {
                // Either words, of which one must be there, or the name of something that may be anything.
                let words: Vec<&str> = segment.split('"').skip(1).step_by(2).collect();
                let words = if words.is_empty() { vec!["0"] } else { words };
                paths = paths
                    .iter()
                    .flat_map(|path| words.iter().map(move |word| format!("{path}/{word}")))
                    .collect();
            }
            operations.extend(paths.iter().map(|path| self.operation(method, path)));
        }
        operations
    }

    fn validator(&mut self, operation: &str, status: u16) -> Option<&Validator> {
        let responses = &self.document["operations"][operation]["responses"];
        let code = status.to_string();
        let code = if responses.get(&code).is_some() {
            code
        } else {
            assert!(status >= 400, "{operation} has no {status} in the description");
            "default".into()
        };
        let definitions = &self.document["$defs"];
        self.compiled.entry((operation.into(), code.clone())).or_insert_with(|| {
            let schema = &responses[&code];
            if schema.is_null() {
                return None;
            }
            let mut schema = schema.clone();
            schema["$defs"] = definitions.clone();
            let options = jsonschema::options().with_draft(Draft::Draft202012).should_validate_formats(true);
            Some(options.build(&schema).unwrap())
        });
        self.compiled[&(operation.into(), code)].as_ref()
    }

    /// Makes a call, holds the answer against the description and returns it.
    async fn call(&mut self, method: &str, address: &str, body: &Value, expected: u16) -> Value {
        let response = self.simulator.send(method, address, body).await.unwrap();
        let what = format!("{method} {address}");
        let status = response.status().as_u16();
        for header in
            ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset", "x-request-id", "content-type"]
        {
            assert!(response.headers().contains_key(header), "{what}: no {header}");
        }
        let text = response.text().await.unwrap();
        assert_eq!(status, expected, "{what}: {text}");
        let path = address.split('?').next().unwrap();
        let operation = self.operation(method, path);
        let answer = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
        match self.validator(&operation, status) {
            None => assert_eq!(text, "", "{what}: {status} has no body"),
            Some(validator) => {
                assert!(!text.is_empty(), "{what}: {status} without a body");
                let errors: Vec<String> = validator
                    .iter_errors(&answer)
                    .map(|error| format!("{} at {}", error, error.instance_path))
                    .collect();
                assert!(errors.is_empty(), "{what}: {status} {answer:#}\n{}", errors.join("\n"));
            }
        }
        self.seen.insert((operation, status < 400));
        answer
    }

    async fn get(&mut self, address: &str) -> Value {
        self.call("GET", address, &Value::Null, 200).await
    }

    async fn ssh_keys(&mut self) {
        let wanted = json!({"name": "judge", "public_key":
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEaQde8iCKizUOiXlowY1iEL1yCufgjb3aiatGQNPcHb judge"});
        let made = self.call("POST", "/v2/account/keys", &wanted, 201).await;
        let address = format!("/v2/account/keys/{}", made["ssh_key"]["id"]);
        self.call("POST", "/v2/account/keys", &wanted, 422).await;
        self.call("PUT", &address, &json!({"name": "other"}), 200).await;
        self.call("PUT", &address, &json!({"name": 1}), 422).await;
        let fingerprint = made["ssh_key"]["fingerprint"].as_str().unwrap();
        assert_eq!(self.get(&format!("/v2/account/keys/{fingerprint}")).await["ssh_key"]["name"], "other");
        self.call("DELETE", &address, &Value::Null, 204).await;
        self.call("DELETE", &address, &Value::Null, 404).await;
    }

    async fn firewalls(&mut self, id: u64) {
        self.call("POST", "/v2/tags", &json!({"name": "walled"}), 201).await;
        let wanted = json!({"name": "gw-1a2b", "droplet_ids": [id], "tags": ["walled"], "inbound_rules": [
            {"protocol": "tcp", "ports": "9181", "sources": {"addresses": ["203.0.113.21"]}},
            {"protocol": "icmp", "sources": {"addresses": ["10.116.0.0/20"]}}], "outbound_rules": [
            {"protocol": "udp", "ports": "all", "destinations": {"addresses": ["0.0.0.0/0"]}}]});
        let made = self.call("POST", "/v2/firewalls", &wanted, 202).await;
        let address = format!("/v2/firewalls/{}", made["firewall"]["id"].as_str().unwrap());
        for _ in 0..2 {
            self.get("/v2/firewalls").await;
            self.get(&address).await;
            self.get(&format!("/v2/droplets/{id}/firewalls")).await;
            self.simulator.advance(1_000).await;
        }
        self.call("PUT", &address, &wanted, 200).await;
        self.call("POST", "/v2/firewalls", &wanted, 409).await;
        for (part, body, twice) in [
            ("droplets", json!({"droplet_ids": [id]}), 204),
            ("tags", json!({"tags": ["walled"]}), 204),
            (
                "rules",
                json!({"inbound_rules": [{"protocol": "tcp", "ports": "22", "sources": {"droplet_ids": [id]}}]}),
                422,
            ),
        ] {
            let part = format!("{address}/{part}");
            self.call("POST", &part, &body, 204).await;
            self.call("POST", &part, &body, twice).await;
            self.get(&address).await;
            self.call("DELETE", &part, &body, 204).await;
            self.call("DELETE", &part, &body, 422).await;
            self.call("POST", &part, &json!({}), 422).await;
            let nothing: serde_json::Map<String, Value> =
                body.as_object().unwrap().keys().map(|field| (field.clone(), Value::Null)).collect();
            self.call("POST", &part, &Value::Object(nothing), 422).await;
        }
        self.call("PUT", &address, &json!([null]), 400).await;
        let unknown = json!({"name": "gw-1a2b", "tags": ["unknown"], "inbound_rules": []});
        self.call("PUT", &address, &unknown, 422).await;
        self.call("POST", "/v2/firewalls", &unknown, 422).await;
        self.call("DELETE", &address, &Value::Null, 204).await;
        self.call("DELETE", &address, &Value::Null, 404).await;
        self.call("GET", &address, &Value::Null, 404).await;
    }

    async fn reserved_ips(&mut self, id: u64) {
        let made = self.call("POST", "/v2/reserved_ips", &json!({"region": "nyc1"}), 202).await;
        let ip = made["reserved_ip"]["ip"].as_str().unwrap().to_owned();
        let address = format!("/v2/reserved_ips/{ip}");
        let actions = format!("{address}/actions");
        let assign = json!({"type": "assign", "droplet_id": id});
        let action = self.call("POST", &actions, &assign, 201).await["action"]["id"].clone();
        self.get("/v2/reserved_ips").await;
        self.call("POST", &actions, &json!({"type": "unassign"}), 422).await;
        self.call("DELETE", &address, &Value::Null, 422).await;
        self.simulator.advance(1_000).await;
        self.get(&address).await;
        self.get(&format!("/v2/droplets/{id}")).await;
        self.get(&actions).await;
        self.get(&format!("{actions}/{action}")).await;
        self.get(&format!("/v2/actions/{action}")).await;
        self.call("POST", &actions, &json!({"type": "unassign"}), 201).await;
        self.simulator.advance(1_000).await;
        self.call("DELETE", &address, &Value::Null, 204).await;
        self.call("POST", "/v2/reserved_ips", &json!({"droplet_id": id}), 202).await;
        self.simulator.advance(1_000).await;
        self.call("POST", "/v2/reserved_ips", &json!({}), 422).await;
        self.call("GET", &address, &Value::Null, 404).await;
        self.call("GET", &actions, &Value::Null, 404).await;
        self.call("GET", &format!("{actions}/1"), &Value::Null, 404).await;
    }

    async fn projects(&mut self, id: u64) {
        let wanted = json!({"name": "judged", "purpose": "Service or API", "environment": "Staging"});
        let made = self.call("POST", "/v2/projects", &wanted, 201).await;
        let project = format!("/v2/projects/{}", made["project"]["id"].as_str().unwrap());
        let of_default = "/v2/projects/default/resources";
        let made = self.call("POST", "/v2/reserved_ips", &json!({"region": "nyc1"}), 202).await;
        let ip = made["reserved_ip"]["ip"].as_str().unwrap();
        let [droplet, address] = [format!("do:droplet:{id}"), format!("do:floatingip:{ip}")];
        let urns = json!({"resources": [droplet, format!("do:reservedip:{ip}"), "do:droplet:1"]});
        let told = |answer: &Value, what: &str| -> Vec<Value> {
            answer["resources"].as_array().unwrap().iter().map(|one| one[what].clone()).collect()
        };
        for members in [&format!("{project}/resources"), of_default] {
            for expected in ["assigned", "already_assigned"] {
                let answer = self.call("POST", members, &urns, 200).await;
                assert_eq!(told(&answer, "status"), [expected, expected, "not_found"]);
                assert_eq!(told(&answer, "urn"), [droplet.as_str(), &address, "do:droplet:1"]);
            }
            let listed = told(&self.get(members).await, "urn");
            assert!([&droplet, &address].iter().all(|urn| listed.contains(&json!(urn))), "{listed:?}");
            self.call("POST", members, &json!({"resources": ["do:volume:1"]}), 422).await;
        }
        for urn in [&droplet, &address] {
            let one = json!({"resources": [urn]});
            self.call("POST", &format!("{project}/resources"), &one, 200).await;
            self.call("DELETE", &project, &Value::Null, 412).await;
            self.call("POST", of_default, &one, 200).await;
        }
        assert_eq!(self.get(&format!("{project}/resources")).await["meta"]["total"], 0);

        let mut whole = json!({"name": "renamed", "description": "", "purpose": "mine", "environment": "Staging",
            "is_default": false});
        let changed = self.call("PUT", &project, &whole, 200).await;
        assert_eq!(changed["project"]["purpose"], "Other: mine");
        self.call("PUT", &project, &wanted, 422).await;
        self.call("PATCH", &project, &json!({"environment": "Moon"}), 422).await;
        self.call("PATCH", &project, &json!({"name": "Default"}), 409).await;
        self.call("POST", "/v2/projects", &json!({"name": "renamed", "purpose": "x"}), 409).await;
        self.call("POST", "/v2/projects", &json!({"name": "x"}), 422).await;
        self.call("PATCH", &project, &json!({"is_default": true}), 200).await;
        assert_eq!(self.get("/v2/projects/default").await["project"]["name"], "renamed");
        let made = self.call("POST", "/v2/reserved_ips", &json!({"region": "nyc1"}), 202).await;
        assert!(project.ends_with(made["reserved_ip"]["project_id"].as_str().unwrap()), "{made}");
        let address = format!("/v2/reserved_ips/{}", made["reserved_ip"]["ip"].as_str().unwrap());
        self.call("DELETE", &address, &Value::Null, 204).await;
        self.call("DELETE", &project, &Value::Null, 412).await;
        self.call("PATCH", "/v2/projects/default", &json!({"description": "for a while"}), 200).await;
        self.call("GET", &format!("{of_default}?per_page=0"), &Value::Null, 422).await;
        self.call("PATCH", "/v2/projects/default", &json!({"is_default": false}), 422).await;
        self.call("PUT", "/v2/projects/default", &json!({"name": "x"}), 422).await;
        whole["is_default"] = json!(true);
        self.call("PUT", "/v2/projects/default", &whole, 200).await;
        let former = self.get("/v2/projects").await["projects"][0]["id"].as_str().unwrap().to_owned();
        self.call("PATCH", &format!("/v2/projects/{former}"), &json!({"is_default": true}), 200).await;
        self.get(&project).await;
        self.call("DELETE", &project, &Value::Null, 204).await;
        self.call("DELETE", &project, &Value::Null, 404).await;
    }
}

/// Operations that answer more than an empty list or a 404.
pub const IMPLEMENTED: [&str; 59] = [
    "account_get",
    "actions_get",
    "actions_list",
    "dropletActions_get",
    "dropletActions_list",
    "dropletActions_post",
    "dropletActions_post_byTag",
    "droplets_create",
    "droplets_destroy",
    "droplets_destroy_byTag",
    "droplets_get",
    "droplets_list",
    "droplets_list_firewalls",
    "firewalls_add_rules",
    "firewalls_add_tags",
    "firewalls_assign_droplets",
    "firewalls_create",
    "firewalls_delete",
    "firewalls_delete_droplets",
    "firewalls_delete_rules",
    "firewalls_delete_tags",
    "firewalls_get",
    "firewalls_update",
    "images_get",
    "images_list",
    "projects_assign_resources",
    "projects_assign_resources_default",
    "projects_create",
    "projects_delete",
    "projects_get",
    "projects_list",
    "projects_list_resources",
    "projects_list_resources_default",
    "projects_patch",
    "projects_patch_default",
    "projects_update",
    "projects_update_default",
    "regions_list",
    "reservedIPsActions_get",
    "reservedIPsActions_list",
    "reservedIPsActions_post",
    "reservedIPs_create",
    "reservedIPs_delete",
    "reservedIPs_get",
    "reservedIPs_list",
    "sizes_list",
    "sshKeys_create",
    "sshKeys_delete",
    "sshKeys_get",
    "sshKeys_list",
    "sshKeys_update",
    "tags_assign_resources",
    "tags_create",
    "tags_delete",
    "tags_get",
    "tags_list",
    "tags_unassign_resources",
    "vpcs_get",
    "vpcs_list_members",
];

#[tokio::test]
async fn every_answer_is_in_the_description() {
    let Some(mut api) = Description::open().await else { return };
    let none = Value::Null;

    for list in [
        "account",
        "account/keys",
        "regions",
        "sizes",
        "images",
        "droplets",
        "actions",
        "tags",
        "vpcs",
        "reserved_ips",
        "reserved_ipv6",
        "firewalls",
        "projects",
    ] {
        api.get(&format!("/v2/{list}")).await;
    }
    for list in [
        "account/keys",
        "regions",
        "sizes",
        "images",
        "droplets",
        "actions",
        "tags",
        "vpcs",
        "reserved_ips",
        "projects",
    ] {
        api.call("GET", &format!("/v2/{list}?per_page=0"), &none, 422).await;
    }
    api.get("/v2/sizes?per_page=3&page=2").await;
    api.get("/v2/images/debian-12-x64").await;
    api.get("/v2/images?type=distribution").await;
    api.call("GET", "/v2/images?type=snapshot", &none, 422).await;
    api.get("/v2/account/keys/289794").await;
    api.get(&format!("/v2/vpcs/{VPC}")).await;
    api.get(&format!("/v2/vpcs/{VPC}/members?resource_type=droplet")).await;

    // One Droplet's life, looked at in every state.
    let id = api.call("POST", "/v2/droplets", &wish("gw-0"), 202).await["droplet"]["id"].as_u64().unwrap();
    let droplet = format!("/v2/droplets/{id}");
    let actions = format!("{droplet}/actions");
    for _ in 0..6 {
        api.get(&droplet).await;
        api.get("/v2/droplets").await;
        api.get("/v2/droplets?tag_name=egress-gateway").await;
        api.get(&actions).await;
        api.simulator.advance(150).await;
    }
    api.get(&format!("{droplet}/firewalls")).await;
    let mut many = wish("x");
    many.as_object_mut().unwrap().remove("name");
    many["names"] = json!(["a", "b"]);
    many["ssh_keys"] = Value::Null;
    api.call("POST", "/v2/droplets", &many, 202).await;
    api.simulator.advance(1_000).await;

    for body in [
        json!({"type": "power_off"}),
        json!({"type": "resize", "size": "s-1vcpu-2gb"}),
        json!({"type": "power_on"}),
        json!({"type": "reboot"}),
        json!({"type": "power_cycle"}),
        json!({"type": "rename", "name": "gw-1"}),
        json!({"type": "snapshot", "name": "s"}),
        json!({"type": "rebuild", "image": "debian-13-x64"}),
        json!({"type": "shutdown"}),
    ] {
        let action = api.call("POST", &actions, &body, 201).await["action"]["id"].clone();
        api.call("POST", &actions, &json!({"type": "reboot"}), 422).await;
        api.simulator.advance(400).await;
        api.get(&format!("{actions}/{action}")).await;
        api.get(&format!("/v2/actions/{action}")).await;
        api.get(&droplet).await;
    }
    let by_tag = "/v2/droplets/actions?tag_name=egress-gateway";
    api.call("POST", by_tag, &json!({"type": "power_on"}), 201).await;
    api.call("POST", by_tag, &json!({"type": "rename", "name": "x"}), 422).await;
    api.simulator.advance(1_000).await;

    api.call("POST", "/v2/tags", &json!({"name": "blue"}), 201).await;
    api.call("POST", "/v2/tags", &json!({"name": "b.l.u.e"}), 400).await;
    for unreadable in ["/v2/tags", "/v2/droplets", "/v2/reserved_ips"] {
        api.call("POST", unreadable, &json!([null]), 400).await;
    }
    let resources = json!({"resources": [{"resource_id": id.to_string(), "resource_type": "droplet"}]});
    api.call("POST", "/v2/tags/blue/resources", &resources, 204).await;
    api.get("/v2/tags/blue").await;
    api.call("DELETE", "/v2/tags/blue/resources", &resources, 204).await;
    api.call("DELETE", "/v2/tags/blue", &none, 204).await;

    api.ssh_keys().await;
    api.reserved_ips(id).await;
    api.firewalls(id).await;

    api.projects(id).await;

    // Refusals.
    api.call("POST", "/v2/droplets", &json!({"name": "x"}), 422).await;
    for missing in [
        "/v2/droplets/1",
        "/v2/droplets/1/actions",
        "/v2/droplets/1/actions/1",
        "/v2/droplets/1/firewalls",
        "/v2/actions/1",
        "/v2/tags/none",
        "/v2/images/none",
        "/v2/account/keys/1",
        "/v2/projects/none",
        "/v2/projects/none/resources",
        "/v2/vpcs/none",
        "/v2/vpcs/none/members",
    ] {
        api.call("GET", missing, &none, 404).await;
    }
    api.call("DELETE", "/v2/droplets/1", &none, 404).await;
    api.call("DELETE", "/v2/droplets?tag_name=none", &none, 404).await;
    api.call("DELETE", "/v2/tags/none", &none, 404).await;
    api.call("POST", "/v2/tags/none/resources", &resources, 404).await;
    api.call("DELETE", "/v2/tags/none/resources", &resources, 404).await;

    api.call("DELETE", &droplet, &none, 204).await;
    api.get(&droplet).await;
    api.simulator.advance(400).await;
    api.call("GET", &droplet, &none, 404).await;
    api.call("DELETE", "/v2/droplets?tag_name=egress-gateway", &none, 204).await;

    let account = [("GET", "/v2/account"), ("GET", "/v2/droplets"), ("POST", "/v2/droplets")];
    for (method, path) in account {
        for status in [401, 403, 409, 422, 429, 500, 503] {
            api.simulator.fault(&format!("{method} {path}"), Some(1), json!({"status": status})).await;
            api.call(method, path, &none, status).await;
        }
    }

    let succeeded: BTreeSet<&str> =
        api.seen.iter().filter(|(_, success)| *success).map(|(name, _)| name.as_str()).collect();
    for operation in api.routed() {
        assert!(
            succeeded.contains(operation.as_str()),
            "{operation} has a route and was never made to succeed"
        );
    }
    let refused: BTreeSet<&str> =
        api.seen.iter().filter(|(_, success)| !*success).map(|(name, _)| name.as_str()).collect();
    for operation in IMPLEMENTED {
        assert!(succeeded.contains(operation), "{operation} was never made to succeed");
        assert!(refused.contains(operation), "{operation} was never made to refuse");
    }
}

#[tokio::test]
async fn unauthenticated_and_exhausted_clients_get_the_documented_bodies() {
    let Some(mut api) = Description::open().await else { return };
    api.simulator =
        Simulator::with(Wanted { limits: Limits { hourly: 100, burst: 2 }, ..Wanted::default() }).await;
    for path in ["/v2/droplets", "/v2/account"] {
        let response = client().build().unwrap();
        let response = response.get(api.simulator.address(path)).bearer_auth("wrong").send().await.unwrap();
        assert_eq!(response.status(), 401);
        assert!(response.headers().contains_key("ratelimit-limit"));
        let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!(body, json!({"id": "unauthorized", "message": "Unable to authenticate you."}));
    }
    api.get("/v2/droplets").await;
    api.get("/v2/droplets").await;
    let body = api.call("GET", "/v2/droplets", &Value::Null, 429).await;
    assert_eq!(body, json!({"id": "too_many_requests", "message": "API Rate limit exceeded."}));
    let refused = api.simulator.send("GET", "/v2/droplets", &Value::Null).await.unwrap();
    assert_eq!(refused.headers()["ratelimit-remaining"], "0");
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    api.simulator.advance(wait * 1_000).await;
    api.get("/v2/droplets").await;
}
