//! Projects: how people sort what they pay for.

use serde::{Deserialize, Serialize};

use super::ids::{DropletId, ProjectId};

/// A project.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Whether it is the one that new Droplets come into.
    #[serde(default)]
    pub is_default: bool,
}

#[derive(Serialize)]
pub struct AssignResources {
    pub resources: Vec<String>,
}

impl AssignResources {
    pub fn droplet(id: DropletId) -> Self {
        Self { resources: vec![format!("do:droplet:{id}")] }
    }
}

/// What became of each resource.
#[derive(Deserialize)]
pub struct AssignedResources {
    pub resources: Vec<AssignedResource>,
}

#[derive(Deserialize)]
pub struct AssignedResource {
    #[serde(default)]
    pub status: Option<String>,
}

impl AssignedResources {
    /// The word for the first one that is not in the project now.
    pub fn refusal(&self) -> Option<&str> {
        let mut words = self.resources.iter().filter_map(|resource| resource.status.as_deref());
        words.find(|word| !matches!(*word, "ok" | "assigned" | "already_assigned"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_project_is_no_refusal() {
        let read = |word: &str| -> AssignedResources {
            serde_json::from_str(&format!(
                r#"{{"resources": [{{"urn": "do:droplet:1", "status": "{word}"}}]}}"#
            ))
            .unwrap()
        };
        for word in ["ok", "assigned", "already_assigned"] {
            assert_eq!(read(word).refusal(), None);
        }
        for word in ["not_found", "service_down"] {
            assert_eq!(read(word).refusal(), Some(word));
        }
        assert!(serde_json::from_str::<AssignedResources>("{}").is_err());
    }
}
