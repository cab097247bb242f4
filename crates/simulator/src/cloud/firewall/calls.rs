//! The calls of `/v2/firewalls`.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::super::paging::page;
use super::super::request;
use super::super::{Answer, Cloud, Refusal, Request};
use super::rules::{self, Rule, Way, list};
use super::{Firewall, Peers};

/// Most Droplets that a firewall names by id (docs.digitalocean.com, "Firewalls Limits").
const MOST_DROPLETS: usize = 10;
/// Most tags that it names (the same).
const MOST_TAGS: usize = 5;

/// Whether the parts in a body join a firewall or leave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Change {
    Add,
    Remove,
}

impl Cloud {
    pub(in super::super) fn list_firewalls(&self, request: &Request) -> Result<Answer, Refusal> {
        let found: Vec<&Firewall> = self.firewalls.values().filter(|firewall| !firewall.deleted).collect();
        page(request, "firewalls", found.len(), |i| found[i].json())
    }

    pub(in super::super) fn list_firewalls_of(
        &self,
        droplet: &str,
        request: &Request,
        now: Timestamp,
    ) -> Result<Answer, Refusal> {
        let droplet = self.existing(droplet)?;
        let covers = |firewall: &&Firewall| !firewall.deleted && firewall.covers(droplet, now);
        let found: Vec<&Firewall> = self.firewalls.values().filter(covers).collect();
        page(request, "firewalls", found.len(), |i| found[i].json())
    }

    fn firewall(&self, id: &str) -> Result<&Firewall, Refusal> {
        self.firewalls.get(id).filter(|firewall| !firewall.deleted).ok_or(Refusal::NotFound)
    }

    pub(in super::super) fn get_firewall(&self, id: &str) -> Result<Answer, Refusal> {
        Ok(Answer::json(200, json!({"firewall": self.firewall(id)?.json()})))
    }

    pub(in super::super) fn create_firewall(
        &mut self,
        request: &Request,
        now: Timestamp,
    ) -> Result<Answer, Refusal> {
        let mut firewall = self.firewall_of(&body(request)?, now)?;
        self.check_firewall(&firewall)?;
        firewall.id = self.next_uuid();
        let id = firewall.id.clone();
        self.firewalls.insert(id.clone(), firewall);
        self.bring_firewalls_after(now);
        self.get_firewall(&id).map(|answer| Answer { status: 202, ..answer })
    }

    /// `PUT`: what the body leaves out is empty from then on.
    pub(in super::super) fn update_firewall(
        &mut self,
        id: &str,
        request: &Request,
        now: Timestamp,
    ) -> Result<Answer, Refusal> {
        let before = self.firewall(id)?.clone();
        let wanted = self.firewall_of(&body(request)?, now)?;
        self.replace_firewall(
            Firewall { id: before.id, created_at: before.created_at, places: before.places, ..wanted },
            now,
        )?;
        self.get_firewall(id)
    }

    pub(in super::super) fn delete_firewall(&mut self, id: &str, now: Timestamp) -> Result<Answer, Refusal> {
        self.firewall(id)?;
        if let Some(firewall) = self.firewalls.get_mut(id) {
            firewall.deleted = true;
        }
        self.bring_firewalls_after(now);
        Ok(Answer::no_content())
    }

    /// `/droplets`, `/tags` and `/rules` of a firewall.
    ///
    /// Unverified on the real API: that a part which is not there cannot be removed. Refusing finds clients that guess.
    pub(in super::super) fn change_firewall(
        &mut self,
        id: &str,
        part: &str,
        change: Change,
        request: &Request,
        now: Timestamp,
    ) -> Result<Answer, Refusal> {
        let mut firewall = self.firewall(id)?.clone();
        let body = body(request)?;
        match part {
            "droplets" => {
                required(&body, &["droplet_ids"])?;
                let ids = self.droplets_of(&body)?;
                join(&mut firewall.droplet_ids, ids, change)?;
            }
            "tags" => {
                required(&body, &["tags"])?;
                let tags = self.known_tags(&list(&body, "tags")?)?;
                join(&mut firewall.tags, tags, change)?;
            }
            "rules" => {
                required(&body, &[Way::In.list(), Way::Out.list()])?;
                let [inbound, outbound] = self.rules_of(&body)?;
                join_rules(&mut firewall.inbound, inbound, change)?;
                join_rules(&mut firewall.outbound, outbound, change)?;
            }
            _ => return Err(Refusal::NotFound),
        }
        self.replace_firewall(firewall, now)?;
        Ok(Answer::no_content())
    }

    fn replace_firewall(&mut self, firewall: Firewall, now: Timestamp) -> Result<(), Refusal> {
        self.check_firewall(&firewall)?;
        self.firewalls.insert(firewall.id.clone(), firewall);
        self.bring_firewalls_after(now);
        Ok(())
    }

