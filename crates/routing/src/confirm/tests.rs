use std::net::SocketAddrV4;

use super::*;
use crate::fib_model::{Way, holding, lookup, packet};
use crate::fixture::{excluding, failing, ip, net, node, route};
use crate::kernel_state::{Gateway, Observed, RouteKind};
use crate::wanted::ReferenceFault;
use crate::{Chosen, Layout, NodePlan, OnNoGateway, ProtectedReason, Selection, plan};

mod properties;

const GOOD: &str = "10.116.0.100";
const DEAD: &str = "10.116.0.101";

fn target(lifeline: Lifeline, address: &str) -> Target {
    Target { lifeline, address: SocketAddrV4::new(ip(address), 443) }
}

/// An address of the API server that nobody protects.
fn api_server() -> Target {
    target(Lifeline::ApiServer, "192.0.2.10")
}

fn answers(through: bool, around: bool) -> Answers {
    Answers { through, around }
}

const BOTH: (bool, bool) = (true, true);
const CUT: (bool, bool) = (false, true);
const SILENT: (bool, bool) = (false, false);

/// An agent's loop around the state machine.
struct Scene {
    confirmation: Confirmation,
    node: NodeView,
    in_force: Vec<WantedRoute>,
    plan: NodePlan,
    now: Duration,
}

impl Scene {
    /// After a start with these objects, not looked at yet.
    fn starting(wanted: &[WantedRoute]) -> Self {
        let mut scene = Self {
            confirmation: Confirmation::after_start([]),
            node: node(),
            in_force: Vec::new(),
            plan: NodePlan::default(),
            now: Duration::ZERO,
        };
        scene.pass(wanted);
        scene
    }

    /// With everything confirmed.
    fn confirmed(wanted: &[WantedRoute]) -> Self {
        let mut scene = Self::starting(wanted);
        assert_eq!(scene.look(BOTH), Verdict::Confirmed);
        scene
    }

    fn pass(&mut self, wanted: &[WantedRoute]) {
        let in_force =
            self.confirmation.in_force(wanted, &self.node, self.now).unwrap_or_else(|| wanted.to_vec());
        self.confirmation.note(&self.in_force, &in_force);
        let layout = Layout::default();
        let node = self.confirmation.protect(&self.node);
        self.plan = plan(&in_force, &node, &Selection::new(), &Observed::default(), &layout);
        self.in_force = in_force;
        self.confirmation.applied(Ways::of(&self.plan.state, &layout), self.now);
    }

    fn look(&mut self, api: (bool, bool)) -> Verdict {
        self.look_at(&[(api_server(), api)])
    }

    fn look_at(&mut self, said: &[(Target, (bool, bool))]) -> Verdict {
        self.now += Duration::from_secs(1);
        let answers = said.iter().map(|(target, (through, around))| (*target, answers(*through, *around)));
        let look = Look { change: self.confirmation.change(), answers: answers.collect() };
        self.confirmation.on_look(&look, &self.plan.routes, &self.in_force, &self.node, self.now)
    }

    /// Three looks that see the same; the last one's verdict.
    fn condemn(&mut self) -> Verdict {
        assert_eq!((self.look(CUT), self.look(CUT)), (Verdict::Open, Verdict::Open));
        self.look(CUT)
    }
}

fn covering(name: &str, gateway: &str) -> WantedRoute {
    route(name, 1, &["192.0.2.0/24"], &[gateway])
}

fn harmless(name: &str) -> WantedRoute {
    route(name, 1, &["1.2.3.4"], &[GOOD])
}

