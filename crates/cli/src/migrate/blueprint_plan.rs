//! What becomes of a Droplet of the blueprint: an EgressGateway over the same machine. Pure.

use std::collections::BTreeSet;
use std::fmt;

use egress_api::StaticRoute;
use serde_json::{Value, json};

use crate::output::{count, some};
use crate::view::{View, name};

/// A migration, before it is done.
#[derive(Clone, Debug, PartialEq)]
pub struct Migration {
    /// Name of Crossplane's object.
    pub droplet: String,
    /// The machine.
    pub id: i64,
    /// The EgressGateway that will be.
    pub manifest: Value,
    /// Its name.
    pub name: String,
    /// StaticRoutes through the machine, which the EgressGateway takes over.
    pub routes: Vec<String>,
    /// Crossplane would delete the machine with its object.
    pub is_bound: bool,
    /// What is to be known.
    pub notes: Vec<String>,
}

/// What somebody wants of it.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Name of the EgressGateway; that of the Droplet without one.
    pub name: Option<String>,
    /// How many gateways; the machine is one of them.
    pub replicas: i64,
    /// What leaves through it, where no StaticRoute says so.
    pub destinations: Vec<String>,
}

impl Migration {
    /// The migration of this object of Crossplane's.
    pub fn of(droplet: &Value, view: &View, wish: &Wish) -> anyhow::Result<Self> {
        let named = droplet["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let at = &droplet["status"]["atProvider"];
        let id = at["id"].as_i64().filter(|id| *id > 0);
        let id = id.ok_or_else(|| {
            anyhow::anyhow!("Droplet {named} has no id in its status: Crossplane has made no machine for it")
        })?;
        let private = at["privateIPv4"].as_str().filter(|text| !text.is_empty());
        let private = private.ok_or_else(|| {
            anyhow::anyhow!(
                "Droplet {named} has no private address in its status: it is in no VPC, or not ready"
            )
        })?;
        let through =
            |route: &&StaticRoute| route.spec.gateway.as_ref().is_some_and(|gateway| gateway.0 == private);
        let routes: Vec<&StaticRoute> = view.routes().filter(through).collect();
        let listed = routes.iter().flat_map(|route| &route.spec.destinations).map(|one| one.0.clone());
        let destinations: BTreeSet<String> = listed.chain(wish.destinations.iter().cloned()).collect();
        anyhow::ensure!(
            !destinations.is_empty(),
            "no StaticRoute goes through {private}; say what is to leave through it: --destination"
        );
        let own = wish.name.clone().unwrap_or_else(|| named.clone());
        if view.routes().any(|route| name(route) == own) {
            anyhow::bail!(
                "a StaticRoute is called {own}, as that of the EgressGateway will be; choose another name: --name"
            );
        }
        let there = view.gateways().find(|gateway| name(*gateway) == own);
        if there.is_some_and(|gateway| !gateway.spec.existing_droplets.contains(&id)) {
            anyhow::bail!(
                "EgressGateway {own} is there and has another machine; choose another name: --name"
            );
        }
        let claimed = view
            .gateways()
            .find(|gateway| name(*gateway) != own && gateway.spec.existing_droplets.contains(&id));
        if let Some(other) = claimed {
            anyhow::bail!("EgressGateway {} has this machine already", name(other));
        }
        let provider = &droplet["spec"]["forProvider"];
        let mut template = serde_json::Map::new();
        for (ours, theirs) in [("size", "size"), ("sshKeys", "sshKeys"), ("vpcUUID", "vpcUuid")] {
            if provider[theirs].as_str().is_some_and(|text| !text.is_empty()) || provider[theirs].is_array() {
                template.insert(ours.to_owned(), provider[theirs].clone());
            }
        }
        let mut spec = json!({
            "destinations": destinations,
            "publicIP": "Ephemeral",
            "replicas": wish.replicas,
            "existingDroplets": [id],
        });
        if !template.is_empty() {
            spec["droplet"] = Value::Object(template);
        }
        let manifest = json!({
            "apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway",
            "metadata": {"name": own}, "spec": spec,
        });
        Ok(Self {
            notes: notes(droplet, &routes, wish.replicas),
            is_bound: droplet["spec"]["deletionPolicy"].as_str() != Some("Orphan"),
            droplet: named,
            id,
            manifest,
            name: own,
            routes: routes.iter().map(|route| name(*route).to_owned()).collect(),
        })
    }
}

fn notes(droplet: &Value, routes: &[&StaticRoute], replicas: i64) -> Vec<String> {
    let mut notes = Vec::new();
    let state = droplet["status"]["atProvider"]["status"].as_str().unwrap_or_default();
    if state != "active" {
        notes.push(format!(
            "the machine is {:?}, not active",
            if state.is_empty() { "unknown" } else { state }
        ));
    }
    let public = droplet["status"]["atProvider"]["publicIPv4"].as_str().unwrap_or_default();
    match replicas {
        1 => notes.push("with one gateway nobody steps in when the machine fails; it is not replaced".to_owned()),
        more => notes.push(format!(
            "the controller makes {} beside it, with an address of its own: have that allowed, too; {public} stays",
            count(usize::try_from(more - 1).unwrap_or_default(), "Droplet", "Droplets")
        )),
    }
    notes.push(
        "the machine must refuse or accept TCP 9181 on its private address, so that nodes see that it is alive (docs/existing-droplets.md); \
         otherwise it is never proven, and your StaticRoutes stay in force"
            .to_owned(),
    );
    if routes
        .iter()
        .any(|route| !route.spec.excluded_destinations.is_empty() || route.spec.node_selector.is_some())
    {
        notes.push("a StaticRoute has exclusions or a nodeSelector, which are not taken over: apply a manifest of your own instead".to_owned());
    }
    notes
}

impl fmt::Display for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { droplet, id, name, routes, .. } = self;
        let mark = |done: bool| if done { "done" } else { "to do" };
        writeln!(
            f,
            "1. [{}] set deletionPolicy: Orphan on Droplet {droplet}, so that Crossplane leaves machine {id} alone",
            mark(!self.is_bound)
        )?;
        writeln!(f, "2. make EgressGateway {name} over it, and wait until it is proven:")?;
        let manifest = serde_saphyr::to_string(&self.manifest).map_err(|_| fmt::Error)?;
        for line in manifest.lines() {
            writeln!(f, "     {line}")?;
        }
        match routes.as_slice() {
            [] => writeln!(f, "3. [done] no StaticRoute goes through it")?,
            routes => writeln!(
                f,
                "3. with --take-over: delete {} {}; the EgressGateway takes each destination over, the older object being in force until then",
                if routes.len() == 1 { "StaticRoute" } else { "StaticRoutes" },
                some(routes)
            )?,
        }
        writeln!(f, "4. with --forget: delete Crossplane's object {droplet}; the machine stays")?;
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use egress_api::EgressGateway;

