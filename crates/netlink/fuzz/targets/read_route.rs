//! Bodies of route messages, in each of the three ways that they are read: no bytes make it panic, and a route of a kind that
//! we write is written and read back as it was.

#![no_main]

use egress_netlink::reading;
use egress_netlink::route::{self, SeenRoute};
use egress_routing::kernel_state::{PROTOCOL, Route, RouteKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let _ = reading::main_routes(body);
    let _ = reading::lookup(body);
    let Some(SeenRoute { key, kind: Some(kind), .. }) = route::parse(body) else { return };
    // The kernel has no prefix with bits beyond its length.
    let destination = key.destination.trunc();
    let written = Route { table: key.table, destination, metric: key.metric, kind: kind.clone() };
    let again = route::parse(&route::put(&written, false).body);
    assert_eq!(
        again,
        Some(SeenRoute { key: RouteKey { destination, ..key }, protocol: PROTOCOL, kind: Some(kind) })
    );
});
