//! The calls about reserved addresses, and about the tag by which one is known as ours.

use std::net::Ipv4Addr;

use serde::Deserialize;

use crate::client::{Client, Deletion};
use crate::error::Error;
use crate::fence::Fence;
use crate::model::action::Action;
use crate::model::ids::{DropletId, TagName};
use crate::model::request::TaggedDroplet;
use crate::model::reserved_ip::{CreateReservedIp, ReservedIp, ReservedIpAction};
use crate::transport::Repetition;

#[derive(Deserialize)]
struct ReservedIpRoot {
    reserved_ip: ReservedIp,
}

#[derive(Deserialize)]
struct ActionRoot {
    action: Action,
}

impl Client {
    /// All reserved IPv4 addresses of the account.
    pub async fn reserved_ips(&self) -> Result<Vec<ReservedIp>, Error> {
        self.list("reserved_ips.list", "/v2/reserved_ips", None).await
    }

    /// One reserved address.
    pub async fn reserved_ip(&self, ip: Ipv4Addr) -> Result<Option<ReservedIp>, Error> {
        let root: Option<ReservedIpRoot> =
            self.find("reserved_ips.get", format!("/v2/reserved_ips/{ip}")).await?;
        Ok(root.map(|root| root.reserved_ip))
    }

    /// Reserves an address and begins to assign it to a Droplet, which may hold none and must have no pending event.
    ///
    /// On [`Error::Ambiguous`] look for an address that this Droplet holds, for a settle time, before deciding again.
    pub async fn reserve_ip(&self, droplet: DropletId, fence: &dyn Fence) -> Result<ReservedIp, Error> {
        let (path, body) = ("/v2/reserved_ips".to_owned(), CreateReservedIp { droplet_id: droplet });
        let answer = self.post("reserved_ips.create", path, &body, Repetition::Harmful, fence).await?;
        Ok(answer.json::<ReservedIpRoot>()?.reserved_ip)
    }

    /// Begins to assign an address to a Droplet; one that another Droplet holds moves in one step. Refused as
    /// [`RefusalKind::Busy`](crate::RefusalKind::Busy) while the address or the Droplet has a pending event. Safe to repeat.
    pub async fn assign_ip(
        &self,
        ip: Ipv4Addr,
        droplet: DropletId,
        fence: &dyn Fence,
    ) -> Result<Action, Error> {
        let path = format!("/v2/reserved_ips/{ip}/actions");
        let body = ReservedIpAction::Assign { droplet_id: droplet };
        let answer = self.post("reserved_ips.act", path, &body, Repetition::Harmless, fence).await?;
        Ok(answer.json::<ActionRoot>()?.action)
    }

    /// Gives an address back; it must be free. Safe to repeat.
    pub async fn release_ip(&self, ip: Ipv4Addr, fence: &dyn Fence) -> Result<Deletion, Error> {
        self.delete("reserved_ips.delete", format!("/v2/reserved_ips/{ip}"), fence).await
    }

    /// Puts an existing tag on a Droplet. Safe to repeat.
    pub async fn tag_droplet(
        &self,
        tag: &TagName,
        droplet: DropletId,
        fence: &dyn Fence,
    ) -> Result<(), Error> {
        let (path, body) = (format!("/v2/tags/{tag}/resources"), TaggedDroplet::new(droplet));
        self.post("tags.tag", path, &body, Repetition::Harmless, fence).await.map(drop)
    }
}
