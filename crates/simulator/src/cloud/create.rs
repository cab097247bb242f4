//! `POST /v2/droplets`: validation as strict as the real API is known to be, and as lenient.
//!
//! Texts are those seen in the real API's answers where one is known. Lenient: `ssh_keys` null, `volumes` as objects, deprecated
//! and unknown fields; never a value of the wrong type, which would be dropped in silence.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::action::Outcome;
use super::address::{Interface, mac};
use super::request;
use super::{Answer, Cloud, Droplet, MachineVerb, Phase, Refusal, Request, Status, Tagged, later};

/// What else can become of an accepted create (as users of the real API reported it).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// It gets an id and is gone for ever after so many milliseconds; no machine is booted.
    Vanish(u64),
    /// It stays `new`, its event pending, for ever; no machine is booted.
    StuckNew,
    /// The create action ends as errored and the networks stay empty.
    ActionErrored,
    /// So many GETs by id answer 404 before it shows.
    HiddenGets(u32),
    /// It is `active` with empty networks for so many milliseconds longer than usual.
    NetworksLate(u64),
}

/// A checked create, before addresses are taken.
struct Wish {
    names: Vec<String>,
    many: bool,
    size: String,
    image: u64,
    region: String,
    vpc: Option<String>,
    ssh_keys: Vec<u64>,
    tags: Vec<String>,
    user_data: Option<String>,
    features: Vec<String>,
    volumes: Vec<String>,
    public: bool,
}

const NAMES_PER_REQUEST: usize = 10;
const USER_DATA_BYTES: usize = 64 * 1024;

impl Cloud {
    pub(super) fn create_droplets(
        &mut self,
        request: &Request,
        variant: Option<&Variant>,
        now: Timestamp,
    ) -> Result<Answer, Refusal> {
        let wish = self.check_create(&request.object()?)?;
        let vpc = match &wish.vpc {
            Some(vpc) => vpc.clone(),
            None => self.default_vpc(&wish.region, now)?,
        };
        // All addresses first, so that a request is done wholly or not at all.
        let mut homes = Vec::new();
        let mut taken = self.addresses_in_use();
        for _ in &wish.names {
            let home = self.take_home(&vpc, wish.public, &mut taken)?;
            homes.push(home);
        }
        let mut droplets = Vec::new();
        let mut actions = Vec::new();
        for (name, home) in wish.names.iter().zip(homes) {
            let (id, action) = self.create_one(&wish, name, &vpc, home, variant, now);
            if let Some(droplet) = self.droplets.get(&id) {
                droplets.push(self.droplet_json(droplet));
            }
            let href = format!("https://api.digitalocean.com/v2/actions/{action}");
            actions.push(json!({"id": action, "rel": if wish.many { "multiple_create" } else { "create" }, "href": href}));
        }
        let links = json!({"actions": actions});
        let body = if wish.many {
            json!({"droplets": droplets, "links": links})
        } else {
            json!({"droplet": droplets.pop(), "links": links})
        };
        Ok(Answer::json(202, body))
    }

    fn create_one(
        &mut self,
        wish: &Wish,
        name: &str,
        vpc: &str,
        (public, private, anchor): Home,
        variant: Option<&Variant>,
        now: Timestamp,
    ) -> (u64, u64) {
        let id = self.next_droplet_id();
        let stuck = matches!(variant, Some(Variant::StuckNew));
        let vanish_at = match variant {
            Some(Variant::Vanish(milliseconds)) => Some(later(now, *milliseconds)),
            _ => None,
        };
        let with_mac =
            |role: u8| move |interface: Interface| Interface { mac: Some(mac(role, id)), ..interface };
        let listed_from = later(now, self.delays.tag_index);
        let tags = wish.tags.iter().map(|tag| Tagged { name: self.ensure_tag(tag), listed_from }).collect();
        let droplet = Droplet {
            id,
            name: name.into(),
            size: wish.size.clone(),
            image: wish.image,
            region: wish.region.clone(),
            vpc: vpc.into(),
            created_at: now,
            user_data: wish.user_data.clone(),
            ssh_keys: wish.ssh_keys.clone(),
            features: wish.features.clone(),
            volumes: wish.volumes.clone(),
            tags,
            status: Status::New,
            phase: Phase::Provisioning { active_at: (!stuck).then(|| later(now, self.delays.active)) },
            pending: None,
            networked: false,
            public: public.map(with_mac(1)),
            private: with_mac(2)(private),
            anchor,
            has_machine: self.machines && !stuck && vanish_at.is_none(),
            vanish_at,
            hidden_gets: match variant {
                Some(Variant::HiddenGets(times)) => *times,
                _ => 0,
            },
        };
        self.droplets.insert(id, droplet);
        let late = match variant {
            Some(Variant::NetworksLate(milliseconds)) => *milliseconds,
            _ => 0,
        };
        let networks = self.delays.networks.max(self.delays.active).saturating_add(late);
        let due = (!stuck).then(|| later(now, networks));
        let action = self.start_droplet_event(id, "create", Outcome::Create, &[MachineVerb::Boot], due, now);
        if let Some(action) = self.actions.get_mut(&action) {
            action.fails = matches!(variant, Some(Variant::ActionErrored));
        }
        (id, action)
    }

