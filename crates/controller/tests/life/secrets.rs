//! The API token is in its Secret and nowhere else (I10).

use std::io::Write as _;
use std::process::Command;

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{Patch, PatchParams};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::stage::{Controller, Fault, Program, TOKEN, play, until};

/// What the controller serves at its admin address, whatever port it got.
async fn metrics() -> String {
    let listening = Command::new("ss").args(["-ltnHp"]).output().unwrap();
    let listening = String::from_utf8(listening.stdout).unwrap();
    let line = listening.lines().find(|line| line.contains("egress-controll")).expect("an admin server");
    let address = line.split_whitespace().nth(3).unwrap();
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    http.get(format!("http://{address}/metrics")).send().await.unwrap().text().await.unwrap()
}

/// What a crash leaves behind: nothing that the token is in.
fn crash(controller: &mut Controller) {
    let here = tempfile::tempdir().unwrap();
    let mut other =
        Program::start(Command::new("sleep").arg("600").env("SECRET", TOKEN).current_dir(here.path()));
    for process in [&mut other, &mut controller.process] {
        process.allow_core_dump();
        process.signal(Signal::SIGABRT);
        assert_eq!(process.wait(), None, "ended by the signal");
    }
    let holds = |bytes: &[u8]| bytes.windows(TOKEN.len()).any(|part| part == TOKEN.as_bytes());
    let dumped = std::fs::read_dir(here.path()).unwrap().next();
    match dumped {
        Some(core) => {
            let core = std::fs::read(core.unwrap().path()).unwrap();
            assert!(holds(&core), "a core without the memory: nothing would be found in any");
        }
        // Straight to the file descriptor: the test harness swallows what is printed.
        None => drop(writeln!(
            std::io::stderr(),
            "\nNOT TESTED: core dumps: this kernel writes none into files\n"
        )),
    }
    let files = controller.files();
    let names: Vec<&String> = files.iter().map(|(name, _)| name).collect();
    assert!(!names.iter().any(|name| name.starts_with("core")), "{names:?}");
    assert!(files.iter().all(|(_, bytes)| !holds(bytes)), "{names:?}");
}

#[test]
fn the_token_is_in_no_object_event_log_metric_user_data_or_core_dump() {
    play(async |stage| {
        let mut controller = stage.controller("a");
        stage.ask_for("demo", 2, json!({})).await;
        stage.whole("demo", 2).await;
        // The worst that the cloud can say: the token itself, in the words of a refusal that people are to read.
        let body = json!({"id": "unprocessable_entity", "message": format!("no Droplet for {TOKEN} today")});
        let kind = json!({"status": 422, "body": body});
        stage.cloud.break_with(Fault { route: "POST /v2/droplets", times: 100, kind }).await;
        stage.ask_for("refused", 1, json!({})).await;
        until("the refusal is told", async || {
            let (_, reason, message) = stage.condition("refused", "Degraded").await;
            if reason == "CreateRefused" && message.contains("no Droplet for") {
                Ok(())
            } else {
                Err(message)
            }
        })
        .await;

        let objects = stage.every_object();
        let cloud = stage.cloud.get("/simulator/state").await.to_string();
        for (what, text, known) in [
            ("objects and events", &objects, "CreateRefused"),
            ("user data", &cloud, "#cloud-config"),
            ("log", &controller.log(), "no Droplet for"),
            ("metrics", &metrics().await, "egress_controller_"),
        ] {
            assert!(text.contains(known), "{what} were not searched: {text}");
            let found = text.find(TOKEN).map(|at| &text[at.saturating_sub(200)..at + TOKEN.len()]);
            assert_eq!(found, None, "{what}");
        }
        crash(&mut controller);
        assert!(
            objects.contains("kind: Event") && objects.contains("kind: NodeEgress"),
            "what there is was read"
        );
    });
}

#[test]
fn the_token_may_be_in_a_secret_of_another_name() {
    play(async |stage| {
        stage.rename_token("my-token").await;
        let _controller = stage.controller_with("a", &["--token-secret=my-token"]);
        stage.ask_for("demo", 2, json!({})).await;
        stage.whole("demo", 2).await;

        // The command line takes the controller's token, too.
        stage.install(&["controller.yaml"]);
        let deployments: Api<Deployment> = Api::namespaced(stage.client.clone(), "egress-gateway");
        let container = json!({"name": "egress-controller", "args": ["--token-secret=my-token"]});
        let renamed = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
        let name = "egress-controller";
        deployments.patch(name, &PatchParams::default(), &Patch::Strategic(renamed)).await.unwrap();
        let manifest = json!({"apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway",
            "metadata": {"name": "planned"}, "spec": {"destinations": ["198.51.100.9"], "publicIP": "Ephemeral"}});
        let (code, printed, complaints) = stage.plan(&manifest, &[]);
        assert_eq!(code, Some(0), "{printed}\n{complaints}");
    });
}
