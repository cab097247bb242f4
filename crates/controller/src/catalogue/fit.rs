//! Whether a template fits what the cloud has: pure, with the nearest value in each message.

use egress_api::DropletTemplate;
use egress_digitalocean::{Image, RegionSlug, Size, SshKey};

use super::{INVALID_IMAGE, INVALID_SIZE, REGION_UNAVAILABLE, Shelves, UNKNOWN_PROJECT, UNKNOWN_SSH_KEY};
use crate::observation::Trouble;

/// The first thing that cannot be had.
pub(super) fn trouble(template: &DropletTemplate, region: &str, shelves: &Shelves<'_>) -> Option<Trouble> {
    None.or_else(|| of_region(region, shelves))
        .or_else(|| of_size(template, region, shelves))
        .or_else(|| of_image(template, region, shelves))
        .or_else(|| of_keys(template, shelves))
        .or_else(|| of_project(template, shelves))
}

/// US dollars a month for one Droplet.
pub(super) fn price(template: &DropletTemplate, shelves: &Shelves<'_>) -> Option<f64> {
    let size = shelves.sizes?.iter().find(|size| size.slug.as_str() == template.size)?;
    size.price_monthly.filter(|price| price.is_finite() && *price >= 0.0)
}

/// Whether an image can be booted in a region.
pub(super) fn is_image_in(image: &Image, region: &str) -> bool {
    // A token that is shown no regions proves nothing.
    (image.regions.is_empty() || has(&image.regions, region))
        && image.status.as_deref().is_none_or(|status| status.eq_ignore_ascii_case("available"))
}

fn has(regions: &[RegionSlug], region: &str) -> bool {
    regions.iter().any(|slug| slug.as_str() == region)
}

fn trouble_of(reason: &'static str, message: String) -> Trouble {
    Trouble { reason, message }
}

fn of_region(region: &str, shelves: &Shelves<'_>) -> Option<Trouble> {
    let found = shelves.regions?.iter().find(|known| known.slug.as_str() == region);
    if found.is_none_or(|found| found.available) {
        return None;
    }
    let message = format!(
        "DigitalOcean makes no new Droplets in {region} at present, where the nodes' VPC is; gateways cannot be anywhere else"
    );
    Some(trouble_of(REGION_UNAVAILABLE, message))
}

fn of_size(template: &DropletTemplate, region: &str, shelves: &Shelves<'_>) -> Option<Trouble> {
    let sizes = shelves.sizes?;
    let wanted = template.size.as_str();
    let found = sizes.iter().find(|size| size.slug.as_str() == wanted);
    if found.is_some_and(|size| size.available && has(&size.regions, region)) {
        return None;
    }
    let offered = || sizes.iter().filter(|size| size.available && has(&size.regions, region));
    let nearest = match found {
        // By what it is, and among equals by what it costs.
        Some(size) => {
            let apart =
                |other: &Size| other.memory.abs_diff(size.memory) + 1024 * other.vcpus.abs_diff(size.vcpus);
            offered().min_by(|a, b| apart(a).cmp(&apart(b)).then(dollars(a).total_cmp(&dollars(b))))
        }
        None => nearest_by(wanted, offered(), |size| size.slug.as_str()),
    };
    let fault = if found.is_some() { format!("cannot be had in {region}") } else { "is no size".to_owned() };
    let way_out = match nearest {
        Some(size) => format!("the nearest that can be had in {region} is {}", size.slug),
        None => format!("nothing can be had in {region}"),
    };
    Some(trouble_of(INVALID_SIZE, format!("spec.droplet.size {wanted} {fault}; {way_out}")))
}

