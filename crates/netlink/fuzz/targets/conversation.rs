//! Whole datagrams, as answers to an exchange and as notifications: no bytes make it panic, every request ends once at most,
//! and an answer that nobody asked for is an error.

#![no_main]

use egress_netlink::exchange::Exchange;
use egress_netlink::wire::{self, Frame, kind};
use egress_netlink::{bucket, monitor, neighbour, nexthop, reading, route, rule};
use libfuzzer_sys::fuzz_target;

/// Requests of the exchange beside its first: enough for answers out of order.
const OTHERS: u32 = 3;
const REQUESTS: usize = OTHERS as usize + 1;

fuzz_target!(|datagram: &[u8]| {
    let mut frames = 0;
    let mut last = None;
    for frame in wire::frames(datagram).map_while(Result::ok) {
        frames += 1;
        let _ = monitor::event(&frame);
        last = Some(frame);
    }
    assert!(frames * wire::HEADER <= datagram.len(), "a frame out of nothing");

    // An exchange whose last request the last message answers: some answers fit, others don't.
    let Some(Frame { port, sequence, .. }) = last else { return };
    let first = sequence.saturating_sub(OTHERS);
    let mut exchange = Exchange::new(port, first, REQUESTS);
    let mut data = 0;
    let taken = exchange.take(datagram, |frame| {
        assert_eq!(frame.port, port, "somebody else's answer");
        assert!((first..=first + OTHERS).contains(&frame.sequence), "nobody's answer");
        data += 1;
        read(frame);
    });
    assert!(data <= frames);
    let is_complete = exchange.is_complete();
    let replies = exchange.into_replies();
    assert!(replies.len() + data <= frames, "more answers than messages");
    assert_eq!(is_complete, replies.len() == REQUESTS, "complete is when each has ended: {taken:?}");
});

fn read(frame: &Frame<'_>) {
    match frame.kind {
        kind::NEW_LINK => _ = reading::link(frame.payload),
        kind::NEW_ADDRESS => _ = reading::address(frame.payload),
        kind::NEW_ROUTE => _ = (route::parse(frame.payload), reading::main_routes(frame.payload)),
        kind::NEW_RULE => _ = rule::parse(frame.payload),
        kind::NEW_NEXTHOP => _ = nexthop::parse(frame.payload),
        kind::NEW_NEIGHBOUR => _ = neighbour::parse_state(frame.payload),
        kind::NEW_BUCKET => _ = bucket::parse(frame.payload),
        _ => {}
    }
}
