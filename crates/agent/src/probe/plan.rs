//! Which probes to run, from how each gateway is to be probed: pure.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::time::Duration;

use egress_api::GATEWAY_PROBE_PORT;
use egress_routing::ProbePath;

use super::{Asking, Level, connections, rate};
use crate::objects::Probed;

/// Levels that are asked through a gateway, in the order of their ports.
const THROUGH: [Level; 3] = [Level::Forwarding, Level::Source, Level::FullSize];

/// Everything to ask through these paths. A gateway that nobody says anything about is asked in the VPC only.
pub fn askings<'a>(
    paths: impl IntoIterator<Item = &'a ProbePath>,
    probed: &BTreeMap<Ipv4Addr, Probed>,
) -> Vec<Asking> {
    let paths: Vec<_> = paths.into_iter().collect();
    let of = |path: &ProbePath| probed.get(&path.gateway).cloned().unwrap_or_default();
    let through = paths.iter().flat_map(|path| {
        let probed = of(path);
        THROUGH.map(|level| ((path.gateway, level), witnesses(&probed, level)))
    });
    let mut through: BTreeMap<_, _> = through.filter(|(_, witnesses)| !witnesses.is_empty()).collect();
    let is_peer = |witness: &SocketAddrV4| witness.port() == GATEWAY_PROBE_PORT;
    // Whoever is behind a relay port bears it.
    let behind = |gateway: &Ipv4Addr, witness: &SocketAddrV4| {
        let moving = probed.get(gateway).and_then(|probed| probed.moving.as_ref());
        *moving.and_then(|moving| moving.relays.get(witness)).unwrap_or(witness)
    };
    let borne = through.iter().map(|(asking, witnesses)| {
        (*asking, witnesses.iter().map(|witness| behind(&asking.0, witness)).collect())
    });
    let shares =
        rate::shares(
            &borne.collect(),
            |witness| {
                if is_peer(witness) { rate::PEER_RATE } else { rate::TARGET_RATE }
            },
        );
    let mut asked = Vec::new();
    for path in paths {
        let probed = of(path);
        let check = probed.check.unwrap_or_default();
        let asking = |level, source_ports, witnesses, interval, share| Asking {
            gateway: path.gateway,
            level,
            source: path.source,
            source_ports,
            witnesses,
            interval,
            share,
            // What the holder of an address that moves lets out is translated the same way whenever it is, and who waits for it keeps no
            // entry at all: it is asked all the time, so that a move is seen at once.
            rest: match (level, &probed.moving) {
                (Level::Source, Some(_)) => Duration::ZERO,
                _ => connections::rest(probed.is_ours),
            },
            fall: check.fall,
            rise: check.rise,
        };
        let itself = vec![at_probe_port(path.gateway)];
        asked.push(asking(Level::Reachability, None, itself, check.interval, 0.0));
        let asked_at = THROUGH.map(|level| through.get(&(path.gateway, level)).map_or(0, Vec::len));
        for (level, ports) in THROUGH.into_iter().zip(divided(&path.source_ports, asked_at)) {
            let key = (path.gateway, level);
            if let Some(witnesses) = through.remove(&key) {
                let share = shares.get(&key).copied().unwrap_or_default();
                asked.push(asking(level, Some(ports), witnesses, check.path_interval, share));
            }
        }
    }
    asked
}

/// Who is asked: of the full size everybody in turn, or one gateway's way out could not be told from the other's way in. Where an address
/// moves, targets show who has it, and the relay ports whether each gateway forwards.
pub(crate) fn witnesses(probed: &Probed, level: Level) -> Vec<SocketAddrV4> {
    if let Some(moving) = &probed.moving {
        return match level {
            Level::Reachability => Vec::new(),
            Level::Source => moving.relays.values().copied().collect(),
            Level::Forwarding | Level::FullSize => moving.relays.keys().copied().collect(),
        };
    }
    let targets = probed.targets.iter().copied().filter(|_| level != Level::Source);
    let peers = probed.peers.iter().copied().map(at_probe_port).filter(|_| level != Level::Forwarding);
    targets.chain(peers).collect()
}

/// Where a gateway answers probes, in the VPC and on its public side.
pub(crate) fn at_probe_port(gateway: Ipv4Addr) -> SocketAddrV4 {
    SocketAddrV4::new(gateway, GATEWAY_PROBE_PORT)
}

