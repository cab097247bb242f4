//! How the demo ends when a step fails. The first one does here, for want of the control plane's programs; that it ends well is
//! shown end to end.

use serde_json::Value;

use crate::world::{World, traces};

struct Ending {
    code: Option<i32>,
    said: String,
    complaint: String,
    report: Value,
}

fn demo(world: &World, ci: Option<&str>) -> Ending {
    let report = world.state_dir().with_file_name("report.json");
    let mut command = world.command(&["demo", "--assets", "/nonexistent", "--report"]);
    command.arg(&report).env_remove("CI").envs(ci.map(|ci| ("CI", ci)));
    let output = command.output().unwrap();
    Ending {
        code: output.status.code(),
        said: String::from_utf8(output.stdout).unwrap(),
        complaint: String::from_utf8(output.stderr).unwrap(),
        report: serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap(),
    }
}

#[test]
fn a_demo_that_does_not_show_what_it_must_ends_with_1_and_reports_the_step() {
    let world = World::new();
    let Ending { code, said, complaint, report } = demo(&world, None);
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(complaint, "egress-lab: step cluster did not show what it must\n");
    let [step] = report["steps"].as_array().unwrap().as_slice() else { panic!("{report:#}") };
    assert_eq!((&step["name"], &step["ok"]), (&"cluster".into(), &false.into()));
    let error = step["error"].as_str().unwrap();
    assert!(error.contains("/nonexistent/etcd is missing"), "{error}");
    assert!(said.contains(&format!(": {error}")), "{said}");
    assert_eq!(report["failover"], Value::Null);
}

#[test]
fn the_lab_stays_for_a_person_and_stops_where_nobody_looks() {
    for (ci, stays) in [(None, true), (Some("false"), true), (Some("true"), false)] {
        let world = World::new();
        let Ending { code, said, .. } = demo(&world, ci);
        assert_eq!(code, Some(1), "CI={ci:?}: {said}");
        assert_eq!(world.state_dir().exists(), stays, "CI={ci:?}: {said}");
        assert_eq!(said.contains("The lab stays up"), stays, "CI={ci:?}: {said}");
        assert_eq!(said.contains("$ egress-lab stop"), !stays, "CI={ci:?}: {said}");
        assert!(stays || traces(&world.name).is_empty(), "{:?}", traces(&world.name));
    }
}
