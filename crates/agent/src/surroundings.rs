//! What the node needs to live and no gateway may carry: its resolvers, the API server's names, protected names.
//!
//! Responsibility: find out and remember. A look every few seconds; what was found once stays when a later look finds nothing,
//! because a resolver that is down must not open the way for a route over the API server. Which names the API server has:
//! that of a DOKS cluster follows from the node's own metadata, another one is a setting, and the agent's own client has one.

mod remembered;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use tokio::sync::{Notify, watch};

use crate::metadata::{self, Metadata};
pub use remembered::{KEPT, Remembered};

/// Time between two looks while something has no answer yet.
const SOON: Duration = Duration::from_secs(5);

/// A resolver that is silent must not hold the look for longer.
const DEADLINE: Duration = Duration::from_secs(5);

/// How long ranges wait for the addresses of the cloud's API. It is not the node that lives by those, so a resolver that is down for
/// longer, or a name that is wrong, holds up nothing more.
const PATIENCE: Duration = Duration::from_secs(60);

/// Names that are asked at a time. Each takes a thread of the C library's resolver while it waits.
const AT_ONCE: usize = 4;

/// Where the resolvers of the node stand; with `dnsPolicy: Default` kubelet gives a pod a copy of the node's own file, made when the
/// pod starts. The node's file itself would take a mount of a folder of the host; what the cloud changes, its metadata tells.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Names whose addresses are to be found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The API server's name as it was set; what the metadata service says of the cluster counts for nothing then.
    pub api_server: Option<String>,
    /// The host that the agent's own client talks to, where that is a name.
    pub client: Option<String>,
    /// Protected names.
    pub protected: BTreeSet<String>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The node's resolvers.
    pub resolvers: BTreeSet<Ipv4Addr>,
    /// Names of the API server with their addresses, now and lately. Without addresses: there never was an answer.
    pub api_server: BTreeMap<String, BTreeSet<Ipv4Addr>>,
    /// Protected names with their addresses, now and lately. Without addresses: there never was an answer.
    pub names: BTreeMap<String, BTreeSet<Ipv4Addr>>,
    /// The metadata service, which would tell the API server's name, never answered, and no setting tells it instead.
    pub metadata_is_silent: bool,
    /// Whether a whole look has ended.
    pub looked: bool,
    /// A look ended a minute after the start: what has no answer until then is waited for no more.
    pub waited: bool,
}

impl Surroundings {
    /// What can be had without asking anybody: the resolvers. Nothing may be planned before them, or a restarted agent would
    /// take away what protects them.
    pub fn at_start() -> Self {
        Self { resolvers: resolvers_of(&std::fs::read_to_string(RESOLV_CONF)), ..Self::default() }
    }

    /// Names that were asked and had no answer since the start.
    pub fn unanswered(&self) -> impl Iterator<Item = &str> {
        let all = self.api_server.iter().chain(&self.names);
        all.filter(|(_, addresses)| addresses.is_empty()).map(|(name, _)| name.as_str())
    }

    /// Something has had no answer since the start: what it was in the kernel before is still to be trusted.
    pub fn is_incomplete(&self) -> bool {
        !self.looked || self.metadata_is_silent || self.unanswered().next().is_some()
    }
}

/// Looks around for ever, every `interval`: a new address of the API server is protected that much after its name got it at the
/// latest. `changed` is notified when something new was found, and a change of `names` is looked at at once.
pub async fn look_around(
    interval: Duration,
    mut names: watch::Receiver<Names>,
    found: watch::Sender<Surroundings>,
    changed: Arc<Notify>,
) {
    let mut memory = Memory::new(metadata::ADDRESS, found.borrow().resolvers.clone());
    loop {
        let wanted = names.borrow_and_update().clone();
        let before = found.borrow().clone();
        let next = memory.look(&wanted, &before).await;
        let pause = if next.is_incomplete() { SOON.min(interval) } else { interval };
        let is_new = found.send_if_modified(|current| {
            let is_new = *current != next;
            *current = next;
            is_new
        });
        if is_new {
            changed.notify_one();
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            still_asked = names.changed() => if still_asked.is_err() { return },
        }
    }
}

