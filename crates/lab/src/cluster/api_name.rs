//! The name by which nodes know the API server, and what it means.
//!
//! On DOKS it means addresses that nothing in the cluster's objects names and that change without notice.

use std::fs;
use std::net::Ipv4Addr;

use crate::error::{Doing, LabError, Result};
use crate::internet::resolver::{self, addresses_of};
use crate::network::addresses::{API_NAME, API_SERVER, CLOUD_API, METADATA, RESOLVERS};
use crate::network::{announce, withdraw};
use crate::state::{ApiServerBy, Lab, write_file};

/// From now on the name means these public addresses, at which the API server answers. It does no longer at those that the name
/// meant before: they are the internet's again, which refuses.
pub fn move_api_name(lab: &Lab, addresses: &[Ipv4Addr]) -> Result<()> {
    if lab.settings.api_server != ApiServerBy::Name {
        return Err(LabError::Usage("nodes of this lab use no name: start it with --api-server name".into()));
    }
    let own = [API_SERVER, CLOUD_API, METADATA].into_iter().chain(RESOLVERS).collect::<Vec<_>>();
    if let Some(taken) = addresses.iter().find(|address| own.contains(address)) {
        return Err(LabError::Usage(format!("{taken} is another service's of the provider: use others")));
    }
    let path = resolver::names_path(&lab.dir);
    let names = fs::read_to_string(&path).doing(|| format!("read {}", path.display()))?;
    let before = addresses_of(&names, API_NAME);
    // The new ones answer before anybody is told of them.
    announce(lab.name(), addresses)?;
    write_file(&path, with_addresses(&names, API_NAME, addresses).as_bytes())?;
    let gone: Vec<_> =
        before.into_iter().filter(|one| !addresses.contains(one) && !own.contains(one)).collect();
    withdraw(lab.name(), &gone)
}

/// The names file in which `name` means exactly these addresses.
fn with_addresses(names: &str, name: &str, addresses: &[Ipv4Addr]) -> String {
    let others =
        names.lines().filter(|line| line.split_once(' ').is_none_or(|(_, known)| known.trim() != name));
    let others = others.map(|line| format!("{line}\n"));
    let own = addresses.iter().map(|address| format!("{address} {name}\n"));
    others.chain(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_that_name_gets_other_addresses() {
        let names = "192.0.2.10 db.example.com\n198.51.100.11 api\n198.51.100.12 api\n";
        let moved = with_addresses(names, "api", &[Ipv4Addr::new(198, 51, 100, 13)]);
        assert_eq!(moved, "192.0.2.10 db.example.com\n198.51.100.13 api\n");
    }
}
