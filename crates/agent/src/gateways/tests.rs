use super::*;

const A: Ipv4Addr = Ipv4Addr::new(10, 116, 0, 100);
const B: Ipv4Addr = Ipv4Addr::new(10, 116, 0, 101);

fn probed() -> BTreeMap<Ipv4Addr, Probed> {
    let targets = BTreeSet::from([SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 443)]);
    [A, B].map(|gateway| (gateway, Probed { targets: targets.clone(), ..Probed::default() })).into()
}

struct Scene {
    gateways: Gateways,
    now: u64,
}

impl Scene {
    fn new() -> Self {
        let mut gateways = Gateways::default();
        gateways.retain(&BTreeSet::from([A, B]), &probed(), Tick::default());
        Self { gateways, now: 0 }
    }

    fn probe(&mut self, gateway: Ipv4Addr, level: Level, outcome: probe::Outcome) {
        self.now += 100;
        let witness = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 443);
        let sent = tokio::time::Instant::now();
        let result = ProbeResult { gateway, level, witness, outcome, sent, took: Duration::from_millis(1) };
        let time = Timestamp::from_millisecond(i64::try_from(self.now).unwrap()).unwrap();
        let now = Tick::from_millis(self.now);
        self.gateways.on_probe(&result, Tick::from_millis(self.now - 1), now, time);
    }

    fn chosen(&self, current: Ipv4Addr) -> Ipv4Addr {
        self.gateways.choose(&[A, B], Some(current), Tick::from_millis(self.now)).unwrap().gateway
    }

    fn said(&self, gateway: Ipv4Addr) -> GatewayObservation {
        self.gateways.observations().find(|(address, _)| *address == gateway).unwrap().1.clone()
    }
}

fn missed() -> probe::Outcome {
    probe::Outcome::Missed("silence".to_owned())
}

#[test]
fn three_misses_move_to_the_one_that_answers() {
    let mut scene = Scene::new();
    for gateway in [A, B] {
        scene.probe(gateway, Level::Reachability, probe::Outcome::Answered);
    }
    scene.probe(A, Level::Reachability, missed());
    scene.probe(A, Level::Reachability, missed());
    assert_eq!(scene.chosen(A), A);
    scene.probe(A, Level::Reachability, missed());
    assert_eq!(scene.chosen(A), B);
    assert_eq!(scene.said(A).message.as_deref(), Some("silence"));
}

#[test]
fn trouble_of_the_node_itself_condemns_nobody() {
    let mut scene = Scene::new();
    scene.probe(A, Level::Reachability, probe::Outcome::Answered);
    scene.probe(B, Level::Reachability, probe::Outcome::Answered);
    for _ in 0..10 {
        scene.probe(A, Level::Reachability, probe::Outcome::Inconclusive("no socket".to_owned()));
    }
    assert_eq!(scene.chosen(A), A);
}

#[test]
fn words_change_with_the_verdict_only() {
    let mut scene = Scene::new();
    scene.probe(A, Level::Reachability, probe::Outcome::Answered);
    scene.probe(A, Level::Forwarding, probe::Outcome::Answered);
    let first = scene.said(A);
    assert_eq!((first.reachable, first.forwards), (true, Some(true)));
    for _ in 0..5 {
        scene.probe(A, Level::Forwarding, probe::Outcome::Answered);
    }
    scene.probe(A, Level::Forwarding, missed());
    assert_eq!(scene.said(A), first, "one miss is no verdict");
    scene.probe(A, Level::Forwarding, missed());
    scene.probe(A, Level::Forwarding, missed());
    assert_eq!(scene.said(A).forwards, Some(false));
    assert_ne!(scene.said(A).since, first.since);
}

fn time(scene: &Scene) -> (Tick, Timestamp) {
    let millis = i64::try_from(scene.now).unwrap();
    (Tick::from_millis(scene.now), Timestamp::from_millisecond(millis).unwrap())
}

