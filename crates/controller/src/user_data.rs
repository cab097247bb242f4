//! The user data of a gateway Droplet: the cloud-config template of `cloud-init/` with its programs put in.
//!
//! Pure: the same input gives the same text and the same version. The text holds no secret (I10); it is ASCII and
//! below the 64 KiB that DigitalOcean takes, or rendering fails. The programs are packed, because as they are they would
//! nearly fill it. The contract with the template is in `cloud-init/README.md`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddrV4;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::{Compression, GzBuilder};
use ipnet::Ipv4Net;
use sha2::{Digest, Sha256};

/// Largest user data of a Droplet in bytes (DigitalOcean, "How to provide user data").
pub const MAX_BYTES: usize = 64 * 1024;

/// Shortest prefix a source range may have: 10.0.0.0/8 is the largest range a VPC or cluster can be cut from.
const MIN_PREFIX: u8 = 8;

const TEMPLATE: &str = include_str!("../../../cloud-init/gateway.yaml");

/// No account but those of the system, in the words of cloud-init, which wants one to be named.
const NOBODY: &str = "users: [{name: root, lock_passwd: true}]";
/// Whoever has a key of the Droplet, in the same words: `user` is who gets them.
const KEYHOLDER: &str = "user: {name: gateway, gecos: Egress gateway, groups: [], lock_passwd: true, shell: /bin/bash, \
                         sudo: [\"ALL=(ALL) NOPASSWD:ALL\"]}";

/// The files that the template names in `{{file:NAME}}` and `{{packed:NAME}}`.
const FILES: [(&str, &str); 8] = [
    ("egress-gateway-apply", include_str!("../../../cloud-init/files/egress-gateway-apply")),
    ("egress-gateway-health", include_str!("../../../cloud-init/files/egress-gateway-health")),
    (
        "egress-gateway-follow.service",
        include_str!("../../../cloud-init/files/egress-gateway-follow.service"),
    ),
    ("egress-gateway-guard.service", include_str!("../../../cloud-init/files/egress-gateway-guard.service")),
    ("egress-gateway.service", include_str!("../../../cloud-init/files/egress-gateway.service")),
    (
        "egress-gateway-health.service",
        include_str!("../../../cloud-init/files/egress-gateway-health.service"),
    ),
    ("apt.conf", include_str!("../../../cloud-init/files/apt.conf")),
    ("apt-daily-upgrade.conf", include_str!("../../../cloud-init/files/apt-daily-upgrade.conf")),
];

/// What the user data of one `EgressGateway`'s Droplets depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserDataInput {
    /// Range of the VPC that the gateway and the nodes are in.
    pub vpc_range: Ipv4Net,
    /// Other ranges whose packets arrive with their own source: the pod range of a VPC-native cluster.
    /// Order and repetition do not matter.
    pub pod_ranges: Vec<Ipv4Net>,
    /// Whether the Droplets get SSH keys. Without any there is no SSH server on them.
    pub ssh: bool,
    /// With which address it leaves.
    pub leaves_with: LeavesWith,
}

/// The address with which a gateway leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeavesWith {
    /// The Droplet's own.
    Own,
    /// A reserved one, or it does not leave at all.
    Reserved,
    /// The same, and one gateway has it at a time. Probes to these health targets go through the others as well, with their own addresses.
    Floating {
        /// Each has a port of its own, by its place among them ([`egress_api::GATEWAY_RELAY_PORT`]).
        targets: BTreeSet<SocketAddrV4>,
    },
}

impl LeavesWith {
    fn word(&self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Reserved => "reserved",
            Self::Floating { .. } => "floating",
        }
    }

    fn relayed(&self) -> String {
        match self {
            Self::Own | Self::Reserved => String::new(),
            Self::Floating { targets } => {
                targets.iter().map(SocketAddrV4::to_string).collect::<Vec<_>>().join(",")
            }
        }
    }
}

impl UserDataInput {
    /// The ranges that a gateway serves, each once and none that another holds.
    pub fn sources(&self) -> Vec<Ipv4Net> {
        let vpc = self.vpc_range.trunc();
        let mut pods: Vec<Ipv4Net> =
            self.pod_ranges.iter().map(Ipv4Net::trunc).filter(|pods| !vpc.contains(pods)).collect();
        pods.sort_unstable();
        pods.dedup();
        std::iter::once(vpc).chain(pods).collect()
    }
}

/// Rendered user data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserData {
    /// What goes into the `user_data` field of a Droplet create.
    pub text: String,
    /// First 12 hex digits of a SHA-256 over template, files and input; the gateway reports it as
    /// `userDataVersion`. It changes exactly when a gateway must be replaced to get the new text.
    pub version: String,
}

