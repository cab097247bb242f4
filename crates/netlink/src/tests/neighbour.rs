use std::net::Ipv4Addr;

use super::namespace::{in_namespace, ip, ip_json};
use crate::CommandSocket;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 116, 0, 5);

#[test]
fn what_was_learned_is_forgotten_and_what_was_set_stays() {
    in_namespace(|| {
        let mut socket = CommandSocket::open().unwrap();
        let eth1 = u32::try_from(ip_json("link show eth1")[0]["ifindex"].as_u64().unwrap()).unwrap();
        assert!(!socket.forget_neighbour(eth1, GATEWAY).unwrap(), "nothing is known of it");

        ip("neigh add 10.116.0.5 lladdr 02:00:00:00:00:05 dev eth1 nud reachable");
        ip("neigh add 10.116.0.12 lladdr 02:00:00:00:00:0c dev eth1 nud reachable");
        assert!(socket.forget_neighbour(eth1, GATEWAY).unwrap());
        assert!(!ip("neigh show dev eth1").contains("10.116.0.5 lladdr"), "{}", ip("neigh show dev eth1"));
        assert!(ip("neigh show dev eth1").contains("10.116.0.12 lladdr 02:00:00:00:00:0c"));

        ip("neigh replace 10.116.0.5 lladdr 02:00:00:00:00:05 dev eth1 nud permanent");
        assert!(!socket.forget_neighbour(eth1, GATEWAY).unwrap());
        assert!(ip("neigh show dev eth1").contains("10.116.0.5 lladdr 02:00:00:00:00:05 PERMANENT"));
        assert!(
            socket.forget_neighbour(9999, GATEWAY).is_err()
                || !socket.forget_neighbour(9999, GATEWAY).unwrap()
        );
    });
}
