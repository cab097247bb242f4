//! How many Droplets there are, those included that no list shows yet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use egress_digitalocean::{CreatedDroplet, Droplet, DropletId, Error};
use jiff::Timestamp;

use super::elapsed;

/// The count, as far as it is known. Rather too high than too low.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    listed: BTreeSet<DropletId>,
    // Accepted creates, and when they were sent.
    made: BTreeMap<DropletId, Timestamp>,
    // Requests without an answer so far, and those that never got a clear one.
    open: Vec<Timestamp>,
}

/// Until then a create shows in the list, or nothing came of it.
const SHOWN_AFTER: Duration = Duration::from_secs(120);

impl Fleet {
    /// Takes a reading of the list.
    pub(super) fn list(&mut self, droplets: &BTreeMap<DropletId, Droplet>) {
        self.listed = droplets.keys().copied().collect();
    }

    /// Counts one more, if there are fewer than `most`.
    pub(super) fn reserve(&mut self, most: usize, now: Timestamp) -> bool {
        self.made.retain(|_, sent| elapsed(*sent, now) < SHOWN_AFTER);
        self.open.retain(|sent| elapsed(*sent, now) < SHOWN_AFTER);
        let unlisted = self.made.keys().filter(|id| !self.listed.contains(id)).count();
        let free = self.listed.len() + unlisted + self.open.len() < most;
        if free {
            self.open.push(now);
        }
        free
    }

    /// Takes the answer to a create that was reserved at `sent`.
    pub(super) fn settle(&mut self, created: &Result<CreatedDroplet, Error>, sent: Timestamp) {
        if matches!(created, Err(Error::Ambiguous { .. })) {
            return;
        }
        if let Some(at) = self.open.iter().position(|open| *open == sent) {
            self.open.swap_remove(at);
        }
        if let Ok(created) = created {
            self.made.insert(created.droplet.id, sent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn made(id: u64) -> CreatedDroplet {
        let droplet = serde_json::from_value(serde_json::json!({ "id": id })).unwrap();
        CreatedDroplet { droplet, create_action: None }
    }

    #[test]
    fn what_may_have_been_made_counts_until_the_list_shows_it_or_nothing_came_of_it() {
        let mut fleet = Fleet::default();
        assert!(fleet.reserve(3, at(0)) && fleet.reserve(3, at(0)) && fleet.reserve(3, at(0)));
        assert!(!fleet.reserve(3, at(0)), "three are under way");
        fleet.settle(&Ok(made(1)), at(0));
        fleet.settle(
            &Err(Error::Ambiguous { call: "droplets.create", reason: String::new(), refusal: None }),
            at(0),
        );
        fleet.settle(&Err(Error::Unreachable { call: "droplets.create", reason: String::new() }), at(0));
        assert!(fleet.reserve(3, at(1)), "one was never sent");
        fleet.settle(&Ok(made(2)), at(1));
        assert!(!fleet.reserve(3, at(2)), "of one nobody knows");
        let listed = |id: u64| (DropletId(id), made(id).droplet);
        fleet.list(&BTreeMap::from([listed(1), listed(2)]));
        assert!(!fleet.reserve(3, at(3)), "shown ones are not counted twice, and that one still is");
        assert!(fleet.reserve(3, at(121)));
    }
}
