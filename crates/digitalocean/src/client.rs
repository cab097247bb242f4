//! The calls.

mod projects;

use std::fmt;
use std::sync::Arc;

use reqwest::{Method, Url, redirect, retry};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::budget::{Clock, Quota, SystemClock};
use crate::deadline;
use crate::error::Error;
use crate::exchange::Exchange;
use crate::fence::Fence;
use crate::model::account::Account;
use crate::model::action::{Action, DropletAction};
use crate::model::catalog::{Image, Region, Size};
use crate::model::droplet::Droplet;
use crate::model::firewall::{Firewall, FirewallSpec};
use crate::model::ids::{ActionId, DropletId, DropletName, FirewallId, ImageRef, TagName, VpcId};
use crate::model::request::{CreateDroplet, CreateTag, CreatedDroplet, PostAction, TaggedDroplet};
use crate::model::vpc::Vpc;
use crate::paging::{Listed, PER_PAGE, Page, Step, Sweep};
use crate::refusal::RefusalKind;
use crate::token::TokenSource;
use crate::transport::{Answer, Call, Reads, Repetition, Transport};

/// Why a client can not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The API's address is not usable.
    #[error("the API's address {address:?} is not usable: {reason}")]
    Address {
        /// As given, unless it had credentials in it.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// `main` has not installed a crypto provider for TLS.
    #[error("no TLS crypto provider is installed in this process")]
    NoCryptoProvider,
    /// TLS can not be set up; without any CA certificate on the machine, for example.
    #[error("the HTTP client can not be set up")]
    Http(#[source] reqwest::Error),
}

/// Which Droplets to list. GPU Droplets are never listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DropletFilter {
    /// All of the account.
    All,
    /// With this tag. The tag index lags behind creates and deletes.
    Tag(TagName),
    /// With this name; the API ignores case.
    Name(DropletName),
}

/// What a delete found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// The API will delete it; a get may still find it for seconds.
    Accepted,
    /// It was gone.
    AlreadyGone,
}

/// What creating a tag found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagCreation {
    /// It was made.
    Created,
    /// It was there.
    AlreadyThere,
}

/// A client of the DigitalOcean API. Clones share connections and the rate budget: make one per token.
#[derive(Clone)]
pub struct Client {
    transport: Arc<Transport>,
    reads: Reads,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("base", &self.transport.base().as_str()).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct DropletRoot {
    droplet: Droplet,
    #[serde(default)]
    links: Option<ActionLinks>,
}

#[derive(Deserialize)]
struct ActionLinks {
    #[serde(default, deserialize_with = "crate::model::lenient::list")]
    actions: Vec<ActionLink>,
}

#[derive(Deserialize)]
struct ActionLink {
    id: ActionId,
    rel: String,
}

macro_rules! roots {
    ($($name:ident { $field:ident: $inner:ty })*) => {
        $(#[derive(Deserialize)]
        struct $name {
            $field: $inner,
        })*
    };
}
roots!(ActionRoot { action: Action } ActionsRoot { actions: Vec<Action> } VpcRoot { vpc: Vpc }
       FirewallRoot { firewall: Firewall } ImageRoot { image: Image } AccountRoot { account: Account });

impl Client {
    /// DigitalOcean's own address.
    pub const DEFAULT_ADDRESS: &'static str = "https://api.digitalocean.com";

    /// A client for the API at `address`, from which paths begin with `/v2`.
    ///
    /// Plain `http://` is allowed for a simulator; the token then travels in the clear, which is logged. Proxy settings
    /// of the environment are not read: the token goes to this address and nowhere else. Redirects are not followed.
    pub fn new(address: &str, token: Arc<dyn TokenSource>) -> Result<Self, ConfigError> {
        Self::with_clock(address, token, Arc::new(SystemClock::default()))
    }

