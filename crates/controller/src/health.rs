//! Asks a gateway's own health endpoint, over the VPC. Its word alone proves nothing; see [`crate::decide`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use egress_api::GATEWAY_HEALTH_PORT;
use egress_dashboard::{Busiest, Headroom};
use egress_digitalocean::DropletId;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde::Deserialize;

use crate::observation::HealthSeen;

// In a VPC an answer takes a millisecond; a gateway that needs two seconds is not well.
const DEADLINE: Duration = Duration::from_secs(2);

// The body is a few hundred bytes; a gateway gone wrong must not fill our memory.
const LARGEST_BODY: usize = 64 * 1024;

/// The gateways' own endpoints, as they can be reached from here.
pub trait Endpoints: Send + Sync {
    /// What each of these gateways answers.
    fn ask(&self, gateways: Vec<(DropletId, Ipv4Addr)>) -> BoxFuture<'_, BTreeMap<DropletId, HealthSeen>>;

    /// Names a gateway's peers by their private addresses; what it says when it does not take them.
    fn admit<'a>(&'a self, gateway: Ipv4Addr, peers: &'a [Ipv4Addr]) -> BoxFuture<'a, Result<(), String>>;
}

/// Asks several gateways at once, over the VPC.
#[derive(Clone, Debug)]
pub struct HealthClient {
    http: reqwest::Client,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    ready: bool,
    #[serde(default)]
    user_data_version: Option<String>,
    #[serde(default)]
    public_address: Option<Ipv4Addr>,
    #[serde(default)]
    peers: Option<BTreeSet<Ipv4Addr>>,
    #[serde(default)]
    awaits_address: bool,
    #[serde(default)]
    errors: Vec<String>,
}

impl HealthClient {
    /// A client that uses no proxy, follows no redirect and keeps no connection: each answer is about now.
    pub fn new() -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .timeout(DEADLINE)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .tls_certs_only([])
            .build()?;
        Ok(Self { http })
    }

    async fn body(&self, address: Ipv4Addr) -> Result<Vec<u8>, reqwest::Error> {
        let url = format!("http://{address}:{GATEWAY_HEALTH_PORT}/healthz");
        let mut answer = self.http.get(url).send().await?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            body.extend_from_slice(&chunk);
            if body.len() > LARGEST_BODY {
                break;
            }
        }
        Ok(body)
    }

    /// How much more a gateway can carry, if it says so.
    pub async fn headroom(&self, address: Ipv4Addr) -> Option<Headroom> {
        headroom(&self.body(address).await.ok()?)
    }

    async fn ask_one(&self, address: Ipv4Addr) -> HealthSeen {
        match self.body(address).await {
            Ok(body) => read(&body),
            Err(error) if error.is_timeout() => HealthSeen::Silent("no answer within 2 s".to_owned()),
            Err(error) if error.is_connect() => HealthSeen::Silent("no connection".to_owned()),
            Err(_) => HealthSeen::Silent("the answer broke off".to_owned()),
        }
    }
}

impl Endpoints for HealthClient {
    fn ask(&self, gateways: Vec<(DropletId, Ipv4Addr)>) -> BoxFuture<'_, BTreeMap<DropletId, HealthSeen>> {
        let asked = gateways.into_iter().map(async |(id, address)| (id, self.ask_one(address).await));
        futures::future::join_all(asked).map(|answers| answers.into_iter().collect()).boxed()
    }

    fn admit<'a>(&'a self, gateway: Ipv4Addr, peers: &'a [Ipv4Addr]) -> BoxFuture<'a, Result<(), String>> {
        async move {
            let url = format!("http://{gateway}:{GATEWAY_HEALTH_PORT}/peers");
            let body = serde_json::json!({ "peers": peers }).to_string();
            let answer = self.http.put(url).body(body).send().await;
            match answer.and_then(reqwest::Response::error_for_status) {
                Ok(_) => Ok(()),
                Err(error) => Err(error.without_url().to_string()),
            }
        }
        .boxed()
    }
}

