//! Decoding: what is written is read back the same, and no bytes make it panic.

use std::time::Duration;

use egress_routing::kernel_state::{Gateway, GroupMember, Nexthop, NexthopId, NexthopTarget, Resilient};
use proptest::prelude::*;

use crate::wire::{Request, kind};
use crate::{bucket, monitor, neighbour, nexthop, reading, route, rule, wire};

fn target() -> impl Strategy<Value = NexthopTarget> {
    let gateway = (any::<u32>(), any::<u32>(), any::<bool>()).prop_map(|(address, interface, onlink)| {
        NexthopTarget::Gateway(Gateway { address: address.into(), interface, onlink })
    });
    let members = prop::collection::vec(
        (any::<u32>(), 1_u16..).prop_map(|(id, weight)| GroupMember { id: NexthopId(id), weight }),
        1..20,
    );
    let seconds = 0..=u32::MAX / 100;
    let resilient =
        (1_u16.., seconds.clone(), seconds).prop_map(|(buckets, idle_seconds, unbalanced_seconds)| {
            Resilient { buckets, idle_seconds, unbalanced_seconds }
        });
    let group = (members, prop::option::of(resilient))
        .prop_map(|(members, resilient)| NexthopTarget::group(members, resilient));
    prop_oneof![gateway, Just(NexthopTarget::Blackhole), group]
}

/// Bytes that often look like a message of ours: a real one with some bytes changed and its end cut off.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let real = prop_oneof![
        2 => target().prop_map(|via| nexthop::put(&Nexthop { id: NexthopId(1), via }, true)),
        1 => (any::<u32>(), any::<u64>()).prop_map(|(nexthop, idle)| bucket_reply(nexthop, idle)),
        1 => (any::<u16>(), any::<u32>()).prop_map(|(state, address)| neighbour_reply(state, address)),
    ];
    let real = real.prop_map(|message| {
        let mut bytes = Vec::new();
        message.write(1, 2, &mut bytes);
        bytes
    });
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (real, changes, any::<prop::sample::Index>()).prop_map(|(mut bytes, changes, end)| {
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        bytes.truncate(end.index(bytes.len() + 1));
        bytes
    })
}

/// As the kernel tells of a bucket: `struct nhmsg`, and in it `NHA_RES_BUCKET` with its index, idle time and member.
fn bucket_reply(nexthop: u32, idle: u64) -> Request {
    let mut bucket = Vec::new();
    wire::put_attribute(&mut bucket, 1, &7_u16.to_ne_bytes());
    wire::put_attribute(&mut bucket, 2, &idle.to_ne_bytes());
    wire::put_attribute(&mut bucket, 3, &nexthop.to_ne_bytes());
    let mut body = vec![0; 8];
    wire::put_attribute(&mut body, 1, &241_600_000_u32.to_ne_bytes());
    wire::put_attribute(&mut body, 13, &bucket);
    Request { kind: kind::NEW_BUCKET, flags: 0, body }
}

/// As the kernel tells of a neighbour: `struct ndmsg`, and its address.
fn neighbour_reply(state: u16, address: u32) -> Request {
    let mut body = vec![2, 0, 0, 0];
    body.extend_from_slice(&3_u32.to_ne_bytes());
    body.extend_from_slice(&state.to_ne_bytes());
    body.extend_from_slice(&[0, 1]);
    wire::put_attribute(&mut body, 1, &address.to_be_bytes());
    Request { kind: kind::NEW_NEIGHBOUR, flags: 0, body }
}

fn decode_everything(bytes: &[u8]) {
    for frame in wire::frames(bytes).take(1000) {
        let Ok(frame) = frame else { break };
        let _ = wire::error_message(&frame);
        let _ = wire::done_message(&frame);
        let _ = monitor::event(&frame);
        decode_body(frame.payload);
    }
    decode_body(bytes);
}

fn decode_body(bytes: &[u8]) {
    let _ = bucket::parse(bytes);
    let _ = neighbour::parse_state(bytes);
    let _ = nexthop::parse(bytes);
    let _ = route::parse(bytes);
    let _ = rule::parse(bytes);
    let _ = reading::link(bytes);
    let _ = reading::address(bytes);
    let _ = reading::lookup(bytes);
    let _ = reading::main_routes(bytes);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(2000), ..ProptestConfig::default() })]

    #[test]
    fn a_nexthop_object_survives_the_wire(id in 1_u32.., protocol: u8, via in target()) {
        let object = Nexthop { id: NexthopId(id), via };
        prop_assert_eq!(nexthop::check(&object), Ok(()));
        let seen = nexthop::parse(&nexthop::body(&object, protocol)).unwrap();
        prop_assert_eq!(seen.id, object.id);
        prop_assert_eq!(seen.protocol, protocol);
        prop_assert_eq!(seen.via, Some(object.via));
    }

    #[test]
    fn no_bytes_make_decoding_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        decode_everything(&bytes);
    }

    #[test]
    fn no_damaged_message_makes_decoding_panic(bytes in damaged()) {
        decode_everything(&bytes);
    }

    /// Bodies that begin like IPv4 messages, so that attributes are reached.
    #[test]
    fn no_attributes_make_decoding_panic(
        header in prop::array::uniform11(any::<u8>()),
        attributes in prop::collection::vec((0_u16..40, prop::collection::vec(any::<u8>(), 0..40)), 0..10),
    ) {
        let mut body = vec![2];
        body.extend(header);
        for (kind, value) in &attributes {
            wire::put_attribute(&mut body, *kind, value);
        }
        decode_body(&body);
        body.splice(0..12, [2; 8]);
        decode_body(&body);
    }
}

#[test]
fn replies_about_buckets_and_neighbours_say_what_was_written() {
    let bucket = bucket::parse(&bucket_reply(241_100_000, 250).body).unwrap();
    assert_eq!((bucket.nexthop, bucket.idle), (NexthopId(241_100_000), Duration::from_millis(2500)));
    assert_eq!(neighbour::parse_state(&neighbour_reply(0x80, 1).body), Some(0x80));
}

#[test]
fn frames_end_at_the_first_malformed_one() {
    let mut bytes = Vec::new();
    nexthop::dump().write(7, 9, &mut bytes);
    let good = bytes.len();
    bytes.extend_from_slice(&[3, 0, 0, 0, 1]);
    let frames: Vec<_> = wire::frames(&bytes).collect();
    assert_eq!(frames.len(), 2);
    assert_eq!(frames[0].map(|frame| (frame.sequence, frame.port)), Ok((7, 9)));
    assert_eq!(frames[1], Err(wire::Malformed));
    assert_eq!(wire::frames(&bytes[..good]).count(), 1);
}
