//! The rules that send packets to our table, and those that keep some of them in the main one.

use ipnet::Ipv4Net;

use crate::builtin_rules::BuiltinRule;
use crate::inbound::Transport;
use crate::kernel_state::{KernelState, MAIN_TABLE, Rule, RuleAction};
use crate::layout::Layout;
use crate::node::NodeView;

/// Adds the rules, where there is something for them to lead to. Those of ports are in [`crate::inbound`], those of probes in
/// [`super::probes`].
pub(super) fn add_rules(node: &NodeView, layout: &Layout, state: &mut KernelState) {
    if !state.routes.keys().any(|key| key.table == layout.table) {
        return;
    }
    if let Some(vpc) = node.vpc.as_ref().filter(|_| node.public_addresses.is_empty()) {
        let ports = layout.around_ports();
        state.rules.insert(Rule {
            from: Some(Ipv4Net::from(vpc.address)),
            ip_protocol: Some(Transport::Tcp.number()),
            source_ports: Some((*ports.start(), *ports.end())),
            ..Rule::lookup(layout.around_priority, MAIN_TABLE)
        });
    }
    for address in &node.public_addresses {
        let from = Some(Ipv4Net::from(address.addr()));
        state.rules.insert(Rule { from, ..Rule::lookup(layout.reply_priority, MAIN_TABLE) });
    }
    state.rules.insert(Rule {
        action: RuleAction::Lookup { table: MAIN_TABLE, suppress_prefix_length: Some(0) },
        ..Rule::lookup(layout.main_priority, MAIN_TABLE)
    });
    state.rules.insert(Rule::lookup(layout.table_priority, layout.table));
    state.builtin_rules = BuiltinRule::ALL.into();
}
