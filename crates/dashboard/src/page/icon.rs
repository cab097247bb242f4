//! Signs that are told apart by their shape: colour only repeats what shape and word say.

use maud::{Markup, PreEscaped, html};

use crate::view::State;

/// Class that gives what is in it the colour of a state.
pub(super) fn class(state: State) -> &'static str {
    match state {
        State::Down => "state-down",
        State::Partial => "state-partial",
        State::Degraded => "state-degraded",
        State::Changing => "state-changing",
        State::Works => "state-works",
    }
}

fn shape(state: State) -> &'static str {
    match state {
        // A disc with a cross.
        State::Down => {
            r#"<circle cx="12" cy="12" r="11" fill="currentColor"/><path d="M8 8l8 8M16 8l-8 8" stroke="var(--card)" stroke-width="2.6" stroke-linecap="round"/>"#
        }
        // A disc of which one half is empty.
        State::Partial => {
            r#"<circle cx="12" cy="12" r="9.6" fill="none" stroke="currentColor" stroke-width="2.6"/><path d="M12 2.4a9.6 9.6 0 0 1 0 19.2z" fill="currentColor"/>"#
        }
        // A triangle with an exclamation mark.
        State::Degraded => {
            r#"<path d="M12 1.8L23.2 21.4H.8z" fill="currentColor"/><path d="M12 9v5.4M12 17.6v.3" stroke="var(--card)" stroke-width="2.6" stroke-linecap="round"/>"#
        }
        // A ring with a gap.
        State::Changing => {
            r#"<path d="M20.6 8.2A9.6 9.6 0 1 0 21.6 12" fill="none" stroke="currentColor" stroke-width="2.6" stroke-linecap="round"/><path d="M21.8 2.6v6h-6" fill="none" stroke="currentColor" stroke-width="2.6" stroke-linecap="round" stroke-linejoin="round"/>"#
        }
        // A check mark.
        State::Works => {
            r#"<path d="M3.4 12.8l5.8 5.8L20.6 6.4" fill="none" stroke="currentColor" stroke-width="3.2" stroke-linecap="round" stroke-linejoin="round"/>"#
        }
    }
}

/// Beside a word that says the same.
pub(super) fn small(state: State) -> Markup {
    html! { svg.icon viewBox="0 0 24 24" width="16" height="16" aria-hidden="true" focusable="false" { (PreEscaped(shape(state))) } }
}

/// Beside the headline.
pub(super) fn large(state: State) -> Markup {
    html! { svg.icon.large viewBox="0 0 24 24" width="40" height="40" aria-hidden="true" focusable="false" { (PreEscaped(shape(state))) } }
}

/// A state as a label.
pub(super) fn label(state: State) -> Markup {
    html! { span class=(format!("label {}", class(state))) { (small(state)) (state.word()) } }
}
