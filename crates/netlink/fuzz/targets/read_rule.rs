//! Bodies of rule messages: no bytes make it panic, and a rule that can be said in our words is written and read back as it
//! was.

#![no_main]

use egress_netlink::rule::{self, SeenRule};
use egress_routing::kernel_state::PROTOCOL;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let Some(SeenRule { mut rule, complete: true, .. }) = rule::parse(body) else { return };
    // The kernel has no prefix with bits beyond its length.
    rule.from = rule.from.map(|prefix| prefix.trunc());
    rule.to = rule.to.map(|prefix| prefix.trunc());
    if rule::check(&rule).is_ok() {
        let again = rule::parse(&rule::put(&rule).body);
        assert_eq!(again, Some(SeenRule { rule, complete: true, protocol: PROTOCOL }));
    }
});
