//! What happened, the newest first.

use maud::{Markup, html};

use super::{icon, when};
use crate::timeline::{Kind, Moment};
use crate::view::State;

/// The list; `named` says of which EgressGateway each is.
pub(super) fn list(moments: &[Moment], named: bool) -> Markup {
    html! {
        section.card aria-labelledby="moments-title" {
            h2 #moments-title { "What happened" }
            @if moments.is_empty() { p.muted { "Nothing that the objects remember." } }
            ol.moments {
                @for moment in moments {
                    li class=(icon::class(colour(moment.kind))) {
                        span.moment-when { (when(moment.at)) }
                        span.moment-kind { (icon::small(colour(moment.kind))) (moment.kind.word()) }
                        span.moment-words {
                            @if named { strong { (moment.gateway) } " " }
                            (moment.sentence)
                        }
                    }
                }
            }
        }
    }
}

fn colour(kind: Kind) -> State {
    match kind {
        Kind::Broke => State::Down,
        Kind::Failover | Kind::Moved => State::Degraded,
        Kind::Replacement | Kind::Roll => State::Changing,
        Kind::Works => State::Works,
    }
}
