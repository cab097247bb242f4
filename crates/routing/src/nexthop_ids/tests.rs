use std::collections::BTreeMap;

use super::*;
use crate::fixture::net;
use crate::kernel_state::{Foreign, KernelState, Nexthop, NexthopTarget, Route};

/// `count` uids with the same home.
fn neighbours(count: usize) -> Vec<String> {
    let layout = Layout::default();
    let mut by_home: BTreeMap<NexthopId, Vec<String>> = BTreeMap::new();
    for n in 0.. {
        let uid = format!("uid-{n}");
        let family = by_home.entry(address(&uid, 0, &layout)).or_default();
        family.push(uid);
        if family.len() == count {
            return std::mem::take(family);
        }
    }
    unreachable!()
}

fn destination(uid: &str) -> Ipv4Net {
    let digits: u32 = uid.trim_start_matches("uid-").parse().unwrap();
    Ipv4Net::from(std::net::Ipv4Addr::from(0x0100_0000 + digits))
}

/// Assigns ids in a kernel, one route per object, and returns them with the kernel that results.
fn step(uids: &[String], kernel: &Observed) -> (Vec<NexthopId>, Observed) {
    let layout = Layout::default();
    let uids: Vec<&str> = uids.iter().map(String::as_str).collect();
    let table: BTreeMap<_, _> = uids.iter().enumerate().map(|(n, uid)| (destination(uid), Some(n))).collect();
    let ids: Vec<NexthopId> =
        assign(&uids, &table, kernel, &layout).into_iter().map(Option::unwrap).collect();
    let mut state = KernelState::default();
    for (uid, id) in uids.iter().zip(&ids) {
        state.insert_nexthop(Nexthop { id: *id, via: NexthopTarget::Blackhole });
        state.insert_route(Route {
            table: layout.table,
            destination: destination(uid),
            metric: 0,
            kind: RouteKind::Nexthop(*id),
        });
    }
    (ids, crate::fib_model::holding(&state))
}

#[test]
fn an_id_depends_on_the_uid_alone_while_there_is_room() {
    let empty = Observed::default();
    let (ids, _) = step(&["uid-1".into(), "uid-2".into(), "uid-3".into()], &empty);
    let (reversed, _) = step(&["uid-3".into(), "uid-1".into()], &empty);
    assert_eq!(reversed, [ids[2], ids[0]]);
    assert_eq!(ids[0], address("uid-1", 0, &Layout::default()));
}

#[test]
fn where_homes_collide_nobody_moves_when_others_come_and_go() {
    let family = neighbours(3);
    let (two, kernel) = step(&family[..2], &Observed::default());
    assert_eq!(two[1].0, two[0].0 + 1);
    // A newcomer ahead of both in the list takes neither id.
    let order = [family[2].clone(), family[0].clone(), family[1].clone()];
    let (three, kernel) = step(&order, &kernel);
    assert_eq!(three[1..], two[..]);
    assert_eq!(three[0].0, two[0].0 + 2);
    // The one at home goes: the others stay, and its id is not given away in the same step.
    let rest = [family[2].clone(), family[1].clone()];
    let (stayed, kernel) = step(&rest, &kernel);
    assert_eq!(stayed, [three[0], three[2]]);
    // Now it is free.
    let (again, _) = step(&order, &kernel);
    assert_eq!(again, three);
}

#[test]
fn the_id_of_one_that_is_gone_is_not_given_to_a_newcomer_in_the_same_step() {
    let family = neighbours(2);
    let (first, kernel) = step(&family[..1], &Observed::default());
    let (second, kernel) = step(&family[1..], &kernel);
    assert_eq!(second[0].0, first[0].0 + 1);
    let (later, _) = step(&family[1..], &kernel);
    assert_eq!(later, second);
}

#[test]
fn foreign_ids_are_passed_over() {
    let mut kernel = Observed::default();
    let home = address("uid-1", 0, &Layout::default());
    kernel.foreign.insert(Foreign::Nexthop { id: home, protocol: 4 });
    let (ids, _) = step(&["uid-1".into()], &kernel);
    assert_eq!(ids[0].0, home.0 + 1);
}

#[test]
fn when_all_within_reach_are_taken_there_is_none() {
    let mut kernel = Observed::default();
    for step in 0..REACH {
        let id = address("uid-1", step, &Layout::default());
        kernel.foreign.insert(Foreign::Nexthop { id, protocol: 4 });
    }
    let table = BTreeMap::from([(net("1.2.3.4/32"), Some(0))]);
    assert_eq!(assign(&["uid-1"], &table, &kernel, &Layout::default()), [None]);
}

#[test]
fn homes_spread() {
    let homes: BTreeSet<u32> = (0..1_000).map(|n| hash(&format!("uid-{n}")) % 65_536).collect();
    assert!(homes.len() > 950, "{} homes for 1,000 objects", homes.len());
}