    fn check_create(&self, body: &Map<String, Value>) -> Result<Wish, Refusal> {
        let text = |field: &str| request::text(body, field);
        let flag = |field: &str| request::flag(body, field);
        let (names, many) = names(body)?;
        for name in &names {
            check_name(name)?;
        }
        let size = body
            .get("size")
            .and_then(Value::as_str)
            .and_then(|slug| self.size(slug))
            .filter(|size| size.available)
            .ok_or_else(|| Refusal::unprocessable("You specified an invalid size for Droplet creation."))?;
        let image =
            body.get("image").map(slug_or_id).and_then(|named| self.image(&named)).ok_or_else(|| {
                Refusal::unprocessable("You specified an invalid image for Droplet creation.")
            })?;
        let vpc = match text("vpc_uuid")?.filter(|uuid| !uuid.is_empty()) {
            None => None,
            Some(uuid) => Some(
                self.vpc(uuid)
                    .ok_or_else(|| Refusal::unprocessable("The VPC you specified could not be found."))?,
            ),
        };
        let region = match (text("region")?.filter(|slug| !slug.is_empty()), vpc) {
            (Some(wanted), _) => self.regions.iter().find(|region| region.slug.starts_with(wanted)),
            (None, Some(vpc)) => self.region(&vpc.region),
            (None, None) => self.regions.iter().find(|region| region.available),
        };
        let region = region
            .ok_or_else(|| Refusal::unprocessable("You specified an invalid region for Droplet creation."))?;
        if !region.available {
            return Err(Refusal::unprocessable("Region is not available."));
        }
        if !size.regions.contains(&region.slug) {
            return Err(Refusal::unprocessable("Size is not available in this region."));
        }
        if !image.regions.contains(&region.slug) {
            return Err(Refusal::unprocessable("The image is not available in the requested region."));
        }
        if size.disk < image.min_disk_size {
            return Err(Refusal::unprocessable("The image needs a larger disk than the size has."));
        }
        if vpc.is_some_and(|vpc| vpc.region != region.slug) {
            return Err(Refusal::unprocessable("The VPC is not in the same region as the Droplet."));
        }
        let user_data = text("user_data")?.map(ToOwned::to_owned);
        if user_data.as_ref().is_some_and(|data| data.len() > USER_DATA_BYTES) {
            return Err(Refusal::unprocessable("User data is too long (maximum is 64 KiB)."));
        }
        let tags = strings(body, "tags")?;
        for tag in &tags {
            super::tag::check_tag(tag)?;
        }
        let ssh_keys = self.check_keys(body.get("ssh_keys"))?;
        let existing = self.droplets.values().filter(|droplet| droplet.exists()).count();
        if (existing + names.len()) as u64 > self.account.droplet_limit {
            return Err(Refusal::unprocessable(
                "creating this/these droplet(s) will exceed your droplet limit",
            ));
        }
        let public = flag("public_networking")?.unwrap_or(true);
        // Deprecated, and without effect.
        flag("private_networking")?;
        request::object(body, "backup_policy")?;
        let features = [
            ("monitoring", flag("monitoring")? == Some(true)),
            ("backups", flag("backups")? == Some(true)),
            ("ipv6", flag("ipv6")? == Some(true)),
            ("private_networking", true),
            ("droplet_agent", flag("with_droplet_agent")? != Some(false)),
        ];
        Ok(Wish {
            names,
            many,
            size: size.slug.clone(),
            image: image.id,
            region: region.slug.clone(),
            vpc: vpc.map(|vpc| vpc.id.clone()),
            ssh_keys,
            tags,
            user_data,
            features: features.iter().filter(|(_, on)| *on).map(|(name, _)| (*name).into()).collect(),
            volumes: volumes(body.get("volumes"))?,
            public,
        })
    }

