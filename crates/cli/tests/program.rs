//! The program as a person starts it. That it is tested here also has cargo build it beside the tests of other crates, which start it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by ending")]

use std::process::{Command, Output};

fn kubectl_egress(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kubectl-egress")).args(arguments).output().unwrap()
}

#[test]
fn help_shows_the_commands_as_kubectl_calls_them() {
    let shown = kubectl_egress(&["--help"]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.status.success() && text.contains("Usage: kubectl egress"), "{text}");
    assert!(text.contains("plan"), "{text}");
}

#[test]
fn what_is_no_command_is_refused_by_name() {
    let refused = kubectl_egress(&["plam"]);
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && text.contains("'plam'") && text.contains("plan"), "{text}");
}
