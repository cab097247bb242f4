//! The page as HTML, in blocks: each is a part that is exchanged by itself when what it shows changes.
//!
//! Everything that comes from an object is escaped by the template; nothing is styled or scripted inline, so that the
//! Content-Security-Policy can forbid both.

mod card;
mod icon;
mod matrix;
mod moments;

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::board::Place;
use crate::timeline::Moment;
use crate::view::{Detail, Nodes, Overview, State};

/// EgressGateways that are shown with all there is to say of them, however well they are; beyond that, those that work are a line each.
const FEW: usize = 12;

/// Whole cards at most: who has so much trouble needs the list, and each has a page of its own.
const MOST_CARDS: usize = 40;

/// A part of the page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Block {
    /// The element's id.
    pub id: String,
    /// Changes with the content.
    pub version: String,
    /// The element's class.
    pub class: &'static str,
    /// What is in it.
    pub html: String,
}

impl Block {
    fn new(id: impl Into<String>, class: &'static str, content: Markup) -> Self {
        let html = content.into_string();
        let version = version(&[class, &html]);
        Self { id: id.into(), version, class, html }
    }
}

/// Differs where a content does.
pub(crate) fn version(content: &[&str]) -> String {
    let digest = content.iter().fold(Sha256::new(), Sha256::chain_update).finalize();
    let first = digest.iter().take(6).fold(0_u64, |first, byte| (first << 8) | u64::from(*byte));
    format!("{first:012x}")
}

/// The first page.
pub fn overview(overview: &Overview, moments: &[Moment]) -> Vec<Block> {
    let mut blocks = vec![Block::new("headline", "block wide", headline(overview))];
    if overview.cards.is_empty() && overview.known {
        blocks.push(Block::new("empty", "block wide", nothing_yet()));
    }
    if !overview.cards.is_empty() {
        blocks.push(Block::new("gateways", "block wide", html! { h2 { "EgressGateways" } }));
    }
    let few = overview.cards.len() <= FEW;
    let mut whole = 0;
    for card in &overview.cards {
        let id = format!("gateway-{}", card.name);
        if whole < MOST_CARDS && (few || card.state != State::Works) {
            whole += 1;
            blocks.push(Block::new(id, "block", card::card(card)));
        } else {
            blocks.push(Block::new(id, "block line", card::line(card)));
        }
    }
    if !overview.matrix.columns.is_empty() {
        blocks.push(Block::new("nodes", "block wide", matrix::of_all(&overview.matrix)));
    }
    if !overview.cards.is_empty() {
        blocks.push(Block::new("moments", "block wide", moments::list(moments, true)));
    }
    blocks
}

/// The page of one EgressGateway.
pub fn detail(detail: &Detail, moments: &[Moment]) -> Vec<Block> {
    let Detail { card, matrix, unheard_since } = detail;
    vec![
        Block::new("headline", "block wide", card::headline(card, *unheard_since)),
        Block::new(format!("gateway-{}", card.name), "block", card::machines_of(card)),
        Block::new("conditions", "block", card::conditions_of(card)),
        Block::new("nodes", "block wide", matrix::of_one(matrix, &card.name)),
        Block::new("moments", "block wide", moments::list(moments, false)),
    ]
}

/// What a place shows that is not there any more.
pub(crate) fn gone(name: &str) -> Vec<Block> {
    let content = html! {
        section.headline.state-changing aria-labelledby="headline-text" {
            h1 #headline-text data-title="gone" { "There is no EgressGateway " (name) }
            p { a href="./" { "All EgressGateways" } }
        }
    };
    vec![Block::new("headline", "block wide", content)]
}

fn headline(overview: &Overview) -> Markup {
    let state = overview.worst.unwrap_or(State::Changing);
    let title = match overview.counts.first() {
        Some((State::Works, _)) => "all work".to_owned(),
        Some((state, count)) => format!("{count} {}", state.word().to_lowercase()),
        None => "none".to_owned(),
    };
    html! {
        section class=(format!("headline {}", icon::class(state))) aria-labelledby="headline-text" {
            (icon::large(state))
            div {
                h1 #headline-text data-title=(title) { (overview.sentence) }
                @if overview.counts.len() > 1 {
                    ul.counts {
                        @for (state, count) in &overview.counts {
                            li class=(icon::class(*state)) { (icon::small(*state)) (count) " " (state.word()) }
                        }
                    }
                }
                @if overview.known { p.muted { (nodes_in_words(overview.nodes)) } }
                (unheard(overview.unheard_since))
            }
        }
    }
}

