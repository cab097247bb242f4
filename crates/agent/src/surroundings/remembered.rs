//! The addresses of a name that changes them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// How long an address stays protected that its name no longer has: connections to it live on, kubelet's for as long as the
/// API server lets them.
pub const KEPT: Duration = Duration::from_secs(3600);

/// Most addresses of one name. A name that is answered with others every time must not fill the table; the freshest stay.
pub const MOST: usize = 64;

/// Addresses of one name, with the time of the last answer that had them.
///
/// No answer is no news: what is known stays, however old it is.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    seen: BTreeMap<Ipv4Addr, Instant>,
}

impl Remembered {
    /// Takes an answer. An empty one is none.
    pub fn answer(&mut self, addresses: &BTreeSet<Ipv4Addr>, now: Instant) {
        if addresses.is_empty() {
            return;
        }
        self.seen.extend(addresses.iter().map(|address| (*address, now)));
        self.seen.retain(|_, last| now.saturating_duration_since(*last) < KEPT);
        if self.seen.len() > MOST {
            let mut ordered: Vec<_> =
                self.seen.iter().map(|(address, last)| (Reverse(*last), *address)).collect();
            ordered.sort_unstable();
            self.seen =
                ordered.into_iter().take(MOST).map(|(Reverse(last), address)| (address, last)).collect();
        }
    }

    /// What must be protected.
    pub fn addresses(&self) -> BTreeSet<Ipv4Addr> {
        self.seen.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(last: impl IntoIterator<Item = u8>) -> BTreeSet<Ipv4Addr> {
        last.into_iter().map(|last| Ipv4Addr::new(198, 51, 100, last)).collect()
    }

    #[test]
    fn an_address_that_its_name_lost_stays_for_an_hour() {
        let start = Instant::now();
        let mut name = Remembered::default();
        name.answer(&addresses([1, 2]), start);
        name.answer(&addresses([2, 3]), start + Duration::from_secs(10));
        assert_eq!(name.addresses(), addresses([1, 2, 3]));
        name.answer(&addresses([3]), start + KEPT + Duration::from_secs(5));
        assert_eq!(name.addresses(), addresses([2, 3]), "1 was last seen an hour ago");
    }

    #[test]
    fn without_an_answer_nothing_is_forgotten() {
        let start = Instant::now();
        let mut name = Remembered::default();
        name.answer(&addresses([1]), start);
        name.answer(&addresses([]), start + KEPT * 10);
        assert_eq!(name.addresses(), addresses([1]));
    }

    #[test]
    fn a_name_that_is_answered_with_others_every_time_keeps_the_freshest() {
        let start = Instant::now();
        let mut name = Remembered::default();
        for step in 0..200 {
            name.answer(&addresses([step]), start + Duration::from_secs(u64::from(step)));
        }
        assert_eq!(name.addresses(), addresses(136..200));
    }
}
