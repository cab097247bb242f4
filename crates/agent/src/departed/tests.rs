use egress_routing::OnNoGateway;
use egress_routing::report::Failure;
use egress_routing::wanted::StaticRouteFields;

use super::*;
use crate::fixture::report;

const MADE: i64 = 100;

fn route(name: &str) -> WantedRoute {
    WantedRoute::parse(StaticRouteFields {
        name,
        uid: &format!("uid-{name}"),
        created: MADE,
        destinations: &["192.0.2.1", "192.0.2.2"],
        excluded: &[],
        gateways: &["10.116.0.5"],
        health_checked: true,
        reference_fault: None,
        weights: None,
        on_no_gateway: OnNoGateway::KeepLast,
        drain_seconds: 0,
    })
}

fn there(names: &[&str]) -> Objects {
    let mut objects = Objects::default();
    for name in names {
        let route = route(name);
        objects.generations.insert(route.uid.clone(), 1);
        objects.present.insert(route.uid.clone(), (*name).to_owned());
        objects.routes.push(route);
    }
    objects
}

fn answer(to: Question, definition: Definition) -> Answer {
    Answer {
        to,
        definition,
        of_gateways: self::definition(1),
        reported: Vec::new(),
        gateways: Vec::new(),
        last_failover: None,
    }
}

fn definition(created: i64) -> Definition {
    Definition::There { uid: "d".to_owned(), created }
}

/// Plays one pass after another.
#[derive(Default)]
struct Scene {
    departed: Departed,
    last: Objects,
    asked: u64,
    answer: Option<Answer>,
}

impl Scene {
    fn see(&mut self, mut objects: Objects) -> Vec<String> {
        let asked = &mut self.asked;
        self.departed.keep(&mut objects, &self.last, &self.last.routes, self.answer.as_ref(), || {
            *asked += 1;
            Question::numbered(*asked)
        });
        self.last = objects;
        self.last.routes.iter().map(|route| route.name.clone()).collect()
    }

    fn hear(&mut self, definition: Definition) {
        self.answer = Some(answer(Question::numbered(self.asked), definition));
    }
}

#[test]
fn a_deletion_counts_once_the_definition_was_seen_to_be_there_afterwards() {
    let mut scene = Scene::default();
    scene.hear(definition(1));
    scene.see(there(&["a", "b"]));
    assert_eq!(scene.see(there(&["b"])), ["a", "b"], "the answer is older than the question");
    assert_eq!(scene.asked, 1);
    scene.hear(definition(1));
    assert_eq!(scene.see(there(&["b"])), ["b"]);
    assert_eq!(scene.see(there(&["b"])), ["b"]);
    assert_eq!(scene.asked, 1);
    assert!(scene.departed.concern().is_none());
}

#[test]
fn what_goes_with_its_definition_stays_until_it_is_there_again() {
    for definition_now in [Definition::Going { since: MADE }, Definition::Gone, definition(MADE + 1)] {
        let mut scene = Scene::default();
        scene.see(there(&["a", "b"]));
        scene.see(there(&[]));
        scene.hear(definition_now);
        assert_eq!(scene.see(there(&[])), ["a", "b"]);
        // Back and empty proves nothing.
        scene.hear(definition(MADE + 9));
        assert_eq!(scene.see(there(&[])), ["a", "b"]);
        assert!(scene.departed.concern().unwrap().message.contains("with it a, b:"));
        // The same name under another uid speaks for the orphan.
        let mut again = there(&["a"]);
        let uid = "uid-new".to_owned();
        again.routes[0].uid.clone_from(&uid);
        again.present = [(uid, "a".to_owned())].into();
        assert_eq!(scene.see(again), ["a", "b"]);
        assert_eq!(scene.last.routes.iter().filter(|route| route.name == "a").count(), 1);
        assert_eq!(scene.last.routes.last().unwrap().name, "b", "orphans are the youngest");
    }
}

#[test]
fn orphans_are_named_a_few_of_them_and_those_whose_gateway_nobody_knows() {
    let mut departed = Departed::default();
    assert_eq!(departed.concern(), None);
    let unknown = WantedRoute { gateways: Vec::new(), ..route("x") };
    departed.adopt((0..6).map(|number| route(&format!("n{number}"))).chain([unknown]).collect());
    let message = departed.concern().unwrap().message;
    assert!(message.contains("with it n0, n1, n2, n3, n4 and 2 more: their routes stay"), "{message}");
    assert!(message.contains("the gateway of x any more: what they list is dropped"), "{message}");
}

#[test]
fn the_orphan_of_an_egressgateway_that_is_deleted_goes() {
    let mut scene = Scene::default();
    let mut owned = there(&["a"]);
    owned.owners.insert("uid-a".to_owned(), "uid-egw".to_owned());
    scene.see(owned);
    scene.see(there(&[]));
    scene.hear(Definition::Gone);
    assert_eq!(scene.see(there(&[])), ["a"]);
    let mut leaving = there(&[]);
    leaving.leaving.insert("uid-egw".to_owned());
    assert!(scene.see(leaving).is_empty());
}

#[test]
fn who_belongs_to_an_egressgateway_goes_with_that_ones_definition_too() {
    for of_gateways in
        [Definition::Going { since: MADE }, Definition::Gone, definition(MADE + 1), definition(MADE)]
    {
        let mut scene = Scene::default();
        let mut both = there(&["a", "b"]);
        both.owners.insert("uid-a".to_owned(), "uid-egw".to_owned());
        scene.see(both);
        scene.see(there(&[]));
        scene.hear(definition(1));
        scene.answer.as_mut().unwrap().of_gateways = of_gateways.clone();
        let stays: &[&str] = if of_gateways == definition(MADE) { &[] } else { &["a"] };
        assert_eq!(scene.see(there(&[])), stays, "{of_gateways:?}");
    }
}

#[test]
fn an_orphan_lets_go_for_good_of_what_others_route() {
    let mut scene = Scene::default();
    scene.see(there(&["a"]));
    scene.see(there(&[]));
    scene.hear(Definition::Gone);
    scene.see(there(&[]));
    let lost = |destination: &str| RouteReport {
        name: "a".to_owned(),
        uid: "uid-a".to_owned(),
        failures: vec![Failure {
            destination: destination.to_owned(),
            cause: FailureCause::Conflict { winner: "other".to_owned() },
        }],
        ..report(1, 2)
    };
    assert!(scene.departed.give_way(&[lost("192.0.2.1")]));
    scene.see(there(&[]));
    assert_eq!(scene.last.routes[0].destinations.len(), 1);
    assert!(!scene.departed.give_way(&[lost("192.0.2.1")]), "once");
    assert!(scene.departed.give_way(&[lost("192.0.2.2")]));
    assert!(scene.departed.is_empty());
}