/// Every state with every kind of look, and with a change.
#[test]
fn the_transition_table() {
    let quiet = [harmless("quiet")];
    let rolled_back = || Verdict::RolledBack { cut: api_server(), objects: vec!["uid-bad".to_owned()] };
    let tried = [harmless("quiet"), covering("bad", DEAD)];
    for (state, looks, verdict, is_open, instead) in [
        ("starting", vec![], Verdict::Open, true, None),
        ("starting", vec![SILENT], Verdict::Open, true, None),
        ("starting", vec![BOTH], Verdict::Confirmed, false, None),
        ("starting", vec![CUT, CUT, CUT], Verdict::Spared { cut: api_server() }, true, None),
        ("confirmed", vec![], Verdict::Open, false, None),
        ("confirmed", vec![CUT, CUT, CUT], Verdict::Open, false, None),
        ("confirmed", vec![SILENT], Verdict::Open, false, None),
        ("trying", vec![], Verdict::Open, true, None),
        ("trying", vec![BOTH], Verdict::Confirmed, false, None),
        ("trying", vec![SILENT, SILENT, SILENT, SILENT], Verdict::Open, true, None),
        ("trying", vec![SILENT, BOTH], Verdict::Confirmed, false, None),
        ("trying", vec![CUT, CUT], Verdict::Open, true, None),
        ("trying", vec![CUT, CUT, BOTH], Verdict::Confirmed, false, None),
        ("trying", vec![CUT, SILENT, CUT, CUT], Verdict::Open, true, None),
        ("trying", vec![SILENT, CUT, CUT, CUT], rolled_back(), true, Some(0)),
        ("trying", vec![CUT, CUT, CUT], rolled_back(), true, Some(0)),
    ] {
        let mut scene = match state {
            "starting" => Scene::starting(&tried),
            "confirmed" => Scene::confirmed(&tried),
            _ => {
                let mut scene = Scene::confirmed(&quiet);
                scene.pass(&tried);
                scene
            }
        };
        let last = looks.iter().map(|look| scene.look(*look)).last().unwrap_or(Verdict::Open);
        assert_eq!(last, verdict, "{state} {looks:?}");
        assert_eq!(scene.confirmation.is_trying(), is_open, "{state} {looks:?}");
        let found = scene.confirmation.rolled_back().get("uid-bad").map(|one| one.instead.destinations.len());
        assert_eq!(found, instead, "{state} {looks:?}");
    }
}

#[test]
fn the_last_confirmed_version_comes_back_and_the_report_names_what_was_cut() {
    let mut scene = Scene::confirmed(&[covering("edited", GOOD)]);
    let before = scene.plan.state.clone();
    let edited = [covering("edited", DEAD)];
    scene.pass(&edited);
    assert_ne!(scene.plan.state, before);
    assert!(matches!(scene.condemn(), Verdict::RolledBack { .. }));
    scene.pass(&edited);
    assert_eq!(scene.plan.state, before);
    let rolled_back = scene.confirmation.rolled_back()["uid-edited"].clone();
    let report = &mut scene.plan.routes[0];
    rolled_back.mark(report);
    let problem = report.problem.clone().unwrap();
    assert_eq!(problem.reason(), "RolledBack");
    let said = problem.to_string();
    assert!(
        said.contains("the API server (192.0.2.10:443)") && said.contains("last confirmed version"),
        "{said}"
    );
    assert_eq!(report.failures[0].destination, "192.0.2.0/24");
    assert!(!report.is_applied());
    assert_eq!(scene.look(BOTH), Verdict::Confirmed);
    scene.pass(&edited);
    assert_eq!((&scene.plan.state, scene.confirmation.is_trying()), (&before, false), "not tried again");
}

#[test]
fn it_is_tried_again_when_its_spec_or_the_network_changes_and_ever_later_for_the_networks_sake() {
    let mut scene = Scene::confirmed(&[]);
    let bad = [covering("bad", DEAD)];
    scene.pass(&bad);
    scene.condemn();
    let is_tried = |scene: &mut Scene, wanted: &[WantedRoute]| {
        scene.pass(wanted);
        !scene.confirmation.rolled_back().contains_key("uid-bad")
    };
    // A minute later, then two, then four: by another route to the target, another default route, another public address.
    let changes: [fn(&mut NodeView); 3] = [
        |node| node.main_routes.extend([net("192.0.0.0/16")]),
        |node| node.default_way = None,
        |node| node.public_addresses.push(net("203.0.113.77/24")),
    ];
    for (minutes, change) in [1, 2, 4].into_iter().zip(changes) {
        change(&mut scene.node);
        scene.now += Duration::from_secs(60 * minutes - 10);
        assert!(!is_tried(&mut scene, &bad), "{minutes}");
        scene.now += Duration::from_secs(10);
        assert!(is_tried(&mut scene, &bad), "{minutes}");
        assert!(matches!(scene.condemn(), Verdict::RolledBack { .. }));
    }
    let other = [route("bad", 1, &["192.0.2.0/25"], &[DEAD])];
    assert!(is_tried(&mut scene, &other), "another spec");
    scene.condemn();
    assert!(is_tried(&mut scene, &[]), "gone");
    assert_eq!(scene.look(BOTH), Verdict::Confirmed);
}

