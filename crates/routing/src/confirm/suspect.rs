//! What counts as a change of an object, and which version to go back to if it cuts the node off.

use std::collections::BTreeMap;

use crate::wanted::WantedRoute;

/// An object that changed since the last confirmed plan.
#[derive(Debug)]
pub(super) struct Suspect {
    /// Its version in the last confirmed plan.
    pub confirmed: WantedRoute,
    /// Its latest change.
    pub since: u64,
}

/// The version that `route` is a change of, without destinations where there was none; `None` when it is no change.
pub(super) fn version_before(previous: Option<&WantedRoute>, route: &WantedRoute) -> Option<WantedRoute> {
    match previous.map(WantedRoute::without_guard) {
        Some(previous) if previous == *route || is_switch(&previous, route) => None,
        Some(previous) => Some(previous),
        None => Some(without_destinations(route)),
    }
}

/// The same but for gateways, and none that was not in the list before.
pub(super) fn is_switch(before: &WantedRoute, after: &WantedRoute) -> bool {
    let is_subset = after.gateways.iter().all(|gateway| before.gateways.contains(gateway));
    is_subset && !after.gateways.is_empty() && {
        let weights = if before.is_shared() == after.is_shared() { &before.weights } else { &after.weights };
        let (gateways, weights) = (before.gateways.clone(), weights.clone());
        WantedRoute { gateways, weights, ..after.clone() } == *before
    }
}

fn without_destinations(route: &WantedRoute) -> WantedRoute {
    WantedRoute { destinations: BTreeMap::new(), invalid_destinations: Vec::new(), ..route.clone() }
}