fn of_image(template: &DropletTemplate, region: &str, shelves: &Shelves<'_>) -> Option<Trouble> {
    let (wanted, found) = (template.image.as_str(), shelves.image?);
    if let Some(image) = found.as_ref().filter(|image| is_image_in(image, region)) {
        return too_small(template, region, image, shelves);
    }
    let fault = match found {
        Some(_) => format!("cannot be had in {region}"),
        None => "is no image that the API token sees".to_owned(),
    };
    let named = |image: &&Image| image.slug.is_some() && is_image_in(image, region);
    let offered = shelves.distributions.unwrap_or_default().iter().filter(named);
    let nearest = nearest_by(wanted, offered, |image| image.slug.as_deref().unwrap_or_default());
    let way_out = match nearest.and_then(|image| image.slug.as_deref()) {
        Some(slug) => format!("the nearest that can be had there is {slug}"),
        None => "doctl compute image list-distribution shows what there is".to_owned(),
    };
    Some(trouble_of(INVALID_IMAGE, format!("spec.droplet.image {wanted} {fault}; {way_out}")))
}

fn too_small(
    template: &DropletTemplate,
    region: &str,
    image: &Image,
    shelves: &Shelves<'_>,
) -> Option<Trouble> {
    let sizes = shelves.sizes?;
    let size = sizes.iter().find(|size| size.slug.as_str() == template.size)?;
    let needed = image.min_disk_size.filter(|needed| *needed > size.disk)?;
    let fits = |other: &&Size| other.available && has(&other.regions, region) && other.disk >= needed;
    let cheapest = sizes.iter().filter(fits).min_by(|a, b| dollars(a).total_cmp(&dollars(b)));
    let way_out = cheapest.map(|size| format!("; {} is large enough", size.slug)).unwrap_or_default();
    Some(trouble_of(
        INVALID_SIZE,
        format!(
            "spec.droplet.image {} needs a disk of {needed} GB and spec.droplet.size {} has {}{way_out}",
            template.image, template.size, size.disk
        ),
    ))
}

fn dollars(size: &Size) -> f64 {
    size.price_monthly.unwrap_or(f64::MAX)
}

fn of_keys(template: &DropletTemplate, shelves: &Shelves<'_>) -> Option<Trouble> {
    let keys = shelves.keys?;
    let names = |key: &SshKey, named: &str| key.fingerprint == named || key.id.to_string() == named;
    let unknown = template.ssh_keys.iter().find(|named| !keys.iter().any(|key| names(key, named)))?;
    // What was written is an id or a fingerprint, and so is the answer.
    let written = |key: &SshKey| {
        if unknown.contains(':') { key.fingerprint.clone() } else { key.id.to_string() }
    };
    let way_out = match nearest_by(unknown, keys.iter(), written) {
        Some(key) => format!("the nearest is {} ({})", written(key), key.name),
        None => "it has none; leave spec.droplet.sshKeys out".to_owned(),
    };
    let message = format!("spec.droplet.sshKeys: {unknown} is no key of the team; {way_out}");
    Some(trouble_of(UNKNOWN_SSH_KEY, message))
}

fn of_project(template: &DropletTemplate, shelves: &Shelves<'_>) -> Option<Trouble> {
    let (wanted, projects) = (template.project_id.as_deref()?, shelves.projects?);
    if projects.iter().any(|project| project.id.as_str() == wanted) {
        return None;
    }
    let way_out = match nearest_by(wanted, projects.iter(), |project| project.id.as_str()) {
        Some(project) => format!("the nearest is {} ({})", project.id, project.name),
        None => "it shows none; leave spec.droplet.projectID out".to_owned(),
    };
    let message = format!("spec.droplet.projectID {wanted} is no project that the API token sees; {way_out}");
    Some(trouble_of(UNKNOWN_PROJECT, message))
}

// The one that is spelled most alike; the first of several.
fn nearest_by<'a, T, S: AsRef<str>>(
    wanted: &str,
    offered: impl Iterator<Item = &'a T>,
    spelled: impl Fn(&'a T) -> S,
) -> Option<&'a T> {
    offered.min_by_key(|one| strsim::damerau_levenshtein(wanted, spelled(one).as_ref()))
}

#[cfg(test)]
mod tests;
