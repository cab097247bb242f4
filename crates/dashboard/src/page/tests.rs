use std::sync::Arc;

use egress_api::EgressGateway;
use egress_runtime::guarded::Guarded;
use serde_json::json;

use super::*;
use crate::headroom::Headrooms;
use crate::made_up::{Cluster, at};
use crate::server::Assets;
use crate::view::Objects;

fn whole(blocks: &[Block]) -> String {
    document(&Place::default(), blocks, &Assets::embedded())
}

#[test]
fn whatever_an_object_holds_it_is_text_and_no_markup() {
    let evil = "<script>alert(1)</script>\"'&";
    let gateway: Guarded<EgressGateway> = serde_json::from_value(json!({
        "apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway",
        "metadata": {"name": evil},
        "spec": {"destinations": [evil], "publicIP": "Ephemeral"},
        "status": {
            "conditions": [{"type": "Ready", "status": "False", "reason": evil, "message": evil, "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            "publicIPs": [evil], "nodes": evil, "gatewaysReady": evil, "monthlyPriceUSD": evil,
            "creating": [{"name": evil, "slot": 0, "since": "2026-01-01T00:00:00Z", "userDataVersion": "1", "message": evil}],
            "gateways": [{"name": evil, "slot": 0, "dropletID": 1, "role": "Active", "ready": false,
                          "message": evil, "privateAddress": evil, "publicAddress": evil}],
        },
    }))
    .unwrap();
    let gateways = [Arc::new(gateway)];
    let mut cluster = Cluster::of(1, 1);
    cluster.nodes[0].0 = evil.to_owned();
    cluster.seen(0, 0, 0).message = Some(evil.to_owned());
    cluster.nodes[0].1.gateways[0].address = evil.to_owned();
    let pages = cluster.look(|theirs| {
        let objects = Objects { gateways: &gateways, ..*theirs };
        let all = overview(&Overview::of(&objects, &Headrooms::new()), &[]);
        let one = detail(&Detail::of(&objects, &Headrooms::new(), evil, 1).unwrap(), &[]);
        [whole(&all), whole(&one), whole(&gone(evil))]
    });
    for page in pages {
        assert!(page.contains("&lt;script&gt;alert(1)"), "{page}");
        assert!(!page.contains("<script>alert"), "{page}");
        // Neither a style nor a handler of its own, which the policy would forbid.
        assert!(!page.contains(" style=") && !page.contains(" onclick="), "{page}");
    }
}

#[test]
fn a_part_that_did_not_change_has_the_same_version() {
    let mut cluster = Cluster::of(3, 3);
    let before = overview(&cluster.overview(), &[]);
    assert_eq!(before, overview(&cluster.overview(), &[]));
    cluster.fail_over(1, at(5));
    let after = overview(&cluster.overview(), &[]);
    let changed: Vec<&str> =
        after.iter().filter(|block| !before.contains(block)).map(|block| block.id.as_str()).collect();
    assert_eq!(changed, ["headline", "gateway-gw-001", "nodes"]);
}

#[test]
fn every_state_has_a_word_and_a_shape_of_its_own() {
    let shapes: std::collections::BTreeSet<_> =
        State::ALL.map(|state| (icon::small(state).into_string(), state.word())).into();
    assert_eq!(shapes.len(), State::ALL.len());
}

#[test]
fn two_hundred_gateways_and_a_thousand_nodes_are_less_than_half_a_megabyte() {
    let cluster = Cluster::of(200, 1_000);
    let page = whole(&overview(&cluster.overview(), &[]));
    println!("{} kB", page.len() / 1024);
    assert!(page.len() < 512 * 1024, "{}", page.len());
    let mut cluster = Cluster::of(200, 1_000);
    for gateway in 0..200 {
        cluster.fail_over(gateway, at(5));
    }
    let page = whole(&overview(&cluster.overview(), &[]));
    println!("{} kB", page.len() / 1024);
    assert!(page.len() < 512 * 1024, "{}", page.len());
}

#[test]
fn ids_are_unique_and_headings_go_down_one_step_at_a_time() {
    let mut cluster = Cluster::of(20, 30);
    cluster.fail_over(3, at(5));
    let pages = [
        whole(&overview(&cluster.overview(), &[])),
        whole(
            &cluster
                .look(|objects| detail(&Detail::of(objects, &Headrooms::new(), "gw-003", 1).unwrap(), &[])),
        ),
        whole(&overview(&Cluster::of(0, 0).overview(), &[])),
    ];
    for page in pages {
        let ids: Vec<&str> = page.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(ids.len(), distinct.len(), "{ids:?}");
        let levels: Vec<u32> = page
            .match_indices("<h")
            .filter_map(|(at, _)| page[at + 2..].chars().next()?.to_digit(10))
            .collect();
        assert_eq!(levels.iter().filter(|level| **level == 1).count(), 1, "{levels:?}");
        assert!(levels.windows(2).all(|pair| pair[1] <= pair[0] + 1), "{levels:?}");
    }
}
