//! Where our state lives in the kernel: table numbers, rule priorities, ports and nexthop ids.
//!
//! Responsibility: the one place for these numbers; `docs/architecture.md` shows them to people. They are fields and
//! not constants so that a node on which they clash with somebody else's can be given others.
//!
//! Invariant: never table 135 or priority 15135, which belong to DigitalOcean's managed routing agent.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use crate::kernel_state::{NEXTHOP_IDS, NexthopId, Resilient};
use crate::nexthop_ids;

/// Nexthop ids for StaticRoutes: `NEXTHOP_IDS` start + 0 .. + 65,535.
const OBJECT_NEXTHOPS: u32 = 65_536;
/// Offset of the nexthop ids for probes.
const PROBE_NEXTHOPS: u32 = 100_000;
/// Offset of the second nexthop object of each probed gateway; see [`crate::sharing`].
const TWIN_NEXTHOPS: u32 = 110_000;
/// Offset of the groups that record a StaticRoute's list of gateways from the nexthop object of its routes.
const LISTS: u32 = 200_000;
/// Offset of the groups of gateways that share a StaticRoute's traffic from what is its nexthop object otherwise. They need ids of
/// their own: the kernel refuses to replace a gateway by a group.
const GROUPS: u32 = 300_000;
/// Offset of the nexthop ids that say under which definition (CRD) the StaticRoutes were made, and how many of them there are.
const DEFINITIONS: u32 = 700_000;
const DEFINITION_COUNT: u32 = 100_000;

/// Numbers that our rules, tables and probes use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Table with the routes of all StaticRoutes.
    pub table: u32,
    /// Table with the default route through the gateway of slot 0; slot n has this + n.
    pub first_probe_table: u32,
    /// Priority of the rule for probes through the gateway of slot 0; slot n has this + n.
    pub first_probe_priority: u32,
    /// Priority of the rule that sends a source port range of its own by main, on a node without a public address: what
    /// looks whether a target answers around our table needs it. Its ports are those after the last slot's.
    pub around_priority: u32,
    /// Priority of `from <public address> lookup main`: the node's public sockets and replies to what came in there.
    pub reply_priority: u32,
    /// Priority of `from <pods> <protocol> sport <port> lookup main`: replies to what came in on the public side and was sent on
    /// to a pod or a node; see [`crate::inbound`].
    pub inbound_priority: u32,
    /// Priority of `to <destination> lookup <table>` for destinations in the node's public on-link subnet, which main
    /// would answer otherwise.
    pub on_link_priority: u32,
    /// Priority of `lookup main suppress_prefixlength 0`: main without its default route.
    pub main_priority: u32,
    /// Priority of `lookup <table>`.
    pub table_priority: u32,
    /// Metric of the guard: a blackhole below every routed destination, which a link that goes down leaves standing. Any
    /// metric above the routes' own, 0, will do.
    pub guard_metric: u32,
    /// First source port of probes through the gateway of slot 0. Above the kernel's ephemeral range (32768-60999), or
    /// the rule would catch other sockets.
    pub first_probe_port: u16,
    /// Source ports for each slot.
    pub probe_ports: u16,
    /// Gateways that one node can probe.
    pub probe_slots: u8,
    /// Parameters of the groups of gateways that share traffic. The kernel refuses to change the number of buckets of a group
    /// that is there.
    pub group: Resilient,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            table: 1157,
            first_probe_table: 1160,
            first_probe_priority: 900,
            around_priority: 932,
            reply_priority: 990,
            inbound_priority: 991,
            on_link_priority: 995,
            main_priority: 1000,
            table_priority: 1001,
            guard_metric: 4_000_000,
            first_probe_port: 61_000,
            probe_ports: 64,
            probe_slots: 32,
            // Shares are multiples of a thousandth. A connection that was silent for two minutes (the kernel's own default) may
            // move when a gateway comes back; one that was not never does, however unequal the shares are.
            group: Resilient { buckets: 1024, idle_seconds: 120, unbalanced_seconds: 0 },
        }
    }
}

impl Layout {
    /// Table with the default route through the gateway of `slot`.
    pub fn probe_table(&self, slot: GatewaySlot) -> u32 {
        self.first_probe_table + u32::from(slot.0)
    }

    /// Priority of the rule for probes through the gateway of `slot`.
    pub fn probe_priority(&self, slot: GatewaySlot) -> u32 {
        self.first_probe_priority + u32::from(slot.0)
    }

    /// Source ports of probes through the gateway of `slot`.
    pub fn probe_port_range(&self, slot: GatewaySlot) -> RangeInclusive<u16> {
        let first = self.first_probe_port + u16::from(slot.0) * self.probe_ports;
        first..=first + (self.probe_ports - 1)
    }

    /// Source ports whose packets take main's way on a node without a public address.
    pub fn around_ports(&self) -> RangeInclusive<u16> {
        self.probe_port_range(GatewaySlot(self.probe_slots))
    }

    /// Nexthop object of the probe table of `slot`.
    pub fn probe_nexthop(&self, slot: GatewaySlot) -> NexthopId {
        NexthopId(NEXTHOP_IDS.start() + PROBE_NEXTHOPS + u32::from(slot.0))
    }

    /// The second nexthop object of the gateway of `slot`.
    pub fn twin_nexthop(&self, slot: GatewaySlot) -> NexthopId {
        NexthopId(NEXTHOP_IDS.start() + TWIN_NEXTHOPS + u32::from(slot.0))
    }

