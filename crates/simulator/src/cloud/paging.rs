//! Pagination as the API does it: `page` from 1, `per_page` 1 to 200 (default 20), absolute links.
//!
//! Responsibility: cut a list and write `links` and `meta`. The links name `api.digitalocean.com` whatever address the
//! simulator listens on, as behind a proxy: a client that follows them leaves the simulator, and should not.

use serde_json::{Map, Value, json};

use super::{Answer, Refusal, Request};

/// The page of a list of `total` elements that `request` asks for, under the key `key`.
///
/// # Errors
/// 422 when `page` or `per_page` is out of range.
pub fn page(
    request: &Request,
    key: &str,
    total: usize,
    element: impl FnMut(usize) -> Value,
) -> Result<Answer, Refusal> {
    let number = natural(request, "page", 1, usize::MAX)?;
    let size = natural(request, "per_page", 20, 200)?;
    let start = (number - 1).saturating_mul(size).min(total);
    let end = start.saturating_add(size).min(total);
    let elements: Vec<Value> = (start..end).map(element).collect();
    let last = total.div_ceil(size).max(1);

    let mut pages = Map::new();
    let mut link = |name: &str, to: usize| {
        pages.insert(name.into(), Value::String(address(request, to)));
    };
    if number > 1 {
        link("first", 1);
        link("prev", number - 1);
    }
    if number < last {
        link("next", number + 1);
        link("last", last);
    }
    let links = if pages.is_empty() { json!({}) } else { json!({"pages": pages}) };
    Ok(Answer::json(200, json!({key: elements, "links": links, "meta": {"total": total}})))
}

fn natural(request: &Request, name: &str, default: usize, most: usize) -> Result<usize, Refusal> {
    match request.parameter(name) {
        None => Ok(default),
        Some(text) => text
            .parse()
            .ok()
            .filter(|n| (1..=most).contains(n))
            .ok_or_else(|| Refusal::unprocessable(format!("{name} is out of range."))),
    }
}

/// The request's own address with another page number. Values are encoded as far as the names we page by need it.
fn address(request: &Request, number: usize) -> String {
    let mut query: Vec<String> = request
        .query
        .iter()
        .filter(|(key, _)| key != "page")
        .map(|(key, value)| format!("{key}={}", encoded(value)))
        .collect();
    query.insert(0, format!("page={number}"));
    format!("https://api.digitalocean.com{}?{}", request.path, query.join("&"))
}

fn encoded(value: &str) -> String {
    use std::fmt::Write as _;
    value.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}
