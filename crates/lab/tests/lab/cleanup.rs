//! Nothing is left of a lab, however it ended.

use std::time::Duration;

use crate::api::assets;
use crate::world::{World, eventually, traces};

fn check_nothing_is_left(world: &World) {
    let status = world.json(&["status"]);
    for kind in ["processes", "namespaces", "cgroups", "mounts"] {
        assert_eq!(status["remains"][kind], serde_json::json!([]), "{kind}");
    }
    // Killed processes stay in the list until their parent has seen it.
    eventually("no trace is left", || {
        let left = traces(&world.name);
        if !left.is_empty() {
            eprintln!("{left:#?}");
        }
        left.is_empty().then_some(())
    });
    assert!(!world.state_dir().exists());
    assert!(!std::path::Path::new(&format!("/run/egress-lab-{}.lock", world.name)).exists());
}

#[test]
fn a_running_lab_leaves_traces_and_a_stopped_one_none() {
    let world = World::start(&["--size", "network"]);
    assert!(traces(&world.name).len() > 7, "the search for traces finds nothing: {:?}", traces(&world.name));
    world.run(&["stop"]);
    check_nothing_is_left(&world);
    world.run(&["stop"]);
}

#[test]
fn a_folder_that_is_not_a_labs_is_left_as_it_is() {
    let world = World::new();
    let work = world.state_dir().join("thesis");
    std::fs::create_dir_all(&work).unwrap();
    std::fs::write(work.join("chapter-1"), "years of work").unwrap();
    for command in [["stop"].as_slice(), &["start", "--size", "network"]] {
        let refused = world.output(command);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success(), "{command:?}");
        assert_eq!(
            said,
            format!(
                "egress-lab: {} is no lab's folder and not empty, so nothing in it is touched: name another with --state-dir\n",
                world.state_dir().display()
            )
        );
        assert_eq!(std::fs::read_to_string(work.join("chapter-1")).unwrap(), "years of work");
        assert_eq!(std::fs::read_dir(world.state_dir()).unwrap().count(), 1);
        assert!(traces(&world.name).is_empty(), "{:?}", traces(&world.name));
    }
    std::fs::remove_dir_all(world.state_dir()).unwrap();
}

#[test]
fn a_start_that_is_killed_at_any_moment_leaves_nothing_after_stop() {
    let world = World::new();
    let mut met = 0;
    for moment in (5..400).step_by(15) {
        let mut start = world.spawn(&["start", "--size", "network"]);
        std::thread::sleep(Duration::from_millis(moment));
        start.kill().unwrap();
        start.wait().unwrap();
        met += usize::from(!traces(&world.name).is_empty());
        world.run(&["stop"]);
        check_nothing_is_left(&world);
    }
    assert!(met > 5, "the kills came before there was anything: {met}");
}

#[test]
fn the_next_start_removes_what_a_killed_one_left() {
    let world = World::new();
    let mut start = world.spawn(&["start", "--size", "network"]);
    eventually("there is something", || (traces(&world.name).len() > 3).then_some(()));
    start.kill().unwrap();
    start.wait().unwrap();
    world.run(&["start", "--size", "network"]);
    assert_eq!(world.json(&["status"])["remains"]["namespaces"].as_array().unwrap().len(), 7);
}

#[test]
fn a_cluster_that_is_killed_while_it_starts_leaves_nothing_after_stop() {
    let world = World::new();
    let assets = assets();
    for moment in [400, 2500, 5000, 8000] {
        let mut start = world.spawn(&["start", "--size", "all", "--assets", &assets]);
        std::thread::sleep(Duration::from_millis(moment));
        start.kill().unwrap();
        start.wait().unwrap();
        assert!(!traces(&world.name).is_empty());
        world.run(&["stop"]);
        check_nothing_is_left(&world);
    }
}