    use super::*;
    use crate::view::fixture::{egress_gateway, static_route, view};

    fn droplet(change: impl FnOnce(&mut Value)) -> Value {
        let mut droplet = json!({"apiVersion": "compute.do.crossplane.io/v1alpha1", "kind": "Droplet", "metadata": {"name": "egress-gw-nyc1"},
            "spec": {"deletionPolicy": "Delete", "forProvider": {"region": "nyc1", "size": "s-1vcpu-1gb", "image": "ubuntu-20-04-x64",
                "sshKeys": ["7e:9c:b7:ee:74:16:a5:f7:62:12:b1:72:dc:51:71:85"], "userData": "#!/usr/bin/env bash"},
                "providerConfigRef": {"name": "do-provider-config"}},
            "status": {"atProvider": {"id": 3_164_494, "privateIPv4": "10.116.0.5", "publicIPv4": "203.0.113.5", "status": "active"}}});
        change(&mut droplet);
        droplet
    }

    fn bare(name: &str, destination: &str, gateway: &str) -> Value {
        let mut route = static_route(name, 1, &[destination], &[]);
        route["spec"] = json!({"destinations": [destination], "gateway": gateway});
        route
    }

    fn seeds() -> Vec<Value> {
        vec![
            bare("static-route-ifconfig.me", "34.160.111.145", "10.116.0.5"),
            bare("static-route-ipinfo.io", "34.117.59.81", "10.116.0.5"),
            bare("elsewhere", "192.0.2.1", "10.116.0.12"),
        ]
    }

