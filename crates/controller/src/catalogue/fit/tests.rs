use egress_digitalocean::{Project, Region};
use serde_json::json;

use super::*;

struct Cloud {
    sizes: Vec<Size>,
    regions: Vec<Region>,
    image: Option<Image>,
    distributions: Vec<Image>,
    keys: Vec<SshKey>,
    projects: Vec<Project>,
}

fn image(slug: &str, regions: &[&str]) -> Image {
    let value =
        json!({"id": 1, "slug": slug, "regions": regions, "min_disk_size": 20, "status": "available"});
    serde_json::from_value(value).unwrap()
}

fn cloud() -> Cloud {
    let size = |slug: &str, memory: u64, disk: u64, price: f64, regions: &[&str]| -> Size {
        let value = json!({"slug": slug, "memory": memory, "vcpus": 1, "disk": disk, "price_monthly": price,
                           "regions": regions, "available": true});
        serde_json::from_value(value).unwrap()
    };
    let everywhere = ["nyc1", "fra1"];
    Cloud {
        sizes: vec![
            size("s-1vcpu-512mb-10gb", 512, 10, 4.0, &["fra1"]),
            size("s-1vcpu-1gb", 1024, 25, 6.0, &everywhere),
            size("s-1vcpu-1gb-amd", 1024, 25, 7.0, &everywhere),
            size("s-1vcpu-2gb", 2048, 50, 12.0, &everywhere),
        ],
        regions: serde_json::from_value(
            json!([{"slug": "nyc1", "available": true}, {"slug": "nyc2", "available": false}]),
        )
        .unwrap(),
        image: Some(image("ubuntu-24-04-x64", &everywhere)),
        distributions: vec![image("debian-13-x64", &everywhere), image("ubuntu-24-04-x64", &everywhere)],
        keys: serde_json::from_value(json!([{"id": 512_189, "fingerprint": "3b:16:e4", "name": "ops"},
                                            {"id": 77, "fingerprint": "aa:bb:cc", "name": "dev"}]))
        .unwrap(),
        projects: serde_json::from_value(
            json!([{"id": "4e1bfbc3", "name": "Default"}, {"id": "99999999", "name": "Other"}]),
        )
        .unwrap(),
    }
}

fn judge(
    cloud: &Cloud,
    region: &str,
    change: impl FnOnce(&mut DropletTemplate),
) -> Option<(&'static str, String)> {
    let mut template = DropletTemplate::default();
    change(&mut template);
    let shelves = Shelves {
        sizes: Some(&cloud.sizes),
        regions: Some(&cloud.regions),
        image: Some(&cloud.image),
        distributions: Some(&cloud.distributions),
        keys: Some(&cloud.keys),
        projects: Some(&cloud.projects),
    };
    trouble(&template, region, &shelves).map(|trouble| (trouble.reason, trouble.message))
}

#[test]
fn what_can_be_had_is_not_complained_of_and_costs_what_the_list_says() {
    let cloud = cloud();
    assert_eq!(judge(&cloud, "nyc1", |_| {}), None);
    let all = |template: &mut DropletTemplate| {
        template.ssh_keys = vec!["512189".into(), "aa:bb:cc".into()];
        template.project_id = Some("99999999".into());
    };
    assert_eq!(judge(&cloud, "nyc1", all), None);
    let shelves = Shelves { sizes: Some(&cloud.sizes), ..Shelves::default() };
    assert_eq!(price(&DropletTemplate::default(), &shelves), Some(6.0));
}

#[test]
fn each_value_that_cannot_be_had_is_answered_with_the_nearest_one() {
    let cloud = cloud();
    let wrong_size = |slug: &str| {
        let slug = slug.to_owned();
        judge(&cloud, "nyc1", |template| template.size = slug).unwrap()
    };
    let expected =
        "spec.droplet.size s-1vcpu-1bg is no size; the nearest that can be had in nyc1 is s-1vcpu-1gb";
    assert_eq!(wrong_size("s-1vcpu-1bg"), (INVALID_SIZE, expected.to_owned()));
    // By what it is, not by how it is spelled; among equals the cheapest.
    let expected = "spec.droplet.size s-1vcpu-512mb-10gb cannot be had in nyc1; the nearest that can be had in nyc1 is s-1vcpu-1gb";
    assert_eq!(wrong_size("s-1vcpu-512mb-10gb"), (INVALID_SIZE, expected.to_owned()));

    let (reason, words) =
        judge(&cloud, "fra1", |template| template.size = "s-1vcpu-512mb-10gb".into()).unwrap();
    assert_eq!(reason, INVALID_SIZE);
    assert!(
        words.contains("needs a disk of 20 GB") && words.contains("has 10; s-1vcpu-1gb is large"),
        "{words}"
    );

    let gone = Cloud { image: None, ..self::cloud() };
    let (reason, words) =
        judge(&gone, "nyc1", |template| template.image = "ubuntu-24-40-x64".into()).unwrap();
    assert_eq!(reason, INVALID_IMAGE);
    assert!(words.ends_with("the nearest that can be had there is ubuntu-24-04-x64"), "{words}");
    let elsewhere = Cloud { image: Some(image("ubuntu-24-04-x64", &["fra1"])), ..self::cloud() };
    let (_, words) = judge(&elsewhere, "nyc1", |_| {}).unwrap();
    assert!(words.starts_with("spec.droplet.image ubuntu-24-04-x64 cannot be had in nyc1"), "{words}");

    let key = |key: &str| judge(&cloud, "nyc1", |template| template.ssh_keys = vec![key.into()]).unwrap();
    let expected = "spec.droplet.sshKeys: 512188 is no key of the team; the nearest is 512189 (ops)";
    assert_eq!(key("512188"), (UNKNOWN_SSH_KEY, expected.to_owned()));
    assert!(key("aa:bb:cd").1.ends_with("the nearest is aa:bb:cc (dev)"));

    let project = judge(&cloud, "nyc1", |template| template.project_id = Some("4e1bfbc4".into())).unwrap();
    assert_eq!(project.0, UNKNOWN_PROJECT);
    assert!(project.1.ends_with("the nearest is 4e1bfbc3 (Default)"), "{}", project.1);
    assert_eq!(judge(&cloud, "nyc2", |_| {}).unwrap().0, REGION_UNAVAILABLE);
}

#[test]
fn what_is_not_known_is_no_reason_to_make_nothing() {
    assert_eq!(trouble(&DropletTemplate::default(), "nyc1", &Shelves::default()), None);
    assert_eq!(price(&DropletTemplate::default(), &Shelves::default()), None);
    // Nor are regions that the cloud does not tell of an image.
    let cloud = Cloud { image: Some(image("ubuntu-24-04-x64", &[])), ..cloud() };
    assert_eq!(judge(&cloud, "nyc1", |_| {}), None);
}
