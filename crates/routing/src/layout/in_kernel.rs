//! The numbers that the kernel's routes are at: those of an agent that was there before.
//!
//! An agent that was given other numbers works with these until it knows all that it needs to move ([`Layout::in_kernel`]): what
//! finds orphans, gateways and lists in the kernel has one place to look. Read from the kernel, since an agent writes nothing down.
//!
//! Invariant: of two, where an agent ended in the midst of a move, those count by which packets are routed now, and at these
//! everything is there: a move adds all of the new before the old goes (`diff`).

use std::collections::BTreeSet;

use super::{Layout, NEXTHOP_BLOCK, Numbers, PROBE_SLOTS};
use crate::kernel_state::{MAIN_TABLE, Managed, NexthopId, Observed, RouteKind, Rule, RuleAction};

impl Layout {
    /// The layout that the kernel's routes have; `otherwise` where there are none, and for each number that nothing tells.
    pub fn in_kernel(observed: &Observed, otherwise: &Self) -> Self {
        let guards = observed.routes.keys().filter(|key| key.metric == otherwise.guard_metric);
        let tables: BTreeSet<u32> = guards.map(|key| key.table).collect();
        let rules = || observed.rules.iter().map(Managed::get);
        let asked = rules().find_map(|rule| {
            let table = looked_up(rule).filter(|table| tables.contains(table))?;
            (*rule == Rule::lookup(rule.priority, table)).then_some((rule.priority, table))
        });
        let unasked = || tables.get(&otherwise.table).or(tables.first()).copied();
        let Some(table) = asked.map(|(_, table)| table).or_else(unasked) else { return otherwise.clone() };

        let mut numbers = Numbers { table, ..otherwise.numbers() };
        let last = otherwise.table_priority - otherwise.first_probe_priority;
        if let Some(first) = asked.and_then(|(priority, _)| priority.checked_sub(last)) {
            numbers.rule_priorities = first;
        }
        if let Some(first) = first_nexthop(observed, table) {
            numbers.nexthop_ids = first;
        }
        let slots = numbers.rule_priorities..numbers.rule_priorities.saturating_add(PROBE_SLOTS.into());
        let probe = rules().find_map(|rule| {
            let slot = rule.priority.checked_sub(slots.start).filter(|_| slots.contains(&rule.priority))?;
            let (first_port, _) = rule.source_ports?;
            let table = looked_up(rule).filter(|table| *table != MAIN_TABLE)?;
            Some((slot, table, first_port))
        });
        if let Some((slot, table, first_port)) = probe {
            let ports_before = u32::from(otherwise.probe_ports) * slot;
            numbers.probe_tables = table.saturating_sub(slot);
            numbers.probe_ports = u32::from(first_port).saturating_sub(ports_before).try_into().unwrap_or(0);
        }
        Self::new(numbers).unwrap_or_else(|_| otherwise.clone())
    }
}

fn looked_up(rule: &Rule) -> Option<u32> {
    match rule.action {
        RuleAction::Lookup { table, .. } => Some(table),
        RuleAction::Unreachable | RuleAction::Blackhole => None,
    }
}

/// The first id of the block that a table's routes use; of any of ours, where a link that went down took them along.
fn first_nexthop(observed: &Observed, table: u32) -> Option<u32> {
    let routes = observed.routes.values().map(Managed::get).filter(|route| route.table == table);
    let mut used = routes.filter_map(|route| match route.kind {
        RouteKind::Nexthop(id) => Some(id),
        _ => None,
    });
    let NexthopId(id) = used.next().or_else(|| observed.nexthops.keys().next().copied())?;
    Some(id - id % NEXTHOP_BLOCK)
}

#[cfg(test)]
mod tests;
