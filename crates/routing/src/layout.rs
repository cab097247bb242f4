//! Where our state lives in the kernel: table numbers, rule priorities, ports and nexthop ids.
//!
//! Responsibility: the one place for these numbers; `docs/architecture.md` shows them to people. Five of them ([`Numbers`])
//! can be chosen, for a node on which they clash with somebody else's; all others follow from these, so that rules can't be
//! put into a wrong order.
//!
//! Invariants: never table 135 or priority 15135, which belong to DigitalOcean's managed routing agent; never a table or a
//! priority of Cilium's; every nexthop id that any agent may ever have been given is provably ours ([`NEXTHOP_IDS`]), so that
//! an agent with new numbers takes away what one with the old ones left.

use std::fmt;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use crate::kernel_state::{NEXTHOP_IDS, NexthopId, Resilient};
use crate::nexthop_ids;

/// Nexthop ids for StaticRoutes: the first + 0 .. + 65,535.
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
/// Offset of the nexthop ids that say of a StaticRoute that it is `FailClosed`, and `FailOpen`, from its nexthop object.
const CLOSED_RECORDS: u32 = 400_000;
const OPEN_RECORDS: u32 = 500_000;
/// Offset of the group of a StaticRoute whose connections leave a gateway one by one, from its nexthop object.
const DRAINS: u32 = 600_000;
/// Offsets of the only members of groups that drop their traffic, and let it out by the node's own default route.
const HOLE: u32 = 120_000;
const EXIT: u32 = 120_001;
/// Offset of the nexthop ids that say under which definition (CRD) the StaticRoutes were made, and how many of them there are.
const DEFINITIONS: u32 = 700_000;
const DEFINITION_COUNT: u32 = 100_000;
/// An agent's nexthop ids: so many from the first on. There are nine such blocks in [`NEXTHOP_IDS`].
pub(crate) const NEXTHOP_BLOCK: u32 = 1_000_000;

/// Gateways that one node can probe.
const PROBE_SLOTS: u8 = 32;
/// Source ports of each slot.
const PROBE_PORTS: u16 = 64;
/// Those of all slots, and as many for looking around our table.
const ALL_PORTS: u16 = (PROBE_SLOTS as u16 + 1) * PROBE_PORTS;

/// Tables that are others': the kernel's 0 and 253-255, the managed routing agent's, and Cilium's (200, 2004, 2005).
const TABLES_OF_OTHERS: [(RangeInclusive<u32>, &str); 6] = [
    (0..=0, "table 0 is no table"),
    (253..=255, "253-255 are the kernel's own: default, main and local"),
    (135..=135, "135 belongs to DigitalOcean's managed routing agent"),
    (200..=200, "200 belongs to Cilium"),
    (2004..=2005, "2004 and 2005 belong to Cilium's proxy"),
    // For a first table so high that those after it would be no numbers any more.
    (u32::MAX..=u32::MAX, "4294967295 is the end of the numbers"),
];
/// The last of Cilium's rules. It moves the kernel's local table to 100, and a rule ahead of that would route what is addressed
/// to the node itself.
const LAST_OF_CILIUM: u32 = 112;
/// The managed routing agent's rule.
const ROUTING_AGENT_PRIORITY: u32 = 15_135;

/// The numbers that can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// Table with the routes of all StaticRoutes.
    pub table: u32,
    /// First of 32 tables for probes.
    pub probe_tables: u32,
    /// First of 102 rule priorities.
    pub rule_priorities: u32,
    /// First of 2,112 source ports of probes, and of looks around our table.
    pub probe_ports: u16,
    /// First of 1,000,000 nexthop ids.
    pub nexthop_ids: u32,
}

impl Default for Numbers {
    fn default() -> Self {
        Self {
            table: 1157,
            probe_tables: 1160,
            rule_priorities: 900,
            probe_ports: 61_000,
            nexthop_ids: *NEXTHOP_IDS.start(),
        }
    }
}

/// A number that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("--{flag} {value} can't be used: {why}; choose {allowed}")]
pub struct LayoutError {
    /// The agent's flag, without the dashes.
    pub flag: &'static str,
    /// What was given.
    pub value: u32,
    /// Why not.
    pub why: String,
    /// What can be.
    pub allowed: String,
}

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
    /// Priority of `to <public on-link subnet> lookup main suppress_prefixlength <its length>`: what main has inside that subnet
    /// beside the subnet itself comes before the rules at [`Self::on_link_priority`].
    pub inside_on_link_priority: u32,
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
    /// First of our nexthop ids.
    pub first_nexthop: u32,
}

mod in_kernel;

impl Default for Layout {
    fn default() -> Self {
        Self::from_numbers(Numbers::default())
    }
}

/// As flags of the agent.
impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Numbers { table, probe_tables, rule_priorities, probe_ports, nexthop_ids } = self.numbers();
        write!(f, "--table={table} --probe-tables={probe_tables} --rule-priorities={rule_priorities} ")?;
        write!(f, "--probe-ports={probe_ports} --nexthop-ids={nexthop_ids}")
    }
}

