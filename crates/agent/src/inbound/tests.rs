use egress_routing::kernel_state::{MAIN_TABLE, Rule};
use egress_routing::{Protected, VpcInterface};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::follow::{fold, keep_the_name};
use super::*;

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn view() -> NodeView {
    let mut protected = Protected::default();
    for range in ["10.244.0.0/16", "10.244.1.0/24", "10.99.0.0/25"] {
        protected.insert(range.parse().unwrap(), ProtectedReason::Pods);
    }
    let vpc = VpcInterface {
        index: 3,
        up: true,
        address: Ipv4Addr::new(10, 116, 0, 2),
        subnet: "10.116.0.0/20".parse().unwrap(),
    };
    NodeView { vpc: Some(vpc), protected, ..NodeView::default() }
}

fn pod(spec: &Value) -> OwnPod {
    object(
        json!({"metadata": {"name": "p", "namespace": "default", "labels": {"a": "b"}, "resourceVersion": "7"},
        "spec": spec, "status": {"podIP": "10.244.1.7", "phase": "Running"}}),
    )
}

fn exposed(namespace: &str, name: &str) -> Service {
    let mut service =
        object(json!({"metadata": {"name": name, "namespace": namespace}, "spec": {"type": "NodePort"}}));
    keep_the_name(&mut service);
    service
}

fn slice(namespace: &str, service: &str, addresses: &[&str], ports: &Value) -> EndpointSlice {
    let endpoints: Vec<_> = addresses
        .iter()
        .map(|address| json!({"addresses": [address], "conditions": {"ready": false}, "nodeName": "n"}))
        .collect();
    let mut slice = object(json!({"addressType": "IPv4", "endpoints": endpoints, "ports": ports,
        "metadata": {"name": "s", "namespace": namespace, "labels": {"kubernetes.io/service-name": service, "x": "y"}}}));
    fold(&mut slice);
    slice
}

fn said(ports: &BTreeSet<ServedPort>) -> Vec<String> {
    ports.iter().map(|port| format!("{} {:?} {}", port.from, port.protocol, port.port)).collect()
}

