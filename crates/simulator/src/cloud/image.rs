//! Images.
//!
//! Responsibility: the built-in distribution images and their lookup by id or slug. Slugs: those of
//! `GET /v2/images?type=distribution` (`debian-12-x64` has left the newest list there; it is kept here for clusters that pinned it).

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::paging::page;
use super::{Answer, Cloud, Refusal, Request};

/// A distribution image.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Numeric id.
    pub id: u64,
    /// Slug, for example `debian-12-x64`.
    pub slug: String,
    /// Name, for example `12 x64`.
    pub name: String,
    /// Distribution, for example `Debian`.
    pub distribution: String,
    /// Slugs of the regions that have it.
    pub regions: Vec<String>,
    /// Smallest disk in GiB it can be created on.
    pub min_disk_size: u64,
}

impl Image {
    /// Whether this is the image that an `image` field or path segment names.
    pub fn answers_to(&self, id_or_slug: &str) -> bool {
        self.slug == id_or_slug || id_or_slug.parse() == Ok(self.id)
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "id": self.id, "name": self.name, "type": "base", "distribution": self.distribution, "slug": self.slug,
            "public": true, "regions": self.regions, "created_at": "2025-10-01T00:00:00Z",
            "min_disk_size": self.min_disk_size, "size_gigabytes": 0.67,
            "description": format!("{} {}", self.distribution, self.name), "tags": [], "status": "available",
            "error_message": "",
        })
    }
}

pub(super) fn built_in() -> Vec<Image> {
    const IMAGES: [(u64, &str, &str, &str); 7] = [
        (195_932_981, "debian-12-x64", "12 x64", "Debian"),
        (213_490_114, "debian-13-x64", "13 x64", "Debian"),
        (129_211_873, "ubuntu-22-04-x64", "22.04 (LTS) x64", "Ubuntu"),
        (195_932_982, "ubuntu-24-04-x64", "24.04 (LTS) x64", "Ubuntu"),
        (220_118_406, "ubuntu-26-04-x64", "26.04 (LTS) x64", "Ubuntu"),
        (213_490_115, "fedora-43-x64", "43 x64", "Fedora"),
        (195_932_983, "rockylinux-9-x64", "9 x64", "Rocky Linux"),
    ];
    let regions: Vec<String> = super::catalogue::regions().into_iter().map(|region| region.slug).collect();
    IMAGES
        .iter()
        .map(|(id, slug, name, distribution)| Image {
            id: *id,
            slug: (*slug).into(),
            name: (*name).into(),
            distribution: (*distribution).into(),
            regions: regions.clone(),
            min_disk_size: 10,
        })
        .collect()
}

impl Cloud {
    pub(super) fn list_images(&self, request: &Request) -> Result<Answer, Refusal> {
        if request.parameter("type").is_some_and(|kind| !["application", "distribution"].contains(&kind)) {
            return Err(Refusal::unprocessable("type must be application or distribution."));
        }
        // All built-in images are public distribution images: the other filters give an empty list.
        let none = matches!(request.parameter("type"), Some("application"))
            || request.parameter("private") == Some("true")
            || request.parameter("tag_name").is_some();
        let total = if none { 0 } else { self.images.len() };
        page(request, "images", total, |i| self.images[i].json())
    }

    pub(super) fn get_image(&self, id_or_slug: &str) -> Result<Answer, Refusal> {
        let image = self.image(id_or_slug).ok_or(Refusal::NotFound)?;
        Ok(Answer::json(200, json!({"image": image.json()})))
    }
}
