//! What this node lives by, and whether it answers: through our table, as any program here would reach it, and around it.
//!
//! Responsibility: one [`Look`] when asked. What it means is decided in `egress_routing::confirm`.
//!
//! A TCP connect that is accepted or refused is an answer. Names are asked anew at each look, since an address that is known
//! could have been protected; while no resolver answers, the last addresses count.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use egress_routing::Around;
use egress_routing::confirm::{Answers, Lifeline, Look, Target};
use futures::future::join_all;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::metadata::ADDRESS as METADATA;
use crate::probe::{Outcome, connect_from, connect_through};

/// Port of a resolver; they answer over TCP too.
const DNS: u16 = 53;

/// How long a target may take. Below the second after which a lost SYN would be sent again.
const DEADLINE: Duration = Duration::from_millis(900);

/// How long a name may take: three looks, one of them after the other, must be over in less than 5 s.
const RESOLUTION: Duration = Duration::from_millis(300);

/// Where everything is.
#[derive(Clone, Debug, Default)]
pub struct Whereabouts {
    /// Host and port that this agent's own client connects to.
    pub api_server: Option<(String, u16)>,
    /// Addresses that the host had when it was last asked for.
    pub last_known: BTreeSet<SocketAddrV4>,
    /// Endpoints of the API server, and the addresses of the name under which the node knows it.
    pub endpoints: BTreeSet<SocketAddrV4>,
    /// The node's resolvers.
    pub resolvers: BTreeSet<Ipv4Addr>,
}

/// What a look brought.
#[derive(Clone, Debug)]
pub struct Looked {
    /// The answers.
    pub look: Look,
    /// Addresses of the host of the API server.
    pub api_servers: BTreeSet<SocketAddrV4>,
}

/// Asks everything once, both ways, all at the same time.
pub async fn look(change: u64, whereabouts: Whereabouts, around: Around) -> Looked {
    let mut api_servers = match &whereabouts.api_server {
        Some((host, port)) => resolve(host, *port).await,
        None => BTreeSet::new(),
    };
    if api_servers.is_empty() {
        api_servers = whereabouts.last_known;
    }
    let at = |lifeline| move |address| Target { lifeline, address };
    let resolvers = whereabouts.resolvers.iter().map(|address| SocketAddrV4::new(*address, DNS));
    let targets: BTreeSet<Target> = api_servers
        .union(&whereabouts.endpoints)
        .copied()
        .map(at(Lifeline::ApiServer))
        .chain([METADATA].map(at(Lifeline::Metadata)))
        .chain(resolvers.map(at(Lifeline::Resolver)))
        .collect();
    let mut ports = around.ports.clone().map(Iterator::cycle);
    let asked = targets.into_iter().map(|target| {
        let port = ports.as_mut().and_then(Iterator::next).unwrap_or(0);
        let from = SocketAddrV4::new(around.source, port);
        async move {
            let through = connect_from(Ipv4Addr::UNSPECIFIED, target.address, DEADLINE);
            let around = connect_through(from, target.address, DEADLINE);
            let (through, around) = tokio::join!(through, around);
            let answered = |outcome| outcome == Outcome::Answered;
            (target, Answers { through: answered(through), around: answered(around) })
        }
    });
    let answers: BTreeMap<Target, Answers> = join_all(asked).await.into_iter().collect();
    Looked { look: Look { change, answers }, api_servers }
}

/// Where the EndpointSlices of the API server lead.
pub fn endpoints<'a>(slices: impl IntoIterator<Item = &'a EndpointSlice>) -> BTreeSet<SocketAddrV4> {
    let of = |slice: &'a EndpointSlice| {
        let ports = slice.ports.iter().flatten().filter_map(|port| u16::try_from(port.port?).ok());
        let addresses = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
        let addresses: Vec<Ipv4Addr> = addresses.filter_map(|address| address.parse().ok()).collect();
        ports.flat_map(move |port| {
            addresses.clone().into_iter().map(move |address| SocketAddrV4::new(address, port))
        })
    };
    slices.into_iter().flat_map(of).collect()
}

async fn resolve(host: &str, port: u16) -> BTreeSet<SocketAddrV4> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return v4(SocketAddr::new(address, port)).into_iter().collect();
    }
    match tokio::time::timeout(RESOLUTION, tokio::net::lookup_host((host, port))).await {
        Ok(Ok(addresses)) => addresses.filter_map(v4).collect(),
        Ok(Err(_)) | Err(_) => BTreeSet::new(),
    }
}

fn v4(address: SocketAddr) -> Option<SocketAddrV4> {
    match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_look_asks_every_target_both_ways() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = v4(listener.local_addr().unwrap()).unwrap();
        let whereabouts = Whereabouts {
            api_server: Some(("localhost".to_owned(), address.port())),
            endpoints: [address].into(),
            ..Whereabouts::default()
        };
        let around = Around { source: Ipv4Addr::LOCALHOST, ports: None };
        let looked = look(7, whereabouts.clone(), around).await;
        let target = Target { lifeline: Lifeline::ApiServer, address };
        assert_eq!((looked.look.change, looked.api_servers), (7, [address].into()));
        assert_eq!(looked.look.answers[&target], Answers { through: true, around: true });
        // Bound to an address that the node does not have, nothing gets around.
        let around = Around { source: Ipv4Addr::new(192, 0, 2, 1), ports: None };
        let looked = look(7, whereabouts, around).await;
        assert_eq!(looked.look.answers[&target], Answers { through: true, around: false });
    }

    #[tokio::test]
    async fn while_no_resolver_answers_the_last_addresses_count() {
        let known = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);
        let whereabouts = Whereabouts {
            api_server: Some(("name.invalid".to_owned(), 9)),
            last_known: [known].into(),
            ..Whereabouts::default()
        };
        let around = Around { source: Ipv4Addr::UNSPECIFIED, ports: None };
        assert_eq!(look(0, whereabouts, around).await.api_servers, [known].into());
    }

    #[test]
    fn endpoints_are_addresses_with_their_ports() {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "addressType": "IPv4", "metadata": {}, "ports": [{"port": 6443}],
            "endpoints": [{"addresses": ["198.51.100.10"]}, {"addresses": ["198.51.100.11", "not an address"]}],
        }))
        .unwrap();
        let found = endpoints([&slice]);
        let expected = ["198.51.100.10:6443", "198.51.100.11:6443"].map(|text| text.parse().unwrap());
        assert_eq!(found, expected.into());
    }
}