impl Layout {
    /// The layout that follows from `numbers`, or the first of them that can't be used.
    pub fn new(numbers: Numbers) -> Result<Self, LayoutError> {
        let refuse = |flag, value, why: &dyn fmt::Display, allowed: &str| {
            Err(LayoutError { flag, value, why: why.to_string(), allowed: allowed.to_owned() })
        };
        let last_slot = u32::from(PROBE_SLOTS) - 1;
        let Numbers { table, probe_tables, rule_priorities, probe_ports, nexthop_ids } = numbers;
        if let Some(why) = table_of_others(&(table..=table)) {
            return refuse("table", table, &why, "an unused table, such as 1157");
        }
        let probes = probe_tables..=probe_tables.saturating_add(last_slot);
        if let Some(why) = table_of_others(&probes) {
            return refuse("probe-tables", probe_tables, &why, "the first of 32 unused tables, such as 1160");
        }
        if probes.contains(&table) {
            let why = format!("{}-{} would have --table {table} among them", probes.start(), probes.end());
            return refuse("probe-tables", probe_tables, &why, "the first of 32 tables beside it");
        }
        let layout = Self::from_numbers(numbers);
        let span = Self::default().table_priority - Self::default().first_probe_priority;
        let allowed = format!("{} to {}", LAST_OF_CILIUM + 1, ROUTING_AGENT_PRIORITY - 1 - span);
        if rule_priorities <= LAST_OF_CILIUM {
            let why = "Cilium's rules are at 9 to 112, with the kernel's local table at 100 among them; a rule ahead of \
                       that would route what is addressed to the node itself";
            return refuse("rule-priorities", rule_priorities, &why, &allowed);
        }
        if layout.table_priority >= ROUTING_AGENT_PRIORITY {
            let why = format!(
                "the last of them is {}, and 15135 belongs to DigitalOcean's managed routing agent",
                u64::from(rule_priorities) + u64::from(span)
            );
            return refuse("rule-priorities", rule_priorities, &why, &allowed);
        }
        let most_ports = u16::MAX - (ALL_PORTS - 1);
        let allowed = format!("{} to {most_ports}", Numbers::default().probe_ports);
        if probe_ports < Numbers::default().probe_ports {
            let why = "below 61000 are the kernel's ephemeral ports, and the rules for probes would catch other connections";
            return refuse("probe-ports", probe_ports.into(), &why, &allowed);
        }
        if probe_ports > most_ports {
            let why = "the last of 2112 ports would be above 65535";
            return refuse("probe-ports", probe_ports.into(), &why, &allowed);
        }
        if !NEXTHOP_IDS.contains(&nexthop_ids) || nexthop_ids % NEXTHOP_BLOCK != 0 {
            let why = "an id must prove that the object is ours, also to an agent with other numbers";
            let allowed = "a whole million from 241000000 to 249000000";
            return refuse("nexthop-ids", nexthop_ids, &why, allowed);
        }
        Ok(layout)
    }

    // Saturating: what is out of range is refused by name.
    fn from_numbers(numbers: Numbers) -> Self {
        let priority = |offset: u32| numbers.rule_priorities.saturating_add(offset);
        Self {
            table: numbers.table,
            first_probe_table: numbers.probe_tables,
            first_probe_priority: priority(0),
            around_priority: priority(32),
            reply_priority: priority(90),
            inbound_priority: priority(91),
            inside_on_link_priority: priority(94),
            on_link_priority: priority(95),
            main_priority: priority(100),
            table_priority: priority(101),
            guard_metric: 4_000_000,
            first_probe_port: numbers.probe_ports,
            probe_ports: PROBE_PORTS,
            probe_slots: PROBE_SLOTS,
            // Shares are multiples of a thousandth. A connection that was silent for two minutes (the kernel's own default) may
            // move when a gateway comes back; one that was not never does, however unequal the shares are.
            group: Resilient { buckets: 1024, idle_seconds: 120, unbalanced_seconds: 0 },
            first_nexthop: numbers.nexthop_ids,
        }
    }

    /// The numbers that it follows from.
    pub fn numbers(&self) -> Numbers {
        Numbers {
            table: self.table,
            probe_tables: self.first_probe_table,
            rule_priorities: self.first_probe_priority,
            probe_ports: self.first_probe_port,
            nexthop_ids: self.first_nexthop,
        }
    }

    /// Every rule priority from the first of ours to the last.
    pub fn priorities(&self) -> RangeInclusive<u32> {
        self.first_probe_priority..=self.table_priority
    }

    /// All our nexthop ids.
    pub fn nexthops(&self) -> RangeInclusive<u32> {
        self.first_nexthop..=self.first_nexthop + (NEXTHOP_BLOCK - 1)
    }

    /// Whether `table` is one of ours.
    pub fn has_table(&self, table: u32) -> bool {
        table == self.table || self.slot_of_table(table).is_some()
    }

