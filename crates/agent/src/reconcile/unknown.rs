//! Routes in the kernel whose StaticRoute can't be read.
//!
//! The kernel does not say which object a route is of. An agent that starts while an object is unreadable would take that
//! object's routes for leftovers; so, until everything can be read, it takes away only what it has planned itself.

use egress_routing::kernel_state::{Change, KernelState};

/// Leaves of the deletes in `list` only those of what `planned_before` held. Rules all stay: they lead to all routes.
pub(super) fn spare(list: &mut Vec<Change>, planned_before: &KernelState) {
    list.retain(|change| match change {
        Change::PutNexthop { .. } | Change::PutRoute { .. } | Change::PutRule(_) | Change::RestoreRule(_) => {
            true
        }
        Change::DeleteRule(_) => false,
        Change::DeleteRoute(route) => planned_before.routes.contains_key(&route.get().key()),
        Change::DeleteNexthop(nexthop) => planned_before.nexthops.contains_key(&nexthop.get().id),
    });
}