#[test]
fn a_host_port_is_the_port_of_the_pod_behind_it() {
    let pods = [
        pod(&json!({"containers": [
            {"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 9000}]},
            {"name": "d", "ports": [{"containerPort": 53, "hostPort": 53, "protocol": "UDP"},
                {"containerPort": 54, "hostPort": 54, "protocol": "SCTP"},
                {"containerPort": 81, "hostPort": 8081, "hostIP": "127.0.0.1"}]}],
            "initContainers": [{"name": "s", "restartPolicy": "Always", "ports": [{"containerPort": 82, "hostPort": 8082}]}]})),
        pod(
            &json!({"hostNetwork": true, "containers": [{"name": "c", "ports": [{"containerPort": 7, "hostPort": 7}]}]}),
        ),
    ];
    assert_eq!(
        said(&served_ports(&pods, [], [], &view())),
        ["10.244.0.0/16 Tcp 80", "10.244.0.0/16 Tcp 82", "10.244.0.0/16 Udp 53"]
    );
}

#[test]
fn a_node_port_is_the_port_of_every_endpoint_as_its_slice_resolved_it() {
    let services = [exposed("default", "web"), exposed("default", "dns")];
    let slices = [
        slice(
            "default",
            "web",
            &["10.244.0.5", "10.244.1.6"],
            &json!([{"name": "http", "port": 8443, "protocol": "TCP"}]),
        ),
        // The same name resolves to another port for older pods.
        slice("default", "web", &["10.244.0.9"], &json!([{"name": "http", "port": 8080}])),
        // Outside the ranges, a node, and an address that is nobody's.
        slice(
            "default",
            "dns",
            &["10.99.0.9", "10.116.0.3", "192.0.2.9"],
            &json!([{"port": 53, "protocol": "UDP"}, {"port": null}]),
        ),
        slice("other", "web", &["10.244.0.5"], &json!([{"port": 1}])),
        slice("default", "internal", &["10.244.0.5"], &json!([{"port": 2}])),
    ];
    assert_eq!(
        said(&served_ports([], &services, &slices, &view())),
        [
            "10.99.0.0/25 Udp 53",
            "10.116.0.0/20 Udp 53",
            "10.244.0.0/16 Tcp 8080",
            "10.244.0.0/16 Tcp 8443",
            "192.0.2.9/32 Udp 53",
        ]
    );
}

#[test]
fn of_the_objects_is_kept_what_is_read_and_no_more() {
    let kept = slice("default", "web", &["10.244.0.5"; 100], &json!([{"port": 80, "name": "http"}]));
    let expected = json!({"addressType": "IPv4", "metadata": {"name": "s", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": [{"addresses": ["10.244.0.5"]}], "ports": [{"port": 80}]});
    assert_eq!(kept, object::<EndpointSlice>(expected));
    let kept = pod(&json!({"nodeName": "n", "containers": [
        {"name": "c", "image": "i", "ports": [{"containerPort": 80, "hostPort": 8080, "name": "http"}, {"containerPort": 9}]},
        {"name": "d", "env": [{"name": "a", "value": "b"}]}]}));
    let metadata = ObjectMeta {
        name: Some("p".to_owned()),
        namespace: Some("default".to_owned()),
        resource_version: Some("7".to_owned()),
        ..ObjectMeta::default()
    };
    let port = PortOfPod { container_port: 80, host_port: Some(8080), host_ip: None, protocol: None };
    let address = Some(Ipv4Addr::new(10, 244, 1, 7));
    assert_eq!(kept, OwnPod { metadata, address, host_ports: vec![port] });
}

#[test]
fn a_pod_that_is_just_being_made_serves_nothing() {
    let ports = json!([{"containerPort": 80, "hostPort": 8080}]);
    for begun in [
        json!({"metadata": {"name": "p"}}),
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "ports": ports}]}, "status": {}}),
        json!({"metadata": {"name": "p"}, "spec": {"containers": null}, "status": {"podIP": "fd00::7"}}),
    ] {
        assert_eq!(served_ports([&object::<OwnPod>(begun)], [], [], &view()), BTreeSet::new());
    }
}

#[test]
fn ports_beyond_the_bound_are_a_concern_of_the_node() {
    assert_eq!(not_answered(&[]), None);
    let port = ServedPort { from: "10.244.0.0/16".parse().unwrap(), protocol: Transport::Udp, port: 53 };
    let concern = not_answered(&[port; 3]).unwrap();
    assert_eq!((concern.type_, concern.reason), ("PortsNotAnswered", "TooManyPorts"));
    assert!(concern.message.starts_with("3 ports, the first being UDP 53 of 10.244.0.0/16, answer"));
}

#[test]
fn a_served_port_that_connections_get_is_a_concern_of_the_node() {
    let layout = Layout::default();
    let served = |port| Rule {
        from: Some("10.244.0.0/16".parse().unwrap()),
        ip_protocol: Some(6),
        source_ports: Some((port, port)),
        ..Rule::lookup(layout.inbound_priority, MAIN_TABLE)
    };
    let concern = |ports: &[u16], of_the_node: Option<&EphemeralPorts>| {
        let planned =
            KernelState { rules: ports.iter().map(|port| served(*port)).collect(), ..KernelState::default() };
        ephemeral(&planned, &layout, of_the_node)
    };
    assert_eq!(concern(&[], None), None);
    assert_eq!(concern(&[8080, 32_767, 61_000], None), None);
    let told = concern(&[8080, 50_051, 60_999], None).unwrap();
    assert_eq!((told.type_, told.reason), ("ServedPortsEphemeral", "PortsOfClients"));
    let words =
        "2 ports that are served to the outside, the first being TCP 50051 of 10.244.0.0/16, are among";
    assert!(told.message.starts_with(words) && told.message.contains("one in 28232 "), "{}", told.message);
    // A node's own range may be another one.
    let wide = EphemeralPorts { range: 10_000..=65_535, reserved: vec![20_000..=20_999] };
    assert!(concern(&[19_999], Some(&wide)).is_some());
    assert_eq!(concern(&[20_000], Some(&wide)), None);
}
