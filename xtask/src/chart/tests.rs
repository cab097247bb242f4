//! The chart as Helm renders it.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};

use super::*;
use crate::manifests;

/// An object by kind, namespace and name.
type Objects = BTreeMap<String, Value>;

fn helm(arguments: &[&str], chart: &Path, values: &Value) -> Result<String, String> {
    helm_in("egress-gateway", arguments, chart, values)
}

fn helm_in(namespace: &str, arguments: &[&str], chart: &Path, values: &Value) -> Result<String, String> {
    let root = tree::root().unwrap();
    let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
    std::fs::write(file.path(), values.to_string()).unwrap();
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(tree::helm(&root).unwrap());
    command.args(arguments).arg(chart).args(["--namespace", namespace, "--values"]).arg(file.path());
    for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(variable, home.path());
    }
    let output = command.output().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(said(&output.stdout));
    }
    Err(said(&output.stderr) + &said(&output.stdout))
}

fn chart() -> PathBuf {
    tree::root().unwrap().join("deploy/chart")
}

fn rendered(values: &Value) -> Objects {
    rendered_of(&chart(), values)
}

fn rendered_of(chart: &Path, values: &Value) -> Objects {
    let yaml = helm(&["template", "egress-gateway"], chart, values).unwrap();
    objects(serde_saphyr::from_multiple(&yaml).unwrap())
}

fn kustomized(folders: &[&str]) -> Objects {
    let root = tree::root().unwrap();
    let of = |folder: &&str| manifests::render_folder(&root, &root.join("deploy").join(folder)).unwrap().0;
    objects(folders.iter().flat_map(of).collect())
}

// Without Helm's word on what outlives the release, which stands on nothing else, and with flags in one order.
fn objects(list: Vec<Value>) -> Objects {
    let mut objects = Objects::new();
    for mut object in list.into_iter().filter(|object| !object.is_null()) {
        if object["metadata"]["annotations"] == json!({"helm.sh/resource-policy": "keep"}) {
            object["metadata"].as_object_mut().unwrap().remove("annotations");
        }
        if let Some(args) = object.pointer_mut("/spec/template/spec/containers/0/args") {
            args.as_array_mut().unwrap().sort_by_key(ToString::to_string);
        }
        let part = |field: &str| object["metadata"][field].as_str().unwrap_or("-").to_owned();
        let key = format!("{} {}/{}", object["kind"].as_str().unwrap(), part("namespace"), part("name"));
        assert!(objects.insert(key.clone(), object).is_none(), "{key} is there twice");
    }
    objects
}

fn assert_same(chart: &Objects, manifests: &Objects) {
    let keys = |objects: &Objects| objects.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(chart), keys(manifests), "chart, manifests");
    for (key, object) in chart {
        assert_eq!(first_difference("", object, &manifests[key]), None, "{key}: chart, manifests");
    }
}

// Where two objects differ first, and what they have there. A number is the same however it is written.
fn first_difference(path: &str, one: &Value, other: &Value) -> Option<String> {
    let below = |key: &str, one: Option<&Value>, other: Option<&Value>| {
        let missing = Value::Null;
        first_difference(&format!("{path}/{key}"), one.unwrap_or(&missing), other.unwrap_or(&missing))
    };
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let keys: std::collections::BTreeSet<_> = one.keys().chain(other.keys()).collect();
            keys.into_iter().find_map(|key| below(key, one.get(key), other.get(key)))
        }
        (Value::Array(one), Value::Array(other)) => (0..one.len().max(other.len()))
            .find_map(|index| below(&index.to_string(), one.get(index), other.get(index))),
        (Value::Number(one), Value::Number(other)) if one.as_f64() == other.as_f64() => None,
        (one, other) => (one != other).then(|| format!("{path}: {one}, {other}")),
    }
}

/// tests/helm/NAME.
fn values(name: &str) -> Value {
    let file = tree::root().unwrap().join("tests/helm").join(name);
    serde_saphyr::from_str(&read(&file).unwrap()).unwrap()
}

fn schema() -> Value {
    serde_json::from_str(&read(&chart().join("values.schema.json")).unwrap()).unwrap()
}

/// Path of each value that can be given.
fn leaves(schema: &Value) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    for (key, node) in schema["properties"].as_object().unwrap() {
        let open = node.get("properties").is_some() && key != "resources";
        let below = if open { leaves(node) } else { vec![Vec::new()] };
        paths.extend(below.into_iter().map(|path| [vec![key.clone()], path].concat()));
    }
    paths
}

fn at<'a>(values: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(values, |value, key| value.get(key))
}

fn alone(path: &[String], value: &Value) -> Value {
    path.iter().rev().fold(value.clone(), |value, key| json!({key: value}))
}