    fn two() -> Wish {
        Wish { replicas: 2, ..Wish::default() }
    }

    #[test]
    fn the_blueprints_own_objects_become_an_egress_gateway_over_the_same_machine() {
        let migration = Migration::of(&droplet(|_| {}), &view(&seeds()), &two()).unwrap();
        assert_eq!((migration.id, migration.is_bound), (3_164_494, true));
        assert_eq!(migration.routes, ["static-route-ifconfig.me", "static-route-ipinfo.io"]);
        let spec = &migration.manifest["spec"];
        assert_eq!(spec["destinations"], json!(["34.117.59.81", "34.160.111.145"]));
        assert_eq!((&spec["existingDroplets"], &spec["replicas"]), (&json!([3_164_494]), &json!(2)));
        assert_eq!(
            spec["droplet"],
            json!({"size": "s-1vcpu-1gb", "sshKeys": ["7e:9c:b7:ee:74:16:a5:f7:62:12:b1:72:dc:51:71:85"]})
        );
        let read: EgressGateway = serde_json::from_value(migration.manifest.clone()).unwrap();
        assert_eq!(read.spec.existing_droplets, [3_164_494]);
        let text = migration.to_string();
        assert!(
            text.starts_with("1. [to do] set deletionPolicy: Orphan") && text.contains("203.0.113.5 stays"),
            "{text}"
        );
        let orphaned = Migration::of(
            &droplet(|it| it["spec"]["deletionPolicy"] = json!("Orphan")),
            &view(&seeds()),
            &two(),
        );
        assert!(!orphaned.unwrap().is_bound);
    }

    #[test]
    fn what_cannot_be_migrated_is_refused_with_the_way_out() {
        let wish = |name: &str| Wish { name: Some(name.to_owned()), ..two() };
        let mut taken = seeds();
        taken.push(egress_gateway("demo"));
        let mut claimed = seeds();
        let mut other = egress_gateway("other");
        other["spec"]["existingDroplets"] = json!([3_164_494]);
        claimed.push(other);
        let table = [
            ("no id", droplet(|it| it["status"]["atProvider"]["id"] = json!(0)), seeds(), two()),
            (
                "no private address",
                droplet(|it| it["status"]["atProvider"]["privateIPv4"] = json!("")),
                seeds(),
                two(),
            ),
            ("--destination", droplet(|_| {}), Vec::new(), two()),
            ("--name", droplet(|_| {}), seeds(), wish("elsewhere")),
            ("--name", droplet(|_| {}), taken, wish("demo")),
            ("EgressGateway other has this machine", droplet(|_| {}), claimed, two()),
        ];
        for (words, droplet, objects, wish) in table {
            let refusal = Migration::of(&droplet, &view(&objects), &wish).unwrap_err().to_string();
            assert!(refusal.contains(words), "{words}: {refusal}");
        }
        let alone = Wish { destinations: vec!["192.0.2.1".to_owned()], ..two() };
        assert!(Migration::of(&droplet(|_| {}), &view(&[]), &alone).unwrap().routes.is_empty());
    }

    #[test]
    fn what_the_user_must_know_is_said() {
        let mut objects = seeds();
        objects[0]["spec"]["nodeSelector"] = json!({"matchLabels": {"a": "b"}});
        let wish = Wish { replicas: 1, ..Wish::default() };
        let migration = Migration::of(
            &droplet(|it| it["status"]["atProvider"]["status"] = json!("off")),
            &view(&objects),
            &wish,
        )
        .unwrap();
        let notes = migration.notes.join("\n");
        for words in ["\"off\", not active", "nobody steps in", "TCP 9181", "nodeSelector"] {
            assert!(notes.contains(words), "{words}: {notes}");
        }
    }
}
