//! The client against DigitalOcean's own description, in its strict form: closed request bodies.
//!
//! The description is read from `DIGITALOCEAN_OPENAPI_DIR`, by default `shared/digitalocean` beside the checkout.

use std::collections::BTreeSet;
use std::path::PathBuf;

use egress_digitalocean::{
    ActionId, CreateDroplet, DropletAction, DropletFilter, DropletId, FirewallId, FirewallName, FirewallRule,
    FirewallSpec, ImageRef, ImageSlug, Peers, Ports, ProjectId, Protocol, TagName, VpcId,
};
use serde_json::{Value, json};

use crate::fake::{Fake, Leader, Request, json as answer, new_droplet};

/// The directory with the description, or `None` with a word about what was not tested.
fn description_dir() -> Option<PathBuf> {
    let set = std::env::var_os("DIGITALOCEAN_OPENAPI_DIR").map(PathBuf::from);
    let given = set.is_some();
    let dir =
        set.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/digitalocean"));
    if dir.join("schemas.json").is_file() {
        return Some(dir);
    }
    assert!(!given, "DIGITALOCEAN_OPENAPI_DIR has no schemas.json");
    // Straight to the file descriptor: the test harness hides what a passing test prints.
    let text = "NOT TESTED: requests against DigitalOcean's description; set DIGITALOCEAN_OPENAPI_DIR to its directory\n";
    std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes()).unwrap();
    None
}

fn read(dir: &std::path::Path, file: &str) -> Value {
    serde_json::from_slice(&std::fs::read(dir.join(file)).unwrap()).unwrap()
}

/// Judges requests by `schemas.json`.
struct Judge {
    schemas: Value,
}

impl Judge {
    fn schema_errors(&self, schema: &Value, value: &Value) -> Vec<String> {
        let mut whole = schema.clone();
        whole["$schema"] = self.schemas["$schema"].clone();
        whole["$defs"] = self.schemas["$defs"].clone();
        let validator = jsonschema::validator_for(&whole).unwrap();
        validator.iter_errors(value).map(|error| format!("{error} at {}", error.instance_path)).collect()
    }

    /// The operation's id and what is wrong with the request.
    fn judge(&self, request: &Request) -> (String, Vec<String>) {
        let operations = self.schemas["operations"].as_object().unwrap();
        let fits = |operation: &Value| {
            let template = operation["path"].as_str().unwrap();
            operation["method"] == request.method.as_str() && path_fits(template, &request.path)
        };
        // A literal path (/v2/droplets/actions) goes before one with a parameter.
        let found = operations.iter().filter(|(_, operation)| fits(operation));
        let parameters = |operation: &Value| operation["path"].as_str().unwrap().matches('{').count();
        let Some((id, operation)) = found.min_by_key(|(_, operation)| parameters(operation)) else {
            return (
                "unknown".to_owned(),
                vec![format!("no such operation: {} {}", request.method, request.path)],
            );
        };
        let mut wrong = Vec::new();
        for (name, value) in &request.query {
            let known = operation["query"]
                .as_array()
                .and_then(|all| all.iter().find(|known| known["name"] == name.as_str()));
            match known {
                None => wrong.push(format!("{id}: no query parameter {name}")),
                Some(known) => {
                    let value = value.parse::<u64>().map_or_else(|_| json!(value), |number| json!(number));
                    wrong.extend(self.schema_errors(&known["schema"], &value));
                }
            }
        }
        match (operation.get("request_closed").filter(|schema| !schema.is_null()), request.body.is_empty()) {
            (None, false) => wrong.push(format!("{id}: takes no body")),
            (Some(_), true) => wrong.push(format!("{id}: needs a body")),
            (Some(schema), false) => {
                wrong.extend(self.schema_errors(schema, &serde_json::from_slice(&request.body).unwrap()));
            }
            (None, true) => {}
        }
        (id.clone(), wrong)
    }
}

fn path_fits(template: &str, path: &str) -> bool {
    let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len()
        && template.iter().zip(&path).all(|(wanted, found)| wanted.starts_with('{') || wanted == found)
}