/// Its EgressGateway's list has another order whenever a gateway dies, and another member some minutes later.
#[test]
fn what_becomes_of_its_gateways_does_not_bring_a_refused_change_back_at_once() {
    let third = "10.116.0.102";
    let version = |wide: bool, gateways: &[&str]| {
        let destinations = if wide { &["1.2.3.4", "192.0.2.0/24"][..] } else { &["1.2.3.4"] };
        [route("pool", 1, destinations, gateways)]
    };
    let mut scene = Scene::confirmed(&version(false, &[DEAD, GOOD]));
    scene.pass(&version(true, &[DEAD, GOOD]));
    assert!(matches!(scene.condemn(), Verdict::RolledBack { .. }));
    scene.pass(&version(true, &[DEAD, GOOD]));
    assert_eq!(scene.look(BOTH), Verdict::Confirmed);
    let is_held = |scene: &Scene| {
        let way = Ways::of(&scene.plan.state, &Layout::default()).to(ip("192.0.2.10"));
        way.is_none() && scene.confirmation.rolled_back().contains_key("uid-pool")
    };
    for (gateways, in_use) in [(&[GOOD, DEAD][..], GOOD), (&[GOOD][..], GOOD), (&[DEAD, GOOD][..], DEAD)] {
        scene.pass(&version(true, gateways));
        assert!(is_held(&scene), "{gateways:?}");
        scene.now += Duration::from_secs(7200);
        scene.pass(&version(true, gateways));
        assert!(is_held(&scene), "{gateways:?}, however late");
        // The confirmed version follows, and that is no trial.
        assert_eq!(scene.plan.routes[0].in_use, [ip(in_use)], "{gateways:?}");
        assert!(!scene.confirmation.is_trying(), "{gateways:?}");
    }

    let mut gone = version(true, &[DEAD, GOOD]);
    gone[0].reference_fault = Some(ReferenceFault::Deleted { name: "pool".to_owned() });
    scene.pass(&gone);
    assert_eq!(scene.plan.routes[0].problem.as_ref().unwrap().reason(), "EgressGatewayDeleted");

    // Where none of them is left somebody means another way: at once.
    let mut scene = Scene::confirmed(&version(false, &[DEAD, GOOD]));
    scene.pass(&version(true, &[DEAD, GOOD]));
    assert!(matches!(scene.condemn(), Verdict::RolledBack { .. }));
    scene.pass(&version(true, &[third]));
    assert!(scene.confirmation.is_trying() && scene.confirmation.rolled_back().is_empty());

    // Another member is a reason, but not at once.
    let mut scene = Scene::confirmed(&version(false, &[DEAD, GOOD]));
    scene.pass(&version(true, &[DEAD, GOOD]));
    assert!(matches!(scene.condemn(), Verdict::RolledBack { .. }));
    scene.pass(&version(true, &[GOOD, third]));
    assert!(is_held(&scene));
    assert_eq!(scene.plan.routes[0].in_use, [ip(GOOD)], "of those that were confirmed the one that is left");
    scene.now += Duration::from_secs(60);
    scene.pass(&version(true, &[GOOD, third]));
    assert!(!is_held(&scene));
    // Other destinations are one at once.
    assert!(matches!(scene.condemn(), Verdict::RolledBack { .. }));
    scene.pass(&version(false, &[GOOD, third]));
    assert!(!is_held(&scene));
}

