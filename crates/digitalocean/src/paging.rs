//! Reading a list of many pages as one consistent list.
//!
//! Pages are counted up; the absolute `next` links name `api.digitalocean.com` and are never followed. A list that
//! changes between two pages shifts: an entry can be seen twice or missed. Missing one of our own Droplets could lead to
//! a second one, so a sweep during which the total changed, or an entry came twice, is made again.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::model::catalog::{Image, Region, Size, SshKey};
use crate::model::droplet::Droplet;
use crate::model::firewall::Firewall;
use crate::model::project::Project;
use crate::model::reserved_ip::ReservedIp;
use crate::model::vpc::Vpc;

/// The most that the API gives per page.
pub const PER_PAGE: usize = 200;

/// The most pages of one sweep: 20,000 entries. A list that never ends must not be followed for ever.
const MOST_PAGES: usize = 100;

/// Sweeps over a list that keeps changing, before giving up.
const MOST_SWEEPS: usize = 3;

/// Something that comes in lists.
pub trait Listed: DeserializeOwned {
    /// The list's key in the answer.
    const ROOT: &'static str;
    /// Whether an entry that can not be read is skipped. Right for catalogues; a skipped Droplet would be a lie.
    const SKIPS_UNREADABLE: bool;
    /// What it is told apart by.
    fn key(&self) -> String;
}