/// The Droplet with every optional field left out.
fn smallest_droplet() -> CreateDroplet {
    CreateDroplet {
        image: ImageRef::Id(129_211_873),
        ssh_keys: Vec::new(),
        tags: Vec::new(),
        user_data: None,
        monitoring: false,
        with_droplet_agent: None,
        ..new_droplet("a")
    }
}

/// A firewall with a rule of every kind.
fn firewall() -> FirewallSpec {
    let rule = |protocol, ports, range: &str| FirewallRule {
        protocol,
        ports,
        peers: Peers::ranges([range.parse().unwrap()]),
    };
    FirewallSpec {
        name: FirewallName::new("egress-demo-1a2b3c4d").unwrap(),
        droplets: vec![DropletId(3_164_494)],
        inbound: vec![
            rule(Protocol::Tcp, Ports::one(9181), "203.0.113.21/32"),
            rule(Protocol::Udp, Ports::Range(8000, 9000), "10.116.0.0/20"),
            rule(Protocol::Icmp, Ports::All, "10.116.0.0/20"),
        ],
        outbound: vec![rule(Protocol::Tcp, Ports::All, "0.0.0.0/0")],
    }
}

#[tokio::test]
async fn every_request_the_client_can_send_fits_the_strict_description() {
    let Some(dir) = description_dir() else { return };
    let judge = Judge { schemas: read(&dir, "schemas.json") };
    let fake = Fake::start(|request, _| {
        let action = r#""action": {"id": 1, "status": "in-progress", "type": "power_on"}"#;
        let lists =
            r#""actions": [], "droplets": [], "vpcs": [], "sizes": [], "regions": [], "reserved_ips": [], "firewalls": [],
               "images": [], "ssh_keys": [], "projects": [], "resources": []"#;
        let things = r#""droplet": {"id": 1}, "vpc": {"id": "a"}, "image": {"id": 1}, "account": {}, "firewall": {"id": "a"}, "reserved_ip": {"ip": "203.0.113.200"}"#;
        match request.method.as_str() {
            "DELETE" => answer(204, ""),
            _ => answer(200, &format!("{{{action}, {lists}, {things}}}")),
        }
    })
    .await;
    let (client, id) = (fake.client(), DropletId(3_164_494));
    let tag = TagName::new("egress-cluster:9f0c2a4e-5b1d-4c9e-9c55-3f4b0a1d2e3f").unwrap();

    client.create_droplet(&new_droplet("egress-demo-0-1a2b3c4d"), &Leader).await.unwrap();
    client.create_droplet(&smallest_droplet(), &Leader).await.unwrap();
    client.droplet(id).await.unwrap();
    client.delete_droplet(id, &Leader).await.unwrap();
    let name = new_droplet("egress-demo-0-1a2b3c4d").name;
    for filter in [DropletFilter::All, DropletFilter::Tag(tag.clone()), DropletFilter::Name(name)] {
        client.droplets(&filter).await.unwrap();
    }
    let actions =
        [DropletAction::PowerOn, DropletAction::PowerOff, DropletAction::PowerCycle, DropletAction::Reboot];
    for action in actions {
        client.act_on_droplet(id, action, &Leader).await.unwrap();
    }
    client.droplet_action(id, ActionId(1)).await.unwrap();
    client.recent_droplet_actions(id).await.unwrap();
    client.ensure_tag(&tag, &Leader).await.unwrap();
    client.untag_droplet(&tag, id, &Leader).await.unwrap();
    let wall = FirewallId::new("bb4b2611-3d72-467b-8602-280330ecd65c").unwrap();
    client.create_firewall(&firewall(), &Leader).await.unwrap();
    client
        .update_firewall(&wall, &FirewallSpec { inbound: Vec::new(), ..firewall() }, &Leader)
        .await
        .unwrap();
    client.firewalls().await.unwrap();
    client.firewall(&wall).await.unwrap();
    client.delete_firewall(&wall, &Leader).await.unwrap();
    client.vpcs().await.unwrap();
    client.vpc(&VpcId::new("5a4981aa-9653-4bd1-bef5-d6bff52042e4").unwrap()).await.unwrap();
    client.sizes().await.unwrap();
    client.regions().await.unwrap();
    client.image(&ImageRef::Slug(ImageSlug::new("ubuntu-24-04-x64").unwrap())).await.unwrap();
    client.image(&ImageRef::Id(1)).await.unwrap();
    client.distributions().await.unwrap();
    client.ssh_keys().await.unwrap();
    client.projects().await.unwrap();
    let project = ProjectId::new("4e1bfbc3-dc3e-41f2-a18f-1b4d7ba71679").unwrap();
    client.assign_droplet(&project, id, &Leader).await.unwrap();
    client.account().await.unwrap();
    client.reserved_ips().await.unwrap();
    let ip = std::net::Ipv4Addr::new(203, 0, 113, 200);
    client.reserved_ip(ip).await.unwrap();
    client.reserve_ip(id, &Leader).await.unwrap();
    client.assign_ip(ip, id, &Leader).await.unwrap();
    client.release_ip(ip, &Leader).await.unwrap();
    client.tag_droplet(&tag, id, &Leader).await.unwrap();

    let mut used = BTreeSet::new();
    for request in fake.asked() {
        let (operation, wrong) = judge.judge(&request);
        assert!(wrong.is_empty(), "{} {}: {wrong:?}", request.method, request.path);
        used.insert(operation);
    }
    let expected = [
        "account_get",
        "dropletActions_get",
        "dropletActions_list",
        "dropletActions_post",
        "droplets_create",
        "droplets_destroy",
        "droplets_get",
        "droplets_list",
        "firewalls_create",
        "firewalls_delete",
        "firewalls_get",
        "firewalls_list",
        "firewalls_update",
        "images_get",
        "images_list",
        "projects_assign_resources",
        "projects_list",
        "regions_list",
        "reservedIPsActions_post",
        "reservedIPs_create",
        "reservedIPs_delete",
        "reservedIPs_get",
        "reservedIPs_list",
        "sizes_list",
        "sshKeys_list",
        "tags_assign_resources",
        "tags_create",
        "tags_unassign_resources",
        "vpcs_get",
        "vpcs_list",
    ];
    assert_eq!(
        used,
        expected.map(str::to_owned).into(),
        "a call was added or lost; droplets_destroy_byTag never"
    );
}