/// A node joins, a protected name has another address, a link goes down and up.
#[test]
fn what_cannot_change_the_verdict_is_no_other_network_however_long_it_lasts() {
    let service = target(Lifeline::ApiServer, "10.245.0.1");
    for hidden in [false, true] {
        let cut = if hidden { service } else { api_server() };
        let mut scene = Scene::starting(&[]);
        assert_eq!(scene.look_at(&[(cut, BOTH)]), Verdict::Confirmed);
        // Everything but what is protected, so that all routes of the main table lie inside.
        let bad = [route("bad", 1, &["0.0.0.0/0"], &[DEAD])];
        scene.pass(&bad);
        let last = (0..3).map(|_| scene.look_at(&[(cut, CUT)])).last();
        assert!(matches!(last, Some(Verdict::RolledBack { .. })), "{last:?}");
        scene.now += Duration::from_secs(7200);
        let is_tried = |scene: &mut Scene| {
            scene.pass(&bad);
            !scene.confirmation.rolled_back().contains_key("uid-bad")
        };
        let changes: [fn(&mut NodeView); 5] = [
            |node| node.protected.insert_address(ip("10.116.0.7"), ProtectedReason::Node),
            |node| node.protected.insert_address(ip("104.16.0.9"), ProtectedReason::CloudApi),
            |node| node.main_routes.extend([net("10.244.7.0/24")]),
            |node| node.candidates.extend([ip("10.116.0.103")]),
            |node| node.vpc.as_mut().unwrap().up = false,
        ];
        for (index, change) in changes.into_iter().enumerate() {
            change(&mut scene.node);
            assert!(!is_tried(&mut scene), "{index} {hidden}");
        }
        // Where the target is known, what leads elsewhere does not count either.
        scene.node.main_routes.insert(net("5.0.0.0/8"));
        assert_eq!(is_tried(&mut scene), hidden);
    }
}

#[test]
fn what_protects_the_target_from_now_on_is_another_network() {
    for (cut, protected) in [
        (api_server(), "192.0.2.10"),
        // Its address is translated: now it is known to where.
        (target(Lifeline::ApiServer, "10.245.0.1"), "192.0.2.77"),
    ] {
        let mut scene = Scene::starting(&[]);
        assert_eq!(scene.look_at(&[(cut, BOTH)]), Verdict::Confirmed);
        let bad = [covering("bad", DEAD)];
        scene.pass(&bad);
        let last = (0..3).map(|_| scene.look_at(&[(cut, CUT)])).last();
        assert!(matches!(last, Some(Verdict::RolledBack { .. })), "{last:?}");
        scene.node.protected.insert_address(ip(protected), ProtectedReason::ApiServer);
        scene.now += Duration::from_secs(60);
        scene.pass(&bad);
        assert!(scene.confirmation.rolled_back().is_empty(), "{protected}");
    }
}

#[test]
fn changes_that_come_meanwhile_are_neither_lost_nor_blamed() {
    let mut scene = Scene::confirmed(&[harmless("old")]);
    scene.pass(&[harmless("old"), covering("bad", DEAD)]);
    scene.look(CUT);
    let all = [harmless("old"), covering("bad", DEAD), route("late", 2, &["5.6.7.8"], &[GOOD])];
    scene.pass(&all);
    scene.look(CUT);
    assert_eq!(
        scene.look(CUT),
        Verdict::RolledBack { cut: api_server(), objects: vec!["uid-bad".to_owned()] }
    );
    scene.pass(&all);
    let ways = Ways::of(&scene.plan.state, &Layout::default());
    assert!(ways.to(ip("5.6.7.8")).is_some() && ways.to(ip("1.2.3.4")).is_some());
    assert_eq!(ways.to(ip("192.0.2.10")), None);
}

/// A Service's address is translated on the way: no route of ours leads to what is looked at.
#[test]
fn behind_a_translated_address_what_changed_before_the_cut_was_seen_is_guilty() {
    let service = target(Lifeline::ApiServer, "10.245.0.1");
    let look = |scene: &mut Scene, said| scene.look_at(&[(service, said)]);
    let mut scene = Scene::starting(&[harmless("old")]);
    assert_eq!(look(&mut scene, BOTH), Verdict::Confirmed);
    let tried = [harmless("old"), covering("bad", DEAD)];
    scene.pass(&tried);
    assert_eq!(look(&mut scene, CUT), Verdict::Open);
    let late = [harmless("old"), covering("bad", DEAD), route("late", 2, &["5.6.7.8"], &[GOOD])];
    scene.pass(&late);
    assert_eq!(look(&mut scene, CUT), Verdict::Open);
    assert_eq!(
        look(&mut scene, CUT),
        Verdict::RolledBack { cut: service, objects: vec!["uid-bad".to_owned()] }
    );
    scene.pass(&late);
    assert_eq!(look(&mut scene, BOTH), Verdict::Confirmed);

    // It was silent before the change already: that proves nothing against it.
    assert_eq!(look(&mut scene, CUT), Verdict::Open);
    scene.pass(&[harmless("old")]);
    scene.pass(&[harmless("old"), harmless("new")]);
    for _ in 0..5 {
        assert_eq!(look(&mut scene, CUT), Verdict::Open);
    }
}