    /// The slot whose [`Layout::probe_nexthop`] this is.
    pub fn slot_of_nexthop(&self, id: NexthopId) -> Option<GatewaySlot> {
        let slot = u8::try_from(id.0.checked_sub(NEXTHOP_IDS.start() + PROBE_NEXTHOPS)?).ok()?;
        (slot < self.probe_slots).then_some(GatewaySlot(slot))
    }

    /// The group of gateways that share the traffic of the StaticRoute whose nexthop object is `nexthop` otherwise.
    pub fn group_nexthop(&self, nexthop: NexthopId) -> NexthopId {
        NexthopId(nexthop.0 + GROUPS)
    }

    /// The nexthop object by which the StaticRoute is known whose routes use `id`: that object itself, or the group in its stead.
    pub fn nexthop_of_routes(&self, id: NexthopId) -> Option<NexthopId> {
        let of_group = NexthopId(id.0.wrapping_sub(GROUPS));
        [id, of_group].into_iter().find(|id| self.is_object_nexthop(*id))
    }

    /// The group that records the gateways of the StaticRoute whose routes use `nexthop`; see [`crate::recovery`].
    pub fn list_nexthop(&self, nexthop: NexthopId) -> NexthopId {
        NexthopId(nexthop.0 + LISTS)
    }

    /// The nexthop object whose StaticRoute's gateways the group `list` records.
    pub fn nexthop_of_list(&self, list: NexthopId) -> Option<NexthopId> {
        let nexthop = NexthopId(list.0.checked_sub(LISTS)?);
        self.is_object_nexthop(nexthop).then_some(nexthop)
    }

    /// The nexthop object that records under which definition the StaticRoutes in the kernel were made; see [`crate::orphans`].
    pub fn definition_nexthop(&self, definition_uid: &str) -> NexthopId {
        NexthopId(NEXTHOP_IDS.start() + DEFINITIONS + nexthop_ids::hash(definition_uid) % DEFINITION_COUNT)
    }

    /// Whether this is such a record.
    pub fn is_definition_nexthop(&self, id: NexthopId) -> bool {
        id.0.checked_sub(NEXTHOP_IDS.start() + DEFINITIONS).is_some_and(|index| index < DEFINITION_COUNT)
    }

    /// Whether this is the nexthop object of a StaticRoute that uses one gateway at a time.
    pub fn is_object_nexthop(&self, id: NexthopId) -> bool {
        id.0.checked_sub(*NEXTHOP_IDS.start()).is_some_and(|index| index < self.object_nexthops())
    }

    /// The slot whose probe table `table` is.
    pub fn slot_of_table(&self, table: u32) -> Option<GatewaySlot> {
        let slot = u8::try_from(table.checked_sub(self.first_probe_table)?).ok()?;
        (slot < self.probe_slots).then_some(GatewaySlot(slot))
    }

    /// The `index`-th nexthop object for StaticRoutes; wraps around after [`Layout::object_nexthops`].
    pub(crate) fn object_nexthop(&self, index: u32) -> NexthopId {
        NexthopId(NEXTHOP_IDS.start() + index % self.object_nexthops())
    }

    /// How many nexthop objects there are for StaticRoutes.
    #[allow(clippy::unused_self, reason = "a number of the layout like the others, fixed for now")]
    pub(crate) fn object_nexthops(&self) -> u32 {
        OBJECT_NEXTHOPS
    }
}

/// Number of a probed gateway on this node, 0 to 31: it picks the probe table, rule and ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewaySlot(pub u8);

/// How to send a probe through one gateway whatever the routes are: bind `source` and one of `source_ports`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbePath {
    /// The gateway's slot.
    pub slot: GatewaySlot,
    /// The gateway that probes with this binding go through.
    pub gateway: Ipv4Addr,
    /// The node's address in the VPC.
    pub source: Ipv4Addr,
    /// Source ports that select the path. Bind one of them; `IP_LOCAL_PORT_RANGE` has no effect out here.
    pub source_ports: RangeInclusive<u16>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_have_ports_of_their_own_above_the_ephemeral_range() {
        let layout = Layout::default();
        let mut previous_end = 60_999;
        for slot in (0..layout.probe_slots).map(GatewaySlot) {
            let ports = layout.probe_port_range(slot);
            assert_eq!(*ports.start(), previous_end + 1);
            assert_eq!(ports.clone().count(), 64);
            previous_end = *ports.end();
            assert_eq!(layout.slot_of_table(layout.probe_table(slot)), Some(slot));
            assert!(layout.probe_priority(slot) < layout.around_priority);
        }
        assert_eq!(*layout.around_ports().start(), previous_end + 1);
        assert!(layout.around_priority < layout.reply_priority);
        assert_eq!(layout.slot_of_nexthop(layout.probe_nexthop(GatewaySlot(31))), Some(GatewaySlot(31)));
        assert_eq!(layout.slot_of_nexthop(layout.twin_nexthop(GatewaySlot(0))), None);
        assert_eq!(layout.slot_of_table(layout.table), None);
        assert_eq!(layout.slot_of_table(1160 + 32), None);
    }

    #[test]
    fn nothing_of_the_managed_routing_agent_is_used() {
        let layout = Layout::default();
        for slot in (0..layout.probe_slots).map(GatewaySlot) {
            assert_ne!(layout.probe_table(slot), 135);
        }
        assert_ne!(layout.table, 135);
        assert!(layout.table_priority < 15_135);
    }
}