/// A call that is added to the client is judged above, or this fails.
#[test]
fn no_call_of_the_client_is_left_out() {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src");
    let (judged, mut calls) = (include_str!("contract.rs"), 0);
    let within =
        |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    let files = within(source.clone()).chain(within(source.join("client")));
    for file in
        files.filter(|file| file.strip_prefix(&source).unwrap().to_str().unwrap().starts_with("client"))
    {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        for call in text.lines().filter_map(|line| line.trim().strip_prefix("pub async fn ")) {
            let call = call.split(['(', '<']).next().unwrap();
            assert!(judged.contains(&format!(".{call}(")), "Client::{call} is not judged");
            calls += 1;
        }
    }
    assert!(calls > 15, "{calls} calls: where is the client?");
}

/// The judge itself must be able to say no.
#[test]
fn the_judge_sees_a_misspelt_field_a_missing_body_and_a_strange_filter() {
    let Some(dir) = description_dir() else { return };
    let judge = Judge { schemas: read(&dir, "schemas.json") };
    let post = |body: &str| Request {
        port: 0,
        method: "POST".to_owned(),
        path: "/v2/droplets".to_owned(),
        query: Vec::new(),
        headers: Vec::new(),
        body: body.as_bytes().to_vec(),
    };
    for bad in [
        "",
        r#"{"name": "a", "size": "s", "image": "i", "vpc": "x"}"#,
        r#"{"name": "a_b", "size": "s", "image": "i"}"#,
    ] {
        assert!(!judge.judge(&post(bad)).1.is_empty(), "{bad}");
    }
    let good = post(r#"{"name": "a", "size": "s", "image": "i"}"#);
    assert_eq!(judge.judge(&good).1, Vec::<String>::new());
    let list = Request { method: "GET".to_owned(), body: Vec::new(), ..good };
    let strange = Request { query: vec![("tag".to_owned(), "x".to_owned())], ..list.clone() };
    let too_many = Request { query: vec![("per_page".to_owned(), "500".to_owned())], ..list };
    assert!(!judge.judge(&strange).1.is_empty() && !judge.judge(&too_many).1.is_empty());
}

/// All example values of one answer in the description.
fn examples(document: &Value, operation_id: &str, status: &str) -> Vec<Value> {
    let follow = |value: &Value| match value["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap().clone(),
        None => value.clone(),
    };
    let methods =
        document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values());
    let operation = methods.into_iter().find(|operation| operation["operationId"] == operation_id).unwrap();
    let content = follow(&operation["responses"][status])["content"]["application/json"].clone();
    let named = content["examples"].as_object().into_iter().flat_map(|all| all.values());
    let mut found: Vec<Value> = named.map(|example| follow(example)["value"].clone()).collect();
    found.extend(content.get("example").cloned());
    assert!(!found.is_empty(), "{operation_id} has no example");
    found
}

