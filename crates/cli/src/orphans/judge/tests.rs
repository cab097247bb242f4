use serde_json::{Value, json};

use super::*;
use crate::view::fixture::{egress_gateway, view};

const CLUSTER: &str = "c1";
const GONE: &str = "1a2b3c4d-0000-4000-8000-00000000000a";

type Change = fn(&mut Value);

fn cluster() -> Cluster {
    let mut demo = egress_gateway("demo");
    demo["spec"]["existingDroplets"] = json!([42]);
    Cluster::new(CLUSTER.into(), "v".into(), BTreeSet::from([DropletId(1)]), &view(&[demo]))
}

fn droplet(change: impl FnOnce(&mut Value)) -> Droplet {
    let mut droplet = json!({"id": 7, "name": "old-0-1a2b3c4d", "vpc_uuid": "v", "created_at": "2026-01-01T00:00:00Z",
        "tags": ["egress-gateway", "egress-cluster:c1", format!("egress-owner:{GONE}"), "egress-slot:0"]});
    change(&mut droplet);
    serde_json::from_value(droplet).unwrap()
}

fn firewall(name: &str, droplets: &[u64], tags: &Value) -> Firewall {
    serde_json::from_value(json!({"id": "f", "name": name, "droplet_ids": droplets, "tags": tags})).unwrap()
}

#[test]
fn a_droplet_of_an_egress_gateway_that_is_gone_is_proven_and_every_part_is_needed() {
    let orphan = cluster().judge(&droplet(|_| {})).unwrap();
    assert!(orphan.is_proven(), "{orphan:#?}");
    let table: [(&str, Change); 5] = [
        ("it carries the tag", |it| it["tags"][0] = json!("other")),
        ("owner's tag", |it| it["tags"][2] = json!("other")),
        ("its name", |it| it["name"] = json!("mine")),
        ("VPC", |it| it["vpc_uuid"] = json!("w")),
        ("no node", |it| it["id"] = json!(1)),
    ];
    for (missing, change) in table {
        let orphan = cluster().judge(&droplet(change)).unwrap();
        assert!(!orphan.is_proven() && orphan.proof_in_words().contains("  NO "), "{missing}: {orphan:#?}");
        let first = orphan.proof.iter().find(|one| !one.holds).unwrap();
        assert!(first.that.contains(missing), "{missing}: {}", first.that);
    }
}

#[test]
fn what_an_egress_gateway_or_another_cluster_has_is_no_orphan() {
    for (what, droplet) in [
        ("another cluster's", droplet(|it| it["tags"][1] = json!("egress-cluster:c2"))),
        (
            "of one that is there, recorded or not yet",
            droplet(|it| it["tags"][2] = json!("egress-owner:uid-demo")),
        ),
        ("recorded", droplet(|it| it["id"] = json!(700))),
        ("named in spec.existingDroplets", droplet(|it| it["id"] = json!(42))),
        ("without tags that can be seen", droplet(|it| it["tags"] = Value::Null)),
    ] {
        assert_eq!(cluster().judge(&droplet), None, "{what}");
    }
    let mut broken = egress_gateway("broken");
    broken["spec"]["replicas"] = json!("two");
    let cluster = Cluster::new(CLUSTER.into(), "v".into(), BTreeSet::new(), &view(&[broken]));
    assert!(!cluster.judge(&droplet(|_| {})).unwrap().is_proven(), "nobody knows what the broken one names");
}

#[test]
fn a_firewall_is_proven_by_its_droplets_alone() {
    let ours = format!("old-{GONE}");
    let live = format!("demo-{}", "00000000-0000-4000-8000-00000000000b");
    let found = |firewall: Firewall| {
        let all = Orphans::among(&cluster(), &[droplet(|_| {})], Ok(vec![firewall]), Ok(Vec::new()));
        all.find("f").map(Orphan::is_proven)
    };
    assert_eq!(found(firewall(&ours, &[7], &json!([]))), Some(true));
    assert_eq!(
        found(firewall(&ours, &[7, 8], &json!([]))),
        Some(false),
        "somebody else's Droplet beside ours"
    );
    assert_eq!(found(firewall(&ours, &[7], &json!(["web"]))), Some(false), "a tag");
    assert_eq!(found(firewall(&ours, &[], &json!([]))), Some(false), "nothing");
    assert_eq!(found(firewall(&ours, &[8], &json!([]))), None, "another cluster's");
    assert_eq!(found(firewall("web", &[7], &json!([]))), None);
    assert_eq!(found(firewall(&live, &[8], &json!([]))), None);
}

#[test]
fn addresses_are_shown_and_never_deleted_and_what_is_not_seen_is_said() {
    let held: ReservedIp =
        serde_json::from_value(json!({"ip": "203.0.113.40", "droplet": {"id": 7}})).unwrap();
    let other: ReservedIp =
        serde_json::from_value(json!({"ip": "203.0.113.41", "droplet": {"id": 9}})).unwrap();
    let droplets = [droplet(|_| {}), droplet(|it| it["tags"][1] = json!("egress-cluster:c2"))];
    let all =
        Orphans::among(&cluster(), &droplets, Err("firewalls can't be read".into()), Ok(vec![held, other]));
    assert!(!all.find("203.0.113.40").unwrap().is_proven() && all.find("203.0.113.41").is_none());
    let text = all.to_string();
    assert!(
        text.contains("doctl compute reserved-ip delete") && text.contains("1 Droplet of other clusters"),
        "{text}"
    );
    assert!(text.contains("note: firewalls can't be read"), "{text}");
    assert_eq!(format!("{:?}", all.exit_code()), format!("{:?}", ExitCode::from(1)));
    let blind =
        Orphans::among(&cluster(), &[droplet(|it| it["tags"] = Value::Null)], Ok(Vec::new()), Ok(Vec::new()));
    assert_eq!(format!("{:?}", blind.exit_code()), format!("{:?}", ExitCode::from(2)));
}

#[test]
fn a_uid_is_found_at_the_end_of_a_name_only() {
    assert_eq!(uid_of(&format!("a-b-{GONE}")), Some(GONE));
    for not in ["web", GONE, &format!("{GONE}-web"), &format!("a{GONE}")] {
        assert_eq!(uid_of(not), None, "{not}");
    }
}