#[test]
fn what_the_last_agent_condemned_and_nobody_asks_about_any_more_is_a_vote_for_half_a_minute() {
    let at = Some(Time(Timestamp::UNIX_EPOCH));
    let fine = GatewayObservation { reachable: true, forwards: Some(true), since: at.clone(), ..unknown(B) };
    let condemned = GatewayObservation {
        address: A.to_string(),
        expected_source: Some(false),
        condemned: true,
        renewed: at,
        ..fine.clone()
    };
    let mut scene = Scene { gateways: Gateways::default(), now: 100_000 };
    let start = Tick::from_millis(scene.now);
    scene.gateways.remember(&[condemned, fine.clone()], start);
    // No gateway lets A's probes in any more, so that nobody is asked with which address it leaves.
    scene.gateways.retain(&BTreeSet::from([A, B]), &probed(), start);
    for gateway in [A, B] {
        scene.probe(gateway, Level::Reachability, probe::Outcome::Answered);
        scene.probe(gateway, Level::Forwarding, probe::Outcome::Answered);
    }
    let (now, then) = time(&scene);
    assert!(scene.gateways.renew(2, 0.0, now, then));
    assert_eq!((scene.said(A).condemned, scene.said(A).renewed), (true, Some(Time(then))));
    scene.now = 129_999;
    let (now, then) = time(&scene);
    scene.gateways.renew(2, 0.0, now, then);
    assert!(scene.said(A).condemned);
    scene.now = 130_000;
    let (now, then) = time(&scene);
    assert!(scene.gateways.renew(2, 0.0, now, then), "to be reported");
    let said = scene.said(A);
    assert_eq!((said.condemned, said.expected_source, said.renewed), (false, None, None));
    assert_eq!(scene.said(B), fine);
    scene.now = 200_000;
    let (now, then) = time(&scene);
    assert!(!scene.gateways.renew(2, 0.0, now, then));
}

#[test]
fn a_word_against_a_gateway_is_renewed_once_an_interval_by_each_node_at_its_own_time() {
    // 300 nodes: every 20 s each.
    let mut turns = BTreeSet::new();
    for place in [0.0, 0.25, 0.5, 0.75] {
        let mut scene = Scene::new();
        scene.probe(B, Level::Reachability, probe::Outcome::Answered);
        let mut renewed = Vec::new();
        let mut seconds = |scene: &mut Scene, count: u64| {
            renewed.clear();
            for _ in 0..count {
                scene.now = (scene.now / 1_000 + 1) * 1_000;
                let (now, then) = time(scene);
                if scene.gateways.renew(300, place, now, then) {
                    assert_eq!(scene.said(A).renewed, Some(Time(then)));
                    renewed.push(scene.now / 1_000);
                }
            }
            renewed.clone()
        };
        assert_eq!(seconds(&mut scene, 60), [] as [u64; 0], "nothing is said against anybody");
        for _ in 0..3 {
            scene.probe(A, Level::Reachability, missed());
        }
        let said = seconds(&mut scene, 100);
        assert_eq!(said.len(), 5, "place {place}: {said:?}");
        assert!(said.windows(2).all(|pair| pair[1] - pair[0] == 20), "place {place}: {said:?}");
        turns.insert(said[0] % 20);
        for _ in 0..2 {
            scene.probe(A, Level::Reachability, probe::Outcome::Answered);
        }
        assert_eq!(seconds(&mut scene, 60), [] as [u64; 0]);
        assert_eq!(scene.said(A).renewed, None);
    }
    assert_eq!(turns.len(), 4, "{turns:?}");
}

#[test]
fn what_was_not_asked_yet_is_not_said_and_no_vote_against_anybody() {
    let mut scene = Scene::new();
    scene.probe(A, Level::Reachability, missed());
    assert_eq!(scene.gateways.observations().count(), 0);
    scene.probe(B, Level::Reachability, probe::Outcome::Answered);
    scene.probe(A, Level::Reachability, missed());
    scene.probe(A, Level::Reachability, missed());
    assert_eq!((scene.said(A).reachable, scene.said(B).reachable), (false, true));
}

