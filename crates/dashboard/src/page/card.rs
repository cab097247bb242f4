//! One EgressGateway: whole, as a line, and as a page of its own.

use egress_api::GatewayRole;
use jiff::Timestamp;
use maud::{Markup, html};

use super::{icon, unheard, when};
use crate::headroom::{Headroom, SCARCE};
use crate::view::{Card, Machine, State};

/// Everything in one look.
pub(super) fn card(card: &Card) -> Markup {
    let id = format!("name-{}", card.name);
    html! {
        article class=(format!("card {}", icon::class(card.state))) aria-labelledby=(id) {
            header {
                h3 id=(id) { a href=(link(card)) { (card.name) } }
                (icon::label(card.state))
            }
            p.sentence { (card.sentence) }
            (addresses(card))
            (machines(card))
            details id=(format!("said-{}", card.name)) {
                summary { "Conditions" }
                (conditions(card))
            }
        }
    }
}

/// One line, where there are many and this one works.
pub(super) fn line(card: &Card) -> Markup {
    let id = format!("name-{}", card.name);
    html! {
        article class=(format!("line-card {}", icon::class(card.state))) aria-labelledby=(id) {
            h3 id=(id) { a href=(link(card)) { (card.name) } }
            (icon::label(card.state))
            span.addresses {
                @for address in card.addresses.iter().filter(|address| address.leaves) { code { (address.address) } " " }
            }
            span.muted { (counted(card)) }
        }
    }
}

/// Head of its own page.
pub(super) fn headline(card: &Card, unheard_since: Option<Timestamp>) -> Markup {
    let title = card.state.word().to_lowercase();
    html! {
        section class=(format!("headline {}", icon::class(card.state))) aria-labelledby="headline-text" {
            (icon::large(card.state))
            div {
                h1 #headline-text data-title=(title) { (card.name) ": " (card.state.word()) }
                p.sentence { (card.sentence) }
                (addresses(card))
                (unheard(unheard_since))
            }
        }
    }
}

/// Its gateways, on its own page.
pub(super) fn machines_of(card: &Card) -> Markup {
    html! {
        section.card aria-labelledby="machines-title" {
            h2 #machines-title { "Gateways" }
            (machines(card))
            dl.asked {
                @for (what, value) in &card.asked_for { div { dt { (what) } dd { (value) } } }
                @if let Some(created) = card.created { div { dt { "Made" } dd { (when(created)) } } }
            }
        }
    }
}

/// Its conditions, on its own page.
pub(super) fn conditions_of(card: &Card) -> Markup {
    html! {
        section.card aria-labelledby="conditions-title" {
            h2 #conditions-title { "Conditions" }
            (conditions(card))
        }
    }
}

fn link(card: &Card) -> String {
    format!("./?gateway={}", card.name)
}

fn counted(card: &Card) -> String {
    let gateways = card.gateways_ready.as_deref().map(|ready| format!("{ready} gateways"));
    let nodes = card.nodes.as_deref().map(|nodes| format!("{nodes} nodes"));
    [gateways, nodes].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn addresses(card: &Card) -> Markup {
    html! {
        dl.facts {
            div {
                dt { "Egress addresses" }
                dd {
                    @if card.addresses.is_empty() { "none yet" }
                    ul.plain {
                        @for address in &card.addresses {
                            li {
                                code { (address.address) }
                                " "
                                @if address.leaves { strong { "in use" } } @else { span.muted { (idle(address.holder)) } }
                            }
                        }
                    }
                }
            }
            @if let Some(ready) = &card.gateways_ready { div { dt { "Proven gateways" } dd.number { (ready) } } }
            @if let Some(nodes) = &card.nodes { div { dt { "Nodes with routes" } dd.number { (nodes) } } }
        }
    }
}

fn idle(holder: Option<GatewayRole>) -> &'static str {
    match holder {
        Some(GatewayRole::Active) => "its gateway is not proven now",
        Some(GatewayRole::Standby) => "stands by",
        Some(GatewayRole::Starting) => "its gateway starts",
        Some(GatewayRole::Failed) => "its gateway failed",
        Some(GatewayRole::Leaving) => "its gateway leaves",
        None => "no gateway has it now",
    }
}

