//! What an agent that starts finds protected in the kernel, and can't explain yet.
//!
//! An address that a protected name had an hour ago is in nobody's answer now, and connections to it live on: a restart must not
//! open it. So the single addresses that the kernel keeps off the gateways stay so until everything is known that can be; those that
//! nothing explains then, for as long as a name's old addresses are kept.

use std::collections::BTreeSet;
use std::time::Instant;

use egress_routing::kernel_state::{Managed, Observed};
use egress_routing::{Protected, ProtectedReason};
use ipnet::Ipv4Net;

use crate::objects::Objects;
use crate::surroundings::KEPT;

/// The addresses.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    addresses: BTreeSet<Ipv4Net>,
    explained: Option<Instant>,
}

impl Inherited {
    /// Single addresses that our routes pass over.
    pub(super) fn read(observed: &Observed) -> Self {
        let ours = observed.routes.values().map(Managed::get).filter(|route| route.is_exception());
        let addresses =
            ours.map(|route| route.destination).filter(|range| range.prefix_len() == 32).collect();
        Self { addresses, explained: None }
    }

    /// What must still be protected.
    pub(super) fn addresses(&self) -> &BTreeSet<Ipv4Net> {
        &self.addresses
    }

    /// Lets go of what somebody else protects or excludes, once all of that is `known`, and of the rest in the end; `protected`
    /// is what this look found, with these addresses in it.
    pub(super) fn settle(&mut self, known: bool, objects: &Objects, protected: &mut Protected, now: Instant) {
        match self.explained {
            None if known => {
                let excluded = objects.routes.iter().flat_map(|route| &route.excluded);
                let others = protected.iter().filter(|(_, why)| *why != ProtectedReason::Inherited);
                let explained: Vec<Ipv4Net> =
                    others.map(|(range, _)| range).chain(excluded.copied()).collect();
                self.drop_where(protected, |address| explained.iter().any(|range| range.contains(&address)));
                self.explained = Some(now);
            }
            Some(since) if now.saturating_duration_since(since) >= KEPT => {
                self.drop_where(protected, |_| true);
            }
            _ => {}
        }
    }

    fn drop_where(&mut self, protected: &mut Protected, goes: impl Fn(Ipv4Net) -> bool) {
        self.addresses.retain(|address| {
            let stays = !goes(*address);
            if !stays {
                protected.remove(*address, ProtectedReason::Inherited);
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn what_nothing_explains_stays_for_an_hour_and_what_is_explained_is_left_to_that() {
        let addresses = ["198.51.100.10/32", "198.51.100.11/32"].map(net);
        let mut inherited = Inherited { addresses: addresses.into(), explained: None };
        let mut protected = Protected::default();
        protected.insert(addresses[0], ProtectedReason::ApiServer);
        for address in addresses {
            protected.insert(address, ProtectedReason::Inherited);
        }
        let objects = Objects::default();
        let start = Instant::now();
        inherited.settle(false, &objects, &mut protected, start);
        assert_eq!(inherited.addresses().len(), 2, "not known yet");
        inherited.settle(true, &objects, &mut protected, start);
        assert_eq!(inherited.addresses().iter().collect::<Vec<_>>(), [&addresses[1]]);
        let is_protected = |protected: &Protected, range| protected.iter().any(|(one, _)| one == range);
        assert!(is_protected(&protected, addresses[0]) && is_protected(&protected, addresses[1]));
        inherited.settle(true, &objects, &mut protected, start + KEPT);
        assert!(inherited.addresses().is_empty());
        assert!(is_protected(&protected, addresses[0]) && !is_protected(&protected, addresses[1]));
    }
}
