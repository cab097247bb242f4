//! Who may see the page, as a real API server says.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so by ending")]

mod made_up;
mod stage;

use std::time::{Duration, Instant};

use egress_dashboard::access::{Access, REFUSAL_REMEMBERED};
use made_up::Cluster;
use reqwest::{Response, StatusCode};
use serde_json::json;
use stage::Stage;
use testkit::ApiServer;

fn run(server: &ApiServer, arguments: &[&str]) -> String {
    let output = server.kubectl().args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_loopback_who_may_list_what_is_shown_may_see_it_and_nobody_else() {
    let server = ApiServer::start().await.unwrap();
    let reviewer = server.admin().unwrap();
    let stage = Stage::on("0.0.0.0:0", Cluster::of(1, 1), || Access::by_token(reviewer)).await;
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let url = stage.url("/");
    let with = async |token: &str| client.get(&url).bearer_auth(token).send().await.unwrap();

    let asked: Response = client.get(&url).send().await.unwrap();
    assert_eq!(asked.status(), StatusCode::UNAUTHORIZED);
    assert!(asked.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic "));
    assert!(!asked.text().await.unwrap().contains("gw-000"));
    assert_eq!(with("made-up").await.status(), StatusCode::UNAUTHORIZED);

    run(&server, &["create", "namespace", "people"]);
    run(&server, &["create", "serviceaccount", "operator", "-n", "people"]);
    let token = run(&server, &["create", "token", "operator", "-n", "people"]);
    let refused = with(&token).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let words = refused.text().await.unwrap();
    assert!(words.contains("system:serviceaccount:people:operator may not list egressgateways"), "{words}");

    // One of the two is not enough: nodes are shown, too.
    let role = |resources: &[&str]| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "egress-viewer"},
            "rules": [{"apiGroups": ["networking.digitalocean.com"], "resources": resources, "verbs": ["list"]}]})
    };
    assert!(server.apply(&role(&["egressgateways"])).unwrap());
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "egress-viewer"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "egress-viewer"},
        "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": "people"}]});
    assert!(server.apply(&binding).unwrap());
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        tokio::time::sleep(REFUSAL_REMEMBERED).await;
        let words = with(&token).await.text().await.unwrap();
        if words.contains("may not list nodeegresses") {
            break;
        }
        assert!(Instant::now() < patience, "{words}");
    }
    assert!(server.apply(&role(&["egressgateways", "nodeegresses"])).unwrap());
    loop {
        tokio::time::sleep(REFUSAL_REMEMBERED).await;
        let answer = with(&token).await;
        if answer.status() == StatusCode::OK {
            assert!(answer.text().await.unwrap().contains("gw-000"));
            break;
        }
        assert!(Instant::now() < patience, "{}", answer.status());
    }
    // As a browser asks for it.
    let browser = client.get(&url).basic_auth("anybody", Some(&token)).send().await.unwrap();
    assert_eq!(browser.status(), StatusCode::OK);
}