/// Why user data can't be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserDataError {
    /// A range so wide would make the gateway translate for sources that are not the cluster's.
    #[error("source range {0} is wider than /{MIN_PREFIX}")]
    RangeTooWide(Ipv4Net),
    /// The template names a file or value that is not known.
    #[error("the user data template has an unknown placeholder: {0}")]
    UnknownPlaceholder(String),
    /// Some images' cloud-init and DigitalOcean's API disagree about anything else.
    #[error("the user data is not ASCII")]
    NotAscii,
    /// The cloud would refuse it.
    #[error("the user data has {0} bytes, more than {MAX_BYTES}")]
    TooLarge(usize),
}

/// Puts the input and the programs into the template.
pub fn render(input: &UserDataInput) -> Result<UserData, UserDataError> {
    let sources = input.sources();
    if let Some(wide) = sources.iter().find(|range| range.prefix_len() < MIN_PREFIX) {
        return Err(UserDataError::RangeTooWide(*wide));
    }
    let sources = sources.iter().map(Ipv4Net::to_string).collect::<Vec<_>>().join(",");
    let vpc_range = input.vpc_range.trunc().to_string();
    let (ssh, accounts) = if input.ssh { ("true", KEYHOLDER) } else { ("false", NOBODY) };
    let (egress_address, relayed) = (input.leaves_with.word(), input.leaves_with.relayed());
    let version = version(&[&vpc_range, &sources, ssh, egress_address, &relayed]);
    let values = [
        ("version", version.as_str()),
        ("vpc_range", &vpc_range),
        ("source_ranges", &sources),
        ("ssh", ssh),
        ("accounts", accounts),
        ("egress_address", egress_address),
        ("relayed", &relayed),
    ];

    let mut text = String::with_capacity(MAX_BYTES);
    for line in TEMPLATE.lines() {
        if let Some((indent, name)) = file_of(line) {
            push_indented(&mut text, indent, content_of(name, line)?);
        } else if let Some((before, name)) = packed_in(line) {
            text.push_str(before);
            text.push_str(&packed(content_of(name, line)?));
            text.push('\n');
        } else {
            text.push_str(&fill(line, &values)?);
            text.push('\n');
        }
    }
    if !text.is_ascii() {
        return Err(UserDataError::NotAscii);
    }
    if text.len() > MAX_BYTES {
        return Err(UserDataError::TooLarge(text.len()));
    }
    Ok(UserData { text, version })
}

/// Indentation and name of a line that is nothing but `{{file:NAME}}`.
fn file_of(line: &str) -> Option<(&str, &str)> {
    let trimmed = line.trim_start();
    let name = trimmed.strip_prefix("{{file:")?.strip_suffix("}}")?;
    Some((&line[..line.len() - trimmed.len()], name))
}

/// What stands before, and the name, of a line that ends with `{{packed:NAME}}`.
fn packed_in(line: &str) -> Option<(&str, &str)> {
    let (before, rest) = line.split_once("{{packed:")?;
    Some((before, rest.strip_suffix("}}")?))
}

fn content_of(name: &str, line: &str) -> Result<&'static str, UserDataError> {
    FILES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, content)| *content)
        .ok_or_else(|| UserDataError::UnknownPlaceholder(line.trim().to_owned()))
}

/// What cloud-init calls `gz+b64`. Without a time in it, so that the same content is the same text.
fn packed(content: &str) -> String {
    let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    // Writing to a Vec can't fail.
    let _ = gzip.write_all(content.as_bytes());
    BASE64.encode(gzip.finish().unwrap_or_default())
}

/// A YAML block scalar keeps a text as it is when every line that is not empty is indented alike.
fn push_indented(text: &mut String, indent: &str, content: &str) {
    for line in content.lines() {
        if !line.is_empty() {
            text.push_str(indent);
            text.push_str(line);
        }
        text.push('\n');
    }
}

fn fill(line: &str, values: &[(&str, &str)]) -> Result<String, UserDataError> {
    let mut line = line.to_owned();
    for (name, value) in values {
        line = line.replace(&format!("{{{{{name}}}}}"), value);
    }
    if line.contains("{{") {
        return Err(UserDataError::UnknownPlaceholder(line.trim().to_owned()));
    }
    Ok(line)
}

fn version(input: &[&str]) -> String {
    let mut hash = Sha256::new();
    let files = FILES.iter().map(|(_, content)| *content);
    for part in std::iter::once(TEMPLATE).chain(files).chain(input.iter().copied()) {
        // The length keeps two different lists of parts from hashing alike.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize()[..6].iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String can't fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests;