    fn check_keys(&self, keys: Option<&Value>) -> Result<Vec<u64>, Refusal> {
        let keys = match keys {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(keys)) => keys,
            Some(_) => return Err(Refusal::unprocessable("ssh_keys must be a list.")),
        };
        let mut found = Vec::new();
        let mut unknown = Vec::new();
        for named in keys.iter().map(slug_or_id) {
            match self.ssh_keys.iter().find(|key| key.answers_to(&named)) {
                Some(key) => found.push(key.id),
                None => unknown.push(named),
            }
        }
        if unknown.is_empty() {
            return Ok(found);
        }
        let named = unknown.join(", ");
        Err(Refusal::unprocessable(format!("{named} are invalid key identifiers for Droplet creation.")))
    }

    /// Every address that must not be handed out.
    pub(super) fn addresses_in_use(&self) -> BTreeSet<Ipv4Addr> {
        let droplets = self.droplets.values().filter(|droplet| {
            // A ghost's machine is gone, unless its removal still runs.
            droplet.exists() || droplet.pending.is_some()
        });
        let mut taken: BTreeSet<Ipv4Addr> = droplets.flat_map(Droplet::addresses).collect();
        taken.extend(&self.lost_addresses);
        taken.extend(self.reserved_ips.keys());
        taken
    }

    fn take_home(
        &mut self,
        vpc: &str,
        public: bool,
        taken: &mut BTreeSet<Ipv4Addr>,
    ) -> Result<Home, Refusal> {
        let none_left = || Refusal::unprocessable("No address is available right now, please try again.");
        let pool = self.vpcs.iter_mut().find(|known| known.id == vpc).map(|vpc| &mut vpc.pool);
        let pool = pool.ok_or_else(none_left)?;
        let address = pool.take(taken).ok_or_else(none_left)?;
        let private = pool.interface(address, None);
        taken.insert(address);
        if !public {
            return Ok((None, private, None));
        }
        let address = self.pools.public.take(taken).ok_or_else(none_left)?;
        let public = self.pools.public.interface(address, None);
        taken.insert(address);
        let address = self.pools.anchor.take(taken).ok_or_else(none_left)?;
        let anchor = self.pools.anchor.interface(address, None);
        taken.insert(address);
        Ok((Some(public), private, Some(anchor)))
    }
}

/// Public, private and anchor side.
type Home = (Option<Interface>, Interface, Option<Interface>);

fn names(body: &Map<String, Value>) -> Result<(Vec<String>, bool), Refusal> {
    match (body.get("name"), body.get("names")) {
        (Some(_), Some(Value::Array(_))) => {
            Err(Refusal::unprocessable("Specify either name or names, not both."))
        }
        (Some(Value::String(name)), _) => Ok((vec![name.clone()], false)),
        (None, Some(Value::Array(_))) => {
            let names = strings(body, "names")?;
            match names.len() {
                0 => Err(Refusal::unprocessable("Name can't be blank.")),
                1..=NAMES_PER_REQUEST => Ok((names, true)),
                _ => Err(Refusal::unprocessable("You can only create up to 10 Droplets at a time.")),
            }
        }
        _ => Err(Refusal::unprocessable("Name can't be blank.")),
    }
}

/// Pattern of the description: `^[a-zA-Z0-9]?[a-z0-9A-Z.\-]*[a-z0-9A-Z]$`, at most 255.
pub(super) fn check_name(name: &str) -> Result<(), Refusal> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    let ends_well = name.chars().last().is_some_and(|c| c.is_ascii_alphanumeric());
    if name.chars().all(allowed) && ends_well && name.len() <= 255 {
        Ok(())
    } else {
        Err(Refusal::unprocessable("Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)"))
    }
}

/// Fields that take a slug or a number, as text.
pub(super) fn slug_or_id(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A list of strings; null and absent are empty.
fn strings(body: &Map<String, Value>, field: &str) -> Result<Vec<String>, Refusal> {
    let refused = || Refusal::unprocessable(format!("{field} must be a list of strings."));
    match body.get(field) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => {
            items.iter().map(|item| item.as_str().map(ToOwned::to_owned).ok_or_else(refused)).collect()
        }
        Some(_) => Err(refused()),
    }
}

/// Ids, or the objects that Go clients send.
fn volumes(value: Option<&Value>) -> Result<Vec<String>, Refusal> {
    let refused = || Refusal::unprocessable("volumes must be a list of ids.");
    let Some(value) = value else { return Ok(Vec::new()) };
    let id = |item: &Value| item.as_str().or_else(|| item.get("id")?.as_str()).map(ToOwned::to_owned);
    let items = value.as_array().ok_or_else(refused)?;
    items.iter().map(|item| id(item).ok_or_else(refused)).collect()
}
