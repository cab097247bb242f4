//! The simulated cloud: its program, what exists in it from the start, and a client for its API.

use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::{Doing, LabError, Result};
use crate::netns;
use crate::network::PROVIDER;
use crate::network::addresses::{CLOUD_API, CLUSTER_ID, HAND_MADE_GATEWAYS, METADATA, NODES, VPC, mac};
use crate::processes::{self, Launch};
use crate::progress::Progress;
use crate::state::{Lab, write_json};

/// What the lab calls the simulator's process.
pub const PROCESS: &str = "do-simulator";
const VPC_ID: &str = "c4a5c6e0-10b5-4f4a-9d61-3a2f6f0b7e01";
const REGION: &str = "nyc1";

/// What the controller's token may do; the same file is documented for users.
const SCOPES: &str = include_str!("../../../deploy/token-scopes.txt");

/// VPC, nodes and hand-made gateways, in the simulator's format.
pub fn fixtures() -> Value {
    let nodes = NODES.iter().map(|node| {
        json!({
            "id": node.droplet,
            "name": node.name,
            "vpc": VPC_ID,
            "tags": ["k8s", format!("k8s:{CLUSTER_ID}"), "k8s:worker"],
            "size": "s-2vcpu-4gb",
            "public_address": node.public, "private_address": node.vpc,
            "public_mac": mac(node.public), "private_mac": mac(node.vpc),
        })
    });
    let gateways = HAND_MADE_GATEWAYS.iter().map(|gateway| {
        json!({
            "id": gateway.droplet,
            "name": gateway.name,
            "vpc": VPC_ID,
            "public_address": gateway.public, "private_address": gateway.vpc,
            "public_mac": mac(gateway.public), "private_mac": mac(gateway.vpc),
        })
    });
    json!({
        "account": {"floating_ip_limit": 20},
        "vpcs": [{"id": VPC_ID, "name": "lab", "region": REGION, "ip_range": VPC, "default": true}],
        "droplets": nodes.chain(gateways).collect::<Vec<_>>(),
    })
}

/// Starts the simulator if it does not run; its Droplets are then as it remembers them.
pub fn start(lab: &Lab) -> Result<()> {
    let Some(program) = &lab.settings.simulator else {
        return Err(LabError::Usage("this lab has no simulator: start it with --simulator PROGRAM".into()));
    };
    if processes::running(&lab.dir, PROCESS)?.is_some() {
        return Ok(());
    }
    let file = |name: &str| lab.dir.join(name).display().to_string();
    write_json(&lab.dir.join("cloud-fixtures.json"), &fixtures())?;
    let this = std::env::current_exe().doing(|| "find this program".into())?;
    let machine =
        format!("{} --name {} --state-dir {} machine", this.display(), lab.name(), lab.dir.path().display());
    Launch::new(PROCESS, program)
        .args([
            "--listen",
            &SocketAddrV4::new(CLOUD_API, 80).to_string(),
            "--metadata-listen",
            &SocketAddrV4::new(METADATA, 80).to_string(),
            "--journal",
            &file("cloud-journal.jsonl"),
            "--state",
            &file("cloud-state.json"),
            "--fixtures",
            &file("cloud-fixtures.json"),
            "--machine-command",
            &machine,
            "--scopes",
            SCOPES,
        ])
        .env("DO_SIMULATOR_TOKEN", &lab.settings.token)
        .env("DO_SIMULATOR_OPERATOR_TOKEN", &lab.settings.operator_token)
        .in_namespace(&lab.namespace(PROVIDER))
        .start(lab)
        .map(drop)
}

/// Waits until the API answers.
pub fn wait_until_ready(lab: &Lab, progress: &Progress) -> Result<()> {
    let deadline = Duration::from_secs(20);
    let started = Instant::now();
    loop {
        let last = match request(lab, "GET", "/v2/account", None) {
            Ok(_) => return Ok(()),
            Err(error) => format!("{error}; see {}", lab.dir.log(PROCESS).display()),
        };
        if started.elapsed() > deadline {
            return Err(LabError::Deadline { what: "the cloud API answers".into(), deadline, last });
        }
        progress.waiting("the cloud API");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A request with the operator's token, made inside the provider's namespace; the body of the answer, which must be a success.
pub fn request(lab: &Lab, method: &str, path: &str, body: Option<&str>) -> Result<String> {
    let what = || format!("ask the cloud API for {method} {path}");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: api.digitalocean.com\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        lab.settings.operator_token,
        body.map_or(0, str::len)
    );
    let answer = netns::inside(&netns::path(&lab.namespace(PROVIDER)), || {
        let address = SocketAddrV4::new(CLOUD_API, 80).into();
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).doing(what)?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).doing(what)?;
        stream.write_all(head.as_bytes()).doing(what)?;
        stream.write_all(body.unwrap_or_default().as_bytes()).doing(what)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).doing(what)?;
        Ok(answer)
    })?;
    let (status, body) = parse_answer(&answer).ok_or_else(|| LabError::Program {
        command: format!("{method} {path}"),
        detail: "no HTTP answer".into(),
    })?;
    if (200..300).contains(&status) {
        Ok(body)
    } else {
        Err(LabError::Program {
            command: format!("{method} {path}"),
            detail: format!("{status}: {}", body.trim()),
        })
    }
}

/// Status and body of a whole HTTP/1.1 answer.
fn parse_answer(answer: &[u8]) -> Option<(u16, String)> {
    let end = answer.windows(4).position(|end| end == b"\r\n\r\n")?;
    let head = std::str::from_utf8(answer.get(..end)?).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = answer.get(end + 4..)?;
    let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if is_chunked { join_chunks(body)? } else { body.to_vec() };
    Some((status, String::from_utf8_lossy(&body).into_owned()))
}

fn join_chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|end| end == b"\r\n")?;
        let size = std::str::from_utf8(rest.get(..end)?).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(end + 2..end + 2 + size)?);
        rest = rest.get(end + 4 + size..)?;
    }
}

/// Id of the Droplet with that name or id.
pub fn find_droplet(lab: &Lab, name_or_id: &str) -> Result<u64> {
    if let Ok(id) = name_or_id.parse() {
        return Ok(id);
    }
    let answer = request(lab, "GET", "/v2/droplets?per_page=200", None)?;
    let answer: Value = serde_json::from_str(&answer)
        .map_err(|source| LabError::State { path: "/v2/droplets".into(), source })?;
    let droplets = answer["droplets"].as_array().cloned().unwrap_or_default();
    let ids: Vec<_> = droplets
        .iter()
        .filter(|droplet| droplet["name"] == name_or_id)
        .filter_map(|one| one["id"].as_u64())
        .collect();
    match ids[..] {
        [id] => Ok(id),
        [] => {
            let names: Vec<_> = droplets.iter().filter_map(|one| one["name"].as_str()).collect();
            Err(LabError::Usage(format!(
                "there is no Droplet {name_or_id:?}; there are: {}",
                names.join(", ")
            )))
        }
        _ => Err(LabError::Usage(format!("several Droplets are called {name_or_id:?}: use the id"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_answers_of_both_kinds() {
        assert_eq!(parse_answer(b"HTTP/1.1 204 No Content\r\nA: b\r\n\r\n"), Some((204, String::new())));
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        assert_eq!(parse_answer(chunked), Some((200, "abcde".into())));
        assert_eq!(parse_answer(b"HTTP/1.1 200"), None);
    }
}
