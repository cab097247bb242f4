//! Where the API server is, as its own objects, its names and this agent's client have it.
//!
//! The names of the API server are found by [`crate::surroundings`]; both together are what must never go through a gateway.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Instant;

use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::surroundings::{Remembered, Surroundings};

/// Where HTTPS is, and the API server of DOKS.
const HTTPS: u16 = 443;

/// The endpoints of Service `kubernetes`, now and lately, and the address of the agent's own client.
#[derive(Clone, Debug, Default)]
pub struct ApiServer {
    endpoints: Remembered,
    known: BTreeSet<Ipv4Addr>,
    client: Option<Ipv4Addr>,
    endpoint_port: Option<u16>,
    name_port: Option<u16>,
}

impl ApiServer {
    /// Knows only where the client connects to, where that is an address. `name_port` is the port that was set with the name.
    pub fn new(client: Option<&(String, u16)>, name_port: Option<u16>) -> Self {
        let client = client.and_then(|(host, _)| host.parse().ok());
        Self { client, known: client.into_iter().collect(), name_port, ..Self::default() }
    }

    /// Takes the EndpointSlices of Service `kubernetes`.
    pub fn see<'a>(&mut self, slices: impl IntoIterator<Item = &'a EndpointSlice>, now: Instant) {
        let mut addresses = BTreeSet::new();
        for slice in slices {
            let listed = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
            addresses.extend(listed.filter_map(|text| text.parse::<Ipv4Addr>().ok()));
            let ports = slice.ports.iter().flatten().filter_map(|port| u16::try_from(port.port?).ok());
            self.endpoint_port = ports.min().or(self.endpoint_port);
        }
        self.endpoints.answer(&addresses, now);
        self.known = self.endpoints.addresses();
        self.known.extend(self.client);
    }

    /// Addresses of the endpoints and the client's own.
    pub fn addresses(&self) -> impl Iterator<Item = &Ipv4Addr> {
        self.known.iter()
    }

    /// Where its names lead: on the port that was set, else on that of the endpoints.
    pub fn named(&self, surroundings: &Surroundings) -> BTreeSet<SocketAddrV4> {
        let port = self.name_port.or(self.endpoint_port).unwrap_or(HTTPS);
        let addresses = surroundings.api_server.values().flatten();
        addresses.map(|address| SocketAddrV4::new(*address, port)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn slice(addresses: &[&str]) -> EndpointSlice {
        let endpoints: Vec<_> = addresses.iter().map(|address| json!({"addresses": [address]})).collect();
        serde_json::from_value(json!({
            "addressType": "IPv4", "metadata": {}, "endpoints": endpoints, "ports": [{"port": 6443}],
        }))
        .unwrap()
    }

    #[test]
    fn names_lead_to_the_port_that_was_set_else_to_that_of_the_endpoints() {
        let address = Ipv4Addr::new(198, 51, 100, 11);
        let surroundings = Surroundings {
            api_server: BTreeMap::from([("id.k8s.ondigitalocean.com".to_owned(), [address].into())]),
            ..Surroundings::default()
        };
        let at = |port| BTreeSet::from([SocketAddrV4::new(address, port)]);
        let mut api_server = ApiServer::new(Some(&("10.245.0.1".to_owned(), 443)), None);
        assert_eq!(api_server.named(&surroundings), at(443));
        api_server.see([&slice(&["198.51.100.10"])], Instant::now());
        assert_eq!(api_server.named(&surroundings), at(6443));
        assert_eq!(ApiServer::new(None, Some(16443)).named(&surroundings), at(16443));
    }

    #[test]
    fn endpoints_that_went_away_and_the_clients_own_address_stay_known() {
        let mut api_server = ApiServer::new(Some(&("203.0.113.9".to_owned(), 443)), None);
        let now = Instant::now();
        api_server.see([&slice(&["198.51.100.10"])], now);
        api_server.see([], now + Duration::from_secs(5));
        let known = [Ipv4Addr::new(198, 51, 100, 10), Ipv4Addr::new(203, 0, 113, 9)];
        assert_eq!(api_server.addresses().copied().collect::<Vec<_>>(), known);
    }
}