#[test]
fn that_the_only_gateway_is_silent_is_said_again_and_again() {
    let mut scene = Scene::new();
    scene.gateways.retain(&BTreeSet::from([A]), &probed(), Tick::default());
    scene.probe(A, Level::Reachability, probe::Outcome::Answered);
    for _ in 0..3 {
        scene.probe(A, Level::Reachability, missed());
    }
    let said = scene.said(A);
    assert_eq!((said.reachable, said.condemned), (false, false), "there is no difference");
    scene.now += 10_000;
    let (now, then) = time(&scene);
    assert!(scene.gateways.renew(2, 0.0, now, then));
    assert_eq!(scene.said(A).renewed, Some(Time(then)));
}

#[test]
fn a_restarted_agent_goes_on_saying_what_the_last_one_said_until_it_knows_better() {
    let mut last = Scene::new();
    for gateway in [A, B] {
        last.probe(gateway, Level::Reachability, probe::Outcome::Answered);
        last.probe(gateway, Level::Forwarding, probe::Outcome::Answered);
    }
    let said = [A, B].map(|gateway| last.said(gateway));
    for probed_before in [false, true] {
        let mut scene = Scene { gateways: Gateways::default(), now: 100_000 };
        let start = Tick::from_millis(scene.now);
        if probed_before {
            // While the API server was away.
            scene.gateways.retain(&BTreeSet::from([A, B]), &probed(), start);
            scene.probe(A, Level::Reachability, probe::Outcome::Answered);
        }
        scene.gateways.remember(&said, start);
        scene.gateways.retain(&BTreeSet::from([A, B]), &probed(), start);
        assert_eq!([A, B].map(|gateway| scene.said(gateway)), said);
        scene.probe(A, Level::Reachability, probe::Outcome::Answered);
        scene.probe(A, Level::Forwarding, missed());
        scene.probe(B, Level::Reachability, missed());
        assert_eq!([A, B].map(|gateway| scene.said(gateway)), said, "still not known");
        scene.probe(A, Level::Forwarding, probe::Outcome::Answered);
        assert_eq!(scene.said(A), said[0], "the same, since the same time");
        scene.probe(B, Level::Reachability, missed());
        scene.probe(B, Level::Reachability, missed());
        assert!(!scene.said(B).reachable);
        assert_ne!(scene.said(B).since, said[1].since);
    }
    // Nobody asks whether it forwards any more.
    let mut scene = Scene { gateways: Gateways::default(), now: 100_000 };
    scene.gateways.remember(&said, Tick::from_millis(scene.now));
    scene.gateways.retain(&BTreeSet::from([A]), &BTreeMap::new(), Tick::from_millis(scene.now));
    scene.now += 30_000;
    scene.probe(A, Level::Reachability, probe::Outcome::Answered);
    assert_eq!(scene.said(A).forwards, None);
}

