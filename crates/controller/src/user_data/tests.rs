//! Rendered user data as cloud-init will read it.

use super::*;

fn input(vpc: &str, pods: &[&str]) -> UserDataInput {
    UserDataInput {
        vpc_range: vpc.parse().expect("range"),
        pod_ranges: pods.iter().map(|p| p.parse().expect("range")).collect(),
        ssh: false,
        leaves_with: LeavesWith::Own,
    }
}

fn demo() -> UserData {
    render(&input("10.116.0.0/20", &["10.244.0.0/16"])).expect("renders")
}

/// The content of a `write_files` entry: what follows its `content: |`, without the indentation.
fn written(text: &str, path: &str) -> String {
    let after = text.split_once(&format!("  - path: {path}\n")).expect("path").1;
    let block = after.split_once("content: |\n").expect("content").1;
    let lines: Vec<_> = block
        .lines()
        .take_while(|line| line.is_empty() || line.starts_with("      "))
        .map(|line| line.strip_prefix("      ").unwrap_or(line))
        .collect();
    lines.join("\n").trim_end().to_owned() + "\n"
}

/// What the packed `content:` of an entry holds.
fn unpacked(text: &str, path: &str) -> String {
    let after = text.split_once(&format!("  - path: {path}\n")).expect("path").1;
    let (head, rest) = after.split_once("    content: ").expect("content");
    assert!(head.contains("encoding: gz+b64\n"), "{head}");
    let bytes = BASE64.decode(rest.lines().next().expect("line")).expect("base64");
    std::io::read_to_string(flate2::read::GzDecoder::new(bytes.as_slice())).expect("gzip")
}

#[test]
fn begins_as_cloud_config_and_leaves_no_placeholder() {
    let text = demo().text;
    assert!(text.starts_with("#cloud-config\n"));
    assert!(!text.contains("{{"), "placeholder left");
    assert!(text.is_ascii());
    assert!(text.len() < MAX_BYTES / 2, "{} bytes: room for later steps is gone", text.len());
}

#[test]
fn carries_each_file_unchanged() {
    let text = demo().text;
    for (name, content) in FILES {
        let carried = match name {
            "apt.conf" => written(&text, "/etc/apt/apt.conf.d/90egress-gateway"),
            "apt-daily-upgrade.conf" => {
                written(&text, "/etc/systemd/system/apt-daily-upgrade.service.d/egress-gateway.conf")
            }
            unit if unit.ends_with(".service") => written(&text, &format!("/etc/systemd/system/{unit}")),
            program => unpacked(&text, &format!("/usr/local/sbin/{program}")),
        };
        assert_eq!(carried, content, "{name}");
    }
}

#[test]
fn settings_name_version_and_ranges() {
    let data = demo();
    let settings: serde_json::Value =
        serde_json::from_str(&written(&data.text, "/etc/egress-gateway/settings.json")).expect("JSON");
    assert_eq!(
        settings,
        serde_json::json!({
            "version": data.version, "vpc_range": "10.116.0.0/20", "source_ranges": "10.116.0.0/20,10.244.0.0/16",
            "ssh": false,
            "egress_address": "own",
            "relayed": "",
        })
    );
    assert_eq!(written(&data.text, "/etc/egress-gateway/version"), format!("{}\n", data.version));
    assert_eq!(data.version.len(), 12);
}

#[test]
fn version_depends_on_the_ranges_but_not_on_how_they_are_given() {
    let a = render(&input("10.116.0.0/20", &["10.244.0.0/16", "10.250.0.0/16"])).expect("renders");
    let b = render(&input(
        "10.116.3.4/20",
        &["10.250.0.0/16", "10.244.0.0/16", "10.250.7.0/16", "10.116.1.0/24"],
    ))
    .expect("renders");
    assert_eq!(a, b);
    assert_ne!(a.version, demo().version);
    assert_ne!(render(&input("10.116.0.0/21", &["10.244.0.0/16"])).expect("renders").version, demo().version);
}

#[test]
fn with_ssh_keys_there_is_an_account_for_them_and_without_none() {
    let without = demo();
    let keys = UserDataInput { ssh: true, ..input("10.116.0.0/20", &["10.244.0.0/16"]) };
    let with = render(&keys).expect("renders");
    assert_ne!(with.version, without.version);
    assert!(with.text.contains("\nuser: {name: gateway, ") && with.text.contains("\"ssh\": true,\n"));
    assert!(without.text.contains("\nusers: [{name: root, "));
}

#[test]
fn an_address_that_moves_has_its_health_targets_in_the_order_of_their_ports() {
    let floating = |targets: &[&str]| {
        let targets = targets.iter().map(|target| target.parse().expect("target")).collect();
        let leaves_with = LeavesWith::Floating { targets };
        render(&UserDataInput { leaves_with, ..input("10.116.0.0/20", &[]) }).expect("renders")
    };
    let data = floating(&["9.9.9.9:443", "1.1.1.1:443", "9.9.9.9:443"]);
    assert!(data.text.contains("\"egress_address\": \"floating\",\n"));
    assert!(data.text.contains("\"relayed\": \"1.1.1.1:443,9.9.9.9:443\"\n"), "in order, each once");
    assert_eq!(data, floating(&["1.1.1.1:443", "9.9.9.9:443"]));
    assert_ne!(data.version, floating(&["1.1.1.1:443"]).version);
}

#[test]
fn refuses_a_range_that_would_translate_for_strangers() {
    let everything = "0.0.0.0/0".parse().expect("range");
    assert_eq!(render(&input("10.116.0.0/20", &["0.0.0.0/0"])), Err(UserDataError::RangeTooWide(everything)));
    assert_eq!(
        render(&input("8.0.0.0/7", &[])).map_err(|e| e.to_string()),
        Err("source range 8.0.0.0/7 is wider than /8".to_owned())
    );
}

#[test]
fn unknown_placeholders_are_errors() {
    assert_eq!(
        fill("  x: {{nobody}}", &[("a", "1")]),
        Err(UserDataError::UnknownPlaceholder("x: {{nobody}}".to_owned()))
    );
    assert_eq!(fill("x: {{a}}-{{a}}", &[("a", "1")]), Ok("x: 1-1".to_owned()));
}
