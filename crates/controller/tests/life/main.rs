//! The controller's binary at work: a real API server with the shipped CRDs and rights, the cloud of `do-simulator`, and one or
//! two controllers. Gateways' health endpoints and the nodes' reports are played by the test.
//!
//! ```text
//!  network namespace of the test's thread, no way out
//!  ├─ etcd, kube-apiserver          127.0.0.1
//!  ├─ do-simulator                  127.0.0.1:8080
//!  ├─ egress-controller (a, b)      with the token of its ServiceAccount
//!  └─ stage: endpoints on 10.116.0.0/20:9180, NodeEgress of pool-1 and pool-2
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so by ending"
)]

mod births;
mod idle;
mod lives;
mod older_operator;
mod stage;
mod troubles;

use stage::play;

// Scenes wait more than they work: all at once, they take as long as the longest.
#[test]
fn every_scene_ends_as_it_should() {
    let scenes = [
        play("lives", lives::a_pair_is_made_proven_and_routed_repaired_and_taken_away),
        play(
            "open creates",
            births::a_lost_reply_a_vanished_droplet_and_a_delete_in_between_leave_neither_two_nor_one_too_many,
        ),
        play(
            "leaders",
            births::a_leader_killed_right_after_the_request_leaves_one_droplet_and_two_controllers_make_one_pair,
        ),
        play("troubles", troubles::a_wrong_vpc_a_full_account_and_a_token_that_goes_are_said_and_do_no_harm),
        play(
            "blind",
            troubles::who_cannot_know_which_nodes_hold_routes_deletes_nothing_and_who_is_not_seen_is_seldom_asked_for,
        ),
        play(
            "older operator",
            older_operator::its_marks_go_with_it_and_the_loss_of_the_shared_definition_does_no_harm,
        ),
        play("one at rest", idle::one_costs_no_more_than_a_reading_every_half_minute),
        play("twenty at rest", idle::twenty_cost_no_more_than_one),
    ];
    let failed: Vec<_> = scenes.into_iter().filter_map(stage::Playing::failed).collect();
    assert!(failed.is_empty(), "scenes that failed, see above: {failed:?}");
}