fn machines(card: &Card) -> Markup {
    html! {
        @if !card.machines.is_empty() || !card.creating.is_empty() {
            ul.machines aria-label=(format!("Gateways of {}", card.name)) {
                @for one in &card.machines { (machine(one)) }
                @for one in &card.creating { li.machine { span.role { "To come" } span.machine-name { (one) } } }
            }
        }
    }
}

fn role(role: GatewayRole) -> (&'static str, State) {
    match role {
        GatewayRole::Active => ("Active", State::Works),
        GatewayRole::Standby => ("Standby", State::Works),
        GatewayRole::Starting => ("Starting", State::Changing),
        GatewayRole::Leaving => ("Leaving", State::Changing),
        GatewayRole::Failed => ("Failed", State::Down),
    }
}

fn machine(one: &Machine) -> Markup {
    let (word, mut state) = role(one.role);
    if one.seen.is_condemned() {
        state = State::Down;
    } else if state == State::Works && (!one.ready || one.seen.failing() > 0) {
        state = State::Degraded;
    }
    html! {
        li class=(format!("machine {}", icon::class(state))) {
            span.role { (icon::small(state)) (word) }
            span.machine-name { (one.name) @if one.existing { " " span.muted { "(your Droplet)" } } }
            span.machine-addresses {
                @if let Some(address) = &one.public_address { code { (address) } }
                @if let Some(address) = &one.private_address { " " span.muted { "in the VPC " code { (address) } } }
            }
            span class=(if one.seen.failing() > 0 { "machine-nodes trouble" } else { "machine-nodes" }) {
                (sees(one)) "; " (in_use(one.used_by))
            }
            @if let Some(message) = &one.message { span.message { (message) } }
            @if let Some(headroom) = &one.headroom { (bars(headroom, &one.name)) }
        }
    }
}

fn in_use(nodes: usize) -> String {
    match nodes {
        0 => "no node sends through it".to_owned(),
        1 => "1 node sends through it".to_owned(),
        many => format!("{many} nodes send through it"),
    }
}

fn sees(one: &Machine) -> String {
    let asked = one.seen.asked();
    if asked == 0 {
        return "no node says anything of it".to_owned();
    }
    if one.seen.failing() == 0 {
        return match one.seen.untried {
            0 => format!("{asked} of {asked} nodes get through"),
            untried => {
                format!("{} of {asked} nodes got through, {untried} have not tried yet", one.seen.works)
            }
        };
    }
    let fails = one
        .seen
        .fails
        .iter()
        .map(|(level, nodes)| format!("for {nodes} of {asked} nodes it {}", level.words()));
    fails.collect::<Vec<_>>().join(", ")
}

fn bars(headroom: &Headroom, name: &str) -> Markup {
    html! {
        span.bars {
            (bar("Connections", headroom.table_share(), &format!("{} of {}", number(headroom.connections), number(headroom.most_connections)), name))
            @if let Some(busiest) = &headroom.busiest {
                (bar("Ports to the busiest", busiest.share, &format!("{} to {}", number(busiest.connections), busiest.destination), name))
            }
        }
    }
}

fn bar(what: &str, share: f64, words: &str, name: &str) -> Markup {
    let percent = format!("{:.0} %", share * 100.0);
    let scarce = share >= SCARCE;
    html! {
        span.bar {
            span.bar-name { (what) }
            meter min="0" max="1" low=(SCARCE) high="0.9" optimum="0" value=(format!("{share:.3}"))
                aria-label=(format!("{what} of {name}")) { (percent) }
            span.bar-words { @if scarce { strong { "scarce: " } } (percent) ", " (words) }
        }
    }
}

// 131072 is read wrong at night.
fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn conditions(card: &Card) -> Markup {
    html! {
        @if card.outdated { p.warning { "The spec was changed, and the controller has not looked at it yet: what follows speaks of the one before." } }
        @if card.conditions.is_empty() { p.muted { "The controller has not said anything yet." } }
        dl.conditions {
            @for one in &card.conditions {
                dt { (sign(one.good)) (one.words) " " code.reason { (one.reason) } }
                dd { (one.message) " " span.muted { "Since " (when(one.since)) } }
            }
        }
    }
}

fn sign(good: bool) -> Markup {
    let state = if good { State::Works } else { State::Degraded };
    html! { span class=(icon::class(state)) { (icon::small(state)) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_grouped() {
        let of = [0, 999, 1_000, 131_072, 1_048_576].map(number);
        assert_eq!(of, ["0", "999", "1,000", "131,072", "1,048,576"]);
    }
}