#[test]
fn a_look_that_began_before_a_change_confirms_nothing() {
    let mut scene = Scene::confirmed(&[]);
    let stale = scene.confirmation.change();
    scene.pass(&[covering("bad", DEAD)]);
    let look = Look { change: stale, answers: [(api_server(), answers(true, true))].into() };
    let verdict =
        scene.confirmation.on_look(&look, &scene.plan.routes, &scene.in_force, &scene.node, scene.now);
    assert_eq!(verdict, Verdict::Open);
    // Nor does one of before the last of two changes.
    let stale = scene.confirmation.change();
    scene.pass(&[covering("bad", DEAD), harmless("late")]);
    let look = Look { change: stale, ..look };
    let verdict =
        scene.confirmation.on_look(&look, &scene.plan.routes, &scene.in_force, &scene.node, scene.now);
    assert_eq!(verdict, Verdict::Open);
}

#[test]
fn switches_among_the_gateways_of_a_confirmed_object_and_deletes_are_no_trial() {
    let listed = |gateways: &[&str]| [route("pair", 1, &["192.0.2.0/24"], gateways)];
    let mut scene = Scene::confirmed(&listed(&[GOOD, DEAD]));
    for gateways in [&[DEAD, GOOD][..], &[DEAD], &[DEAD]] {
        scene.pass(&listed(gateways));
        assert!(!scene.confirmation.is_trying(), "{gateways:?}");
    }
    scene.pass(&listed(&[GOOD]));
    assert!(scene.confirmation.is_trying(), "it was not in the list any more");
    let mut scene = Scene::confirmed(&[covering("gone", GOOD), harmless("stays")]);
    scene.pass(&[harmless("stays")]);
    assert_eq!(scene.look(SILENT), Verdict::Open);
    assert_eq!(scene.look(BOTH), Verdict::Confirmed);
    assert!(scene.confirmation.rolled_back().is_empty());
}

/// Its own route does not lead there: it gave up what kept an older object's route from doing so.
#[test]
fn who_lays_the_way_open_is_rolled_back_and_without_a_suspect_the_address_is_spared() {
    let wide = || route("wide", 1, &["192.0.2.0/24"], &[DEAD]);
    let kept = route("keeps", 2, &["192.0.2.10"], &[GOOD]);
    let mut scene = Scene::confirmed(&[wide(), kept]);
    let without = [wide(), route("keeps", 2, &["5.6.7.8"], &[GOOD])];
    scene.pass(&without);
    let verdict = scene.condemn();
    assert_eq!(verdict, Verdict::RolledBack { cut: api_server(), objects: vec!["uid-keeps".to_owned()] });

    // A delete does the same and can't be taken back.
    let mut scene = Scene::confirmed(&[wide(), route("keeps", 2, &["192.0.2.10"], &[GOOD])]);
    scene.pass(&[wide()]);
    assert_eq!(scene.condemn(), Verdict::Spared { cut: api_server() });
    assert!(scene.confirmation.spared().contains_key(&ip("192.0.2.10")));
    scene.pass(&[wide()]);
    assert_eq!(Ways::of(&scene.plan.state, &Layout::default()).to(ip("192.0.2.10")), None);
    assert_eq!(scene.look(BOTH), Verdict::Confirmed);
    assert!(scene.confirmation.spared().contains_key(&ip("192.0.2.10")), "as long as something is there");
}

