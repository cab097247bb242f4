//! How much more a gateway can carry, as its own endpoint says.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use futures::future::BoxFuture;

/// What a gateway uses of what it has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Headroom {
    /// Entries in its connection table.
    pub connections: u64,
    /// How many it has room for.
    pub most_connections: u64,
    /// The destination to which it has the most connections.
    pub busiest: Option<Busiest>,
}

/// A destination to which there are many connections: one public address has 64,512 ports for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Busiest {
    /// Such as `tcp 203.0.113.10:443`.
    pub destination: String,
    /// Connections to it.
    pub connections: u64,
    /// What part of the ports that is, 0 to 1.
    pub share: f64,
}

impl Headroom {
    /// What part of the connection table is used, 0 to 1.
    pub fn table_share(&self) -> f64 {
        if self.most_connections == 0 {
            return 0.0;
        }
        // Both are far below 2^53.
        #[allow(clippy::cast_precision_loss)]
        let share = self.connections as f64 / self.most_connections as f64;
        share.clamp(0.0, 1.0)
    }

    /// The scarcest of what it has, 0 to 1.
    pub fn scarcest(&self) -> f64 {
        self.busiest.as_ref().map_or(0.0, |busiest| busiest.share.clamp(0.0, 1.0)).max(self.table_share())
    }
}

/// From here on a gateway warns by itself, and so does the page.
pub const SCARCE: f64 = 0.7;

/// What is known of each gateway, by its private address.
pub type Headrooms = BTreeMap<Ipv4Addr, Headroom>;

/// Whoever can ask gateways.
pub trait Gauge: Send + Sync {
    /// What each of these says; who does not answer is left out.
    fn measure(&self, gateways: Vec<Ipv4Addr>) -> BoxFuture<'_, Headrooms>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scarcest_is_told_and_a_table_of_unknown_size_is_not_full() {
        let mut headroom = Headroom { connections: 50, most_connections: 200, busiest: None };
        assert!((headroom.scarcest() - 0.25).abs() < 1e-9);
        headroom.busiest =
            Some(Busiest { destination: "tcp 203.0.113.1:443".into(), connections: 60_000, share: 0.93 });
        assert!((headroom.scarcest() - 0.93).abs() < 1e-9);
        assert!(Headroom::default().scarcest().abs() < 1e-9);
    }
}