    /// A whole firewall without id, as a create or an update asks for it.
    fn firewall_of(&self, body: &Map<String, Value>, now: Timestamp) -> Result<Firewall, Refusal> {
        let name = request::text(body, "name")?.unwrap_or_default();
        let [inbound, outbound] = self.rules_of(body)?;
        let (mut droplet_ids, mut tags) = (Vec::new(), Vec::new());
        join(&mut droplet_ids, self.droplets_of(body)?, Change::Add)?;
        join(&mut tags, self.known_tags(&list(body, "tags")?)?, Change::Add)?;
        Ok(Firewall {
            id: String::new(),
            name: name.to_owned(),
            created_at: now,
            droplet_ids,
            tags,
            inbound,
            outbound,
            deleted: false,
            places: std::collections::BTreeMap::new(),
        })
    }

    /// What holds of every firewall.
    fn check_firewall(&self, firewall: &Firewall) -> Result<(), Refusal> {
        let name = firewall.name.as_str();
        let fits = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
        let begins_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if name.len() < 2 || !begins_well || !name.chars().all(fits) {
            return Err(Refusal::unprocessable(
                "name must begin with a letter or digit and contain only letters, digits, periods and dashes",
            ));
        }
        let others = || self.firewalls.values().filter(|other| !other.deleted && other.id != firewall.id);
        if others().any(|other| other.name == name) {
            return Err(Refusal::Conflict("duplicate name".into()));
        }
        rules::check(&firewall.inbound, &firewall.outbound)?;
        if firewall.droplet_ids.len() > MOST_DROPLETS {
            return Err(Refusal::unprocessable(format!("a firewall names at most {MOST_DROPLETS} droplets")));
        }
        if firewall.tags.len() > MOST_TAGS {
            return Err(Refusal::unprocessable(format!("a firewall names at most {MOST_TAGS} tags")));
        }
        Ok(())
    }

    fn droplets_of(&self, body: &Map<String, Value>) -> Result<Vec<u64>, Refusal> {
        let read = |id: &Value| {
            let id = id.as_u64().ok_or_else(|| Refusal::unprocessable("droplet_ids must be integers"))?;
            let known = self.existing(&id.to_string());
            known
                .map(|droplet| droplet.id)
                .map_err(|_| Refusal::unprocessable(format!("droplet {id} does not exist")))
        };
        list(body, "droplet_ids")?.iter().map(read).collect()
    }

    fn rules_of(&self, body: &Map<String, Value>) -> Result<[Vec<Rule>; 2], Refusal> {
        let both = [rules::read(body, Way::In)?, rules::read(body, Way::Out)?];
        for Rule { peers: Peers { tags, .. }, .. } in both.iter().flatten() {
            self.known_tags(&tags.iter().map(|tag| json!(tag)).collect::<Vec<_>>())?;
        }
        Ok(both)
    }

    /// Unlike a Droplet's, a firewall's tags are not made when they are missing.
    fn known_tags(&self, tags: &[Value]) -> Result<Vec<String>, Refusal> {
        let known = |tag: &Value| {
            let name = tag.as_str().unwrap_or_default();
            let found = self.tags.keys().find(|known| known.eq_ignore_ascii_case(name)).cloned();
            found.ok_or_else(|| Refusal::unprocessable(format!("tag {name} does not exist")))
        };
        tags.iter().map(known).collect()
    }
}

fn body(request: &Request) -> Result<Map<String, Value>, Refusal> {
    request.object().map_err(|_| Refusal::BadRequest("error parsing request body".into()))
}

fn required(body: &Map<String, Value>, one_of: &[&str]) -> Result<(), Refusal> {
    if one_of.iter().any(|field| body.get(*field).is_some_and(|value| !value.is_null())) {
        return Ok(());
    }
    Err(Refusal::unprocessable(format!("{} is required", one_of.join(" or "))))
}

/// Naming twice is naming once.
fn join<T: PartialEq>(own: &mut Vec<T>, parts: Vec<T>, change: Change) -> Result<(), Refusal> {
    for part in parts {
        match (own.iter().position(|one| *one == part), change) {
            (None, Change::Add) => own.push(part),
            (Some(_), Change::Add) => {}
            (Some(index), Change::Remove) => drop(own.remove(index)),
            (None, Change::Remove) => return Err(Refusal::unprocessable("it is not part of the firewall")),
        }
    }
    Ok(())
}

/// A rule that is there already is a duplicate, which [`rules::check`] refuses.
fn join_rules(own: &mut Vec<Rule>, parts: Vec<Rule>, change: Change) -> Result<(), Refusal> {
    if change == Change::Remove {
        return join(own, parts, change);
    }
    own.extend(parts);
    own.sort();
    Ok(())
}
