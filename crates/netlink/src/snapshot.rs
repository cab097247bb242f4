//! What the kernel holds of ours, and what is in our way.

use egress_routing::BuiltinRule;
use egress_routing::kernel_state::{Foreign, Managed, Nexthop, Observed, PROTOCOL, Route};

use crate::command::CommandSocket;
use crate::error::Error;
use crate::ownership::Claim;
use crate::rule::SeenRule;
use crate::{nexthop, route, rule};

impl CommandSocket {
    /// Reads rules, nexthop objects and routes. The three are not read at one instant: something that changes in
    /// between is seen half, and its notification asks for the next snapshot.
    pub fn snapshot(&mut self, claim: &Claim) -> Result<Observed, Error> {
        let mut observed = Observed { lost_builtin_rules: BuiltinRule::ALL.into(), ..Observed::default() };
        for seen in self.rules()? {
            let priority = seen.rule.priority;
            if let Some(done) = BuiltinRule::done_by(&seen.rule)
                && seen.complete
                && seen.protocol != PROTOCOL
            {
                observed.lost_builtin_rules.remove(&done);
            }
            match seen.complete.then(|| Managed::prove(seen.rule.clone(), seen.protocol)) {
                Some(Ok(ours)) => {
                    observed.rules.insert(ours);
                }
                _ if seen.protocol == PROTOCOL || claim.has_priority(priority) => {
                    let rule = seen.complete.then_some(seen.rule);
                    observed.foreign.insert(Foreign::Rule { priority, protocol: seen.protocol, rule });
                }
                _ => {}
            }
        }
        for seen in self.dump(&nexthop::dump(), nexthop::parse)? {
            let (id, protocol) = (seen.id, seen.protocol);
            match seen.via.map(|via| Managed::prove(Nexthop { id, via }, protocol)) {
                Some(Ok(ours)) => {
                    observed.nexthops.insert(id, ours);
                }
                _ if claim.nexthops.contains(&id.0) || protocol == PROTOCOL => {
                    observed.foreign.insert(Foreign::Nexthop { id, protocol });
                }
                _ => {}
            }
        }
        // All tables in one dump: ours may be anywhere, and one dump of everything costs less than one for each table.
        for seen in self.dump(&route::dump(None, None), route::parse)? {
            let (key, protocol) = (seen.key, seen.protocol);
            if protocol != PROTOCOL && !claim.tables.contains(&key.table) {
                continue;
            }
            let route = seen.kind.map(|kind| Route {
                table: key.table,
                destination: key.destination,
                metric: key.metric,
                kind,
            });
            match route.map(|route| Managed::prove(route, protocol)) {
                // Several of ours with one key: the first is the one in use.
                Some(Ok(ours)) => {
                    observed.routes.entry(key).or_insert(ours);
                }
                _ => {
                    observed.foreign.insert(Foreign::Route { key, protocol });
                }
            }
        }
        Ok(observed)
    }

    /// All IPv4 rules in the kernel's order.
    pub fn rules(&mut self) -> Result<Vec<SeenRule>, Error> {
        self.dump(&rule::dump(), rule::parse)
    }
}
