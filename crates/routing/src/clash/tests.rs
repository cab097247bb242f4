use super::*;
use crate::fib_model::holding;
use crate::fixture::{ip, net, node, route};
use crate::kernel_state::RouteKey;
use crate::origin::RouteOrigin;
use crate::plan::{NodePlan, Selection, plan};

const A: &str = "10.116.0.100";

/// As on every machine: local, main, default.
fn kernels() -> Vec<SeenRule> {
    [(0, 255), (32_766, 254), (32_767, 253)]
        .map(|(priority, table)| others(Rule::lookup(priority, table)))
        .into()
}

fn others(rule: Rule) -> SeenRule {
    SeenRule { rule, complete: true, protocol: 2 }
}

fn planned(view: &crate::NodeView, observed: &Observed) -> NodePlan {
    let wanted = [route("db", 1, &["192.0.2.80", "192.0.2.0/25"], &[A])];
    plan(&wanted, view, &Selection::new(), observed, &Layout::default())
}

fn found(rules: &[SeenRule], observed: &Observed) -> Vec<(&'static str, String)> {
    let reports = planned(&node(), observed).routes;
    let found = clashes(observed, rules, &reports, &Layout::default());
    found.iter().map(|clash| (clash.reason(), clash.to_string())).collect()
}

#[test]
fn our_own_rules_ciliums_and_the_kernels_are_in_nobodys_way() {
    let plan = planned(&node(), &Observed::default());
    let ours = plan.state.rules.iter().map(|rule| SeenRule {
        rule: rule.clone(),
        complete: true,
        protocol: PROTOCOL,
    });
    let mut rules: Vec<_> = ours.chain(kernels()).collect();
    assert_eq!(found(&rules, &holding(&plan.state)), []);
    // As Cilium leaves them: the proxy's, and the local table moved behind them.
    rules.retain(|seen| seen.rule.priority != 0);
    let proxy =
        |priority, table| others(Rule { fwmark: Some((0x200, 0xf00)), ..Rule::lookup(priority, table) });
    rules.extend([proxy(9, 2004), proxy(10, 2005), others(Rule::lookup(100, 255))]);
    let encrypted = Rule { from: Some(net("10.244.0.0/16")), ..Rule::lookup(111, 200) };
    rules.extend([others(encrypted), others(Rule::lookup(15_135, 135))]);
    assert_eq!(found(&rules, &holding(&plan.state)), []);
    assert!(has_routing_agent(&rules) && !has_routing_agent(&kernels()));
}

#[test]
fn rules_of_others_among_ours_ahead_of_ours_and_into_our_tables_are_named() {
    let mut rules = kernels();
    rules.push(SeenRule { protocol: 3, ..others(Rule::lookup(995, 77)) });
    rules.push(others(Rule { from: Some(net("10.0.0.0/8")), ..Rule::lookup(2_000, 1160) }));
    rules.push(others(Rule::lookup(500, 254)));
    let expected = [
        (
            "RuleAhead",
            "the rule at priority 500 (protocol 2, kernel) takes every packet before ours are asked: nothing goes through a \
             gateway until it is removed",
        ),
        (
            "ForeignRule",
            "the rule at priority 995 (protocol 3, boot) is among ours, 900 to 1001: remove it, or give the agent other \
             --rule-priorities",
        ),
        (
            "ForeignRule",
            "the rule at priority 2000 (protocol 2, kernel) looks up table 1160, which is ours: remove it, or give the agent \
             another --table and --probe-tables",
        ),
    ];
    assert_eq!(found(&rules, &Observed::default()), expected.map(|(reason, text)| (reason, text.to_owned())));
    // One with our number that this project never wrote is somebody else's.
    let tagged = SeenRule { complete: false, protocol: PROTOCOL, rule: Rule::lookup(1_000, 254) };
    assert_eq!(found(&[kernels(), vec![tagged]].concat(), &Observed::default())[0].0, "ForeignRule");
    // Without the local table first, what is addressed to the node itself could be routed away.
    assert_eq!(found(&kernels()[1..], &Observed::default())[0].0, "LocalTableBehind");
}

#[test]
fn routes_and_nexthop_objects_at_our_places_are_named_and_the_rest_is_applied() {
    let key = |table, destination| RouteKey { table, destination: net(destination), metric: 0 };
    let mut observed = Observed::default();
    observed.foreign.insert(Foreign::Route { key: key(1157, "192.0.2.80/32"), protocol: 4 });
    observed.foreign.insert(Foreign::Route { key: key(1160, "0.0.0.0/0"), protocol: 3 });
    observed.foreign.insert(Foreign::Nexthop { id: NexthopId(241_100_001), protocol: 3 });
    let expected = [
        (
            "ForeignRoute",
            "a route to 192.0.2.80/32 with metric 0 (protocol 4, static) is in table 1157, which is ours: remove it, or give the \
             agent another --table",
        ),
        (
            "ForeignRoute",
            "a route to 0.0.0.0/0 with metric 0 (protocol 3, boot) is in table 1160, which is ours: remove it, or give the agent \
             another --probe-tables",
        ),
        (
            "ForeignNexthop",
            "nexthop object 241100001 (protocol 3, boot) has an id of ours: remove it, or give the agent other --nexthop-ids",
        ),
    ];
    assert_eq!(found(&kernels(), &observed), expected.map(|(reason, text)| (reason, text.to_owned())));
    let plan = planned(&node(), &observed);
    assert_eq!((plan.routes[0].applied, plan.routes[0].failures[0].cause.reason()), (1, "ForeignRoute"));
    // Slot 0 has another's route in its table, slot 1 another's nexthop object.
    assert_eq!(plan.probes.iter().map(|path| path.slot.0).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_listed_destination_in_the_main_table_names_whose_it_seems_to_be() {
    let mut view = node();
    let destination = net("192.0.2.80/32");
    view.main_routes.insert(destination);
    let vpc = view.vpc.as_ref().map(|vpc| vpc.subnet);
    for (protocol, agent, reason) in
        [(4, false, "OlderOperator"), (4, true, "RoutingAgent"), (250, false, "MainTableRoute")]
    {
        let origin = RouteOrigin::of(protocol, Some(ip("10.116.0.5")), vpc, agent);
        view.main_origins.insert(destination, origin);
        let plan = planned(&view, &Observed::default());
        assert_eq!(plan.routes[0].failures[0].cause.reason(), "Shadowed");
        let clashes = clashes(&Observed::default(), &kernels(), &plan.routes, &Layout::default());
        assert_eq!(clashes, [Clash::Destination { destination, origin }]);
        assert_eq!(clashes[0].reason(), reason);
    }
}

#[test]
fn ports_that_the_kernel_may_give_to_others_are_named_unless_they_are_reserved() {
    let layout = Layout::default();
    assert_eq!(port_clash(&(32_768..=60_999), &[], &layout), None);
    let clash = port_clash(&(1_024..=65_535), &[], &layout).unwrap();
    assert_eq!(
        clash.to_string(),
        "the kernel gives connections ports from 1024 to 65535, and the rules for probes take 61000 to 63111 to a gateway: end \
         net.ipv4.ip_local_port_range below, or put them into net.ipv4.ip_local_reserved_ports"
    );
    assert_eq!(port_clash(&(1_024..=65_535), &[61_000..=63_111], &layout), None);
    assert!(port_clash(&(1_024..=65_535), &[61_000..=63_110], &layout).is_some());
}