    /// As [`new`](Self::new), with a clock for the rate budget.
    pub fn with_clock(
        address: &str,
        token: Arc<dyn TokenSource>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ConfigError> {
        let base = base_url(address)?;
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(ConfigError::NoCryptoProvider);
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("egress-gateway/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(deadline::CONNECT)
            .pool_idle_timeout(deadline::IDLE_CONNECTION)
            // A request that times out takes its HTTP/1 connection with it. Over HTTP/2 the next request would go out
            // on the same dead connection, until TCP gives up after a quarter of an hour.
            .http1_only()
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .no_proxy();
        if base.scheme() == "http" {
            tracing::warn!(address = %base, "the API token is sent in the clear: for a simulator only");
            // No TLS, so no need for CA certificates on the machine.
            builder = builder.tls_certs_only([]);
        }
        let http = builder.build().map_err(ConfigError::Http)?;
        let transport = Transport::new(Arc::new(http), base, token, clock);
        Ok(Self { transport: Arc::new(transport), reads: Reads::Repeated })
    }

    /// As [`with_clock`](Self::with_clock), by another way than HTTP.
    pub fn with_exchange(
        address: &str,
        token: Arc<dyn TokenSource>,
        clock: Arc<dyn Clock>,
        exchange: Arc<dyn Exchange>,
    ) -> Result<Self, ConfigError> {
        let transport = Transport::new(exchange, base_url(address)?, token, clock);
        Ok(Self { transport: Arc::new(transport), reads: Reads::Repeated })
    }

    /// The same client, which sends each read once: for asking whether an API that was out still is.
    #[must_use]
    pub fn without_repetition(&self) -> Self {
        Self { transport: self.transport.clone(), reads: Reads::Once }
    }

    /// What is left of the rate, for a metric.
    pub fn quota(&self) -> Quota {
        self.transport.quota()
    }

    /// Makes one Droplet.
    ///
    /// The API's yes proves little: the Droplet can vanish (a get finds nothing, for good), and has no addresses yet.
    /// On [`Error::Ambiguous`] look by name and by tag, for a settle time, before deciding again.
    pub async fn create_droplet(
        &self,
        new: &CreateDroplet,
        fence: &dyn Fence,
    ) -> Result<CreatedDroplet, Error> {
        let answer =
            self.post("droplets.create", "/v2/droplets".to_owned(), new, Repetition::Harmful, fence).await?;
        let DropletRoot { droplet, links } = answer.json()?;
        let actions = links.map_or_else(Vec::new, |links| links.actions);
        let create_action = actions.iter().find(|action| action.rel == "create").map(|action| action.id);
        Ok(CreatedDroplet { droplet, create_action })
    }

    /// One Droplet; `None` when the API says that there is none. Right after a create that may pass.
    pub async fn droplet(&self, id: DropletId) -> Result<Option<Droplet>, Error> {
        let root: Option<DropletRoot> = self.find("droplets.get", format!("/v2/droplets/{id}")).await?;
        Ok(root.map(|root| root.droplet))
    }

    /// All Droplets that match. A Droplet that is missing here need not be missing: ask for it by id.
    pub async fn droplets(&self, filter: &DropletFilter) -> Result<Vec<Droplet>, Error> {
        let (query, unknown_is_empty) = match filter {
            DropletFilter::All => (None, false),
            DropletFilter::Tag(tag) => (Some(("tag_name", tag.to_string())), true),
            DropletFilter::Name(name) => (Some(("name", name.to_string())), true),
        };
        let listed = self.list("droplets.list", "/v2/droplets", query).await;
        match listed {
            // Whether an unknown tag is an empty list or a 404 is not documented.
            Err(error) if unknown_is_empty && error.refused_as() == Some(RefusalKind::NotFound) => {
                Ok(Vec::new())
            }
            other => other,
        }
    }

    /// Deletes one Droplet, without any graceful stop. Safe to repeat.
    pub async fn delete_droplet(&self, id: DropletId, fence: &dyn Fence) -> Result<Deletion, Error> {
        self.delete("droplets.delete", format!("/v2/droplets/{id}"), fence).await
    }

    /// Starts an action on a Droplet. Refused as [`RefusalKind::Busy`] while another one runs.
    pub async fn act_on_droplet(
        &self,
        id: DropletId,
        action: DropletAction,
        fence: &dyn Fence,
    ) -> Result<Action, Error> {
        let path = format!("/v2/droplets/{id}/actions");
        let body = PostAction { kind: action };
        let answer = self.post("droplets.act", path, &body, Repetition::Harmful, fence).await?;
        Ok(answer.json::<ActionRoot>()?.action)
    }

    /// One action of a Droplet. It can be missing for a while: the Droplet, not the action, is the truth.
    pub async fn droplet_action(&self, id: DropletId, action: ActionId) -> Result<Option<Action>, Error> {
        let path = format!("/v2/droplets/{id}/actions/{action}");
        let root: Option<ActionRoot> = self.find("droplets.action", path).await?;
        Ok(root.map(|root| root.action))
    }

    /// The newest fifty actions of a Droplet, enough to see whether one is still running; `None` without such a Droplet.
    pub async fn recent_droplet_actions(&self, id: DropletId) -> Result<Option<Vec<Action>>, Error> {
        let mut call = Call::get("droplets.actions", format!("/v2/droplets/{id}/actions"));
        call.query.push(("per_page", "50".to_owned()));
        let root: Option<ActionsRoot> = self.find_with(call).await?;
        Ok(root.map(|root| root.actions))
    }

    /// Makes sure that a tag exists. Safe to repeat.
    pub async fn ensure_tag(&self, name: &TagName, fence: &dyn Fence) -> Result<TagCreation, Error> {
        let body = CreateTag { name };
        let posted =
            self.post("tags.create", "/v2/tags".to_owned(), &body, Repetition::Harmless, fence).await;
        match posted {
            Ok(_) => Ok(TagCreation::Created),
            // What an existing tag gets is not documented.
            Err(error)
                if matches!(error.refused_as(), Some(RefusalKind::Conflict | RefusalKind::AlreadyExists)) =>
            {
                Ok(TagCreation::AlreadyThere)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes a tag off one Droplet, which stays. Safe to repeat; a tag or Droplet that there is not is none that carries it.
    pub async fn untag_droplet(
        &self,
        tag: &TagName,
        droplet: DropletId,
        fence: &dyn Fence,
    ) -> Result<(), Error> {
        let (path, body) = (format!("/v2/tags/{tag}/resources"), TaggedDroplet::new(droplet));
        let sent = self.send(Method::DELETE, "tags.untag", path, &body, Repetition::Harmless, fence).await;
        match sent {
            Err(error) if error.refused_as() != Some(RefusalKind::NotFound) => Err(error),
            _ => Ok(()),
        }
    }

    /// All firewalls of the account.
    pub async fn firewalls(&self) -> Result<Vec<Firewall>, Error> {
        self.list("firewalls.list", "/v2/firewalls", None).await
    }

    /// One firewall.
    pub async fn firewall(&self, id: &FirewallId) -> Result<Option<Firewall>, Error> {
        let root: Option<FirewallRoot> = self.find("firewalls.get", format!("/v2/firewalls/{id}")).await?;
        Ok(root.map(|root| root.firewall))
    }

    /// Makes one firewall; its Droplets must exist. It acts on packets some seconds later.
    ///
    /// A name that another firewall has is refused as [`RefusalKind::Conflict`]. On [`Error::Ambiguous`] look for it by name
    /// before deciding again.
    pub async fn create_firewall(&self, new: &FirewallSpec, fence: &dyn Fence) -> Result<Firewall, Error> {
        let path = "/v2/firewalls".to_owned();
        let answer = self.post("firewalls.create", path, new, Repetition::Harmful, fence).await?;
        Ok(answer.json::<FirewallRoot>()?.firewall)
    }

    /// Makes a firewall what is said, all of it. Safe to repeat.
    pub async fn update_firewall(
        &self,
        id: &FirewallId,
        wanted: &FirewallSpec,
        fence: &dyn Fence,
    ) -> Result<Firewall, Error> {
        let path = format!("/v2/firewalls/{id}");
        let answer =
            self.send(Method::PUT, "firewalls.update", path, wanted, Repetition::Harmless, fence).await?;
        Ok(answer.json::<FirewallRoot>()?.firewall)
    }

    /// Deletes one firewall; its Droplets are then open but for other firewalls. Safe to repeat.
    pub async fn delete_firewall(&self, id: &FirewallId, fence: &dyn Fence) -> Result<Deletion, Error> {
        self.delete("firewalls.delete", format!("/v2/firewalls/{id}"), fence).await
    }

    /// All VPCs of the account.
    pub async fn vpcs(&self) -> Result<Vec<Vpc>, Error> {
        self.list("vpcs.list", "/v2/vpcs", None).await
    }

    /// One VPC.
    pub async fn vpc(&self, id: &VpcId) -> Result<Option<Vpc>, Error> {
        let root: Option<VpcRoot> = self.find("vpcs.get", format!("/v2/vpcs/{id}")).await?;
        Ok(root.map(|root| root.vpc))
    }

    /// All sizes.
    pub async fn sizes(&self) -> Result<Vec<Size>, Error> {
        self.list("sizes.list", "/v2/sizes", None).await
    }

    /// All regions.
    pub async fn regions(&self) -> Result<Vec<Region>, Error> {
        self.list("regions.list", "/v2/regions", None).await
    }

    /// One image.
    pub async fn image(&self, image: &ImageRef) -> Result<Option<Image>, Error> {
        let root: Option<ImageRoot> = self.find("images.get", format!("/v2/images/{image}")).await?;
        Ok(root.map(|root| root.image))
    }

    /// The account: its limits and whether it is in good standing.
    pub async fn account(&self) -> Result<Account, Error> {
        let answer = self.read(Call::get("account.get", "/v2/account".to_owned())).await?;
        Ok(answer.json::<AccountRoot>()?.account)
    }

    async fn read(&self, call: Call) -> Result<Answer, Error> {
        self.transport.read(call, self.reads).await
    }

    pub(crate) async fn find<T: DeserializeOwned>(
        &self,
        name: &'static str,
        path: String,
    ) -> Result<Option<T>, Error> {
        self.find_with(Call::get(name, path)).await
    }

    async fn find_with<T: DeserializeOwned>(&self, call: Call) -> Result<Option<T>, Error> {
        match self.read(call).await {
            Ok(answer) => answer.json().map(Some),
            Err(error) if error.refused_as() == Some(RefusalKind::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn post<T: serde::Serialize + Sync>(
        &self,
        name: &'static str,
        path: String,
        body: &T,
        repetition: Repetition,
        fence: &dyn Fence,
    ) -> Result<Answer, Error> {
        self.send(Method::POST, name, path, body, repetition, fence).await
    }

    pub(crate) async fn delete(
        &self,
        name: &'static str,
        path: String,
        fence: &dyn Fence,
    ) -> Result<Deletion, Error> {
        let call = Call { method: Method::DELETE, ..Call::get(name, path) };
        match self.transport.change(call, fence).await {
            Ok(_) => Ok(Deletion::Accepted),
            Err(error) if error.refused_as() == Some(RefusalKind::NotFound) => Ok(Deletion::AlreadyGone),
            Err(error) => Err(error),
        }
    }

    async fn send<T: serde::Serialize + Sync>(
        &self,
        method: Method,
        name: &'static str,
        path: String,
        body: &T,
        repetition: Repetition,
        fence: &dyn Fence,
    ) -> Result<Answer, Error> {
        let encoded = serde_json::to_vec(body).map_err(|error| Error::Invalid {
            call: name,
            source: crate::InvalidValue { field: "body", reason: error.to_string() },
        })?;
        let call = Call { method, body: Some(encoded), repetition, ..Call::get(name, path) };
        self.transport.change(call, fence).await
    }

    pub(crate) async fn list<T: Listed>(
        &self,
        name: &'static str,
        path: &str,
        filter: Option<(&'static str, String)>,
    ) -> Result<Vec<T>, Error> {
        let sweep = async {
            let (mut sweep, mut page) = (Sweep::new(), 1);
            loop {
                let mut call = Call::get(name, path.to_owned());
                call.query.extend(filter.clone());
                call.query.push(("per_page", PER_PAGE.to_string()));
                call.query.push(("page", page.to_string()));
                let answer = self.read(call).await?;
                match sweep.take(answer.read_with(Page::<T>::read)?) {
                    Step::Read(next) => page = next,
                    Step::Done(list) => return Ok(list),
                    Step::GiveUp(reason) => {
                        return Err(Error::Unsteady { call: name, reason: reason.to_owned() });
                    }
                }
            }
        };
        let late =
            || Error::Lost { call: name, reason: format!("not within {} s", deadline::LIST.as_secs()) };
        tokio::time::timeout(deadline::LIST, sweep).await.unwrap_or_else(|_| Err(late()))
    }
}

fn base_url(address: &str) -> Result<Url, ConfigError> {
    let refuse = |address: &str, reason: &str| {
        Err(ConfigError::Address { address: address.to_owned(), reason: reason.to_owned() })
    };
    let url = match Url::parse(address.trim()) {
        Ok(url) => url,
        // The text itself is not repeated: it could be anything, a token in the wrong flag included.
        Err(error) => return refuse("(unreadable)", &error.to_string()),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("(with credentials)", "credentials do not belong there");
    }
    if !matches!(url.scheme(), "https" | "http") {
        return refuse(address, "it must begin with https:// (or http:// for a simulator)");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refuse(address, "it must end with the host or a path");
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_would_send_the_token_astray_are_refused() {
        for good in ["https://api.digitalocean.com", "http://127.0.0.1:8080/", "https://proxy.example/do/"] {
            assert!(base_url(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "dop_v1_CANARY",
            "ftp://x",
            "https://dop_v1_CANARY@x",
            "https://u:dop_v1_CANARY@x",
            "https://x/?a",
        ] {
            let refused = base_url(bad).unwrap_err().to_string();
            assert!(!refused.contains("CANARY"), "{refused}");
        }
    }
}