/// The same connection must not be begun twice at a time: levels that may have the same witnesses have ports of their own. The fewer
/// witnesses, the more ports: each level then has as many connections, of which those that were missed rest (`connections`).
fn divided(ports: &RangeInclusive<u16>, witnesses: [usize; 3]) -> [RangeInclusive<u16>; 3] {
    let weights = witnesses.map(|count| 1_000_000_usize.checked_div(count).unwrap_or_default());
    let all: usize = weights.iter().sum();
    let mut before = 0;
    let mut first = *ports.start();
    weights.map(|weight| {
        before += weight;
        let until = (ports.len() * before).checked_div(all).and_then(|until| u16::try_from(until).ok());
        let next = ports.start().saturating_add(until.unwrap_or_default());
        let range = first..=next.saturating_sub(1);
        first = next;
        range
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use egress_routing::GatewaySlot;

    use super::*;

    fn path(slot: u8) -> ProbePath {
        ProbePath {
            slot: GatewaySlot(slot),
            gateway: Ipv4Addr::new(10, 116, 0, 100 + slot),
            source: Ipv4Addr::new(10, 116, 0, 2),
            source_ports: 61_000 + 64 * u16::from(slot)..=61_063 + 64 * u16::from(slot),
        }
    }

    #[test]
    fn a_pair_is_asked_at_every_level_and_no_connection_is_begun_twice() {
        let targets: BTreeSet<SocketAddrV4> =
            ["1.1.1.1:443", "8.8.8.8:443", "9.9.9.9:443"].map(|text| text.parse().unwrap()).into();
        let probed = |peer: u8| Probed {
            targets: targets.clone(),
            peers: [Ipv4Addr::new(203, 0, 113, peer)].into(),
            public: BTreeSet::new(),
            is_ours: true,
            moving: None,
            check: None,
        };
        let paths = [path(0), path(1)];
        let probed = [(paths[0].gateway, probed(101)), (paths[1].gateway, probed(100))].into();
        let asked = askings(&paths, &probed);
        assert_eq!(asked.len(), 8);
        let of =
            |level| asked.iter().find(|one| one.gateway == paths[0].gateway && one.level == level).unwrap();
        assert_eq!(of(Level::Reachability).witnesses, ["10.116.0.100:9181".parse().unwrap()]);
        assert_eq!(of(Level::Source).witnesses, ["203.0.113.101:9181".parse().unwrap()]);
        assert_eq!(of(Level::FullSize).witnesses.len(), 4);
        let ports = THROUGH.map(|level| of(level).source_ports.clone().unwrap());
        assert_eq!(ports, [61_000..=61_012, 61_013..=61_052, 61_053..=61_063], "39, 40 and 44 connections");
        // A target gets a third and a quarter of a probe through each of the two, of its fifty a second.
        let (target, peer) = (2.0 * (1.0 / 3.0 + 1.0 / 4.0) / 50.0, (1.0 + 1.0 / 4.0) / 200.0);
        assert!((of(Level::Forwarding).share - target).abs() < 1e-9);
        assert!((of(Level::Source).share - peer).abs() < 1e-9);
        assert!((of(Level::FullSize).share - target).abs() < 1e-9, "the busiest counts");
        assert_eq!(askings(&paths, &BTreeMap::new()).len(), 2, "in the VPC at least");
    }

    #[test]
    fn where_an_address_moves_relay_ports_are_asked_whether_it_forwards_and_targets_who_has_it() {
        let targets = ["1.1.1.1:443", "8.8.8.8:443"].map(|text| text.parse::<SocketAddrV4>().unwrap());
        let paths = [path(0), path(1)];
        let moving = |gateway| {
            let relays = [9182, 9183].map(|port| SocketAddrV4::new(gateway, port)).into_iter().zip(targets);
            let address = Ipv4Addr::new(203, 0, 113, 200);
            let moving = Some(crate::objects::Moving { address, relays: relays.collect() });
            Probed { targets: targets.into(), is_ours: true, moving, ..Probed::default() }
        };
        let probed = paths.iter().map(|path| (path.gateway, moving(path.gateway))).collect();
        let asked = askings(&paths, &probed);
        assert_eq!(asked.len(), 8);
        for (gateway, level) in paths.iter().flat_map(|path| THROUGH.map(|level| (path.gateway, level))) {
            let one = asked.iter().find(|one| one.gateway == gateway && one.level == level).unwrap();
            let expected = match level {
                Level::Source => targets.to_vec(),
                _ => [9182, 9183].map(|port| SocketAddrV4::new(gateway, port)).to_vec(),
            };
            assert_eq!(one.witnesses, expected);
            assert_eq!(one.rest.is_zero(), level == Level::Source);
            // Three levels through two gateways ask each of the two targets in turn.
            assert!((one.share - 3.0 * 2.0 / 2.0 / 50.0).abs() < 1e-9, "{}", one.share);
        }
    }

    #[test]
    fn levels_share_all_ports_and_no_port_is_of_two() {
        for witnesses in [[3, 1, 4], [1, 0, 1], [0, 1, 1], [16, 31, 47], [16, 1, 17], [1, 31, 32]] {
            let divided = divided(&(61_000..=61_063), witnesses);
            let all: Vec<u16> = divided.iter().cloned().flatten().collect();
            assert_eq!(all, (61_000..=61_063).collect::<Vec<_>>(), "{witnesses:?}");
            for (ports, count) in divided.iter().zip(witnesses) {
                assert_eq!(ports.is_empty(), count == 0, "{witnesses:?}: {divided:?}");
            }
        }
    }
}
