//! The account's reserved addresses, and the tags by which they are known as ours.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use egress_digitalocean::{DropletId, Error, Fence, RefusalKind, ReservedIp, TagName};
use jiff::Timestamp;

use super::Cloud;
use super::shared_list::Reading;

/// One reading of the list, with what our own calls have changed since.
#[derive(Clone, Debug)]
pub struct ReservedIpList {
    /// When the reading began.
    pub taken: Timestamp,
    /// All of the account's.
    pub addresses: BTreeMap<Ipv4Addr, ReservedIp>,
}

impl Reading for ReservedIpList {
    fn taken(&self) -> Timestamp {
        self.taken
    }
}

impl Cloud {
    /// The list, read after `wanted` if the API gives it, and after `needed` in any case.
    pub async fn reserved_ips(
        &self,
        wanted: Timestamp,
        needed: Timestamp,
    ) -> Result<Arc<ReservedIpList>, Error> {
        let mut shared = self.reserved_ips.lock().await;
        let taken = self.now();
        let list = async {
            let listed = self.counted("reserved_ips.list", self.client.reserved_ips()).await?;
            let addresses = listed.into_iter().map(|address| (address.ip, address)).collect();
            Ok(ReservedIpList { taken, addresses })
        };
        shared.read(taken, wanted, needed, "reserved_ips.list", list).await
    }

    /// One address.
    pub async fn reserved_ip(&self, ip: Ipv4Addr) -> Result<Option<ReservedIp>, Error> {
        self.counted("reserved_ips.get", self.client.reserved_ip(ip)).await
    }

    /// Sends one request that reserves an address.
    pub async fn reserve_ip(&self, droplet: DropletId, fence: &dyn Fence) -> Result<Ipv4Addr, Error> {
        let made = self.counted("reserved_ips.create", self.client.reserve_ip(droplet, fence)).await;
        let shown = made.as_ref().ok().cloned();
        self.reserved_ips.lock().await.carry(&made, |list| {
            list.addresses.extend(shown.map(|address| (address.ip, address)));
        });
        made.map(|address| address.ip)
    }

    /// Begins to assign an address.
    pub async fn assign_ip(&self, ip: Ipv4Addr, droplet: DropletId, fence: &dyn Fence) -> Result<(), Error> {
        let begun = self.counted("reserved_ips.act", self.client.assign_ip(ip, droplet, fence)).await;
        self.reserved_ips.lock().await.carry(&begun, |list| {
            list.addresses.entry(ip).and_modify(|address| address.locked = true);
        });
        // The address and the Droplet have an event now.
        self.has_changed();
        begun.map(drop)
    }

    /// Gives an address back.
    pub async fn release_ip(&self, ip: Ipv4Addr, fence: &dyn Fence) -> Result<(), Error> {
        let released = self.counted("reserved_ips.delete", self.client.release_ip(ip, fence)).await;
        self.reserved_ips.lock().await.carry(&released, |list| drop(list.addresses.remove(&ip)));
        released.map(drop)
    }

    /// Puts a tag on a Droplet, which is made first if there is none.
    pub async fn tag(&self, tag: &TagName, droplet: DropletId, fence: &dyn Fence) -> Result<(), Error> {
        let tagged = self.counted("tags.tag", self.client.tag_droplet(tag, droplet, fence)).await;
        let tagged = match tagged {
            Err(error) if error.refused_as() == Some(RefusalKind::NotFound) => {
                self.counted("tags.create", self.client.ensure_tag(tag, fence)).await?;
                self.counted("tags.tag", self.client.tag_droplet(tag, droplet, fence)).await
            }
            other => other,
        };
        self.has_changed();
        tagged
    }
}
