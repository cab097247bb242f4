//! The metadata service; loopback lets the test be any Droplet.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::simulator::{Simulator, client, wish};

/// Status, body and `location` of a request from `source`.
async fn ask(simulator: &Simulator, source: &str, path: &str) -> (u16, String, Option<String>) {
    let client = client()
        .local_address(source.parse::<IpAddr>().unwrap())
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let address = format!("http://{}/metadata{path}", simulator.running.metadata.unwrap());
    let response = client.get(address).send().await.unwrap();
    let location = response.headers().get("location").map(|value| value.to_str().unwrap().to_owned());
    (response.status().as_u16(), response.text().await.unwrap(), location)
}

#[tokio::test]
async fn a_droplet_is_known_by_each_of_its_addresses() {
    let simulator = Simulator::driven().await;
    let id = simulator.droplet("gw-0").await;
    for source in ["127.1.0.100", "127.2.0.100", "127.3.0.100"] {
        assert_eq!(ask(&simulator, source, "/v1/id").await.1, id.to_string(), "{source}");
    }
    assert_eq!(ask(&simulator, "127.2.0.2", "/v1/hostname").await.1, "pool-a-1");
    assert_eq!(ask(&simulator, "127.0.0.1", "/v1/id").await.0, 404);
}

#[tokio::test]
async fn it_answers_before_the_api_shows_the_networks() {
    let simulator = Simulator::driven().await;
    simulator.call("POST", "/v2/droplets", &wish("gw-0")).await;
    assert_eq!(ask(&simulator, "127.2.0.100", "/v1/user-data").await.1, "#cloud-config\n");
}

#[tokio::test]
async fn the_tree_reads_as_documented() {
    let simulator = Simulator::driven().await;
    simulator.droplet("gw-0").await;
    let cases = [
        ("/v1/hostname", "gw-0"),
        ("/v1/region", "nyc1"),
        ("/v1/public-keys", "ssh-ed25519 AAAA ops"),
        ("/v1/tags/", "egress-gateway\negress-slot:0"),
        ("/v1/dns/nameservers", "67.207.67.2\n67.207.67.3"),
        ("/v1/interfaces/", "public/\nprivate/"),
        ("/v1/interfaces/public/", "0/"),
        ("/v1/interfaces/public/0/", "mac\ntype\nipv4/\nanchor_ipv4/"),
        ("/v1/interfaces/public/0/mac", "02:01:00:30:49:4e"),
        ("/v1/interfaces/public/0/ipv4/address", "127.1.0.100"),
        ("/v1/interfaces/public/0/ipv4/gateway", "127.1.0.1"),
        ("/v1/interfaces/public/0/anchor_ipv4/address", "127.3.0.100"),
        ("/v1/interfaces/public/0/anchor_ipv4/gateway", "127.3.0.1"),
        ("/v1/interfaces/private/0/ipv4/netmask", "255.255.240.0"),
        ("/v1/interfaces/private/0/type", "private"),
        ("/v1/reserved_ip/ipv4/active", "false"),
    ];
    for (path, expected) in cases {
        let (status, text, _) = ask(&simulator, "127.2.0.100", path).await;
        assert_eq!((status, text.as_str()), (200, expected), "{path}");
    }
    for (path, location) in [
        ("/v1", "/metadata/v1/"),
        ("/v1/interfaces", "/metadata/v1/interfaces/"),
        ("/v1/tags", "/metadata/v1/tags/"),
    ] {
        let (status, _, to) = ask(&simulator, "127.2.0.100", path).await;
        assert_eq!((status, to.as_deref()), (301, Some(location)), "{path}");
    }
    for path in ["/v1/nothing", "/v1/id/", "/v2/id", "/v1/interfaces/public/1/mac"] {
        assert_eq!(ask(&simulator, "127.2.0.100", path).await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn the_document_follows_the_reserved_ip() {
    let simulator = Simulator::driven().await;
    let id = simulator.droplet("gw-0").await;
    let document = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    let before = document(ask(&simulator, "127.2.0.100", "/v1.json").await.1);
    assert_eq!(before["droplet_id"], id);
    assert_eq!(
        before["interfaces"]["public"][0]["anchor_ipv4"],
        json!({"ip_address": "127.3.0.100", "netmask": "255.255.0.0", "gateway": "127.3.0.1"})
    );
    assert_eq!(before["reserved_ip"], json!({"ipv4": {"active": false}}));

    let (status, body) = simulator.call("POST", "/v2/reserved_ips", &json!({"droplet_id": id})).await;
    assert_eq!(status, 202, "{body}");
    assert_eq!(
        ask(&simulator, "127.2.0.100", "/v1/reserved_ip/ipv4/active").await.1,
        "false",
        "still moving"
    );
    simulator.advance(1_000).await;
    assert_eq!(ask(&simulator, "127.2.0.100", "/v1/reserved_ip/ipv4/active").await.1, "true");
    let after = document(ask(&simulator, "127.2.0.100", "/v1.json").await.1);
    assert_eq!(after["reserved_ip"]["ipv4"]["ip_address"], body["reserved_ip"]["ip"]);
}
