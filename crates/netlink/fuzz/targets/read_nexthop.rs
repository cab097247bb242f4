//! Bodies of nexthop messages: no bytes make it panic, and an object of a kind that we write is written and read back as it
//! was.

#![no_main]

use egress_netlink::nexthop::{self, SeenNexthop};
use egress_routing::kernel_state::{Nexthop, PROTOCOL};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let Some(SeenNexthop { id, via: Some(via), .. }) = nexthop::parse(body) else { return };
    let written = Nexthop { id, via };
    if nexthop::check(&written).is_ok() {
        let again = nexthop::parse(&nexthop::put(&written, true).body);
        assert_eq!(again, Some(SeenNexthop { id, protocol: PROTOCOL, via: Some(written.via) }));
    }
});