    /// Source ports of all probes, and of looks around our table.
    pub fn all_probe_ports(&self) -> RangeInclusive<u16> {
        self.first_probe_port..=self.first_probe_port + (ALL_PORTS - 1)
    }

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
        NexthopId(self.first_nexthop + PROBE_NEXTHOPS + u32::from(slot.0))
    }

    /// The second nexthop object of the gateway of `slot`.
    pub fn twin_nexthop(&self, slot: GatewaySlot) -> NexthopId {
        NexthopId(self.first_nexthop + TWIN_NEXTHOPS + u32::from(slot.0))
    }

    /// The slot whose [`Layout::probe_nexthop`] this is.
    pub fn slot_of_nexthop(&self, id: NexthopId) -> Option<GatewaySlot> {
        let slot = u8::try_from(id.0.checked_sub(self.first_nexthop + PROBE_NEXTHOPS)?).ok()?;
        (slot < self.probe_slots).then_some(GatewaySlot(slot))
    }

    /// The same for an agent with other numbers.
    pub(crate) fn slot_at_any_numbers(&self, id: NexthopId) -> Option<GatewaySlot> {
        self.slot_of_nexthop(NexthopId(self.first_nexthop + id.0 % NEXTHOP_BLOCK))
    }

    /// The group of gateways that share the traffic of the StaticRoute whose nexthop object is `nexthop` otherwise.
    pub fn group_nexthop(&self, nexthop: NexthopId) -> NexthopId {
        NexthopId(nexthop.0 + GROUPS)
    }

    /// The nexthop object by which the StaticRoute is known whose routes use `id`: that object itself, or a group in its stead.
    pub fn nexthop_of_routes(&self, id: NexthopId) -> Option<NexthopId> {
        let of_group = NexthopId(id.0.wrapping_sub(GROUPS));
        let of_drain = NexthopId(id.0.wrapping_sub(DRAINS));
        [id, of_group, of_drain].into_iter().find(|id| self.is_object_nexthop(*id))
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

    /// The group in which the old and the new gateway of the StaticRoute known by `nexthop` share its traffic during a planned
    /// move; see [`crate::plan::Draining`].
    pub fn drain_nexthop(&self, nexthop: NexthopId) -> NexthopId {
        NexthopId(nexthop.0 + DRAINS)
    }

    /// Whether it is such a group.
    pub fn is_drain(&self, id: NexthopId) -> bool {
        self.is_object_nexthop(NexthopId(id.0.wrapping_sub(DRAINS)))
    }

    /// Records that the StaticRoute whose nexthop object this is is `FailClosed`; no route uses it.
    pub fn closed_nexthop(&self, nexthop: NexthopId) -> NexthopId {
        NexthopId(nexthop.0 + CLOSED_RECORDS)
    }

    /// Records that it is `FailOpen`.
    pub fn open_nexthop(&self, nexthop: NexthopId) -> NexthopId {
        NexthopId(nexthop.0 + OPEN_RECORDS)
    }

    /// The blackhole that a group has as its only member while no gateway works (`FailClosed`).
    pub fn hole_nexthop(&self) -> NexthopId {
        NexthopId(self.first_nexthop + HOLE)
    }

    /// The node's own default gateway, which a group has as its only member while no gateway works (`FailOpen`).
    pub fn exit_nexthop(&self) -> NexthopId {
        NexthopId(self.first_nexthop + EXIT)
    }

    /// The nexthop object that records under which definition the StaticRoutes in the kernel were made; see [`crate::orphans`].
    pub fn definition_nexthop(&self, definition_uid: &str) -> NexthopId {
        NexthopId(self.first_nexthop + DEFINITIONS + nexthop_ids::hash(definition_uid) % DEFINITION_COUNT)
    }

    /// Whether this is such a record.
    pub fn is_definition_nexthop(&self, id: NexthopId) -> bool {
        id.0.checked_sub(self.first_nexthop + DEFINITIONS).is_some_and(|index| index < DEFINITION_COUNT)
    }

    /// Whether this is the nexthop object of a StaticRoute that uses one gateway at a time.
    pub fn is_object_nexthop(&self, id: NexthopId) -> bool {
        id.0.checked_sub(self.first_nexthop).is_some_and(|index| index < self.object_nexthops())
    }

    /// The slot whose probe table `table` is.
    pub fn slot_of_table(&self, table: u32) -> Option<GatewaySlot> {
        let slot = u8::try_from(table.checked_sub(self.first_probe_table)?).ok()?;
        (slot < self.probe_slots).then_some(GatewaySlot(slot))
    }

    /// The `index`-th nexthop object for StaticRoutes; wraps around after [`Layout::object_nexthops`].
    pub(crate) fn object_nexthop(&self, index: u32) -> NexthopId {
        NexthopId(self.first_nexthop + index % self.object_nexthops())
    }

    /// How many nexthop objects there are for StaticRoutes.
    #[allow(clippy::unused_self, reason = "a number of the layout like the others, fixed for now")]
    pub(crate) fn object_nexthops(&self) -> u32 {
        OBJECT_NEXTHOPS
    }
}

fn table_of_others(tables: &RangeInclusive<u32>) -> Option<&'static str> {
    let overlap =
        |others: &RangeInclusive<u32>| tables.start() <= others.end() && others.start() <= tables.end();
    TABLES_OF_OTHERS.iter().find(|(others, _)| overlap(others)).map(|(_, why)| *why)
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
mod tests;
