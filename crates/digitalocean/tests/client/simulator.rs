//! A Droplet's whole life against `do-simulator`, run as a program of its own.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use egress_digitalocean::{
    ActionStatus, Client, CreateDroplet, Deletion, Droplet, DropletAction, DropletFilter, DropletId,
    DropletName, DropletStatus, ImageRef, RefusalKind, Retry, TagCreation, TagName,
};
use serde_json::{Value, json};

use crate::fake::{CANARY, Leader, client, new_droplet, within};

/// The binary beside this test's own: `target/debug/deps/client-...` and `target/debug/do-simulator`.
fn binary() -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let path = here.parent().and_then(|deps| deps.parent()).unwrap().join("do-simulator");
    assert!(path.is_file(), "{} is missing; build it: cargo build -p do-simulator", path.display());
    path
}

/// What the cloud has before anything is made.
const FIXTURES: &str = r#"{"vpcs": [{"id": "0e1f0f0e-c8a5-4e4c-a8b6-5d7b9f3b7f11", "name": "lab", "region": "nyc1",
    "ip_range": "10.116.0.0/20", "default": true}]}"#;

/// A running simulator; killed when dropped.
struct Simulator {
    /// Its fixtures file, deleted with it.
    _fixtures: tempfile::NamedTempFile,
    process: Child,
    address: String,
    client: Client,
}

impl Drop for Simulator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Simulator {
    async fn start() -> Self {
        Self::with(0).await
    }

