//! The small size: an API server alone.

use std::time::{Duration, Instant};

use crate::world::World;

/// The programs of the control plane.
pub fn assets() -> String {
    std::env::var("KUBEBUILDER_ASSETS").expect(
        "KUBEBUILDER_ASSETS is not set: export KUBEBUILDER_ASSETS=$(tests/control-plane/build.sh) builds the programs",
    )
}

#[test]
fn an_api_server_alone_is_ready_in_seconds_and_survives_a_stop() {
    let assets = assets();
    let begun = Instant::now();
    let world = World::start(&["--size", "api", "--assets", &assets]);
    // Measured: 3.5 s on an idle machine; the limit is for a loaded one.
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    let kubectl = |arguments: &[&str]| {
        let mut command = std::process::Command::new(format!("{assets}/kubectl"));
        command
            .arg("--kubeconfig")
            .arg(world.state_dir().join("kubeconfig"))
            .args(arguments)
            .output()
            .unwrap()
    };
    assert!(kubectl(&["create", "namespace", "kept"]).status.success());
    world.run(&["stop", "control-plane"]);
    assert!(!kubectl(&["get", "--raw", "/readyz", "--request-timeout=2s"]).status.success());
    world.run(&["start", "control-plane"]);
    assert!(kubectl(&["get", "namespace", "kept"]).status.success());
}
