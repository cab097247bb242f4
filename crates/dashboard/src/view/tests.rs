use std::collections::BTreeMap;
use std::sync::Arc;

use egress_api::condition::{PROGRESSING, READY};
use egress_api::{EgressGateway, GatewayObservation, GatewayRole};
use egress_runtime::guarded::Guarded;
use serde_json::json;

use super::*;
use crate::headroom::Headroom;
use crate::made_up::{Cluster, address, at, say, works};

#[test]
fn nothing_is_an_empty_page_that_says_so() {
    let nothing = Cluster::of(0, 0).overview();
    assert_eq!((nothing.worst, nothing.sentence.as_str()), (None, "There is no EgressGateway yet"));
    assert_eq!((nothing.matrix.rows.len(), nothing.matrix.pages), (0, 1));
    let unread = Objects { gateways: &[], nodes: &[], known: false, unheard_since: None };
    let unread = Overview::of(&unread, &Headrooms::new());
    assert_eq!(unread.sentence, "Nodes and gateways are being read");
}

#[test]
fn one_that_works_is_told_with_its_addresses_and_who_stands_by() {
    let overview = Cluster::of(1, 3).overview();
    assert_eq!(overview.sentence, "EgressGateway gw-000 works");
    let card = &overview.cards[0];
    assert_eq!((card.state, card.sentence.as_str()), (State::Works, "3 of 3 nodes leave through gw-000-0"));
    let leaves: Vec<_> = card.addresses.iter().map(|one| (one.address.as_str(), one.leaves)).collect();
    assert_eq!(leaves, [("203.0.0.20", true), ("203.0.0.21", false)]);
    let roles: Vec<_> = card.machines.iter().map(|one| (one.role, one.used_by, one.seen.works)).collect();
    assert_eq!(roles, [(GatewayRole::Active, 3, 3), (GatewayRole::Standby, 0, 3)]);
    assert_eq!(overview.nodes, Nodes { total: 3, silent: 0, troubled: 0 });
}

#[test]
fn what_is_wrong_comes_first() {
    let mut cluster = Cluster::of(4, 3);
    let status = cluster.gateways[3].status.as_mut().unwrap();
    status.gateways.iter_mut().for_each(|one| one.ready = false);
    say(status, READY, false, "NoGatewayProven", "No gateway is proven");
    cluster.fail_over(2, at(5));
    let overview = cluster.overview();
    let order: Vec<_> = overview.cards.iter().map(|card| (card.name.as_str(), card.state)).collect();
    assert_eq!(
        order,
        [
            ("gw-003", State::Down),
            ("gw-002", State::Degraded),
            ("gw-000", State::Works),
            ("gw-001", State::Works)
        ]
    );
    assert_eq!(overview.sentence, "1 of 4 EgressGateways does not work: gw-003");
    assert_eq!(overview.counts, [(State::Down, 1), (State::Degraded, 1), (State::Works, 2)]);
    // The gateway that nodes see fail leads the matrix.
    assert_eq!(overview.matrix.columns[0].name, "gw-002-0");
}

#[test]
fn what_most_nodes_find_is_told_before_the_conditions_say_it() {
    let mut cluster = Cluster::of(1, 3);
    cluster.kill_active(0, at(5));
    let card = cluster.overview().cards.remove(0);
    assert_eq!(card.state, State::Degraded);
    assert_eq!(card.sentence, "3 of 3 nodes find that gw-000-0 does not answer in the VPC");
    // One of three is that node's word, not the gateway's state.
    let mut cluster = Cluster::of(1, 3);
    cluster.seen(1, 0, 0).forwards = Some(false);
    let overview = cluster.overview();
    assert_eq!(overview.cards[0].state, State::Works);
    assert_eq!(overview.matrix.troubled, 1);
    assert_eq!(overview.matrix.rows[0].cells[0].sight, Sight::Fails(Level::Outside));
}

#[test]
fn the_level_that_fails_is_the_first_in_the_order_of_the_probes() {
    let sight = |change: fn(&mut GatewayObservation)| {
        let mut seen = works("10.116.0.1".into());
        change(&mut seen);
        Sight::of(&seen)
    };
    assert_eq!(sight(|_| {}), Sight::Works);
    assert_eq!(sight(|seen| seen.forwards = None), Sight::Untried);
    assert_eq!(sight(|seen| seen.expected_source = None), Sight::Works);
    assert_eq!(sight(|seen| seen.expected_source = Some(false)), Sight::Fails(Level::Address));
    assert_eq!(sight(|seen| seen.full_size = Some(false)), Sight::Fails(Level::Size));
    assert_eq!(sight(|seen| seen.condemned = true), Sight::Fails(Level::Loss));
    assert_eq!(
        sight(|seen| {
            seen.reachable = false;
            seen.forwards = Some(false);
        }),
        Sight::Fails(Level::Vpc)
    );
}