struct Memory {
    start: Instant,
    service: SocketAddrV4,
    metadata: Option<Metadata>,
    /// It was asked and gave no answer, and may be there.
    metadata_is_silent: bool,
    /// The resolvers that the file named last.
    of_the_file: BTreeSet<Ipv4Addr>,
    addresses: BTreeMap<String, Remembered>,
}

impl Memory {
    fn new(service: SocketAddrV4, of_the_file: BTreeSet<Ipv4Addr>) -> Self {
        Self {
            start: Instant::now(),
            service,
            metadata: None,
            metadata_is_silent: false,
            of_the_file,
            addresses: BTreeMap::new(),
        }
    }

    fn waits_for_metadata(&self) -> bool {
        self.metadata.is_none() && self.metadata_is_silent
    }

    /// Again at each look: a Droplet may get its tags late, and other resolvers at any time.
    async fn ask_metadata(&mut self, for_the_name: bool) {
        // Where the API server's name is known without an answer, looking it up should not wait for one.
        let attempts = if for_the_name && self.metadata.is_none() { metadata::ATTEMPTS } else { 1 };
        match metadata::ask(self.service, attempts).await {
            Ok(said) => {
                let known = self.metadata.get_or_insert_default();
                // A Droplet does not change its cluster, and is never without resolvers.
                known.cluster = said.cluster.or(known.cluster.take());
                if !said.nameservers.is_empty() {
                    known.nameservers = said.nameservers;
                }
                self.metadata_is_silent = false;
            }
            Err(error) => {
                let is_silent = !error.denies_the_service();
                if is_silent && !self.metadata_is_silent && self.metadata.is_none() {
                    tracing::warn!(%error, "the node's cluster is not known from its metadata; asking again");
                } else {
                    // Said before, known already, or no Droplet.
                    tracing::debug!(%error, "no metadata");
                }
                self.metadata_is_silent = is_silent;
            }
        }
    }

    async fn look(&mut self, names: &Names, before: &Surroundings) -> Surroundings {
        let mut next = before.clone();
        self.ask_metadata(names.api_server.is_none()).await;
        let nameservers = self.metadata.as_ref().map(|said| said.nameservers.as_slice()).unwrap_or_default();
        let of_the_file = resolvers_of(&tokio::fs::read_to_string(RESOLV_CONF).await);
        if !of_the_file.is_empty() {
            self.of_the_file = of_the_file;
        }
        // The file may name a resolver on the node itself, which asks those of the cloud.
        next.resolvers = self.of_the_file.iter().chain(nameservers).copied().collect();

        let cluster = self.metadata.as_ref().and_then(|said| said.cluster.as_deref());
        let of_the_api_server: BTreeSet<String> =
            api_server_name(names, cluster).into_iter().chain(names.client.clone()).collect();
        let asked: BTreeSet<String> = of_the_api_server.iter().chain(&names.protected).cloned().collect();
        let answers: Vec<_> = futures::stream::iter(asked)
            .map(|name| async move {
                let answer = resolve(&name).await;
                (name, answer)
            })
            .buffered(AT_ONCE)
            .collect()
            .await;
        let now = Instant::now();
        let mut addresses = BTreeMap::new();
        for (name, answer) in answers {
            let mut remembered = self.addresses.remove(&name).unwrap_or_default();
            remembered.answer(&answer, now);
            addresses.insert(name, remembered);
        }
        self.addresses = addresses;
        let known = |names: &BTreeSet<String>| {
            let known =
                names.iter().filter_map(|name| Some((name.clone(), self.addresses.get(name)?.addresses())));
            known.collect::<BTreeMap<_, _>>()
        };
        next.metadata_is_silent = self.waits_for_metadata() && names.api_server.is_none();
        next.api_server = known(&of_the_api_server);
        next.names = known(&names.protected);
        next.looked = true;
        next.waited = self.start.elapsed() >= PATIENCE;
        next
    }
}

// Kubelet and everything else on a DOKS worker reach the API server under this name.
fn api_server_name(names: &Names, cluster: Option<&str>) -> Option<String> {
    names.api_server.clone().or_else(|| Some(format!("{}.k8s.ondigitalocean.com", cluster?)))
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

fn resolvers_of(file: &std::io::Result<String>) -> BTreeSet<Ipv4Addr> {
    match file {
        Ok(text) => nameservers(text),
        Err(error) => {
            tracing::warn!(%error, "{RESOLV_CONF} can't be read");
            BTreeSet::new()
        }
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
mod tests;
