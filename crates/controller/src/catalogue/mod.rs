//! What the cloud has: sizes, regions, images, SSH keys and projects, looked up before anything is made of them, and prices.
//!
//! Each list is shared by all EgressGateways and kept: for a day while nothing is wanted of it, for minutes while a Droplet is about to
//! be made, for a minute if something was not found in it, so that what somebody mends is seen soon. A list that the token may not
//! read, or that does not come, proves nothing: the cloud's own refusal tells then.

mod fit;
mod held;

use std::time::Duration;

use egress_api::DropletTemplate;
use egress_digitalocean::{Image, ImageRef, ImageSlug, Project, Region, Size, SshKey};
use jiff::Timestamp;

use crate::cloud::Cloud;
use crate::observation::Trouble;
use held::Held;
pub(crate) use held::HeldByKey;

/// How urgent it is that what is known is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing is about to be made.
    Quiet,
    /// A Droplet is.
    Create,
}

/// What is offered for one template.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Offer {
    /// What of it cannot be had, with the nearest value that can.
    pub trouble: Option<Trouble>,
    /// US dollars a month for one Droplet, if known.
    pub price: Option<f64>,
}

/// The lists, as far as they were read.
#[derive(Default)]
pub struct Catalogue {
    sizes: Held<Vec<Size>>,
    regions: Held<Vec<Region>>,
    distributions: Held<Vec<Image>>,
    images: HeldByKey<Option<Image>>,
    keys: Held<Vec<SshKey>>,
    projects: Held<Vec<Project>>,
}

/// Everything that a template is judged by; what is `None` is not known.
#[derive(Debug, Default)]
struct Shelves<'a> {
    sizes: Option<&'a [Size]>,
    regions: Option<&'a [Region]>,
    image: Option<&'a Option<Image>>,
    distributions: Option<&'a [Image]>,
    keys: Option<&'a [SshKey]>,
    projects: Option<&'a [Project]>,
}

const REGION_UNAVAILABLE: &str = "RegionUnavailable";
const INVALID_SIZE: &str = "InvalidSize";
const INVALID_IMAGE: &str = "InvalidImage";
const UNKNOWN_SSH_KEY: &str = "UnknownSshKey";
const UNKNOWN_PROJECT: &str = "UnknownProject";

const QUIET_AGE: Duration = Duration::from_secs(24 * 3600);
const CREATE_AGE: Duration = Duration::from_secs(600);
/// What was found wrong is looked at again soon: somebody may be mending it.
const WRONG_AGE: Duration = Duration::from_secs(60);

impl Catalogue {
    /// Whether all of the template can be had in this region, and for how much.
    pub async fn offer(
        &self,
        cloud: &Cloud,
        template: &DropletTemplate,
        region: &str,
        need: Need,
        now: Timestamp,
    ) -> Offer {
        let age = match need {
            Need::Quiet => QUIET_AGE,
            Need::Create => CREATE_AGE,
        };
        let offer = self.judge(cloud, template, region, now, |_| age).await;
        let Some(trouble) = &offer.trouble else { return offer };
        let wrong = |reasons: &[&str]| if reasons.contains(&trouble.reason) { WRONG_AGE } else { age };
        self.judge(cloud, template, region, now, wrong).await
    }

    // `age` says how old what certain troubles come from may be.
    async fn judge(
        &self,
        cloud: &Cloud,
        template: &DropletTemplate,
        region: &str,
        now: Timestamp,
        age: impl Fn(&[&str]) -> Duration,
    ) -> Offer {
        let sizes = self.sizes.at_most(age(&[INVALID_SIZE]), now, || cloud.sizes()).await;
        let regions = self.regions.at_most(age(&[REGION_UNAVAILABLE]), now, || cloud.regions()).await;
        let image = match reference(&template.image) {
            Some(image) => {
                let age = age(&[INVALID_IMAGE]);
                self.images.at_most(&template.image, age, now, || cloud.image(&image)).await
            }
            None => None,
        };
        let in_region =
            |image: &Option<Image>| image.as_ref().is_some_and(|image| fit::is_image_in(image, region));
        let distributions = match &image {
            Some(found) if !in_region(found) => {
                self.distributions.at_most(age(&[]), now, || cloud.distributions()).await
            }
            _ => None,
        };
        let keys = if template.ssh_keys.is_empty() {
            None
        } else {
            self.keys.at_most(age(&[UNKNOWN_SSH_KEY]), now, || cloud.ssh_keys()).await
        };
        let projects = if template.project_id.is_none() {
            None
        } else {
            self.projects.at_most(age(&[UNKNOWN_PROJECT]), now, || cloud.projects()).await
        };
        let shelves = Shelves {
            sizes: sizes.as_deref().map(Vec::as_slice),
            regions: regions.as_deref().map(Vec::as_slice),
            image: image.as_deref(),
            distributions: distributions.as_deref().map(Vec::as_slice),
            keys: keys.as_deref().map(Vec::as_slice),
            projects: projects.as_deref().map(Vec::as_slice),
        };
        Offer { trouble: fit::trouble(template, region, &shelves), price: fit::price(template, &shelves) }
    }
}

fn reference(image: &str) -> Option<ImageRef> {
    match image.parse() {
        Ok(id) => Some(ImageRef::Id(id)),
        Err(_) => ImageSlug::new(image).ok().map(ImageRef::Slug),
    }
}