#[test]
fn by_default_the_chart_has_the_same_objects_as_the_manifests() {
    let manifests = kustomized(&["crds", "overlays/doks"]);
    assert_same(&rendered(&json!({"namespace": {"create": true}})), &manifests);
    // Helm makes the namespace before anything else, or finds it made: by default it is not the release's.
    let mut without = manifests;
    without.remove("Namespace -/egress-gateway").unwrap();
    assert_same(&rendered(&json!({})), &without);
}

#[test]
fn with_the_labs_values_the_chart_has_the_same_objects_as_the_labs_overlay() {
    let mut lab = values("lab.yaml");
    lab["namespace"] = json!({"create": true});
    assert_same(&rendered(&lab), &kustomized(&["crds", "overlays/lab"]));
}

#[test]
fn another_namespace_is_in_every_place_that_names_it() {
    let yaml =
        helm_in("another-place", &["template", "other"], &chart(), &json!({"namespace": {"create": true}}))
            .unwrap();
    let here = yaml.replace("another-place", "egress-gateway");
    let renamed: Vec<Value> = serde_saphyr::from_multiple(&here).unwrap();
    assert_same(&objects(renamed), &kustomized(&["crds", "overlays/doks"]));
    for line in yaml.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let known = line.replace("app.kubernetes.io/part-of: egress-gateway", "");
        assert!(!known.contains("egress-gateway"), "{line}");
    }
}

#[test]
fn lint_finds_nothing() {
    for values in [json!({}), values("lab.yaml"), values("all.yaml")] {
        helm(&["lint", "--strict"], &chart(), &values).unwrap();
    }
}