fn nodes_in_words(nodes: Nodes) -> String {
    let Nodes { total, silent, troubled } = nodes;
    let all = match total {
        0 => return "The cluster has no node".to_owned(),
        1 => "1 node".to_owned(),
        many => format!("{many} nodes"),
    };
    let counts = match silent {
        0 => ", all report".to_owned(),
        1 => ", the word of 1 does not count now".to_owned(),
        many => format!(", the word of {many} does not count now"),
    };
    let troubles = match troubled {
        0 => String::new(),
        1 => "; 1 has trouble of its own".to_owned(),
        many => format!("; {many} have trouble of their own"),
    };
    format!("{all}{counts}{troubles}")
}

fn unheard(since: Option<Timestamp>) -> Markup {
    html! {
        @if let Some(since) = since {
            p.warning { (icon::small(State::Degraded)) "The API server has not been heard since " (when(since)) ": what is shown is from then. Nodes go on by themselves." }
        }
    }
}

fn nothing_yet() -> Markup {
    html! {
        section.card aria-labelledby="empty-title" {
            h2 #empty-title { "Make the first one" }
            pre tabindex="0" { code {
                "kubectl apply -f - <<'EOF'\napiVersion: networking.digitalocean.com/v1alpha1\nkind: EgressGateway\nmetadata: {name: demo}\nspec:\n  destinations: [203.0.113.7]\n  publicIP: ReservedPerGateway\nEOF"
            } }
            p { "It costs money from then on: " code { "kubectl egress plan -f" } " says how much before." }
        }
    }
}

/// A moment, absolute: the script beside it says how long ago that is.
pub(crate) fn when(at: Timestamp) -> Markup {
    html! { time datetime=(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()) { (at.strftime("%-d %b %H:%M:%S UTC").to_string()) } }
}

/// The query that leads to a place.
pub(crate) fn query(place: &Place) -> String {
    match &place.gateway {
        None => String::new(),
        // Names of objects are letters, digits, '-' and '.': what a query may hold as it is. Others are none of ours.
        Some(name) if place.page > 1 => format!("?gateway={name}&page={}", place.page),
        Some(name) => format!("?gateway={name}"),
    }
}

/// The whole document around the blocks.
pub(crate) fn document(place: &Place, blocks: &[Block], assets: &crate::server::Assets) -> String {
    let title = match &place.gateway {
        Some(name) => format!("{name} – Egress gateways"),
        None => "Egress gateways".to_owned(),
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title data-plain=(title) { (title) }
                link rel="stylesheet" href=(format!("./style.css?v={}", assets.style_version));
                link rel="icon" type="image/svg+xml" href="./icon.svg";
                script src=(format!("./live.js?v={}", assets.script_version)) defer {}
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header.top {
                    nav aria-label="Pages" {
                        a.brand href="./" aria-current=[place.gateway.is_none().then_some("page")] { "Egress gateways" }
                        @if let Some(name) = &place.gateway {
                            span aria-hidden="true" { " / " }
                            span aria-current="page" { (name) }
                        }
                    }
                    p #live .live role="status" { noscript { "Without JavaScript: reload to see changes" } }
                }
                main #main tabindex="-1" data-events=(format!("./events{}", query(place))) {
                    @for block in blocks {
                        div id=(block.id) class=(block.class) data-version=(block.version) { (maud::PreEscaped(&block.html)) }
                    }
                }
                p #said .hidden role="status" {}
                footer { "Egress Gateway " (env!("CARGO_PKG_VERSION")) " · This page changes nothing · kubectl egress, kubectl describe egw" }
            }
        }
    };
    page.into_string()
}

#[cfg(test)]
mod tests;
