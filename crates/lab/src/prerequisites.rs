//! What the machine must have before a lab is started, and how to get it.

use std::path::Path;

use crate::error::{LabError, Result};
use crate::state::Size;

/// A program or file, and the Debian package that has it.
struct Wanted {
    file: &'static str,
    package: &'static str,
}

const fn wanted(file: &'static str, package: &'static str) -> Wanted {
    Wanted { file, package }
}

/// What every size with a network uses.
const NETWORK: [Wanted; 4] = [
    wanted("ip", "iproute2"),
    wanted("bridge", "iproute2"),
    wanted("nft", "nftables"),
    wanted("nsenter", "util-linux"),
];

/// What Droplets use; looked for with the network, because a Droplet that cannot boot shows only later.
const DROPLETS: [Wanted; 2] =
    [wanted("systemd-nspawn", "systemd-container"), wanted("mmdebstrap", "mmdebstrap")];

/// What nodes and the standard images use.
const NODES: [Wanted; 7] = [
    wanted("/usr/sbin/runc", "runc"),
    wanted("/usr/lib/cni/ptp", "containernetworking-plugins"),
    wanted("/usr/lib/cni/host-local", "containernetworking-plugins"),
    wanted("iptables", "iptables"),
    wanted("conntrack", "conntrack"),
    wanted("busybox", "busybox-static"),
    wanted("curl", "curl"),
];

/// Fails with the command that installs what is missing.
pub fn check(size: Size) -> Result<()> {
    let path = std::env::var("PATH").unwrap_or_default();
    // Some users' PATH lacks the folders of administration.
    let folders = format!("{path}:/usr/sbin:/sbin:/usr/bin:/bin");
    let exists = |file: &str| {
        let named = Path::new(file);
        if named.is_absolute() {
            named.exists()
        } else {
            folders.split(':').any(|one| Path::new(one).join(file).exists())
        }
    };
    let missing = missing(size, exists);
    if missing.is_empty() {
        return Ok(());
    }
    Err(LabError::Usage(format!("the lab needs more of this machine: apt-get install {}", missing.join(" "))))
}

/// Packages of what does not exist, each once.
fn missing(size: Size, exists: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let lists: &[&[Wanted]] = match size {
        Size::Api => &[],
        Size::Network => &[&NETWORK, &DROPLETS],
        Size::All => &[&NETWORK, &DROPLETS, &NODES],
    };
    let all = lists.iter().flat_map(|list| list.iter());
    let mut packages: Vec<_> = all.filter(|one| !exists(one.file)).map(|one| one.package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_each_missing_package_once_and_only_what_the_size_uses() {
        assert_eq!(missing(Size::Network, |file| file != "ip" && file != "bridge"), ["iproute2"]);
        assert_eq!(missing(Size::Network, |file| !file.starts_with('/')), Vec::<&str>::new());
        assert_eq!(
            missing(Size::All, |file| !file.starts_with('/')),
            ["containernetworking-plugins", "runc"]
        );
        assert!(missing(Size::Api, |_| false).is_empty());
    }
}
