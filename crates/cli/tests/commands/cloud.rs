//! `orphans` and `doctor`, with a simulated cloud.

use std::sync::Arc;
use std::time::Duration;

use do_simulator::clock::Clock;
use do_simulator::cloud::{Cloud, Delays};
use do_simulator::fixtures::Fixtures;
use do_simulator::rate::Limits;
use do_simulator::scope::Scopes;
use do_simulator::{Options, Running};
use egress_digitalocean::{
    Client, DropletId, FenceLost, FirewallName, FirewallRule, FirewallSpec, Peers, Ports, Protocol,
    SharedToken,
};
use serde_json::{Value, json};

use crate::stage::{Stage, Told, until};

const TOKEN: &str = "dop_v1_of_this_test";
const VPC: &str = "0e1f0f0e-c8a5-4e4c-a8b6-5d7b9f3b7f11";
const GONE: &str = "1a2b3c4d-0000-4000-8000-00000000000a";

struct Sky {
    running: Running,
    client: Client,
    token: tempfile::NamedTempFile,
}

impl Sky {
    async fn start(droplets: &[Value], scopes: Scopes) -> Self {
        let nodes = [1, 2].map(|number| {
            json!({"id": 500 + number, "name": format!("node-{number}"), "vpc": VPC, "private_address": format!("10.116.0.{}", number + 1),
                   "public_address": format!("203.0.113.{}", number + 10)})
        });
        let droplets = [&nodes[..], droplets].concat();
        let fixtures = json!({
            "vpcs": [{"id": VPC, "name": "cluster", "region": "nyc1", "ip_range": "10.116.0.0/20", "default": true}],
            "droplets": droplets,
        });
        let mut cloud = Cloud::new(Delays::quick(), false);
        Fixtures::parse(&fixtures.to_string()).unwrap().furnish(&mut cloud, Clock::Real.now()).unwrap();
        let options = Options {
            listen: "127.0.0.1:0".parse().unwrap(),
            metadata: None,
            token: TOKEN.to_owned(),
            operator_token: None,
            journal: None,
            state: None,
            machine_command: None,
            machine_deadline: Duration::from_secs(1),
            clock: Clock::Real,
            limits: Limits { hourly: 5_000, burst: 5_000 },
            scopes,
            cloud,
        };
        let running = do_simulator::start(options).await.unwrap();
        egress_runtime::kubernetes::install_crypto_provider();
        let address = format!("http://{}", running.api);
        let client = Client::new(&address, Arc::new(SharedToken::new(TOKEN.to_owned().into()))).unwrap();
        let token = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(token.path(), TOKEN).unwrap();
        Self { running, client, token }
    }

    fn run(&self, stage: &Stage, arguments: &[&str]) -> Told {
        let address = format!("http://{}", self.running.api);
        let access = ["--digitalocean-api", &address, "--token-file", self.token.path().to_str().unwrap()];
        stage.run(&[arguments, &access].concat())
    }

