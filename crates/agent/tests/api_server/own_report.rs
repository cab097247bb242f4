//! An agent with the rights that `deploy/` ships writes the report of its own node, and of no other.

use egress_agent::publish::{Publisher, Stored, follow};
use egress_agent::report::Report;
use egress_api::{NodeEgress, NodeEgressStatus};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use testkit::ApiServer;
use tokio::sync::watch;

use crate::stage::{apply, install, kubectl, server, until};

const NAMESPACE: &str = "egress-gateway";

/// The words of an API error.
fn words(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} {}", status.code, status.message),
        other => other.to_string(),
    }
}

/// An agent's Pod on `node`, and the token that its kubelet would ask for.
fn token_on(server: &ApiServer, node: Option<&str>) -> String {
    let name = format!("agent-on-{}", node.unwrap_or("none"));
    let container = json!({"name": "agent", "image": "agent"});
    apply(
        server,
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"serviceAccountName": "egress-agent", "nodeName": node, "containers": [container]}}),
    );
    let bound = [&format!("--bound-object-name={name}"), "--bound-object-kind=Pod"];
    kubectl(server, &["create", "token", "egress-agent", "-n", NAMESPACE, bound[0], bound[1]])
}

async fn write(client: &Client, node: &str) -> Result<(), String> {
    let reports: Api<NodeEgress> = Api::all(client.clone());
    let ours = PatchParams::apply("egress-agent").force();
    let object = json!({"apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "NodeEgress",
        "metadata": {"name": node}, "status": {"summary": "9/9"}});
    reports.patch(node, &ours, &Patch::Apply(&object)).await.map_err(words)?;
    reports.patch_status(node, &ours, &Patch::Apply(&object)).await.map_err(words)?;
    Ok(())
}

async fn write_status(client: &Client, node: &str) -> Result<(), String> {
    let reports: Api<NodeEgress> = Api::all(client.clone());
    let patch = json!({"status": {"summary": "9/9"}});
    reports.patch_status(node, &PatchParams::default(), &Patch::Merge(&patch)).await.map_err(words)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_writes_the_report_of_its_own_node_and_no_other() {
    let server = server().await;
    install(&server, &["namespace.yaml", "agent-rbac.yaml", "agent-reports.yaml"]);
    for node in ["node-1", "node-2"] {
        apply(&server, &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}}));
    }
    let admin = server.admin().unwrap();
    let agent = server.client(&token_on(&server, Some("node-1"))).unwrap();
    let refusal = |words: &str| {
        format!(
            "is forbidden: ValidatingAdmissionPolicy 'egress-agent-own-report' with binding \
             'egress-agent-own-report' denied request: {words}"
        )
    };
    let foreign = refusal("the agent of node node-1 may write NodeEgress node-1 only, not node-2");

    // A role and a policy act some moments after they were made: until then an agent may do nothing, or all.
    until("the policy acts", async || {
        let said = write(&agent, "node-2").await.err()?;
        (said.starts_with("403 ") && said.ends_with(&foreign)).then_some(())
    })
    .await;
    write(&agent, "node-1").await.unwrap();

    // What exists already, its status alone, and with another verb.
    write(&admin, "node-2").await.expect("nobody else is restricted");
    let said = write_status(&agent, "node-2").await.unwrap_err();
    assert!(said.starts_with("403 ") && said.ends_with(&foreign), "{said}");
    write_status(&agent, "node-1").await.unwrap();
    let reports: Api<NodeEgress> = Api::all(agent.clone());
    assert!(reports.delete("node-2", &DeleteParams::default()).await.is_err(), "no right to delete");

    // A token that is bound to no node is good for no report, not even where the name would fit.
    let unbound = kubectl(&server, &["create", "token", "egress-agent", "-n", NAMESPACE]);
    let nowhere = refusal(
        "the token names no node; an agent writes with the token of its Pod, which is bound to the Pod's node",
    );
    for token in [unbound, token_on(&server, None)] {
        let client = server.client(&token).unwrap();
        for node in ["node-1", "node-2"] {
            let said = write(&client, node).await.unwrap_err();
            assert!(said.ends_with(&nowhere), "{said}");
        }
    }

    // The agent's own code, with these rights: makes it, keeps it current, mends what others do to it.
    kubectl(&server, &["delete", "nodeegress", "node-1"]);
    let (reports, said) = watch::channel(Report::default());
    let (storing, stored) = watch::channel(Stored::default());
    let follower = tokio::spawn(follow(agent.clone(), "node-1".to_owned(), storing));
    let publisher =
        Publisher { client: agent, node_name: "node-1".to_owned(), reports: said, stored, nodes: || 2 };
    let publishing = tokio::spawn(publisher.run());
    let all: Api<NodeEgress> = Api::all(admin.clone());
    let summary = async |wanted: &str| {
        until(wanted, async || {
            let report = all.get_opt("node-1").await.unwrap()?;
            assert_eq!(report.metadata.owner_references.as_ref().map(Vec::len), Some(1), "{report:?}");
            (report.status?.summary.as_deref() == Some(wanted)).then_some(())
        })
        .await;
    };
    let says = |summary: &str| Report {
        status: NodeEgressStatus { summary: Some(summary.to_owned()), ..NodeEgressStatus::default() },
        concerns: Vec::new(),
    };
    reports.send_replace(says("1/2"));
    summary("1/2").await;
    reports.send_replace(says("2/2"));
    summary("2/2").await;
    write_status(&admin, "node-1").await.unwrap();
    summary("2/2").await;
    kubectl(&server, &["delete", "nodeegress", "node-1"]);
    summary("2/2").await;
    drop(reports);
    publishing.await.unwrap();
    follower.abort();
}
