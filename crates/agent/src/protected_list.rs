//! The user's list of what never goes through a gateway: a ConfigMap, one range or name a line.
//!
//! ```yaml
//! data:
//!   ranges: |
//!     203.0.113.0/24   # the office
//!     198.51.100.7
//!   names: |
//!     vault.example.com
//! ```
//!
//! Pure. What can't be read is told and the rest counts; without the ConfigMap the list is empty. Whether it could be read at
//! all is the watch's business: what it had last stays.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use egress_routing::prefix::parse_destination;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::ConfigMap;

/// Key of the ranges.
pub const RANGES: &str = "ranges";
/// Key of the names.
pub const NAMES: &str = "names";

/// Most names that count: each is looked up every few seconds on every node.
const MOST_NAMES: usize = 50;

/// So many bad lines are told; a status must stay small.
const MOST_COMPLAINTS: usize = 5;

/// What stands in the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProtectedList {
    /// Ranges and addresses.
    pub ranges: BTreeSet<Ipv4Net>,
    /// Host names.
    pub names: BTreeSet<String>,
    /// What could not be read, each as a sentence: the first few.
    pub complaints: Vec<String>,
    /// How many more there are.
    pub more_complaints: usize,
}

impl ProtectedList {
    /// Reads the ConfigMap; `None` when there is none.
    pub fn read(object: Option<&ConfigMap>) -> Self {
        let mut list = Self::default();
        let data: BTreeMap<&str, &str> = object
            .iter()
            .flat_map(|object| object.data.iter().flatten())
            .map(|(key, text)| (key.as_str(), text.as_str()))
            .collect();
        for (key, text) in data {
            match key {
                RANGES => list.read_ranges(text),
                NAMES => list.read_names(text),
                other => list.complain(format!("key {other} is unknown; the list has {RANGES} and {NAMES}")),
            }
        }
        list
    }

    /// All complaints in one sentence, `None` when there are none.
    pub fn complaint(&self) -> Option<String> {
        let said = self.complaints.join("; ");
        match self.more_complaints {
            _ if said.is_empty() => None,
            0 => Some(said),
            more => Some(format!("{said}; and {more} more")),
        }
    }

    fn read_ranges(&mut self, text: &str) {
        for (number, line) in entries(text) {
            match parse_destination(&field(RANGES, number), line) {
                Ok(range) => {
                    self.ranges.insert(range);
                }
                Err(error) => self.complain(error),
            }
        }
    }

    fn read_names(&mut self, text: &str) {
        for (number, line) in entries(text) {
            let name = line.trim_end_matches('.').to_ascii_lowercase();
            if !is_host_name(&name) {
                let fix = "is no host name; write it like vault.example.com, without wildcards";
                self.complain(format!("{}: '{}' {fix}", field(NAMES, number), shortened(line)));
            } else if self.names.len() == MOST_NAMES && !self.names.contains(&name) {
                self.complain(format!(
                    "{}: '{name}' is one too many; {MOST_NAMES} names count, list ranges instead",
                    field(NAMES, number)
                ));
            } else {
                self.names.insert(name);
            }
        }
    }

    fn complain(&mut self, about: impl fmt::Display) {
        if self.complaints.len() < MOST_COMPLAINTS {
            self.complaints.push(shortened(&about.to_string()).to_owned());
        } else {
            self.more_complaints += 1;
        }
    }
}

fn field(key: &str, number: usize) -> String {
    format!("data.{key}, line {number}")
}

/// Lines with something on them, without comments, counted from 1.
fn entries(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text
        .lines()
        .zip(1..)
        .map(|(line, number)| (number, line.split('#').next().unwrap_or_default().trim()));
    lines.filter(|(_, line)| !line.is_empty())
}

// RFC 1123, with a dot in it: a name without one means something else on every node.
fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        let plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        (1..=63).contains(&label.len()) && plain && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_address = name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    name.len() <= 253 && name.contains('.') && name.split('.').all(label) && !is_address
}

fn shortened(text: &str) -> &str {
    const LONGEST: usize = 300;
    text.char_indices().nth(LONGEST).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(data: &[(&str, &str)]) -> ProtectedList {
        let data = data.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
        ProtectedList::read(Some(&ConfigMap { data: Some(data), ..ConfigMap::default() }))
    }

    #[test]
    fn one_range_or_name_a_line_with_comments() {
        let ranges = "# offices\n203.0.113.0/24  # Berlin\n\n198.51.100.7\n198.51.100.7/32\n";
        let list = list(&[("ranges", ranges), ("names", "Vault.Example.com.\n#old.example.com\n")]);
        assert_eq!(
            list.ranges,
            ["203.0.113.0/24", "198.51.100.7/32"].map(|text| text.parse().unwrap()).into()
        );
        assert_eq!(list.names, ["vault.example.com".to_owned()].into());
        assert_eq!(list.complaint(), None);
    }

    #[test]
    fn without_a_config_map_the_list_is_empty() {
        assert_eq!(ProtectedList::read(None), ProtectedList::default());
    }

    #[test]
    fn a_bad_line_is_named_with_the_fix_and_the_rest_counts() {
        let list = list(&[
            ("names", "*.example.com\n10.0.0.1\nvault\nok.example.com"),
            ("ranges", "10.0.0.1/8\n192.0.2.0/24\n2001:db8::/32"),
            ("range", "192.0.2.0/24"),
        ]);
        assert_eq!(list.ranges, ["192.0.2.0/24".parse().unwrap()].into());
        assert_eq!(list.names, ["ok.example.com".to_owned()].into());
        let said = list.complaint().unwrap();
        for words in [
            "data.names, line 1: '*.example.com' is no host name; write it like vault.example.com, without wildcards",
            "data.names, line 2: '10.0.0.1' is no host name",
            "data.names, line 3: 'vault' is no host name",
            "key range is unknown; the list has ranges and names",
            "data.ranges, line 1: '10.0.0.1/8' has bits set behind its prefix length; write 10.0.0.0/8",
            "; and 1 more",
        ] {
            assert!(said.contains(words), "{words}: {said}");
        }
    }

    #[test]
    fn names_and_complaints_are_bounded() {
        let names: Vec<String> = (0..80).map(|n| format!("n{n}.example.com")).collect();
        let list = list(&[("names", &names.join("\n"))]);
        assert_eq!(list.names.len(), MOST_NAMES);
        assert_eq!((list.complaints.len(), list.more_complaints), (MOST_COMPLAINTS, 25));
        let long = "x".repeat(100_000);
        assert!(self::list(&[("names", &long)]).complaint().unwrap().len() < 400);
    }
}
