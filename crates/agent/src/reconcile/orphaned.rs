//! Keeps the routes of StaticRoutes that went with their definition; see [`crate::departed`].

use egress_routing::kernel_state::{Nexthop, NexthopTarget};
use egress_routing::orphans::orphans;

use super::Reconciler;
use crate::definition::Definition;
use crate::objects::Objects;

impl Reconciler {
    /// Adds to what was read what is gone and must stay.
    pub(super) fn keep_departed(&mut self, objects: &mut Objects) {
        let held_some = !self.departed.is_empty();
        let answer = self.with.definitions.answer();
        let definitions = &self.with.definitions;
        let in_force = self.in_force.as_deref().unwrap_or(&self.objects.routes);
        self.departed.keep(objects, &self.objects, in_force, answer.as_ref(), || definitions.ask());
        if held_some && self.departed.is_empty() {
            // They may have come back under another definition.
            definitions.ask();
        }
    }

    /// On the first pass: what does the kernel route for objects that went with their definition while no agent ran?
    pub(super) fn search_orphans(&mut self) {
        let Some(answer) = self.with.definitions.answer().filter(|_| !self.searched) else { return };
        let recorded = self.observed.nexthops.keys().find(|id| self.layout.is_definition_nexthop(**id));
        let now = match &answer.definition {
            Definition::There { uid, .. } => Some(self.layout.definition_nexthop(uid)),
            Definition::Going { .. } | Definition::Gone => None,
        };
        if recorded.is_some_and(|recorded| Some(*recorded) != now) {
            self.departed.adopt(orphans(&self.observed, &self.plan, &answer.reported, &self.layout));
        }
        self.searched = true;
        if self.departed.is_empty() {
            self.record_definition();
        } else {
            let mut objects = self.read_objects();
            objects.recover(&self.observed, &self.layout);
            self.objects = objects;
            self.replan();
        }
    }

    /// Lets go of what others route now.
    pub(super) fn let_orphans_go(&mut self) {
        if self.departed.give_way(&self.plan.routes) {
            // What is left of them is planned in the next pass, in which the kernel has what the others route.
            self.with.changed.notify_one();
        }
    }

    /// Leaves a record in the kernel of the definition that its routes were made under.
    pub(super) fn record_definition(&mut self) {
        if self.searched
            && self.departed.is_empty()
            && let Some(Definition::There { uid, .. }) =
                self.with.definitions.answer().map(|answer| answer.definition)
        {
            self.definition = Some(self.layout.definition_nexthop(&uid));
        }
        let in_kernel = self.observed.nexthops.keys().find(|id| self.layout.is_definition_nexthop(**id));
        let routes_something = self.plan.state.routes.keys().any(|key| key.table == self.layout.table);
        if let Some(id) = self.definition.or(in_kernel.copied()).filter(|_| routes_something) {
            self.plan.state.insert_nexthop(Nexthop { id, via: NexthopTarget::Blackhole });
        }
    }
}
