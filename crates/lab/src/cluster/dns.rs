//! Cluster DNS: CoreDNS as a Deployment, as on DOKS.

use std::time::{Duration, Instant};

use super::kubectl;
use crate::error::{LabError, Result};
use crate::progress::Progress;
use crate::state::Lab;

const MANIFEST: &str = include_str!("dns.yaml");

/// Applies the manifest.
pub fn install_dns(lab: &Lab) -> Result<()> {
    kubectl(lab, &["apply", "-f", "-"], MANIFEST).map(drop)
}

/// Waits until CoreDNS is Ready by its own probe.
pub fn wait_until_dns_ready(lab: &Lab, progress: &Progress) -> Result<()> {
    let deadline = Duration::from_secs(60);
    let started = Instant::now();
    let available =
        ["get", "deployment", "coredns", "-n", "kube-system", "-o", "jsonpath={.status.availableReplicas}"];
    loop {
        let last = match kubectl(lab, &available, "") {
            Ok(count) if count == "1" => return Ok(()),
            Ok(_) => "no replica is available".to_owned(),
            Err(error) => error.to_string(),
        };
        if started.elapsed() > deadline {
            return Err(LabError::Deadline { what: "cluster DNS is Ready".into(), deadline, last });
        }
        progress.waiting("cluster DNS");
        std::thread::sleep(Duration::from_millis(200));
    }
}