#[test]
fn what_a_restart_found_spared_stays_so_until_a_look_says_what_is_there() {
    let mut scene = Scene::starting(&[]);
    scene.confirmation = Confirmation::after_start([ip("192.0.2.10"), ip("192.0.2.11")]);
    scene.pass(&[covering("all", DEAD)]);
    assert_eq!(scene.confirmation.spared().len(), 2);
    assert_eq!(scene.look(BOTH), Verdict::Confirmed);
    assert_eq!(scene.confirmation.spared().keys().collect::<Vec<_>>(), [&ip("192.0.2.10")]);
}

#[test]
fn one_silent_resolver_of_two_holds_nothing_up() {
    let resolvers = ["192.0.2.53", "192.0.2.54"].map(|address| target(Lifeline::Resolver, address));
    let mut scene = Scene::confirmed(&[]);
    let said = [(api_server(), BOTH), (resolvers[0], BOTH), (resolvers[1], SILENT)];
    scene.pass(&[harmless("one")]);
    assert_eq!(scene.look_at(&said), Verdict::Confirmed);
    // One that is cut while the other answers is cut all the same.
    scene.pass(&[harmless("one"), route("two", 1, &["192.0.2.54"], &[DEAD])]);
    let said = [(api_server(), BOTH), (resolvers[0], BOTH), (resolvers[1], CUT)];
    assert_eq!((scene.look_at(&said), scene.look_at(&said)), (Verdict::Open, Verdict::Open));
    assert!(matches!(scene.look_at(&said), Verdict::RolledBack { .. }));
}

/// Both are protected, so nothing leads there: an address that its name has lost, and a resolver that stays configured.
#[test]
fn what_answered_once_and_died_beside_another_of_its_kind_holds_nothing_up() {
    let former = target(Lifeline::ApiServer, "192.0.2.11");
    let resolvers = ["192.0.2.53", "192.0.2.54"].map(|address| target(Lifeline::Resolver, address));
    let all = |former_said, resolver_said| {
        [(api_server(), BOTH), (former, former_said), (resolvers[0], BOTH), (resolvers[1], resolver_said)]
    };
    let mut scene = Scene::starting(&[]);
    assert_eq!(scene.look_at(&all(BOTH, BOTH)), Verdict::Confirmed);
    scene.pass(&[harmless("one")]);
    assert_eq!(scene.look_at(&all(SILENT, SILENT)), Verdict::Confirmed);

    // Where the change made the way there, it may be the change's fault when it comes back.
    scene.pass(&[harmless("one"), route("two", 1, &["192.0.2.11"], &[DEAD])]);
    assert_eq!(scene.look_at(&all(SILENT, SILENT)), Verdict::Open);
    // The last of its kind is waited for.
    scene.pass(&[harmless("two")]);
    let said = [(api_server(), SILENT), (former, SILENT), (resolvers[0], BOTH), (resolvers[1], SILENT)];
    assert_eq!(scene.look_at(&said), Verdict::Open);
    assert_eq!(scene.look_at(&all(SILENT, SILENT)), Verdict::Confirmed);
}

#[test]
fn a_rollback_leaves_shut_what_a_fail_closed_version_lists_and_opens_only_what_was_cut_off() {
    let way = |scene: &Scene, to: &str| Ways::of(&scene.plan.state, &Layout::default()).to(ip(to));
    let closed = |name, gateway| failing(covering(name, gateway), OnNoGateway::FailClosed);
    // A new object, and one that had a part of it before.
    for before in
        [vec![], vec![failing(route("bad", 1, &["192.0.2.128/25"], &[GOOD]), OnNoGateway::FailClosed)]]
    {
        let mut scene = Scene::confirmed(&before);
        let part = scene.plan.routes.first().and_then(|report| report.nexthop);
        scene.pass(&[closed("bad", DEAD)]);
        assert!(matches!(scene.condemn(), Verdict::RolledBack { .. }));
        scene.pass(&[closed("bad", DEAD)]);
        assert_eq!(way(&scene, "192.0.2.10"), None, "protected ranges always win");
        assert_eq!(way(&scene, "192.0.2.11"), Some(DROPPED));
        assert_eq!(way(&scene, "192.0.2.200"), part.or(Some(DROPPED)), "the confirmed part goes on");
        let rolled_back = scene.confirmation.rolled_back()["uid-bad"].clone();
        rolled_back.mark(&mut scene.plan.routes[0]);
        assert!(scene.plan.routes[0].guarded);
        let said = scene.plan.routes[0].problem.as_ref().unwrap().to_string();
        assert!(said.contains("what else it lists is dropped (FailClosed)"), "{said}");
        assert_eq!(scene.look(BOTH), Verdict::Confirmed);
        // Mended, then deleted: only that takes the guard away.
        scene.pass(&[closed("bad", GOOD)]);
        assert!(way(&scene, "192.0.2.11").is_some_and(|way| way != DROPPED));
        scene.pass(&[]);
        assert_eq!(way(&scene, "192.0.2.11"), None);
    }
}

