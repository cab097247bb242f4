//! What the node needs to live and no gateway may carry: resolvers, API server, the cloud's API.
//!
//! Read anew every minute; what was found once stays when a later look finds nothing, because a resolver that is down must not
//! open the way for a route over the API server.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(60);

/// Time between two looks while a name has no address yet.
const SOON: Duration = Duration::from_secs(5);

/// A resolver that is silent must not hold the look for longer.
const DEADLINE: Duration = Duration::from_secs(5);

/// Where the resolvers of the node stand; with `dnsPolicy: Default` kubelet gives a pod the node's own file.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The node's resolvers.
    pub resolvers: BTreeSet<Ipv4Addr>,
    /// Addresses of every protected name.
    pub names: BTreeMap<String, BTreeSet<Ipv4Addr>>,
    /// A protected name has had no address since the start: what it was in the kernel before is still to be trusted.
    pub incomplete: bool,
}

impl Surroundings {
    /// What can be had without asking anybody: the resolvers. Nothing may be planned before them, or a restarted agent would
    /// take away what protects them.
    pub fn at_start(names: &[String]) -> Self {
        let mut found = Self { incomplete: names.iter().any(|name| !name.is_empty()), ..Self::default() };
        found.read_resolvers(&std::fs::read_to_string(RESOLV_CONF));
        found
    }

    fn read_resolvers(&mut self, file: &std::io::Result<String>) {
        match file.as_ref().map(|text| nameservers(text)) {
            Ok(resolvers) if resolvers.is_empty() => {}
            Ok(resolvers) => self.resolvers = resolvers,
            Err(error) => tracing::warn!(%error, "{RESOLV_CONF} can't be read"),
        }
    }
}

/// Looks around for ever; `changed` is notified when something new was found.
pub async fn look_around(names: Vec<String>, found: watch::Sender<Surroundings>, changed: Arc<Notify>) {
    loop {
        let mut next = found.borrow().clone();
        next.read_resolvers(&tokio::fs::read_to_string(RESOLV_CONF).await);
        for name in names.iter().filter(|name| !name.is_empty()) {
            let addresses = resolve(name).await;
            if !addresses.is_empty() {
                next.names.insert(name.clone(), addresses);
            }
        }
        next.incomplete = names.iter().any(|name| !name.is_empty() && !next.names.contains_key(name));
        let is_new = found.send_if_modified(|current| {
            let is_new = *current != next;
            *current = next;
            is_new
        });
        if is_new {
            changed.notify_one();
        }
        let pause = if found.borrow().incomplete { SOON } else { INTERVAL };
        tokio::time::sleep(pause).await;
    }
}

async fn resolve(name: &str) -> BTreeSet<Ipv4Addr> {
    match tokio::time::timeout(DEADLINE, tokio::net::lookup_host((name, 443))).await {
        Ok(Ok(addresses)) => addresses
            .filter_map(|address| match address.ip() {
                IpAddr::V4(v4) => Some(v4),
                IpAddr::V6(_) => None,
            })
            .collect(),
        Ok(Err(error)) => {
            tracing::debug!(name, %error, "protected name has no address now");
            BTreeSet::new()
        }
        Err(_) => BTreeSet::new(),
    }
}

fn nameservers(resolv_conf: &str) -> BTreeSet<Ipv4Addr> {
    resolv_conf
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.trim().parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameservers_are_read_as_the_resolver_reads_them() {
        let text = "# by kubelet\nsearch example.com\nnameserver 67.207.67.2\n nameserver\t67.207.67.3 \nnameserver fe80::1\n";
        let expected = [Ipv4Addr::new(67, 207, 67, 2), Ipv4Addr::new(67, 207, 67, 3)];
        assert_eq!(nameservers(text), expected.into());
    }
}