impl Listed for Droplet {
    const ROOT: &'static str = "droplets";
    const SKIPS_UNREADABLE: bool = false;
    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Listed for Firewall {
    const ROOT: &'static str = "firewalls";
    const SKIPS_UNREADABLE: bool = false;
    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Listed for Vpc {
    const ROOT: &'static str = "vpcs";
    const SKIPS_UNREADABLE: bool = false;
    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Listed for ReservedIp {
    const ROOT: &'static str = "reserved_ips";
    const SKIPS_UNREADABLE: bool = false;
    fn key(&self) -> String {
        self.ip.to_string()
    }
}

impl Listed for Size {
    const ROOT: &'static str = "sizes";
    const SKIPS_UNREADABLE: bool = true;
    fn key(&self) -> String {
        self.slug.to_string()
    }
}

impl Listed for Region {
    const ROOT: &'static str = "regions";
    const SKIPS_UNREADABLE: bool = true;
    fn key(&self) -> String {
        self.slug.to_string()
    }
}

impl Listed for Image {
    const ROOT: &'static str = "images";
    const SKIPS_UNREADABLE: bool = true;
    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Listed for SshKey {
    const ROOT: &'static str = "ssh_keys";
    const SKIPS_UNREADABLE: bool = true;
    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Listed for Project {
    const ROOT: &'static str = "projects";
    const SKIPS_UNREADABLE: bool = true;
    fn key(&self) -> String {
        self.id.to_string()
    }
}

/// One page.
#[derive(Debug)]
pub struct Page<T> {
    /// Its entries.
    pub items: Vec<T>,
    /// `meta.total`.
    pub total: Option<u64>,
    /// Whether `links.pages.next` is there.
    pub has_next: bool,
}

impl<T: Listed> Page<T> {
    /// Reads an answer. An answer without the list is an error, not an empty list.
    pub fn read(body: &[u8]) -> Result<Self, serde_json::Error> {
        use serde::de::Error as _;
        let mut answer: BTreeMap<String, Value> = serde_json::from_slice(body)?;
        let Some(Value::Array(raw)) = answer.remove(T::ROOT) else {
            return Err(serde_json::Error::custom(format!("no list called {}", T::ROOT)));
        };
        let mut items = Vec::with_capacity(raw.len());
        for entry in raw {
            match T::deserialize(entry) {
                Ok(item) => items.push(item),
                Err(error) if T::SKIPS_UNREADABLE => tracing::debug!(list = T::ROOT, %error, "entry skipped"),
                Err(error) => return Err(error),
            }
        }
        let next = answer.get("links").and_then(|links| links.pointer("/pages/next"));
        let total = answer.get("meta").and_then(|meta| meta.get("total")).and_then(Value::as_u64);
        Ok(Self { items, total, has_next: next.is_some_and(Value::is_string) })
    }
}

/// What to do after a page.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<T> {
    /// Read this page next.
    Read(usize),
    /// The list.
    Done(Vec<T>),
    /// There is no consistent list to be had now.
    GiveUp(&'static str),
}

/// A sweep over all pages; pure, the caller does the reading. Starts at page 1.
#[derive(Debug)]
pub struct Sweep<T> {
    page: usize,
    round: usize,
    entries: BTreeMap<String, T>,
    taken: u64,
    total: Option<u64>,
    shifted: bool,
}

impl<T: Listed> Sweep<T> {
    /// Before page 1.
    pub fn new() -> Self {
        Self { page: 1, round: 1, entries: BTreeMap::new(), taken: 0, total: None, shifted: false }
    }

    /// Takes the page that was asked for.
    pub fn take(&mut self, page: Page<T>) -> Step<T> {
        let (count, total) = (page.items.len(), page.total);
        if self.page > 1 && total != self.total {
            self.shifted = true;
        }
        self.total = total;
        self.taken += count as u64;
        for item in page.items {
            self.shifted |= self.entries.insert(item.key(), item).is_some();
        }
        let more = page.has_next || total.map_or(count >= PER_PAGE, |total| self.taken < total);
        if more && count > 0 {
            if self.page == MOST_PAGES {
                return Step::GiveUp("it does not end");
            }
            self.page += 1;
            return Step::Read(self.page);
        }
        if !self.shifted {
            return Step::Done(std::mem::take(&mut self.entries).into_values().collect());
        }
        if self.round == MOST_SWEEPS {
            return Step::GiveUp("it changed during each of three readings");
        }
        *self = Self { round: self.round + 1, ..Self::new() };
        Step::Read(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(ids: std::ops::Range<u64>, total: Option<u64>, next: bool) -> Page<Droplet> {
        let items: Vec<Value> = ids.map(|id| serde_json::json!({ "id": id })).collect();
        let mut answer = serde_json::json!({ "droplets": items, "links": {} });
        if next {
            answer["links"] =
                serde_json::json!({"pages": {"next": "https://api.digitalocean.com/v2/droplets?page=9"}});
        }
        if let Some(total) = total {
            answer["meta"] = serde_json::json!({ "total": total });
        }
        Page::read(answer.to_string().as_bytes()).unwrap()
    }

    fn done(step: Step<Droplet>) -> usize {
        match step {
            Step::Done(list) => list.len(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn pages_are_counted_up_until_the_total_is_reached() {
        let mut sweep = Sweep::new();
        assert_eq!(sweep.take(page(0..200, Some(450), true)), Step::Read(2));
        assert_eq!(sweep.take(page(200..400, Some(450), true)), Step::Read(3));
        assert_eq!(done(sweep.take(page(400..450, Some(450), false))), 450);
    }

    #[test]
    fn links_or_total_alone_are_enough_and_smaller_pages_than_asked_for_too() {
        let mut only_links = Sweep::new();
        assert_eq!(only_links.take(page(0..20, None, true)), Step::Read(2));
        assert_eq!(done(only_links.take(page(20..25, None, false))), 25);
        let mut only_total = Sweep::new();
        assert_eq!(only_total.take(page(0..20, Some(25), false)), Step::Read(2));
        assert_eq!(done(only_total.take(page(20..25, Some(25), false))), 25);
        assert_eq!(done(Sweep::new().take(page(0..0, Some(0), false))), 0);
        assert_eq!(done(Sweep::new().take(page(0..3, None, false))), 3);
    }

    #[test]
    fn a_list_that_shifts_under_the_reader_is_read_again() {
        let mut sweep = Sweep::new();
        assert_eq!(sweep.take(page(0..200, Some(300), true)), Step::Read(2));
        // One of the first page was deleted: entry 200 slipped onto page 1 and was missed.
        assert_eq!(sweep.take(page(201..300, Some(299), false)), Step::Read(1));
        assert_eq!(sweep.take(page(1..201, Some(299), true)), Step::Read(2));
        assert_eq!(done(sweep.take(page(201..300, Some(299), false))), 299);
    }

    #[test]
    fn a_server_that_always_answers_page_one_is_given_up() {
        let mut sweep = Sweep::new();
        let mut reads = 0;
        loop {
            reads += 1;
            assert!(reads < 1000);
            match sweep.take(page(0..200, Some(450), true)) {
                Step::Read(_) => {}
                Step::GiveUp(_) => return,
                Step::Done(list) => panic!("{} entries", list.len()),
            }
        }
    }

    #[test]
    fn an_answer_without_the_list_is_no_empty_list() {
        for body in [
            "{}",
            r#"{"droplets": null}"#,
            r#"{"droplets": {}}"#,
            r#"{"droplets": [{"name": "no id"}]}"#,
            "[]",
        ] {
            assert!(Page::<Droplet>::read(body.as_bytes()).is_err(), "{body}");
        }
        let sizes =
            Page::<Size>::read(br#"{"sizes": [{"slug": "s-1vcpu-1gb"}, {"slug": "../odd"}]}"#).unwrap();
        assert_eq!(sizes.items.len(), 1);
    }
}
