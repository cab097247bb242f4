use super::addresses::NODES;
use super::ports::{Direction, Rules, Side, port, removal, script};

#[test]
fn ports_fit_into_an_interface_name() {
    for machine in ["node-1", "gateway-a", "d4000000001"] {
        for side in Side::ALL {
            assert!(port(machine, side).len() <= 15, "{}", port(machine, side));
        }
    }
}

#[test]
fn a_port_drops_what_no_rule_names() {
    let node = NODES[0];
    let text = script("node-1-vpc", &Rules::own("02:01:0a:74:00:02", &[node.vpc]));
    let last_rule = text.lines().rfind(|line| line.starts_with("add rule")).unwrap();
    assert_eq!(last_rule, "add rule bridge ports node-1-vpc counter drop");
    assert!(text.contains("ip saddr { 10.116.0.2 } accept"));
    assert!(!text.contains("ip saddr !="));
}

#[test]
fn a_removed_port_is_in_no_set() {
    let text = removal("d7-pub");
    for set in ["machines", "from_machine_cut", "to_machine_cut"] {
        assert!(text.contains(&format!("delete element bridge ports {set} {{ \"d7-pub\" }}")), "{set}");
    }
    assert_ne!(Direction::In, Direction::Out);
}