    /// One that has so many Droplets with the tag `fleet`.
    async fn with(droplets: u32) -> Self {
        let mut content: Value = serde_json::from_str(FIXTURES).unwrap();
        content["account"] = json!({"droplet_limit": 1000});
        content["droplets"] = (0..droplets)
            .map(|number| {
                let address = std::net::Ipv4Addr::from(0x0a74_0400 + number);
                json!({"id": 10_000 + number, "name": format!("fleet-{number}"), "vpc": content["vpcs"][0]["id"],
                       "private_address": address, "tags": ["fleet"]})
            })
            .collect();
        let fixtures = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(fixtures.path(), content.to_string()).unwrap();
        // Another process may take the port between the two binds: then the simulator ends, and another port is tried.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let listen = format!("127.0.0.1:{port}");
            let mut process = Command::new(binary())
                .args(["--listen", &listen, "--token", CANARY, "--fixtures"])
                .arg(fixtures.path())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let until = Instant::now() + Duration::from_secs(15);
            while process.try_wait().unwrap().is_none() {
                if tokio::net::TcpStream::connect(&listen).await.is_ok() {
                    let address = format!("http://{listen}");
                    let client = client(&address);
                    return Self { _fixtures: fixtures, process, address, client };
                }
                assert!(Instant::now() < until, "the simulator does not listen");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        panic!("the simulator ends at once, five times; run it by hand to see why");
    }

    async fn control(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> Value {
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let mut request = http.request(method, format!("{}/simulator/{path}", self.address));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap().error_for_status().unwrap();
        response.json().await.unwrap_or(Value::Null)
    }

    async fn fault(&self, fault: Value) {
        self.control(reqwest::Method::POST, "faults", Some(fault)).await;
    }

    /// How many requests of this kind the API has had.
    async fn journalled(&self, method: &str, path: &str) -> usize {
        let journal = self.control(reqwest::Method::GET, "journal", None).await;
        let entries = journal["entries"].as_array().unwrap();
        entries.iter().filter(|entry| entry["method"] == method && entry["path"] == path).count()
    }

    /// Asks for the Droplet until `seen` is true of it.
    async fn wait_for(
        &self,
        id: DropletId,
        what: &str,
        seen: impl Fn(Option<&Droplet>) -> bool,
    ) -> Option<Droplet> {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let droplet = self.client.droplet(id).await.unwrap();
            if seen(droplet.as_ref()) {
                return droplet;
            }
            assert!(Instant::now() < until, "not {what} in 30 s: {droplet:?}");
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    }

    /// Starts an action, waiting while another event holds the Droplet, and follows it to its end.
    async fn act(&self, id: DropletId, action: DropletAction) {
        let until = Instant::now() + Duration::from_secs(30);
        let started = loop {
            match self.client.act_on_droplet(id, action, &Leader).await {
                Ok(started) => break started,
                Err(error) => assert_eq!(error.refused_as(), Some(RefusalKind::Busy), "{error}"),
            }
            assert!(Instant::now() < until, "busy for 30 s");
            tokio::time::sleep(Duration::from_millis(400)).await;
        };
        while self.client.droplet_action(id, started.id).await.unwrap().unwrap().status
            != ActionStatus::Completed
        {
            assert!(Instant::now() < until, "{action:?} does not end");
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    }

    /// A Droplet that this simulator can make: its own region, VPC, size and image.
    async fn possible_droplet(&self, name: &str) -> CreateDroplet {
        let vpcs = self.client.vpcs().await.unwrap();
        let vpc = vpcs.iter().find(|vpc| vpc.region.is_some()).expect("a VPC");
        let region = vpc.region.clone().unwrap();
        assert_eq!(self.client.vpc(&vpc.id).await.unwrap().as_ref(), Some(vpc));
        assert!(vpc.ip_range.is_some(), "{vpc:?}");
        let regions = self.client.regions().await.unwrap();
        assert!(regions.iter().any(|known| known.slug == region && known.available), "{regions:?}");
        let sizes = self.client.sizes().await.unwrap();
        let size =
            sizes.iter().find(|size| size.available && size.regions.contains(&region)).expect("a size");
        let wanted = new_droplet(name);
        let image = self.client.image(&wanted.image).await.unwrap().expect("debian-12-x64");
        assert!(image.regions.contains(&region), "{image:?}");
        CreateDroplet {
            name: DropletName::new(name).unwrap(),
            region,
            size: size.slug.clone(),
            vpc_uuid: vpc.id.clone(),
            ssh_keys: Vec::new(),
            ..wanted
        }
    }
}

fn has_private_address(droplet: Option<&Droplet>) -> bool {
    droplet.is_some_and(|droplet| droplet.status == DropletStatus::Active && droplet.private_v4().is_some())
}

#[tokio::test]
async fn a_droplet_lives_from_create_to_not_found() {
    let simulator = Simulator::start().await;
    let client = &simulator.client;
    assert!(client.account().await.unwrap().droplet_limit.is_some());
    assert_eq!(client.reserved_ips().await.unwrap(), Vec::new());
    let fleet = TagName::new("egress-gateway").unwrap();
    assert_eq!(client.ensure_tag(&fleet, &Leader).await.unwrap(), TagCreation::Created);
    client.ensure_tag(&fleet, &Leader).await.unwrap();

    let wanted = simulator.possible_droplet("egress-demo-0-1a2b3c4d").await;
    let created = client.create_droplet(&wanted, &Leader).await.unwrap();
    let id = created.droplet.id;
    assert_eq!((created.droplet.status.clone(), created.droplet.private_v4()), (DropletStatus::New, None));
    let action = client.droplet_action(id, created.create_action.unwrap()).await.unwrap().unwrap();
    assert_eq!(action.kind, "create");
    let droplet = simulator.wait_for(id, "up", has_private_address).await.unwrap();
    assert!(droplet.public_v4(&[]).is_some(), "{droplet:?}");
    assert_eq!(
        (&droplet.name, &droplet.vpc_uuid),
        (&wanted.name.to_string(), &Some(wanted.vpc_uuid.clone()))
    );
    let until = Instant::now() + Duration::from_secs(30);
    let tagged = loop {
        let tagged = client.droplets(&DropletFilter::Tag(fleet.clone())).await.unwrap();
        if !tagged.is_empty() || Instant::now() > until {
            break tagged;
        }
        tokio::time::sleep(Duration::from_millis(400)).await;
    };
    assert_eq!(tagged.iter().map(|found| found.id).collect::<Vec<_>>(), [id]);
    assert_eq!(tagged[0].has_tag("egress-slot:0"), Some(true));
    assert_eq!(client.droplets(&DropletFilter::Name(wanted.name.clone())).await.unwrap().len(), 1);
    let unknown = DropletFilter::Tag(TagName::new("nobody-has-this").unwrap());
    assert_eq!(client.droplets(&unknown).await.unwrap(), Vec::new());

    simulator.act(id, DropletAction::PowerOff).await;
    simulator.wait_for(id, "off", |seen| seen.is_some_and(|seen| seen.status == DropletStatus::Off)).await;
    simulator.act(id, DropletAction::PowerOn).await;
    simulator.act(id, DropletAction::PowerCycle).await;
    simulator.wait_for(id, "on", has_private_address).await;
    let actions = client.recent_droplet_actions(id).await.unwrap().unwrap();
    assert!(
        actions.len() >= 4 && actions.iter().all(|action| action.status == ActionStatus::Completed),
        "{actions:?}"
    );

    assert_eq!(client.delete_droplet(id, &Leader).await.unwrap(), Deletion::Accepted);
    simulator.wait_for(id, "gone", |seen| seen.is_none()).await;
    assert_eq!(client.delete_droplet(id, &Leader).await.unwrap(), Deletion::AlreadyGone);
    assert_eq!(client.recent_droplet_actions(id).await.unwrap(), None);
    let quota = client.quota();
    assert!(quota.limit.is_some() && quota.remaining < quota.limit, "{quota:?}");
}

#[tokio::test]
async fn of_450_droplets_none_is_missed_or_doubled_while_others_come_and_go() {
    let simulator = Simulator::with(450).await;
    let client = &simulator.client;
    let fleet = DropletFilter::Tag(TagName::new("fleet").unwrap());
    let ids = |listed: Vec<Droplet>| -> BTreeSet<u64> {
        let count = listed.len();
        let ids: BTreeSet<u64> = listed.into_iter().map(|droplet| droplet.id.0).collect();
        assert_eq!(ids.len(), count, "doubled");
        ids
    };
    let all: BTreeSet<u64> = (10_000..10_450).collect();
    assert_eq!(ids(client.droplets(&fleet).await.unwrap()), all);
    assert_eq!(simulator.journalled("GET", "/v2/droplets").await, 3);

    // The list shifts under the reader: each page is late, and meanwhile the first ones go.
    simulator.fault(json!({"route": "GET /v2/droplets", "kind": {"delay_ms": 60}})).await;
    let going: Vec<u64> = (10_000..10_020).collect();
    let delete = async {
        for id in &going {
            client.delete_droplet(DropletId(*id), &Leader).await.unwrap();
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    };
    let read = async {
        let mut consistent = 0;
        for _ in 0..4 {
            match client.droplets(&fleet).await {
                Ok(listed) => {
                    let seen = ids(listed);
                    let missed: Vec<&u64> =
                        all.iter().filter(|id| !going.contains(id) && !seen.contains(id)).collect();
                    assert!(missed.is_empty(), "{missed:?}");
                    consistent += 1;
                }
                Err(error) => assert_eq!(error.category(), "unsteady_list", "{error}"),
            }
        }
        consistent
    };
    let (consistent, ()) = tokio::join!(read, delete);
    println!("{consistent} of 4 readings were consistent");
    simulator.control(reqwest::Method::DELETE, "faults", None).await;
    let until = Instant::now() + Duration::from_secs(30);
    while client.droplets(&fleet).await.unwrap().len() != 430 {
        assert!(Instant::now() < until, "deleted Droplets stay listed");
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
}

#[tokio::test]
async fn a_create_whose_reply_is_lost_is_found_again_by_its_name() {
    let simulator = Simulator::start().await;
    let client = &simulator.client;
    let wanted = simulator.possible_droplet("egress-demo-1-1a2b3c4d").await;
    simulator.fault(json!({"route": "POST /v2/droplets", "times": 1, "kind": "reset_after_commit"})).await;
    let lost = client.create_droplet(&wanted, &Leader).await.unwrap_err();
    assert_eq!(lost.retry(), Retry::AmbiguousMayHaveHappened, "{lost}");
    let until = Instant::now() + Duration::from_secs(30);
    let found = loop {
        let found = client.droplets(&DropletFilter::Name(wanted.name.clone())).await.unwrap();
        if !found.is_empty() {
            break found;
        }
        assert!(Instant::now() < until, "it was made, but is not listed by its name");
        tokio::time::sleep(Duration::from_millis(400)).await;
    };
    assert_eq!((found.len(), simulator.journalled("POST", "/v2/droplets").await), (1, 1));
}

#[tokio::test]
async fn refusals_come_in_the_clouds_own_words() {
    let simulator = Simulator::start().await;
    let client = &simulator.client;
    let mut wanted = simulator.possible_droplet("egress-demo-2-1a2b3c4d").await;
    // One event at a time: a create that does not end holds the Droplet.
    simulator.fault(json!({"route": "POST /v2/droplets", "times": 1, "kind": "stuck_new"})).await;
    let stuck = client.create_droplet(&wanted, &Leader).await.unwrap().droplet.id;
    let busy = client.act_on_droplet(stuck, DropletAction::Reboot, &Leader).await.unwrap_err();
    assert_eq!((busy.category(), busy.retry()), ("busy", Retry::After(Duration::from_secs(10))), "{busy}");

    wanted.image = ImageRef::Slug(egress_digitalocean::ImageSlug::new("windows-95-x64").unwrap());
    let image = client.create_droplet(&wanted, &Leader).await.unwrap_err();
    assert_eq!(image.retry(), Retry::AfterSpecChange, "{image}");
    assert_eq!(client.image(&wanted.image).await.unwrap(), None);

    for fault in [
        json!({"status": 502, "body": "<html>Bad Gateway</html>"}),
        json!("truncate"),
        json!("reset_before_commit"),
    ] {
        simulator.fault(json!({"route": "GET /v2/account", "times": 1, "kind": fault})).await;
        client.account().await.unwrap_or_else(|error| panic!("{fault}: {error}"));
    }
    let stranger = crate::fake::client_with_token(&simulator.address, "dop_v1_stranger");
    let unauthorized = within(Duration::from_secs(10), stranger.account()).await.unwrap_err();
    assert_eq!(unauthorized.category(), "unauthorized");
}