#[test]
fn every_value_that_can_be_given_does_something() {
    let all = values("all.yaml");
    rendered(&all);
    for path in leaves(&schema()) {
        let name = path.join(".");
        if name == "global" {
            continue;
        }
        let value = at(&all, &path).unwrap_or_else(|| panic!("tests/helm/all.yaml does not have {name}"));
        // What only says how something is done that is off by default.
        let mut before = json!({});
        if path.last().is_none_or(|last| last != "enabled") {
            let mut switch = path.clone();
            *switch.last_mut().unwrap() = "enabled".to_owned();
            if at(&all, &switch).is_some() {
                before = alone(&switch, &true.into());
            }
        }
        let mut after = before.clone();
        merge(&mut after, alone(&path, value));
        assert_ne!(rendered(&before), rendered(&after), "{name} changes nothing");
    }
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

#[test]
fn flags_are_written_as_the_programs_read_them() {
    let objects = rendered(&values("all.yaml"));
    let arguments = |key: &str| -> Vec<String> {
        let args = objects[key].pointer("/spec/template/spec/containers/0/args").unwrap();
        serde_json::from_value(args.clone()).unwrap()
    };
    let agent = arguments("DaemonSet egress-gateway/egress-agent");
    for argument in [
        "--nexthop-ids=249000000",
        "--protected=192.0.2.0/24,198.51.100.0/24",
        "--remove-leftovers-of-older-operator",
        "--api-server-name=api.example.com:6443",
    ] {
        assert!(agent.iter().any(|one| one == argument), "{argument}: {agent:?}");
    }
    let controller = arguments("Deployment egress-gateway/egress-controller");
    for argument in ["--user-data-spread-seconds=0", "--log=info,egress_controller=debug"] {
        assert!(controller.iter().any(|one| one == argument), "{argument}: {controller:?}");
    }
    let nothing = json!({"agent": {"settings": {"removeLeftoversOfOlderOperator": false, "protected": []}}});
    assert_eq!(rendered(&nothing), rendered(&json!({})));
}

#[test]
fn a_wrong_value_is_refused_by_its_name() {
    let refused = |values: &Value| helm(&["template", "egress-gateway"], &chart(), values).unwrap_err();
    // Of no type that any value has.
    for path in leaves(&schema()) {
        if path != ["global"] {
            let said = refused(&alone(&path, &json!([[1]])));
            assert!(said.contains(&format!("'/{}", path.join("/"))), "{path:?}: {said}");
        }
    }
    for (path, value) in [
        ("controller.replicas", json!(0)),
        ("controller.replicas", json!(6)),
        ("controller.replicas", json!("2")),
        ("controller.resources.limits.memory", json!("much")),
        ("controller.tolerations", json!([{"operator": "Sometimes"}])),
        ("controller.settings.firewallAgeSeconds", json!(4)),
        ("controller.settings.digitaloceanApi", json!("api.digitalocean.com")),
        ("agent.maxUnavailable", json!(0)),
        ("agent.maxUnavailable", json!("100%")),
        ("agent.maxUnavailable", json!("26%")),
        ("agent.nodeSelector", json!({"kubernetes.io/os": "windows"})),
        ("agent.settings.table", json!(135)),
        ("agent.settings.nexthopIds", json!(241_000_001)),
        ("agent.settings.podRange", json!("10.244.0.0")),
        ("agent.settings.namesInterval", json!(3601)),
        ("images.pullPolicy", json!("Sometimes")),
        ("images.controller", json!("")),
        ("networkPolicy.extraEgressPorts", json!([65536])),
        ("monitoring.podMonitors.interval", json!("often")),
        ("monitoring.rules.kind", json!("Rule")),
        ("monitoring.rules.runbooks", json!("https://git.example/egress-gateway")),
    ] {
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        let said = refused(&alone(&path, &value));
        assert!(said.contains(&format!("'/{}", path.join("/"))), "{path:?}: {said}");
    }
    for unknown in [
        json!({"contoller": {}}),
        json!({"agent": {"setings": {}}}),
        json!({"agent": {"settings": {"tabel": 1}}}),
    ] {
        let said = refused(&unknown);
        let name = unknown.to_string();
        let name = name.rsplit('{').find_map(|part| part.split('"').nth(1)).unwrap();
        assert!(said.contains(&format!("'{name}'")), "{unknown}: {said}");
    }
}

#[test]
fn dashboards_and_rules_go_in_as_they_are() {
    let on = |kind: &str| {
        let rules = json!({"enabled": true, "kind": kind});
        json!({"monitoring": {"dashboards": {"enabled": true}, "rules": rules}})
    };
    let without = rendered(&json!({}));
    let mut config_maps = rendered(&on("ConfigMap"));
    config_maps.retain(|key, _| !without.contains_key(key));
    assert_same(&config_maps, &kustomized(&["monitoring"]));
    let monitoring = tree::root().unwrap().join("deploy/monitoring");
    let dashboards = tree::files(&monitoring, ".json").unwrap();
    // Kustomize names them one by one: one that it does not name would be missing in both.
    assert_eq!(config_maps.len(), dashboards.len() + 1);
    for path in dashboards {
        let file = name(&path);
        let key = format!("ConfigMap egress-gateway/egress-gateway-{}", file.trim_end_matches(".json"));
        assert_eq!(config_maps[&key]["data"][&file].as_str().unwrap(), read(&path).unwrap(), "{file}");
    }
    // Braces are Helm's language and that of alerts.
    let text = read(&monitoring.join("rules.yaml")).unwrap();
    assert!(text.contains("{{ $labels."));
    let spec: Value = serde_saphyr::from_str(&text).unwrap();
    let key = "PrometheusRule egress-gateway/egress-gateway-rules";
    assert_eq!(rendered(&on("PrometheusRule"))[key]["spec"], spec);
}

#[test]
fn a_runbook_is_a_link_where_it_is_said_where_the_repository_is() {
    let address = "https://git.example/egress-gateway/";
    let on = json!({"monitoring": {"rules": {"enabled": true, "runbooks": address}}});
    let rules = rendered(&on)["PrometheusRule egress-gateway/egress-gateway-rules"]["spec"]["groups"].clone();
    let groups = rules.as_array().unwrap().iter();
    let alerts: Vec<&Value> = groups
        .flat_map(|group| group["rules"].as_array().unwrap())
        .filter(|rule| rule.get("alert").is_some())
        .collect();
    assert!(!alerts.is_empty());
    for alert in alerts {
        let link = alert["annotations"]["runbook_url"].as_str().unwrap();
        let file = link.strip_prefix(address).unwrap_or_else(|| panic!("{link}"));
        assert!(tree::root().unwrap().join(file).is_file(), "{link}");
    }
}

#[test]
fn what_is_scraped_is_named_as_alerts_and_dashboards_name_it() {
    let objects = rendered(&json!({"monitoring": {"podMonitors": {"enabled": true}}}));
    for (name, workload, instance) in [
        ("egress-controller", "Deployment", "__meta_kubernetes_pod_name"),
        ("egress-agent", "DaemonSet", "__meta_kubernetes_pod_node_name"),
    ] {
        let monitor = &objects[&format!("PodMonitor egress-gateway/{name}")]["spec"];
        let endpoint = &monitor["podMetricsEndpoints"][0];
        let relabeling = json!({"sourceLabels": [instance], "targetLabel": "instance"});
        assert_eq!(endpoint["relabelings"], json!([relabeling]));
        let pod = &objects[&format!("{workload} egress-gateway/{name}")]["spec"]["template"];
        let wanted = monitor["selector"]["matchLabels"].as_object().unwrap();
        assert!(wanted.iter().all(|(label, value)| pod["metadata"]["labels"][label] == *value));
        assert_eq!(endpoint["port"], pod["spec"]["containers"][0]["ports"][0]["name"]);
    }
}

#[test]
fn rules_are_told_from_tests_of_rules() {
    assert!(is_rules("# Alerts\ngroups:\n  - name: a\n"));
    assert!(!is_rules("rule_files: [a.yaml]\ntests:\n  - groups: []\n"));
    assert!(!is_rules("apiVersion: v1\n"));
}
