use serde_json::{Value, json};

use super::*;

fn node(boot: &str, pool: &str) -> Node {
    serde_json::from_value(json!({
        "metadata": {"name": "pool-1", "labels": {"pool": pool}},
        "status": {"nodeInfo": {"bootID": boot, "architecture": "", "containerRuntimeVersion": "", "kernelVersion": "",
            "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "operatingSystem": "", "osImage": "", "systemUUID": ""}},
    }))
    .unwrap()
}

fn route(name: &str, generation: i64, more: &Value) -> Guarded<StaticRoute> {
    let mut spec = json!({"destinations": ["192.0.2.80"], "gateways": [{"address": "10.116.0.5"}]});
    spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    let object = json!({"apiVersion": "networking.digitalocean.com/v1", "kind": "StaticRoute", "spec": spec,
        "metadata": {"name": name, "uid": format!("uid-of-{name}"), "generation": generation}});
    serde_json::from_value(object).unwrap()
}

fn gateway(name: &str, more: &Value) -> Guarded<EgressGateway> {
    let mut spec = json!({"destinations": ["192.0.2.80"], "publicIP": "Ephemeral"});
    spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    let object = json!({"apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway", "spec": spec,
        "metadata": {"name": name, "uid": format!("uid-of-{name}")}});
    serde_json::from_value(object).unwrap()
}

/// What a node reports of `closed`.
fn report(boot: Option<&str>, generation: i64, guarded: bool) -> NodeEgressStatus {
    let entry = json!({"name": "closed", "uid": "uid-of-closed", "observedGeneration": generation, "state": "NotApplied",
        "applied": 0, "total": 1, "guarded": guarded});
    serde_json::from_value(json!({"bootID": boot, "routes": [entry]})).unwrap()
}

fn ask(
    node: &Node,
    report: Option<&NodeEgressStatus>,
    routes: &[Guarded<StaticRoute>],
    gateways: &[Guarded<EgressGateway>],
) -> Result<(), Waiting> {
    guarded(node, report, &Asked { routes: routes.iter().collect(), gateways: gateways.iter().collect() })
}

#[test]
fn without_anything_that_fails_closed_one_report_of_this_boot_is_enough() {
    let node = node("b", "a");
    let open = [route("open", 1, &json!({})), route("out", 1, &json!({"onNoGateway": "FailOpen"}))];
    let verdict =
        |report: Option<NodeEgressStatus>| ask(&node, report.as_ref(), &open, &[gateway("pair", &json!({}))]);
    assert_eq!(verdict(Some(report(Some("b"), 1, false))), Ok(()));
    for other in [None, Some(report(None, 1, true)), Some(report(Some("a"), 1, true))] {
        assert_eq!(verdict(other.clone()), Err(Waiting::NoReport), "{other:?}");
    }
    let unknown = super::tests::node("", "a");
    assert_eq!(ask(&unknown, Some(&report(Some(""), 1, true)), &open, &[]), Err(Waiting::NoReport));
    assert_eq!(ask(&Node::default(), Some(&report(None, 1, true)), &open, &[]), Err(Waiting::NoReport));
}

#[test]
fn what_fails_closed_must_be_guarded_in_its_present_version_on_the_nodes_that_it_selects() {
    let closed = |more: Value| {
        let mut spec = json!({"onNoGateway": "FailClosed"});
        spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        [route("open", 1, &json!({})), route("closed", 2, &spec)]
    };
    let here = node("b", "a");
    let waits = Err(Waiting::NotGuarded { name: "closed".to_owned() });
    for (generation, is_guarded, verdict) in
        [(2, true, Ok(())), (2, false, waits.clone()), (1, true, waits.clone()), (3, true, waits.clone())]
    {
        let said = report(Some("b"), generation, is_guarded);
        assert_eq!(ask(&here, Some(&said), &closed(json!({})), &[]), verdict, "{generation} {is_guarded}");
    }
    // Made anew under the same name.
    let mut again = closed(json!({}));
    again[1].meta_mut().uid = Some("another".to_owned());
    assert_eq!(ask(&here, Some(&report(Some("b"), 2, true)), &again, &[]), waits);

    let nothing = NodeEgressStatus { boot_id: Some("b".to_owned()), ..NodeEgressStatus::default() };
    let elsewhere = closed(json!({"nodeSelector": {"matchLabels": {"pool": "b"}}}));
    assert_eq!(ask(&here, Some(&nothing), &elsewhere, &[]), Ok(()));
    assert_eq!(ask(&node("b", "b"), Some(&nothing), &elsewhere, &[]), waits);
    let unknown = closed(json!({"nodeSelector": {"matchExpressions": [{"key": "pool", "operator": "In"}]}}));
    assert_eq!(ask(&here, Some(&nothing), &unknown, &[]), waits, "a selector that can't be read");

    let mut leaving = closed(json!({}));
    leaving[1].meta_mut().deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    assert_eq!(ask(&here, Some(&nothing), &leaving, &[]), Ok(()));
}

#[test]
fn an_egress_gateway_that_fails_closed_waits_for_its_static_route() {
    let here = node("b", "a");
    let pair = [gateway("pair", &json!({"onNoGateway": "FailClosed"}))];
    let said = report(Some("b"), 2, true);
    let waits = Err(Waiting::NoStaticRoute { name: "pair".to_owned() });
    let mut own = [route("closed", 2, &json!({}))];
    assert_eq!(ask(&here, Some(&said), &own, &pair), waits, "somebody's");
    own[0].meta_mut().owner_references = serde_json::from_value(json!([
        {"apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway", "name": "pair", "uid": "uid-of-pair"}
    ]))
    .unwrap();
    assert_eq!(ask(&here, Some(&said), &own, &pair), waits, "not told yet");
    own[0].0.as_mut().unwrap().spec.on_no_gateway = OnNoGateway::FailClosed;
    assert_eq!(ask(&here, Some(&said), &own, &pair), Ok(()));
    let elsewhere = [gateway(
        "pair",
        &json!({"onNoGateway": "FailClosed", "nodeSelector": {"matchLabels": {"pool": "b"}}}),
    )];
    assert_eq!(ask(&here, Some(&said), &[], &elsewhere), Ok(()));
}

#[test]
fn what_cannot_be_read_may_fail_closed() {
    let here = node("b", "a");
    let said = report(Some("b"), 1, true);
    let broken = route("broken", 1, &json!({"destinations": 7}));
    let words = ask(&here, Some(&said), &[broken], &[]).unwrap_err().to_string();
    assert!(
        words.starts_with("StaticRoute broken can't be read") && words.contains("destinations"),
        "{words}"
    );
    let words = ask(&here, Some(&said), &[], &[gateway("pair", &json!({"replicas": "two"}))]).unwrap_err();
    assert!(
        matches!(&words, Waiting::Unreadable { kind: "EgressGateway", name, .. } if name == "pair"),
        "{words}"
    );
}
