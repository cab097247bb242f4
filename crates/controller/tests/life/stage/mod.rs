//! The stage: everything that the controller meets, and the means to look at it and to break it.

mod cloud;
mod programs;
mod world;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use egress_api::{EgressGateway, EgressGatewayStatus, GatewayRole, StaticRoute};
use k8s_openapi::api::core::v1::{Node, Pod, Secret, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::rbac::v1::{PolicyRule, Role};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use testkit::ApiServer;

pub use cloud::{Cloud, Fault, SCOPES};
pub use programs::{Controller, Program};
pub use world::World;

pub const VPC: &str = "0e1f0f0e-c8a5-4e4c-a8b6-5d7b9f3b7f11";
pub const OTHER_VPC: &str = "1e1f0f0e-c8a5-4e4c-a8b6-5d7b9f3b7f22";
/// A project of the account that is not the default one.
pub const PROJECT: &str = "3c2b1a09-dc3e-41f2-a18f-1b4d7ba71679";
pub const NODES: [(&str, u64); 2] = [("pool-1", 501), ("pool-2", 502)];
const NAMESPACE: &str = "egress-gateway";
pub const TOKEN: &str = "dop_v1_of_this_test";

/// Nothing takes longer on a busy two-core machine, where the controller itself waits a minute after what was refused.
pub const PATIENCE: Duration = Duration::from_secs(180);

pub struct Stage {
    pub client: Client,
    pub cloud: Cloud,
    pub world: World,
    kubeconfig: std::path::PathBuf,
    server: ApiServer,
}

/// The pod of an agent that is Ready on this node, as the kubelet would have it. What it does is played.
async fn ready_agent(client: &Client, node: &str) {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "egress-agent"}});
    accounts.patch("egress-agent", &PatchParams::apply("test"), &Patch::Apply(account)).await.unwrap();
    let name = format!("egress-agent-{node}");
    let owner = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "egress-agent", "uid": "played", "controller": true});
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "egress-agent"}, "ownerReferences": [owner]},
        "spec": {"nodeName": node, "serviceAccountName": "egress-agent", "automountServiceAccountToken": false,
                 "containers": [{"name": "agent", "image": "played"}]}});
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

async fn install_definitions(server: &ApiServer) {
    let definitions = egress_api::custom_resource_definitions().into_iter().map(|(_, definition)| definition);
    server.install(definitions.collect()).await.unwrap();
}

/// Plays a scene in a network namespace of its own.
pub fn play(scene: impl AsyncFnOnce(Stage) + Send + 'static) {
    play_among(async |_| Vec::new(), scene);
}

/// The same in a cluster and a cloud that are not empty: `furnish` makes objects and gives the Droplets that go with them.
pub fn play_among(
    furnish: impl AsyncFnOnce(Client) -> Vec<Value> + Send + 'static,
    scene: impl AsyncFnOnce(Stage) + Send + 'static,
) {
    assert!(nix::unistd::geteuid().is_root(), "this test makes a network namespace and needs root");
    programs::build_control_plane();
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    // A thread of its own: with one thread for all tests, their namespace would be the next one's.
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        // An API server wants a default route; this one leads nowhere.
        for line in [
            "link set lo up",
            "addr add 10.116.0.1/20 dev lo",
            "link add out0 type veth peer name out1",
            "addr add 192.0.2.1/24 dev out0",
            "link set out1 up",
            "link set out0 up",
            "route add default via 192.0.2.2",
        ] {
            let done =
                Command::new("ip").args(line.split(' ')).output().expect("ip (apt-get install iproute2)");
            assert!(done.status.success(), "ip {line}: {}", String::from_utf8_lossy(&done.stderr));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { scene(Stage::set(furnish).await).await });
    });
    if let Err(panic) = thread.unwrap().join() {
        std::panic::resume_unwind(panic);
    }
}

