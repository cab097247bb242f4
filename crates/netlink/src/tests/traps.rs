//! The traps of the kernel that this crate is shaped by, and the test that names each.
//!
//! | trap | test |
//! | --- | --- |
//! | acks get lost when the receive buffer is full, and the request would wait for ever | `conversation::lost_acks_end_in_an_error_within_the_deadline_and_the_next_request_works` |
//! | an answer that never comes | `conversation::a_request_that_gets_no_answer_ends_at_its_deadline` |
//! | a socket serves one dump at a time, the second is refused (EBUSY) | `conversation::a_socket_serves_one_dump_at_a_time_and_ours_never_asks_for_two` |
//! | a dump is disturbed by changes and lacks what stood still | `conversation::snapshots_under_way_while_others_change_routes_miss_nothing` |
//! | a message whose type or body nobody can decode | `conversation::what_cannot_be_decoded_wakes_and_breaks_nothing` |
//! | notifications get lost | `conversation::a_monitor_that_is_overrun_says_so_and_goes_on` |
//! | errors are a number with many meanings | `kernel::refusals_say_what_is_wrong`, `exchange::the_kernels_words_are_read_from_errors_with_and_without_the_request` |
//! | a link that goes down takes nexthop objects, groups and routes without a word, and nothing comes back | `damage::a_link_that_goes_down_takes_everything_and_only_the_link_event_tells` |
//! | a carrier that is lost takes as much, while the link stays up | `damage::a_carrier_that_is_lost_takes_everything_and_only_the_link_event_tells` |
//! | an address that goes: packets get the public source, new objects need `onlink` | `damage::without_the_address_packets_get_the_public_source_and_new_objects_need_onlink` |
//! | `ip nexthop flush` takes routes without a word | `damage::flushed_nexthop_objects_take_their_routes_along_in_silence` |
//! | `ip route flush` of a table with nexthop objects stops half-way in compat mode 1 | `damage::a_table_flush_stops_half_way_and_what_is_missing_is_put_back` |
//! | `ip rule flush` takes everything but priority 0, main's own rule too | `damage::a_rule_flush_takes_main_too_and_all_of_it_is_put_back_as_it_was` |
//! | a nexthop replace without a protocol sets it to 0 | `ownership::an_object_that_somebody_replaced_without_protocol_is_no_longer_ours` |
//! | a route deletion fits what it names, a replacement whatever is at the place | `ownership::a_route_of_somebody_else_at_our_place_is_not_deleted_with_an_old_proof_and_would_be_replaced` |
//! | a rule deletion hits the first rule that fits, not the one that was meant | `ownership::deleting_a_rule_never_hits_another_one` |
//! | a rule is taken for one that is there when a narrower one is | `ownership::a_rule_is_made_beside_a_narrower_one_and_never_twice` |
//! | a rule that shows more than we can say is not recognized when it is made again | `ownership::beside_a_rule_that_shows_more_than_we_can_say_no_copy_is_made` |
//! | a group stays a group, and its last member is a trap | `ownership::groups_keep_their_members_and_cannot_become_single` |
//! | a group of one is not hashed into, its buckets look idle, and who joins takes live flows | `sharing::a_gateway_that_joins_the_last_one_takes_no_live_flow`, `sharing::with_one_object_each_it_would_take_half_of_them` |
//! | a switch is one message only when it replaces; deleting and adding leaks | `switch::ten_thousand_routes_switch_with_one_message_and_none_is_lost`, `switch::deleting_and_adding_would_lose_and_leak` |

mod conversation;
mod damage;
mod ownership;
mod sharing;
mod switch;

use std::time::Duration;

use egress_routing::kernel_state::{Change, Nexthop, Observed, RouteKind};

use super::kernel::{FIRST, gateway, index_of, put_nexthop, put_route};
use crate::command::CommandSocket;
use crate::monitor::{Event, Monitor};

/// One gateway and `count` /32 routes through it.
pub(super) fn many(socket: &mut CommandSocket, count: u32) -> Vec<Change> {
    let eth1 = index_of(socket, "eth1");
    let mut changes = vec![put_nexthop(&gateway(FIRST, "10.116.0.5", eth1))];
    changes.extend((0..count).map(|n| {
        let destination = std::net::Ipv4Addr::from_bits(0xc612_0000 + n);
        put_route(&format!("{destination}/32"), 0, RouteKind::Nexthop(FIRST))
    }));
    changes
}

pub(super) fn replace(observed: &Observed, nexthop: Nexthop) -> Change {
    Change::PutNexthop { replaces: observed.nexthops.get(&nexthop.id).cloned(), nexthop }
}

/// The events that come until nothing has come for a while.
pub(super) async fn events(monitor: &mut Monitor) -> Vec<Event> {
    let mut events = Vec::new();
    while let Ok(event) = tokio::time::timeout(Duration::from_millis(200), monitor.next()).await {
        events.push(event.unwrap());
    }
    events
}