#[test]
fn a_restarted_agent_neither_returns_to_a_black_hole_nor_takes_its_word_back_before_large_packets_pass() {
    let healthy = |gateway: Ipv4Addr| GatewayObservation {
        reachable: true,
        forwards: Some(true),
        expected_source: Some(true),
        full_size: Some(true),
        since: Some(Time(Timestamp::UNIX_EPOCH)),
        ..unknown(gateway)
    };
    let black_hole = GatewayObservation { full_size: Some(false), condemned: true, ..healthy(A) };
    let mut scene = Scene { gateways: Gateways::default(), now: 100_000 };
    scene.gateways.remember(&[black_hole, healthy(B)], Tick::from_millis(scene.now));
    scene.gateways.retain(&BTreeSet::from([A, B]), &probed(), Tick::from_millis(scene.now));
    for _ in 0..60 {
        for gateway in [A, B] {
            scene.probe(gateway, Level::Reachability, probe::Outcome::Answered);
            scene.probe(gateway, Level::Forwarding, probe::Outcome::Answered);
        }
        scene.probe(A, Level::FullSize, missed());
        scene.probe(B, Level::FullSize, probe::Outcome::Answered);
        scene.now += 1_000;
        let (now, time) = time(&scene);
        scene.gateways.renew(2, 0.5, now, time);
        assert!(scene.said(A).condemned, "after {} s", scene.now / 1_000 - 100);
        assert_eq!(scene.chosen(B), B);
    }
    // With nobody else it is better than nothing.
    assert_eq!(scene.gateways.choose(&[A], Some(A), Tick::from_millis(scene.now)).unwrap().gateway, A);
    scene.probe(A, Level::FullSize, probe::Outcome::Answered);
    assert!(!scene.said(A).condemned);
}

/// Two that have one address in common, which is at one of them at a time.
fn moving() -> Scene {
    let target = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 443);
    let probed = |gateway| {
        let relays = [(SocketAddrV4::new(gateway, 9182), target)].into();
        let address = Ipv4Addr::new(203, 0, 113, 200);
        (gateway, Probed { moving: Some(crate::objects::Moving { address, relays }), ..Probed::default() })
    };
    let mut scene = Scene::new();
    scene.gateways.retain(&BTreeSet::from([A, B]), &[A, B].map(probed).into(), Tick::default());
    for gateway in [A, B] {
        scene.probe(gateway, Level::Reachability, probe::Outcome::Answered);
        scene.probe(gateway, Level::Forwarding, probe::Outcome::Answered);
    }
    scene
}

#[test]
fn where_an_address_moves_a_node_goes_where_it_is_seen_and_stays_until_then() {
    let mut scene = moving();
    assert_eq!(scene.chosen(A), A, "nothing is known of the address yet");
    scene.probe(A, Level::Source, probe::Outcome::Answered);
    for _ in 0..4 {
        scene.probe(B, Level::Source, missed());
    }
    let waits = scene.said(B);
    assert_eq!((waits.forwards, waits.expected_source), (Some(true), None));
    assert!(!waits.condemned && waits.renewed.is_none() && waits.message.is_none(), "{waits:?}");
    for _ in 0..4 {
        scene.probe(A, Level::Reachability, missed());
    }
    assert!(scene.said(A).condemned && !scene.said(B).condemned);
    assert_eq!(scene.chosen(A), A, "the address is not seen through B");
    assert!(scene.gateways.none_works(&[A, B]));
    scene.probe(B, Level::Source, probe::Outcome::Answered);
    assert_eq!(scene.chosen(A), B);
    assert!(!scene.gateways.none_works(&[A, B]));
}

#[test]
fn that_an_address_was_not_seen_is_not_held_against_a_gateway_by_the_next_agent() {
    let mut scene = moving();
    scene.probe(A, Level::Source, probe::Outcome::Answered);
    for _ in 0..4 {
        scene.probe(A, Level::Source, missed());
        scene.probe(A, Level::Forwarding, probe::Outcome::Answered);
    }
    let lost = scene.said(A);
    assert_eq!((lost.condemned, lost.forwards, lost.expected_source), (true, Some(true), Some(false)));

    // Its successor sees the address elsewhere.
    let mut next = moving();
    next.gateways.remember(&[lost], Tick::from_millis(next.now));
    next.now += 40_000;
    let (now, now_time) = time(&next);
    next.gateways.renew(2, 0.0, now, now_time);
    for _ in 0..4 {
        next.probe(A, Level::Source, missed());
        next.probe(B, Level::Source, probe::Outcome::Answered);
    }
    assert!(!next.said(A).condemned, "{:?}", next.said(A));
}
