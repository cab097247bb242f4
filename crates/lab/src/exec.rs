//! Running a command inside a part of the lab.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::cluster;
use crate::error::{Doing, LabError, Result};
use crate::network::addresses::{HAND_MADE_GATEWAYS, NODES};
use crate::network::{CLOUD, INTERNET, PROVIDER};
use crate::state::Lab;
use crate::{cloud, netns, processes};

/// A part of the lab in which a command can be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The network of a part that has nothing else of its own: internet, provider, cloud, a hand-made gateway.
    Network(String),
    /// Network and mounts of a node.
    Node(String),
    /// The network of a pod, with the mounts of its node: namespace and name.
    Pod(String, String),
    /// A Droplet's machine, by name or id.
    Droplet(String),
}

impl Place {
    /// Reads `internet`, `node-1`, `gateway-a`, `pod:<namespace>/<name>`, or a Droplet's name or id.
    pub fn parse(text: &str) -> Result<Self> {
        if let Some(pod) = text.strip_prefix("pod:") {
            let (namespace, name) = pod.split_once('/').unwrap_or(("default", pod));
            return Ok(Self::Pod(namespace.to_owned(), name.to_owned()));
        }
        if text.is_empty() {
            return Err(LabError::Usage(
                "exec where? internet, node-1, gateway-a, pod:NAMESPACE/NAME or a Droplet".into(),
            ));
        }
        let is_network = [INTERNET, PROVIDER, CLOUD].contains(&text)
            || HAND_MADE_GATEWAYS.iter().any(|gateway| gateway.name == text);
        if is_network {
            return Ok(Self::Network(text.to_owned()));
        }
        if NODES.iter().any(|node| node.name == text) {
            return Ok(Self::Node(text.to_owned()));
        }
        Ok(Self::Droplet(text.to_owned()))
    }
}

/// Becomes the command, inside. Returns only when that fails.
pub fn exec(lab: &Lab, place: &str, command: &[String]) -> Result<()> {
    let mut inside = Command::new("nsenter");
    match Place::parse(place)? {
        Place::Network(part) => {
            inside.arg(format!("--net={}", netns::path(&lab.namespace(&part)).display()));
        }
        Place::Node(name) => {
            let anchor = processes::running(&lab.dir, &name)?
                .ok_or_else(|| LabError::Usage(format!("{name} is not running")))?;
            inside.args(["--target", &anchor.pid.to_string(), "--net", "--mount"]);
        }
        Place::Pod(namespace, name) => {
            let (node, pid) = cluster::pod_process(lab, &namespace, &name)?;
            let anchor = processes::running(&lab.dir, node)?
                .ok_or_else(|| LabError::Usage(format!("{node} is not running")))?;
            // The pod's network with the node's files: the machine's programs, the lab's resolvers.
            inside.args(["--target", &anchor.pid.to_string(), "--mount"]);
            inside.arg(format!("--net={}", netns::of_process(pid).display()));
        }
        Place::Droplet(name) => {
            let id = cloud::find_droplet(lab, &name)?;
            let running = lab.machines().running(id);
            let running = running.ok_or_else(|| LabError::Usage(format!("Droplet {name} is not running")))?;
            inside.args(["--target", &running.leader.pid.to_string(), "--all"]);
        }
    }
    inside.arg("--").args(command);
    Err(inside.exec()).doing(|| "run nsenter".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_known_by_name() {
        let place = |text| Place::parse(text).unwrap();
        assert_eq!(place("internet"), Place::Network("internet".into()));
        assert_eq!(place("gateway-a"), Place::Network("gateway-a".into()));
        assert_eq!(place("node-1"), Place::Node("node-1".into()));
        assert_eq!(place("pod:a/b"), Place::Pod("a".into(), "b".into()));
        assert_eq!(place("pod:b"), Place::Pod("default".into(), "b".into()));
        assert_eq!(place("400000001"), Place::Droplet("400000001".into()));
        assert!(Place::parse("").is_err());
    }
}