    async fn wall(&self, name: &str, droplets: &[u64]) -> String {
        let anybody = || Peers::ranges(["0.0.0.0/0".parse().unwrap()]);
        let rule = || FirewallRule { protocol: Protocol::Tcp, ports: Ports::All, peers: anybody() };
        let spec = FirewallSpec {
            name: FirewallName::new(name).unwrap(),
            droplets: droplets.iter().copied().map(DropletId).collect(),
            inbound: vec![rule()],
            outbound: vec![rule()],
        };
        self.client
            .create_firewall(&spec, &|| -> Result<(), FenceLost> { Ok(()) })
            .await
            .unwrap()
            .id
            .to_string()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_are_found_and_deleted_by_id_with_proof_only() {
    let stage = &Stage::furnished().await;
    let system =
        until("namespace kube-system", async || stage.get("/api/v1/namespaces/kube-system").await).await;
    let cluster = format!("egress-cluster:{}", system["metadata"]["uid"].as_str().unwrap());
    let demo = stage.get(&format!("{}/demo", crate::objects::GATEWAYS)).await.unwrap();
    let live = format!("egress-owner:{}", demo["metadata"]["uid"].as_str().unwrap());
    let droplet = |id: u64, name: &str, host: u8, cluster: &str, owner: &str| {
        json!({"id": id, "name": name, "vpc": VPC, "private_address": format!("10.116.1.{host}"),
               "tags": ["egress-gateway", cluster, owner, "egress-slot:0"]})
    };
    let gone = format!("egress-owner:{GONE}");
    let droplets = [
        droplet(700, "demo-0-x", 1, &cluster, &live),
        droplet(801, "old-0-1a2b3c4d", 2, &cluster, &gone),
        droplet(802, "renamed", 3, &cluster, &gone),
        droplet(803, "old-0-1a2b3c4d", 4, "egress-cluster:another", &gone),
    ];
    let sky = Sky::start(&droplets, Scopes::all()).await;
    let firewall = sky.wall(&format!("old-{GONE}"), &[801]).await;
    let there = async || {
        let mut there = Vec::new();
        for id in [700, 801, 802, 803] {
            if sky.client.droplet(DropletId(id)).await.unwrap().is_some() {
                there.push(id);
            }
        }
        there
    };

    let found = sky.run(stage, &["orphans", "-o", "json"]);
    found.expect(1, &[]);
    let listed: Vec<Value> =
        found.json()["orphans"].as_array().unwrap().iter().map(|one| one["id"].clone()).collect();
    assert_eq!(listed, [json!("801"), json!("802"), json!(firewall)], "{found:#?}");
    sky.run(stage, &["orphans"])
        .expect(1, &["1 Droplet of other clusters", "no: that its name renamed is one"]);

    sky.run(stage, &["orphans", "--delete", "801"])
        .expect(1, &["  yes it is in VPC", "nobody is there to be asked"]);
    sky.run(stage, &["orphans", "--delete", "802", "--yes"])
        .expect(1, &["  NO  its name renamed", "802 is not proven to be ours"]);
    sky.run(stage, &["orphans", "--delete", "700", "--yes"]).expect(1, &["700 is none of the orphans"]);
    sky.run(stage, &["orphans", "--delete", "803", "--yes"]).expect(1, &["803 is none of the orphans"]);
    assert_eq!(there().await, [700, 801, 802, 803]);
    sky.run(stage, &["orphans", "--delete", &firewall, "--delete", "801", "--yes"])
        .expect(0, &["Droplet old-0-1a2b3c4d (801) is being deleted", "is being deleted"]);
    until("both are gone", async || {
        let walls = sky.client.firewalls().await.unwrap();
        (there().await == [700, 802, 803] && walls.is_empty()).then_some(())
    })
    .await;

    // A token that sees no tags tells nothing, and is believed nothing.
    let blind =
        Sky::start(&droplets, "droplet:read,vpc:read,firewall:read,reserved_ip:read".parse().unwrap()).await;
    blind.run(stage, &["orphans"]).expect(2, &[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_finds_what_is_missing_and_nothing_once_it_is_there() {
    let stage = &Stage::furnished().await;
    let bare = stage.run(&["doctor", "--skip-cloud"]);
    bare.expect(
        1,
        &[
            "controller: there is none in namespace egress-gateway",
            "rights: egress-agent may not",
            "fix: kubectl apply -f install.yaml",
        ],
    );
    stage.install(&["namespace.yaml", "agent-rbac.yaml", "agent-reports.yaml", "controller-rbac.yaml"]);
    stage.install(&["controller-nodes.yaml", "agent.yaml", "controller.yaml"]);
    let apps = "/apis/apps/v1/namespaces/egress-gateway";
    let ready = json!({"status": {"replicas": 2, "readyReplicas": 2, "availableReplicas": 2}});
    stage.change(&format!("{apps}/deployments/egress-controller/status"), &ready).await;
    let ready = json!({"status": {"desiredNumberScheduled": 2, "currentNumberScheduled": 2, "numberReady": 2, "updatedNumberScheduled": 2, "numberMisscheduled": 0}});
    stage.change(&format!("{apps}/daemonsets/egress-agent/status"), &ready).await;
    let sky = Sky::start(&[], Scopes::all()).await;
    // What is applied counts a moment later.
    let whole = until("all is there", async || {
        let told = sky.run(stage, &["doctor", "--all"]);
        let is_late = told.out.contains("rights: egress-") && told.code == Some(1);
        (!is_late).then_some(told)
    })
    .await;
    let vpc = format!("the nodes are in VPC {VPC} in nyc1");
    whole.expect(0, &["rights: the ServiceAccounts have all", "token: it sees the cluster's nodes", &vpc]);

    // A controller that is told of a Secret of another name needs the right to read that one.
    let container = json!({"name": "egress-controller", "image": "a", "args": ["--token-secret=my-token"]});
    let renamed = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
    stage.change(&format!("{apps}/deployments/egress-controller"), &renamed).await;
    stage
        .run(&["doctor", "--skip-cloud"])
        .expect(1, &["rights: egress-controller may not get secrets my-token"]);

    // What was there is taken away, one thing after the other.
    let gone = stage.server.kubectl().args(["delete", "clusterrole", "egress-agent"]).output().unwrap();
    assert!(gone.status.success(), "{gone:?}");
    until("a right is missed", async || {
        let told = stage.run(&["doctor", "--skip-cloud"]);
        (told.code == Some(1) && told.out.contains("rights: egress-agent may not")).then_some(())
    })
    .await;
    let other = Sky::start(&[], "account:read".parse().unwrap()).await;
    other.run(stage, &["doctor"]).expect(1, &["token: CloudForbids"]);
}
