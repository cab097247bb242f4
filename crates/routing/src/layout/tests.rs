use super::*;

#[test]
fn slots_have_ports_of_their_own_above_the_ephemeral_range() {
    let layout = Layout::default();
    let mut previous_end = 60_999;
    for slot in (0..layout.probe_slots).map(GatewaySlot) {
        let ports = layout.probe_port_range(slot);
        assert_eq!(*ports.start(), previous_end + 1);
        assert_eq!(ports.clone().count(), 64);
        previous_end = *ports.end();
        assert_eq!(layout.slot_of_table(layout.probe_table(slot)), Some(slot));
        assert!(layout.probe_priority(slot) < layout.around_priority);
    }
    assert_eq!(*layout.around_ports().start(), previous_end + 1);
    assert_eq!(layout.all_probe_ports(), 61_000..=*layout.around_ports().end());
    assert!(layout.around_priority < layout.reply_priority);
    assert_eq!(layout.slot_of_nexthop(layout.probe_nexthop(GatewaySlot(31))), Some(GatewaySlot(31)));
    assert_eq!(layout.slot_of_nexthop(layout.twin_nexthop(GatewaySlot(0))), None);
    assert_eq!(layout.slot_of_table(layout.table), None);
    assert_eq!(layout.slot_of_table(1160 + 32), None);
}

#[test]
fn the_default_numbers_can_be_used_and_others_give_the_same_layout_elsewhere() {
    assert_eq!(Layout::new(Numbers::default()), Ok(Layout::default()));
    let numbers = Numbers {
        table: 2157,
        probe_tables: 2160,
        rule_priorities: 15_033,
        probe_ports: 63_424,
        nexthop_ids: 249_000_000,
    };
    let layout = Layout::new(numbers).unwrap();
    assert_eq!(layout.priorities(), 15_033..=15_134);
    assert_eq!(layout.all_probe_ports(), 63_424..=65_535);
    assert_eq!(layout.nexthops(), 249_000_000..=249_999_999);
    assert!(layout.has_table(2157) && layout.has_table(2191) && !layout.has_table(1157));
    assert_eq!(layout.probe_port_range(GatewaySlot(31)), 65_408..=65_471);
    let id = layout.probe_nexthop(GatewaySlot(31));
    assert!(layout.nexthops().contains(&id.0) && NEXTHOP_IDS.contains(&id.0));
}

#[test]
fn a_number_that_cannot_be_used_is_named_with_the_reason_and_what_can_be() {
    let given = Numbers::default();
    for (numbers, expected) in [
        (
            Numbers { table: 135, ..given },
            "--table 135 can't be used: 135 belongs to DigitalOcean's managed routing agent; choose an unused table, \
             such as 1157",
        ),
        (Numbers { table: 0, ..given }, "--table 0 can't be used: table 0 is no table; "),
        (Numbers { table: 254, ..given }, "--table 254 can't be used: 253-255 are the kernel's own"),
        (
            Numbers { table: 2005, ..given },
            "--table 2005 can't be used: 2004 and 2005 belong to Cilium's proxy; ",
        ),
        (
            Numbers { probe_tables: 130, ..given },
            "--probe-tables 130 can't be used: 135 belongs to DigitalOcean's managed routing agent; choose the first of \
             32 unused tables, such as 1160",
        ),
        (
            Numbers { probe_tables: 1150, ..given },
            "--probe-tables 1150 can't be used: 1150-1181 would have --table 1157 among them; ",
        ),
        (Numbers { probe_tables: u32::MAX - 30, ..given }, "--probe-tables 4294967265 can't be used: "),
        (
            Numbers { rule_priorities: 112, ..given },
            "--rule-priorities 112 can't be used: Cilium's rules are at 9 to 112, with the kernel's local table at 100 \
             among them; a rule ahead of that would route what is addressed to the node itself; choose 113 to 15033",
        ),
        (
            Numbers { rule_priorities: 15_034, ..given },
            "--rule-priorities 15034 can't be used: the last of them is 15135, and 15135 belongs to DigitalOcean's \
             managed routing agent; choose 113 to 15033",
        ),
        (Numbers { rule_priorities: u32::MAX, ..given }, "--rule-priorities 4294967295 can't be used: "),
        (
            Numbers { probe_ports: 60_999, ..given },
            "--probe-ports 60999 can't be used: below 61000 are the kernel's ephemeral ports, and the rules for probes \
             would catch other connections; choose 61000 to 63424",
        ),
        (
            Numbers { probe_ports: 63_425, ..given },
            "--probe-ports 63425 can't be used: the last of 2112 ports ",
        ),
        (
            Numbers { nexthop_ids: 241_500_000, ..given },
            "--nexthop-ids 241500000 can't be used: an id must prove that the object is ours, also to an agent with \
             other numbers; choose a whole million from 241000000 to 249000000",
        ),
        (Numbers { nexthop_ids: 250_000_000, ..given }, "--nexthop-ids 250000000 can't be used: "),
        (Numbers { nexthop_ids: 7_000_000, ..given }, "--nexthop-ids 7000000 can't be used: "),
    ] {
        let error = Layout::new(numbers).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}\ninstead of {expected}");
    }
}

#[test]
fn nothing_of_the_managed_routing_agent_is_used() {
    let layout = Layout::default();
    for slot in (0..layout.probe_slots).map(GatewaySlot) {
        assert_ne!(layout.probe_table(slot), 135);
    }
    assert_ne!(layout.table, 135);
    assert!(layout.table_priority < 15_135);
}