fn read(body: &[u8]) -> HealthSeen {
    match serde_json::from_slice::<Report>(body) {
        Ok(report) if report.ready => {
            let Report { user_data_version: version, public_address, peers, .. } = report;
            HealthSeen::Ready { version, public_address, peers }
        }
        Ok(report) if report.awaits_address => HealthSeen::Awaiting { version: report.user_data_version },
        Ok(report) if report.errors.is_empty() => {
            HealthSeen::NotReady("it is not ready and does not say why".to_owned())
        }
        Ok(report) => {
            let words = report.errors.join("; ");
            HealthSeen::NotReady(words.chars().take(300).collect())
        }
        Err(_) => HealthSeen::Silent("the answer is not that of a gateway".to_owned()),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Load {
    conntrack: Table,
    #[serde(default)]
    destinations: Vec<Destination>,
}

#[derive(Deserialize)]
struct Table {
    count: u64,
    max: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Destination {
    protocol: String,
    address: String,
    port: u16,
    connections: u64,
    ports_used: f64,
}

fn headroom(body: &[u8]) -> Option<Headroom> {
    let Load { conntrack: Table { count, max }, destinations } = serde_json::from_slice(body).ok()?;
    let busiest = destinations.into_iter().max_by(|a, b| a.ports_used.total_cmp(&b.ports_used));
    let busiest = busiest.map(|one| Busiest {
        destination: format!("{} {}:{}", one.protocol, one.address, one.port),
        connections: one.connections,
        share: one.ports_used,
    });
    Some(Headroom { connections: count, most_connections: max, busiest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headroom_is_what_the_gateway_says_of_its_table_and_of_its_busiest_destination() {
        let body = br#"{"ready": true, "conntrack": {"count": 120, "max": 131072}, "destinations": [
            {"protocol": "udp", "address": "203.0.113.8", "port": 53, "connections": 20, "portsUsed": 0.0003},
            {"protocol": "tcp", "address": "203.0.113.7", "port": 443, "connections": 100, "portsUsed": 0.0016}]}"#;
        let said = headroom(body).unwrap();
        assert_eq!((said.connections, said.most_connections), (120, 131_072));
        assert_eq!(said.busiest.unwrap().destination, "tcp 203.0.113.7:443");
        let starting = br#"{"ready": false, "errors": ["starting"]}"#;
        assert_eq!(headroom(starting), None);
        assert_eq!(headroom(b"<html>"), None);
        let idle = br#"{"conntrack": {"count": 0, "max": 0}}"#;
        assert_eq!(headroom(idle), Some(Headroom::default()));
    }

    #[test]
    fn only_a_plain_yes_is_ready() {
        let ready =
            br#"{"ready": true, "userDataVersion": "abc", "publicAddress": "203.0.113.21", "more": 1}"#;
        assert!(
            matches!(read(ready), HealthSeen::Ready { version: Some(version), peers: None, .. } if version == "abc")
        );
        let telling = br#"{"ready": true, "peers": ["203.0.113.22"]}"#;
        assert!(matches!(read(telling), HealthSeen::Ready { peers: Some(peers), .. } if peers.len() == 1));
        let awaiting =
            br#"{"ready": false, "awaitsAddress": true, "userDataVersion": "abc", "errors": ["no address"]}"#;
        assert_eq!(read(awaiting), HealthSeen::Awaiting { version: Some("abc".into()) });
        let not = br#"{"ready": false, "errors": ["forwarding is off", "no iptables"]}"#;
        assert_eq!(read(not), HealthSeen::NotReady("forwarding is off; no iptables".into()));
        for other in [&b"<html>"[..], b"{}", b"", b"[]"] {
            assert!(matches!(read(other), HealthSeen::Silent(_)));
        }
    }

    #[tokio::test]
    async fn the_list_of_peers_is_sent_whole_and_a_refusal_is_told() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        egress_runtime::kubernetes::install_crypto_provider();
        // An address of its own, since the port is that of every gateway.
        let gateway = Ipv4Addr::new(127, 91, 80, 1);
        let listener = tokio::net::TcpListener::bind((gateway, GATEWAY_HEALTH_PORT)).await.unwrap();
        let gateways = tokio::spawn(async move {
            let mut asked = Vec::new();
            for status in ["200 OK", "403 Forbidden"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"}") {
                    assert!(stream.read_buf(&mut request).await.unwrap() > 0);
                }
                let answer =
                    format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}");
                stream.write_all(answer.as_bytes()).await.unwrap();
                asked.push(String::from_utf8(request).unwrap());
            }
            asked
        });
        let client = HealthClient::new().unwrap();
        let peers = [Ipv4Addr::new(10, 116, 0, 21), Ipv4Addr::new(10, 116, 0, 22)];
        assert_eq!(client.admit(gateway, &peers).await, Ok(()));
        assert!(client.admit(gateway, &[]).await.unwrap_err().contains("403"));
        let asked = gateways.await.unwrap();
        assert!(asked[0].starts_with("PUT /peers HTTP/1.1\r\n"), "{}", asked[0]);
        assert!(asked[0].ends_with("\r\n\r\n{\"peers\":[\"10.116.0.21\",\"10.116.0.22\"]}"), "{}", asked[0]);
        assert!(asked[1].ends_with("{\"peers\":[]}"), "{}", asked[1]);
    }
}
