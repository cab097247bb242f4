//! Policy rules as netlink messages, and back.

use std::net::{IpAddr, Ipv4Addr};

use egress_routing::BuiltinRule;
use egress_routing::kernel_state::{PROTOCOL, Rule, RuleAction};
use ipnet::Ipv4Net;
use netlink_packet_core::{DefaultNla, Nla, Parseable};
use netlink_packet_route::rule::{
    RuleAction as WireAction, RuleAttribute, RuleFlags, RuleMessage, RulePortRange,
};
use netlink_packet_route::{AddressFamily, IpProtocol};

use crate::wire::{Request, flag, kind};

/// `IFNAMSIZ` with the terminating zero byte.
const LONGEST_LINK_NAME: usize = 15;

/// `FRA_SPORT_MASK`: since Linux 6.15 a rule for a single source port is shown with the mask that it was not given.
const SOURCE_PORT_MASK: u16 = 28;

/// A rule as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenRule {
    /// The rule, as far as it can be said with our words.
    pub rule: Rule,
    /// Whether it has nothing beyond that.
    pub complete: bool,
    /// Its protocol number.
    pub protocol: u8,
}

impl SeenRule {
    /// Whether the kernel could delete this rule when told to delete `target`: the protocol must be the same, but what
    /// `target` leaves open fits anything, and suppression is not compared at all (`rule_find` in
    /// `net/core/fib_rules.c`). The first fitting rule is the one that goes.
    pub fn could_be_hit_by(&self, target: &Rule) -> bool {
        fn open<T: PartialEq>(target: Option<&T>, seen: Option<&T>) -> bool {
            target.is_none() || target == seen
        }
        let seen = &self.rule;
        // An action that our words have no name for is taken as fitting.
        let action = match (target.action, seen.action) {
            (RuleAction::Lookup { table, .. }, RuleAction::Lookup { table: other, .. }) => table == other,
            (ours, other) => ours == other || !self.complete,
        };
        action
            && self.protocol == PROTOCOL
            && target.priority == seen.priority
            && open(target.from.as_ref(), seen.from.as_ref())
            && open(target.to.as_ref(), seen.to.as_ref())
            && open(target.iif.as_ref(), seen.iif.as_ref())
            && open(target.ip_protocol.as_ref(), seen.ip_protocol.as_ref())
            && open(target.source_ports.as_ref(), seen.source_ports.as_ref())
            && open(target.fwmark.as_ref(), seen.fwmark.as_ref())
    }
}

/// Why a rule can't be said in a message.
pub fn check(rule: &Rule) -> Result<(), &'static str> {
    let any = |prefix: &Option<Ipv4Net>| prefix.is_some_and(|prefix| prefix.prefix_len() == 0);
    if any(&rule.from) || any(&rule.to) {
        return Err("a rule for any address has no prefix");
    }
    if rule.iif.as_ref().is_some_and(|name| name.is_empty() || name.len() > LONGEST_LINK_NAME) {
        return Err("a link name has 1 to 15 bytes");
    }
    if rule.ip_protocol == Some(0) {
        return Err("IP protocol 0 is any protocol");
    }
    if rule.source_ports.is_some_and(|(first, last)| first == 0 || first > last) {
        return Err("source ports are 1 to 65535, first to last");
    }
    if rule.source_ports.is_some() && rule.ip_protocol.is_none() {
        return Err("source ports need an IP protocol");
    }
    if rule.fwmark.is_some_and(|(mark, mask)| mask == 0 || mark & !mask != 0) {
        return Err("a packet mark lies within its mask, which is not 0");
    }
    match rule.action {
        RuleAction::Lookup { table: 0, .. } => Err("table 0 is no table"),
        _ => Ok(()),
    }
}

/// The request that makes a rule. It is refused with EEXIST where the same rule is there, but also where a narrower one
/// with the same priority, action and protocol is (`rule_exists` takes what the message leaves open as fitting).
pub fn put(rule: &Rule) -> Request {
    Request::new(kind::NEW_RULE, flag::ACK | flag::CREATE | flag::EXCLUSIVE, &message(rule, PROTOCOL))
}

/// The request that makes a rule of the kernel's own again.
pub fn restore(rule: BuiltinRule) -> Request {
    let message = message(&rule.rule(), BuiltinRule::PROTOCOL);
    Request::new(kind::NEW_RULE, flag::ACK | flag::CREATE | flag::EXCLUSIVE, &message)
}

/// The request that makes a rule whatever is there, a second one of the same included: for rules known to be missing.
pub fn put_beside(rule: &Rule) -> Request {
    Request::new(kind::NEW_RULE, flag::ACK | flag::CREATE, &message(rule, PROTOCOL))
}

/// The request that deletes a rule; see [`SeenRule::could_be_hit_by`].
pub fn delete(rule: &Rule) -> Request {
    Request::new(kind::DEL_RULE, flag::ACK, &message(rule, PROTOCOL))
}