#[tokio::test]
async fn the_descriptions_own_examples_are_understood() {
    let Some(dir) = description_dir() else { return };
    let document = read(&dir, "openapi.strict.json");
    let serve = async |value: Value| Fake::start(move |_, _| answer(200, &value.to_string())).await;

    let mut seen = 0;
    for example in examples(&document, "droplets_list", "200") {
        // The example is one page of its own; its `next` link would have us read it again.
        let mut page = example.clone();
        page["links"] = json!({});
        page["meta"]["total"] = json!(page["droplets"].as_array().unwrap().len());
        let fake = serve(page).await;
        for droplet in fake.client().droplets(&DropletFilter::All).await.unwrap() {
            assert!(
                !droplet.name.is_empty() && droplet.region.is_some() && droplet.size_slug.is_some(),
                "{droplet:?}"
            );
            assert!(
                droplet.vpc_uuid.is_some() && droplet.tags.is_some() && droplet.created_at.is_some(),
                "{droplet:?}"
            );
            assert!(droplet.private_v4().is_some() && droplet.public_v4(&[]).is_some(), "{droplet:?}");
            seen += 1;
        }
    }
    assert!(seen >= 3, "{seen}");
    for example in examples(&document, "droplets_get", "200") {
        let fake = serve(example).await;
        assert!(fake.client().droplet(DropletId(1)).await.unwrap().unwrap().private_v4().is_some());
    }
    let singles = examples(&document, "droplets_create", "202");
    for example in singles.into_iter().filter(|example| example.get("droplet").is_some()) {
        let fake = serve(example).await;
        let created = fake.client().create_droplet(&new_droplet("a"), &Leader).await.unwrap();
        assert!(created.create_action.is_some() && created.droplet.v4.is_empty(), "{created:?}");
    }
    for example in examples(&document, "dropletActions_list", "200") {
        let count = example["actions"].as_array().unwrap().len();
        let fake = serve(example).await;
        let actions = fake.client().recent_droplet_actions(DropletId(1)).await.unwrap().unwrap();
        assert_eq!(actions.len(), count);
        assert!(
            actions.iter().all(|action| !action.kind.is_empty() && action.started_at.is_some()),
            "{actions:?}"
        );
    }
    for example in examples(&document, "firewalls_get", "200") {
        let fake = serve(example).await;
        let id = FirewallId::new("bb4b2611-3d72-467b-8602-280330ecd65c").unwrap();
        let firewall = fake.client().firewall(&id).await.unwrap().unwrap();
        assert!(!firewall.name.is_empty() && !firewall.inbound.is_empty(), "{firewall:?}");
        assert!(firewall.outbound.iter().all(|rule| rule.protocol != Protocol::Unknown), "{firewall:?}");
    }
    for example in examples(&document, "images_get", "200") {
        let fake = serve(example).await;
        let image = fake.client().image(&ImageRef::Id(1)).await.unwrap().unwrap();
        assert!(image.slug.is_some() && !image.regions.is_empty(), "{image:?}");
    }
}