#[test]
fn whose_word_does_not_count_is_shown_and_condemns_nobody() {
    let mut cluster = Cluster::of(1, 3);
    cluster.kill_active(0, at(5));
    cluster.unready.push("pool-0000".into());
    cluster.nodes[1].1.cut_off = true;
    cluster.seen(2, 0, 0).reachable = true;
    cluster.seen(2, 0, 0).condemned = false;
    let overview = cluster.overview();
    assert_eq!(overview.cards[0].machines[0].seen, Seen { works: 1, ..Seen::default() });
    let standing: Vec<_> = overview.matrix.rows.iter().map(|row| row.standing).collect();
    assert_eq!(standing, [Standing::NotReady, Standing::CutOff, Standing::Reports]);
    assert_eq!(overview.nodes, Nodes { total: 3, silent: 2, troubled: 0 });
}

#[test]
fn some_nodes_without_routes_are_not_an_outage() {
    let mut cluster = Cluster::of(1, 3);
    let status = cluster.gateways[0].status.as_mut().unwrap();
    status.nodes = Some("2/3".into());
    say(status, READY, false, "NodesPending", "2 of 3 nodes have every route");
    assert_eq!(cluster.overview().cards[0].state, State::Partial);
}

#[test]
fn a_first_pair_on_its_way_is_no_alarm_and_one_that_failed_to_come_up_is() {
    let mut cluster = Cluster::of(1, 3);
    let status = cluster.gateways[0].status.as_mut().unwrap();
    for one in &mut status.gateways {
        (one.role, one.ready) = (GatewayRole::Starting, false);
    }
    status.nodes = Some("0/3".into());
    say(status, READY, false, "NoGatewayProven", "No gateway is proven");
    say(status, PROGRESSING, true, "Starting", "gw-000-0 starts");
    assert_eq!(cluster.overview().cards[0].state, State::Changing);
    cluster.gateways[0].status.as_mut().unwrap().failed_bring_ups = Some(1);
    assert_eq!(cluster.overview().cards[0].state, State::Down);
}

#[test]
fn an_object_that_cannot_be_read_is_shown_as_what_it_is() {
    let broken: Guarded<EgressGateway> = serde_json::from_value(json!({
        "apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway",
        "metadata": {"name": "broken"}, "spec": {"destinations": "x", "publicIP": "Ephemeral"},
    }))
    .unwrap();
    let gateways = [Arc::new(broken)];
    let objects = Objects { gateways: &gateways, nodes: &[], known: true, unheard_since: None };
    let overview = Overview::of(&objects, &Headrooms::new());
    assert_eq!((overview.cards[0].name.as_str(), overview.cards[0].state), ("broken", State::Down));
    assert!(overview.cards[0].sentence.contains("spec.destinations"), "{}", overview.cards[0].sentence);
}

#[test]
fn two_hundred_gateways_and_a_thousand_nodes_are_a_bounded_page() {
    let mut cluster = Cluster::of(200, 1_000);
    cluster.seen(999, 150, 1).full_size = Some(false);
    let started = std::time::Instant::now();
    let overview = cluster.overview();
    println!("{:?}", started.elapsed());
    assert_eq!(overview.cards.len(), 200);
    assert_eq!(overview.cards[0].machines[0].used_by, 1_000);
    let Matrix { columns, more_columns, rows, nodes, .. } = &overview.matrix;
    assert_eq!((columns.len(), *more_columns, rows.len(), *nodes), (MOST_COLUMNS, 388, MOST_ROWS, 1_000));
    // The one thing that is wrong is on it.
    assert_eq!((rows[0].node.as_str(), rows[0].cells[0].sight), ("pool-0999", Sight::Fails(Level::Size)));
    let detail =
        |page| cluster.look(|objects| Detail::of(objects, &Headrooms::new(), "gw-150", page)).unwrap().matrix;
    assert_eq!(
        (detail(1).rows.len(), detail(1).pages, detail(1).rows[0].node.as_str()),
        (200, 5, "pool-0999")
    );
    // A page that is not there is the last.
    assert_eq!((detail(99).page, detail(99).rows.last().unwrap().node.as_str()), (5, "pool-0998"));
    assert!(cluster.look(|objects| Detail::of(objects, &Headrooms::new(), "none", 1)).is_none());
}

#[test]
fn headroom_stands_beside_the_gateway_that_told_it() {
    let told = Headroom { connections: 10, most_connections: 100, busiest: None };
    let headrooms = BTreeMap::from([(address(0, 1).parse().unwrap(), told.clone())]);
    let overview = Cluster::of(1, 1).look(|objects| Overview::of(objects, &headrooms));
    let machines = &overview.cards[0].machines;
    assert_eq!((&machines[0].headroom, &machines[1].headroom), (&None, &Some(told)));
}