/// The request for all IPv4 rules; the kernel has no filter for them.
pub fn dump() -> Request {
    let mut message = RuleMessage::default();
    message.header.family = AddressFamily::Inet;
    Request::new(kind::GET_RULE, flag::DUMP, &message)
}

fn message(rule: &Rule, protocol: u8) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = AddressFamily::Inet;
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Priority(rule.priority));
    attributes.push(RuleAttribute::Protocol(protocol.into()));
    if let Some(from) = rule.from {
        message.header.src_len = from.prefix_len();
        attributes.push(RuleAttribute::Source(IpAddr::V4(from.network())));
    }
    if let Some(to) = rule.to {
        message.header.dst_len = to.prefix_len();
        attributes.push(RuleAttribute::Destination(IpAddr::V4(to.network())));
    }
    attributes.extend(rule.iif.clone().map(RuleAttribute::Iifname));
    attributes.extend(rule.ip_protocol.map(|number| RuleAttribute::IpProtocol(IpProtocol::from(number))));
    attributes.extend(
        rule.source_ports.map(|(start, end)| RuleAttribute::SourcePortRange(RulePortRange { start, end })),
    );
    if let Some((mark, mask)) = rule.fwmark {
        attributes.extend([RuleAttribute::FwMark(mark), RuleAttribute::FwMask(mask)]);
    }
    message.header.action = match rule.action {
        RuleAction::Lookup { table, suppress_prefix_length } => {
            attributes.push(RuleAttribute::Table(table));
            attributes.extend(suppress_prefix_length.map(RuleAttribute::SuppressPrefixLen));
            WireAction::ToTable
        }
        RuleAction::Unreachable => WireAction::Unreachable,
        RuleAction::Blackhole => WireAction::Blackhole,
    };
    message
}

/// Reads the body of a rule message; `None` where it is no IPv4 rule or can't be read.
pub fn parse(body: &[u8]) -> Option<SeenRule> {
    let message = RuleMessage::parse(body).ok()?;
    let header = &message.header;
    if header.family != AddressFamily::Inet {
        return None;
    }
    let detached = RuleFlags::IifDetached | RuleFlags::Permanent;
    let mut complete = header.tos == 0 && (header.flags - detached).is_empty();
    let (mut source, mut destination) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED);
    let (mut mark, mut mask) = (None, None);
    let mut suppress_prefix_length = None;
    let mut table = u32::from(header.table);
    let mut protocol = 0;
    let mut rule = Rule::lookup(0, 0);
    for attribute in message.attributes {
        match attribute {
            RuleAttribute::Priority(value) => rule.priority = value,
            RuleAttribute::Protocol(value) => protocol = u8::from(value),
            RuleAttribute::Source(IpAddr::V4(value)) => source = value,
            RuleAttribute::Destination(IpAddr::V4(value)) => destination = value,
            RuleAttribute::Iifname(value) => rule.iif = Some(value),
            RuleAttribute::IpProtocol(value) => rule.ip_protocol = Some(u8::from(value)),
            RuleAttribute::SourcePortRange(range) => rule.source_ports = Some((range.start, range.end)),
            RuleAttribute::FwMark(value) => mark = Some(value),
            RuleAttribute::FwMask(value) => mask = Some(value),
            RuleAttribute::Table(value) => table = value,
            // The kernel shows "nothing is suppressed" as -1.
            RuleAttribute::SuppressPrefixLen(u32::MAX) | RuleAttribute::SuppressIfGroup(u32::MAX) => {}
            RuleAttribute::SuppressPrefixLen(value) => suppress_prefix_length = Some(value),
            RuleAttribute::Other(other)
                if other.kind() == SOURCE_PORT_MASK && value_of(&other) == [0xff; 2] => {}
            _ => complete = false,
        }
    }
    rule.from = prefix(source, header.src_len).ok()?;
    rule.to = prefix(destination, header.dst_len).ok()?;
    rule.fwmark = mark.or(mask).map(|_| (mark.unwrap_or(0), mask.unwrap_or(u32::MAX)));
    rule.action = match header.action {
        WireAction::ToTable => RuleAction::Lookup { table, suppress_prefix_length },
        WireAction::Unreachable => RuleAction::Unreachable,
        WireAction::Blackhole => RuleAction::Blackhole,
        _ => {
            complete = false;
            RuleAction::Blackhole
        }
    };
    Some(SeenRule { rule, complete, protocol })
}

fn value_of(attribute: &DefaultNla) -> Vec<u8> {
    let mut value = vec![0; attribute.value_len()];
    attribute.emit_value(&mut value);
    value
}

/// No prefix where the rule is for any address; an error where the length is none.
fn prefix(address: Ipv4Addr, length: u8) -> Result<Option<Ipv4Net>, ipnet::PrefixLenError> {
    if length == 0 { Ok(None) } else { Ipv4Net::new(address, length).map(Some) }
}
