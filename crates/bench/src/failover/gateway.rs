//! A gateway: the packet rules and kernel parameters of a real one, taken from the script that sets a real one up.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::namespace::Namespace;
use super::world::{GatewayAt, PROVIDER, VPC};

/// The script of the gateways' cloud-init.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../cloud-init/files/egress-gateway-apply");

/// Loads it as a module and prints what it would apply: the rules are whatever it says, today and when it changes.
const ASK: &str = r#"
import importlib.machinery, importlib.util, json, sys
loader = importlib.machinery.SourceFileLoader("gateway", sys.argv[1])
gateway = importlib.util.module_from_spec(importlib.util.spec_from_loader("gateway", loader))
sys.dont_write_bytecode = True
loader.exec_module(gateway)
settings, facts = json.loads(sys.argv[2]), json.loads(sys.argv[3])
# What a running gateway was told by the controller.
gateway.admitted_peers = lambda: [sys.argv[4]]
# Those of the connection table are the whole machine's.
parameters = [[name, str(value)] for name, value in gateway.sysctls(facts) if "conntrack" not in name]
print(json.dumps({"rules": gateway.rules(settings, facts), "last_line": gateway.last_line(facts),
    "parameters": parameters}))
"#;

/// What is applied to one gateway.
#[derive(Clone, Debug)]
struct Applied {
    rules: String,
    last_line: String,
    parameters: Vec<(String, String)>,
}

/// Makes the machine a gateway that admits `peer` to its probe port on the public side.
///
/// The namespace is new or keeps what it had; applied twice, everything is the same.
pub fn set_up(machine: &Namespace, at: &GatewayAt, peer: Ipv4Addr) -> anyhow::Result<()> {
    let applied = applied(at, peer)?;
    machine.nft(&applied.last_line)?;
    machine.run("iptables-restore", &["--wait", "10"], &applied.rules)?;
    for (name, value) in &applied.parameters {
        machine.sysctl(name, value)?;
    }
    machine.sysctl("net.ipv4.ip_forward", "1")
}

/// The addresses are the same in every world, so the script is asked once for each.
fn applied(at: &GatewayAt, peer: Ipv4Addr) -> anyhow::Result<Applied> {
    static ASKED: [OnceLock<Applied>; 2] = [OnceLock::new(), OnceLock::new()];
    let asked = &ASKED[at.slot];
    if asked.get().is_none() {
        // Two worlds that ask at once get the same answer.
        let _first = asked.set(ask(at, peer)?);
    }
    asked.get().cloned().context("asked")
}

fn ask(at: &GatewayAt, peer: Ipv4Addr) -> anyhow::Result<Applied> {
    let settings = json!({"vpc_range": VPC, "source_ranges": VPC});
    let facts = json!({
        "public": {"interface": "eth0", "address": at.public.to_string(), "gateway": PROVIDER.to_string()},
        "private": {"interface": "eth1", "address": at.private.to_string(), "gateway": null},
        "anchor": null,
    });
    let output = Command::new("python3")
        .args(["-c", ASK, SCRIPT, &settings.to_string(), &facts.to_string(), &peer.to_string()])
        .output()
        .context("python3")?;
    ensure!(output.status.success(), "{SCRIPT}: {}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout)?;
    let text = |key: &str| said[key].as_str().map(str::to_owned).with_context(|| key.to_owned());
    let parameters = said["parameters"].as_array().context("parameters")?;
    let pair = |one: &Value| Some((one[0].as_str()?.to_owned(), one[1].as_str()?.to_owned()));
    Ok(Applied {
        rules: text("rules")?,
        last_line: text("last_line")?,
        parameters: parameters.iter().filter_map(pair).collect(),
    })
}