/// What was excluded from the confirmed version and is listed by the refused one is shut: it was, from the moment of the edit.
#[test]
fn a_rollback_leaves_shut_what_the_confirmed_version_excludes_and_the_refused_one_lists() {
    let closed = |route| failing(route, OnNoGateway::FailClosed);
    let before = closed(excluding("bad", 1, &["192.0.0.0/16"], &["192.0.2.0/24", "192.0.4.0/24"], &[GOOD]));
    for after in [
        // Listed in its own right, and only no longer excluded.
        closed(excluding("bad", 1, &["192.0.0.0/16", "192.0.2.0/24"], &["192.0.4.0/24"], &[DEAD])),
        closed(excluding("bad", 1, &["192.0.0.0/16"], &["192.0.4.0/24"], &[DEAD])),
    ] {
        let mut scene = Scene::confirmed(std::slice::from_ref(&before));
        let nexthop = scene.plan.routes[0].nexthop;
        scene.pass(std::slice::from_ref(&after));
        assert!(matches!(scene.condemn(), Verdict::RolledBack { .. }));
        scene.pass(std::slice::from_ref(&after));
        let ways = Ways::of(&scene.plan.state, &Layout::default());
        assert_eq!(ways.to(ip("192.0.2.10")), None, "the address that was cut off");
        assert_eq!(ways.to(ip("192.0.2.11")), Some(DROPPED));
        assert_eq!(ways.to(ip("192.0.3.1")), nexthop, "what both route");
        assert_eq!(ways.to(ip("192.0.4.1")), None, "what both exclude");
        assert!(scene.plan.routes[0].guarded);
        assert_eq!(scene.look(BOTH), Verdict::Confirmed);
        // Taken back by its owner.
        scene.pass(std::slice::from_ref(&before));
        assert_eq!(Ways::of(&scene.plan.state, &Layout::default()).to(ip("192.0.2.11")), None);
    }
}

#[test]
fn a_confirmed_version_that_fails_open_fails_closed_as_long_as_the_refused_one_would() {
    let before = failing(route("bad", 1, &["1.2.3.4"], &[GOOD]), OnNoGateway::FailOpen);
    let after = failing(route("bad", 1, &["1.2.3.4", "192.0.2.0/24"], &[GOOD]), OnNoGateway::FailClosed);
    let mut scene = Scene::confirmed(std::slice::from_ref(&before));
    scene.node.default_way = Some(Gateway { address: ip("203.0.113.1"), interface: 2, onlink: true });
    scene.pass(std::slice::from_ref(&after));
    assert!(matches!(scene.condemn(), Verdict::RolledBack { .. }));
    scene.pass(std::slice::from_ref(&after));
    let way = |scene: &Scene, to: &str| {
        let none_works = Chosen { none_works: true, ..Chosen::from([ip(GOOD)]) };
        let selection = Selection::from([("uid-bad".to_owned(), none_works)]);
        let node = scene.confirmation.protect(&scene.node);
        let plan = plan(&scene.in_force, &node, &selection, &Observed::default(), &Layout::default());
        lookup(&holding(&plan.state), &node.main_routes, packet(ip(to)))
    };
    assert_eq!([way(&scene, "1.2.3.4"), way(&scene, "192.0.2.11")], [Way::Dropped; 2]);
    assert_eq!(way(&scene, "192.0.2.10"), Way::Default);
    assert!(scene.plan.routes[0].guarded);
    scene.pass(std::slice::from_ref(&before));
    assert_eq!(way(&scene, "1.2.3.4"), Way::Gateway(ip("203.0.113.1")), "as it was");
    assert_eq!(way(&scene, "192.0.2.11"), Way::Default);
}

