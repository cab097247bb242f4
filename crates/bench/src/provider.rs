//! What the provider gives a node of a managed cluster: its metadata and its resolvers.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use anyhow::Context;
use egress_lab::internet::resolver;

use crate::failover::Namespace;

/// The node's `/etc/resolv.conf`.
pub const RESOLV_CONF: &str = "nameserver 67.207.67.2\nnameserver 67.207.67.3\n";
/// The resolvers in it.
const RESOLVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(67, 207, 67, 2), Ipv4Addr::new(67, 207, 67, 3)];
/// Where every Droplet asks for its metadata.
const METADATA: (Ipv4Addr, u16) = (Ipv4Addr::new(169, 254, 169, 254), 80);
/// Id of the cluster.
const CLUSTER: &str = "b2f1d0c4-7a3e-4b52-8c56-0d1e2f3a4b5c";
/// Addresses of the names that an agent protects without being told: nobody is there.
const NAMES: &str = "198.18.9.1 api.digitalocean.com\n198.18.9.2 api.digitalocean.com\n\
    198.18.9.3 registry.digitalocean.com\n198.18.9.4 registry.digitalocean.com\n";

/// Serves both in `outside`, where the metadata's address is, until the process ends. `api_server` is what the cluster's name means.
pub fn start(outside: &Namespace, api_server: Ipv4Addr) -> anyhow::Result<()> {
    for address in RESOLVERS {
        outside.ip(&format!("addr add {address}/32 dev lo"))?;
    }
    // A socket stays in the namespace that it was made in.
    let listener = outside.inside(|| TcpListener::bind(METADATA))?.context("no metadata service")?;
    std::thread::Builder::new().name("metadata".to_owned()).spawn(move || serve_metadata(&listener))?;
    for address in RESOLVERS {
        let socket = outside.inside(|| UdpSocket::bind((address, 53)))?.context("no resolver")?;
        let names = format!("{NAMES}{api_server} {CLUSTER}.k8s.ondigitalocean.com\n");
        std::thread::Builder::new().name("resolver".to_owned()).spawn(move || resolve(&socket, &names))?;
    }
    Ok(())
}

fn resolve(socket: &UdpSocket, names: &str) {
    let mut query = [0; 1500];
    loop {
        let Ok((length, caller)) = socket.recv_from(&mut query) else { continue };
        if let Some(answer) = query.get(..length).and_then(|query| resolver::answer(query, names)) {
            // Who asked and has gone needs no answer.
            let _gone = socket.send_to(&answer, caller);
        }
    }
}

fn serve_metadata(listener: &TcpListener) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let mut request = [0; 1024];
        let Ok(length) = stream.read(&mut request) else { continue };
        let path = String::from_utf8_lossy(&request[..length]).split(' ').nth(1).map(str::to_owned);
        let body = leaf(&path.unwrap_or_default());
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        let _gone = stream.write_all(format!("{head}{body}").as_bytes());
    }
}

fn leaf(path: &str) -> String {
    match path {
        "/metadata/v1/tags/" => format!("k8s\nk8s:{CLUSTER}\nk8s:worker"),
        "/metadata/v1/dns/nameservers" => RESOLVERS.map(|address| address.to_string()).join("\n"),
        _ => String::new(),
    }
}
