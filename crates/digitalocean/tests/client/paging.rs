//! Lists of many pages.

use egress_digitalocean::{DropletFilter, DropletName, TagName};
use serde_json::json;

use crate::fake::{Fake, Reply, Request, json as answer};

/// One page of a list of `total` Droplets, with the absolute links that the real API sends.
fn page_of(request: &Request, total: u64) -> Reply {
    let number = |name: &str| request.query(name).unwrap().parse::<u64>().unwrap();
    let (page, per_page) = (number("page"), number("per_page"));
    let ids = ((page - 1) * per_page)..(page * per_page).min(total);
    let droplets: Vec<_> = ids.map(|id| json!({"id": id + 1})).collect();
    let pages = if page * per_page < total {
        json!({"next": format!("https://api.digitalocean.com/v2/droplets?page={}", page + 1)})
    } else {
        json!({})
    };
    let body = json!({"droplets": droplets, "links": {"pages": pages}, "meta": {"total": total}});
    answer(200, &body.to_string())
}

#[tokio::test]
async fn four_hundred_and_fifty_droplets_are_three_requests_to_the_same_server() {
    let fake = Fake::start(|request, _| page_of(request, 450)).await;
    let tag = TagName::new("egress-cluster:9f0c2a4e").unwrap();
    let list = fake.client().droplets(&DropletFilter::Tag(tag)).await.unwrap();
    let mut ids: Vec<u64> = list.iter().map(|droplet| droplet.id.0).collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=450).collect::<Vec<_>>());
    let asked = fake.asked();
    assert_eq!(asked.len(), 3);
    for (request, page) in asked.iter().zip(["1", "2", "3"]) {
        assert_eq!(request.query("page"), Some(page));
        assert_eq!(request.query("tag_name"), Some("egress-cluster:9f0c2a4e"));
        assert_eq!(request.query("name"), None);
    }
}

#[tokio::test]
async fn one_broken_page_is_an_error_and_not_a_shorter_list() {
    let fake = Fake::start(|request, _| match request.query("page") {
        Some("2") => answer(200, r#"{"droplets": [{"id": 201"#),
        _ => page_of(request, 450),
    })
    .await;
    let name = DropletName::new("egress-demo-0-1a2b3c4d").unwrap();
    let error = fake.client().droplets(&DropletFilter::Name(name)).await.unwrap_err();
    assert_eq!(error.category(), "unreadable");
}

#[tokio::test]
async fn a_list_that_changes_all_the_time_is_given_up_with_a_reason() {
    let fake = Fake::start(|request, number| page_of(request, 450 + number as u64)).await;
    let error = fake.client().droplets(&DropletFilter::All).await.unwrap_err();
    assert_eq!((error.category(), fake.count()), ("unsteady_list", 9), "{error}");
}