/// No gateway of the confirmed version can be used from here, and it does not fail closed: of what it lists nothing was ever shut.
#[test]
fn a_rollback_shuts_nothing_that_the_refused_version_does_not_list() {
    let before = route("bad", 1, &["0.0.0.0/0"], &["192.0.2.1"]);
    let after = failing(covering("bad", DEAD), OnNoGateway::FailClosed);
    let other = route("other", 2, &["192.0.2.128/25"], &[GOOD]);
    let mut scene = Scene::confirmed(&[before, other.clone()]);
    scene.pass(&[after.clone(), other.clone()]);
    assert!(matches!(scene.condemn(), Verdict::RolledBack { .. }));
    scene.pass(&[after, other]);
    let ways = Ways::of(&scene.plan.state, &Layout::default());
    assert_eq!([ways.to(ip("8.8.8.8")), ways.to(ip("192.0.2.11"))], [None, Some(DROPPED)]);
    assert_eq!(ways.to(ip("192.0.2.200")), scene.plan.routes[1].nexthop, "a longer prefix of another object");
}

/// A guard is no longer prefix than what was listed, whatever is excluded from it.
#[test]
fn a_guard_takes_nothing_from_another_object() {
    let after =
        failing(excluding("bad", 1, &["192.0.0.0/16"], &["192.0.2.200"], &[DEAD]), OnNoGateway::FailClosed);
    let other = route("other", 2, &["192.0.2.128/25"], &[GOOD]);
    let mut scene = Scene::confirmed(std::slice::from_ref(&other));
    scene.pass(&[after.clone(), other.clone()]);
    assert!(matches!(scene.condemn(), Verdict::RolledBack { .. }));
    scene.pass(&[after, other]);
    let ways = Ways::of(&scene.plan.state, &Layout::default());
    for to in ["192.0.2.199", "192.0.2.200", "192.0.2.202", "192.0.2.255"] {
        assert_eq!(ways.to(ip(to)), scene.plan.routes[1].nexthop, "{to}");
    }
    assert_eq!(ways.to(ip("192.0.2.127")), Some(DROPPED));
}

#[test]
fn an_address_that_a_guard_alone_cuts_off_is_spared() {
    let other = target(Lifeline::ApiServer, "192.0.2.20");
    let mut scene = Scene::confirmed(&[]);
    let bad = [failing(covering("bad", DEAD), OnNoGateway::FailClosed)];
    scene.pass(&bad);
    scene.condemn();
    scene.pass(&bad);
    // The API server's name has a second address, behind the guard.
    let said = [(api_server(), BOTH), (other, CUT)];
    scene.look_at(&said);
    scene.look_at(&said);
    assert_eq!(scene.look_at(&said), Verdict::Spared { cut: other });
    scene.pass(&bad);
    let ways = Ways::of(&scene.plan.state, &Layout::default());
    assert_eq!(
        ["192.0.2.10", "192.0.2.20", "192.0.2.30"].map(|to| ways.to(ip(to))),
        [None, None, Some(DROPPED)]
    );
}

#[test]
fn where_the_cut_address_is_translated_on_the_way_the_guard_of_the_refused_version_goes_too() {
    let service = target(Lifeline::ApiServer, "10.245.0.1");
    let mut scene = Scene::starting(&[failing(harmless("quiet"), OnNoGateway::FailClosed)]);
    assert_eq!(scene.look_at(&[(service, BOTH)]), Verdict::Confirmed);
    scene.look_at(&[(service, BOTH)]);
    let wanted = [
        failing(harmless("quiet"), OnNoGateway::FailClosed),
        failing(covering("bad", DEAD), OnNoGateway::FailClosed),
    ];
    scene.pass(&wanted);
    let last = (0..3).map(|_| scene.look_at(&[(service, CUT)])).last();
    assert!(matches!(last, Some(Verdict::RolledBack { .. })), "{last:?}");
    scene.pass(&wanted);
    let ways = Ways::of(&scene.plan.state, &Layout::default());
    assert_eq!(ways.to(ip("192.0.2.11")), None);
    assert!(ways.to(ip("1.2.3.4")).is_some(), "the confirmed one's stays");
}