impl Stage {
    async fn set(furnish: impl AsyncFnOnce(Client) -> Vec<Value>) -> Self {
        let server = ApiServer::start().await.unwrap();
        install_definitions(&server).await;
        let client = server.admin().unwrap();
        let kubeconfig = programs::install(&server);
        let nodes: Api<Node> = Api::all(client.clone());
        for (index, (name, droplet)) in NODES.iter().enumerate() {
            let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
                "spec": {"providerID": format!("digitalocean://{droplet}"), "podCIDR": format!("10.244.{index}.0/24"),
                         "podCIDRs": [format!("10.244.{index}.0/24")]}});
            nodes.create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await.unwrap();
            let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
            nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
            ready_agent(&client, name).await;
        }
        let furniture = furnish(client.clone()).await;
        // Agents of nodes report a few dozen gateways; those of the furniture are taken as they are.
        let reports = furniture.is_empty();
        let cloud = Cloud::start(TOKEN, furniture).await;
        let world = World::begin(server.admin().unwrap(), server.kubeconfig(), &cloud, reports);
        let stage = Self { client, cloud, world, kubeconfig, server };
        stage.put_token().await;
        stage
    }

    /// Applies the shipped definitions again.
    pub async fn install_definitions(&self) {
        install_definitions(&self.server).await;
    }

    /// Applies definitions that take anything for a spec, as a newer or a looser version may.
    pub async fn install_lax_definitions(&self) {
        let lax = egress_api::custom_resource_definitions().into_iter().map(|(_, definition)| {
            let mut definition = serde_json::to_value(definition).unwrap();
            let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            schema["properties"]["spec"] =
                json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
            // Rules of the whole object speak of fields of the spec.
            schema.as_object_mut().unwrap().remove("x-kubernetes-validations");
            serde_json::from_value(definition).unwrap()
        });
        self.server.install(lax.collect()).await.unwrap();
    }

    pub fn controller(&self, name: &str) -> Controller {
        self.controller_with(name, &[])
    }

    /// One with more arguments.
    pub fn controller_with(&self, name: &str, more: &[&str]) -> Controller {
        Controller::start(name, &self.kubeconfig, more)
    }

    /// `kubectl egress plan` on this manifest: exit code, what it printed, and what it complained of.
    pub fn plan(&self, manifest: &Value, more: &[&str]) -> (Option<i32>, String, String) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), manifest.to_string()).unwrap();
        let planned = Command::new(programs::command_line())
            .env("KUBECONFIG", self.server.kubeconfig())
            .args(["plan", "--digitalocean-api", cloud::ADDRESS, "-f"])
            .arg(file.path())
            .args(more)
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (planned.status.code(), text(planned.stdout), text(planned.stderr))
    }

    /// Everything that the API server holds, but Secrets, as YAML.
    pub fn every_object(&self) -> String {
        let run = |arguments: &[&str]| {
            let output = self.server.kubectl().args(arguments).output().unwrap();
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let kinds = run(&["api-resources", "--verbs=list", "-o", "name"]);
        let kinds: Vec<&str> = kinds.split_whitespace().filter(|kind| *kind != "secrets").collect();
        run(&["get", &kinds.join(","), "--all-namespaces", "--show-managed-fields", "-o", "yaml"])
    }

    /// Applies files of `deploy/base/`.
    pub fn install(&self, files: &[&str]) {
        programs::apply(&self.server, files);
    }

    /// A client with a token of one of our accounts; `more` are arguments of `kubectl create token`.
    pub fn client_of(&self, account: &str, more: &[&str]) -> Client {
        self.server.client(&programs::token_of(&self.server, account, more)).unwrap()
    }

    pub async fn put_token(&self) {
        self.put(TOKEN).await;
    }

    /// Another token.
    pub async fn put(&self, token: &str) {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "digitalocean-token"},
            "stringData": {"token": token}});
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), NAMESPACE);
        secrets
            .patch("digitalocean-token", &PatchParams::apply("test").force(), &Patch::Apply(secret))
            .await
            .unwrap();
    }

    /// The token in a Secret of another name and in no other, and the right to read that one, as the chart's `tokenSecret` has it.
    pub async fn rename_token(&self, name: &str) {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), NAMESPACE);
        let secret = json!({"metadata": {"name": name}, "stringData": {"token": TOKEN}});
        secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
        self.take_token().await;
        let roles: Api<Role> = Api::namespaced(self.client.clone(), NAMESPACE);
        let mut role = roles.get("egress-controller").await.unwrap();
        let rules = role.rules.iter_mut().flatten();
        let of_secrets = |rule: &&mut PolicyRule| rule.resources == Some(vec!["secrets".to_owned()]);
        let mut rules: Vec<_> = rules.filter(of_secrets).collect();
        assert_eq!(rules.len(), 1, "rules for Secrets");
        rules[0].resource_names = Some(vec![name.to_owned()]);
        roles.replace("egress-controller", &PostParams::default(), &role).await.unwrap();
    }

    pub async fn take_token(&self) {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), NAMESPACE);
        secrets.delete("digitalocean-token", &kube::api::DeleteParams::default()).await.unwrap();
    }

    pub fn gateways(&self) -> Api<EgressGateway> {
        Api::all(self.client.clone())
    }

    /// Makes an EgressGateway and gives its uid.
    pub async fn ask_for(&self, name: &str, replicas: i32, more: Value) -> String {
        let mut spec = json!({"destinations": ["198.51.100.7", "198.51.100.64/26"], "publicIP": "Ephemeral", "replicas": replicas});
        spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        let object = json!({"apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway",
            "metadata": {"name": name}, "spec": spec});
        let made = self
            .gateways()
            .create(&PostParams::default(), &serde_json::from_value(object).unwrap())
            .await
            .unwrap();
        made.metadata.uid.unwrap()
    }

    /// Reasons of all events.
    pub async fn told(&self) -> Vec<String> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), "default");
        let told = events.list(&ListParams::default()).await.unwrap().items;
        told.into_iter().filter_map(|event| event.reason).collect()
    }

    pub async fn status(&self, name: &str) -> EgressGatewayStatus {
        self.gateways().get_opt(name).await.unwrap().and_then(|gateway| gateway.status).unwrap_or_default()
    }

    pub async fn route(&self, name: &str) -> Option<StaticRoute> {
        Api::all(self.client.clone()).get_opt(name).await.unwrap()
    }

    /// Status, reason and message of a condition.
    pub async fn condition(&self, name: &str, type_: &str) -> (String, String, String) {
        let status = self.status(name).await;
        let found = status.conditions.into_iter().find(|condition| condition.type_ == type_);
        found.map(|found| (found.status, found.reason, found.message)).unwrap_or_default()
    }

    /// Waits until the pair (or however many) is proven, routed and has come to rest.
    pub async fn whole(&self, name: &str, replicas: usize) -> EgressGatewayStatus {
        until(&format!("{name} is whole"), async || {
            let status = self.status(name).await;
            let calm = status.creating.is_empty()
                && status.gateways.len() == replicas
                && status
                    .gateways
                    .iter()
                    .all(|gateway| gateway.ready && gateway.role != GatewayRole::Leaving)
                && ["Ready=True", "Progressing=False", "Degraded=False"].iter().all(|wanted| {
                    status
                        .conditions
                        .iter()
                        .any(|condition| format!("{}={}", condition.type_, condition.status) == *wanted)
                });
            let walled = status.firewall.as_ref().is_some_and(|firewall| firewall.id.is_some())
                && self.is_walled(&status).await;
            if calm && walled && self.are_addresses_marked(&status).await {
                Ok(status)
            } else {
                Err(format!("{status:#?}"))
            }
        })
        .await
    }
}

