//! Asks a gateway's own health endpoint, over the VPC. Its word alone proves nothing; see [`crate::decide`].

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use egress_api::GATEWAY_HEALTH_PORT;
use egress_digitalocean::DropletId;
use serde::Deserialize;

use crate::observation::HealthSeen;

// In a VPC an answer takes a millisecond; a gateway that needs two seconds is not well.
const DEADLINE: Duration = Duration::from_secs(2);

// The body is a few hundred bytes; a gateway gone wrong must not fill our memory.
const LARGEST_BODY: usize = 64 * 1024;

/// Asks several gateways at once.
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

    /// What each of these gateways answers.
    pub async fn ask(&self, gateways: Vec<(DropletId, Ipv4Addr)>) -> BTreeMap<DropletId, HealthSeen> {
        let asked = gateways.into_iter().map(async |(id, address)| (id, self.ask_one(address).await));
        futures::future::join_all(asked).await.into_iter().collect()
    }

    async fn ask_one(&self, address: Ipv4Addr) -> HealthSeen {
        let url = format!("http://{address}:{GATEWAY_HEALTH_PORT}/healthz");
        let body = async {
            let mut answer = self.http.get(url).send().await?;
            let mut body = Vec::new();
            while let Some(chunk) = answer.chunk().await? {
                body.extend_from_slice(&chunk);
                if body.len() > LARGEST_BODY {
                    break;
                }
            }
            Ok::<_, reqwest::Error>(body)
        };
        match body.await {
            Ok(body) => read(&body),
            Err(error) if error.is_timeout() => HealthSeen::Silent("no answer within 2 s".to_owned()),
            Err(error) if error.is_connect() => HealthSeen::Silent("no connection".to_owned()),
            Err(_) => HealthSeen::Silent("the answer broke off".to_owned()),
        }
    }
}

fn read(body: &[u8]) -> HealthSeen {
    match serde_json::from_slice::<Report>(body) {
        Ok(report) if report.ready => {
            HealthSeen::Ready { version: report.user_data_version, public_address: report.public_address }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_yes_is_ready() {
        let ready =
            br#"{"ready": true, "userDataVersion": "abc", "publicAddress": "203.0.113.21", "more": 1}"#;
        assert!(matches!(read(ready), HealthSeen::Ready { version: Some(version), .. } if version == "abc"));
        let not = br#"{"ready": false, "errors": ["forwarding is off", "no iptables"]}"#;
        assert_eq!(read(not), HealthSeen::NotReady("forwarding is off; no iptables".into()));
        for other in [&b"<html>"[..], b"{}", b"", b"[]"] {
            assert!(matches!(read(other), HealthSeen::Silent(_)));
        }
    }
}