impl Stage {
    /// Whether each address that was made carries its mark: that comes after its gateway is proven, and nothing waits for it.
    async fn are_addresses_marked(&self, status: &EgressGatewayStatus) -> bool {
        for made in status.reserved_ips.iter().filter(|recorded| !recorded.given) {
            let mark = format!("egress-address:{}", made.ip.replace('.', "-"));
            if !self.cloud.carries(made.droplet_id.unwrap_or_default(), &mark).await {
                return false;
            }
        }
        true
    }

    /// Whether exactly what is to come in gets to each of its gateways: the VPC, ICMP, and probes of the gateways' addresses.
    pub async fn is_walled(&self, status: &EgressGatewayStatus) -> bool {
        let pods = ["10.116.0.0/20", "10.244.0.0/16"];
        let mut wanted: BTreeSet<String> =
            pods.iter().flat_map(|range| [format!("tcp 0 {range}"), format!("udp 0 {range}")]).collect();
        wanted.insert("icmp 0 0.0.0.0/0".into());
        let addresses: Vec<&String> =
            status.gateways.iter().filter_map(|gateway| gateway.public_address.as_ref()).collect();
        if addresses.len() > 1 {
            wanted.extend(addresses.iter().map(|address| format!("tcp 9181 {address}/32")));
        }
        for gateway in &status.gateways {
            if self.cloud.lets_in(gateway.droplet_id).await.as_ref() != Some(&wanted) {
                return false;
            }
        }
        true
    }

    pub async fn gone(&self, name: &str) {
        until(&format!("{name} is gone"), async || match self.gateways().get_opt(name).await.unwrap() {
            None => Ok(()),
            Some(there) => Err(format!("{:#?}", there.status)),
        })
        .await;
    }
}

/// Waits for a condition; fails with its last words.
pub async fn until<T>(what: &str, look: impl AsyncFnMut() -> Result<T, String>) -> T {
    until_within(PATIENCE, what, look).await
}

/// The same with another deadline; the later it is, the less often is looked.
pub async fn until_within<T>(
    patience: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(words) => {
                assert!(Instant::now() < deadline, "not within {patience:?}: {what}; last seen: {words}");
            }
        }
        tokio::time::sleep(patience / 1800).await;
    }
}
