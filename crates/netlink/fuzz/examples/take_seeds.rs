//! Takes the seeds from this machine's kernel: everything that the codec reads, as it comes from the socket.
//!
//! ```text
//! unshare --net cargo run --example take_seeds          (in crates/netlink/fuzz, as root)
//! ```
//! In a network namespace of its own, which it fills with one of each kind.

use std::path::Path;
use std::process::Command;

use egress_netlink::wire::{self, Request, flag, kind, put_attribute};
use egress_netlink::{nexthop, route, rule};
use egress_routing::kernel_state::NexthopId;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

const MADE: &[&str] = &[
    "link set lo up",
    "link add eth0 type veth peer name far0",
    "link add eth1 type veth peer name far1",
    "link set far0 up",
    "link set far1 up",
    "link set eth0 up",
    "link set eth1 up",
    "address add 203.0.113.11/24 dev eth0",
    "address add 10.116.0.2/20 dev eth1",
    "route add default via 203.0.113.1 dev eth0 proto static metric 100",
    "route add 192.0.2.0/24 proto bird nexthop via 203.0.113.1 weight 2 nexthop via 203.0.113.2",
    "nexthop add id 241000000 via 10.116.0.5 dev eth1 proto 157",
    "nexthop add id 241000001 blackhole proto 157",
    "nexthop add id 241000002 via 192.0.2.1 dev eth1 onlink proto 157",
    "nexthop add id 241000100 group 241000000,2/241000002 type resilient buckets 32 idle_timer 5 unbalanced_timer 60 proto 157",
    "nexthop add id 241000101 group 241000000/241000002,3 proto 157",
    "route add 198.51.100.0/24 nhid 241000000 table 1157 metric 7 proto 157",
    "route add 198.51.103.0/24 nhid 241000001 table 1157 proto 157",
    "route add 198.51.105.0/24 nhid 241000100 table 1157 proto 157",
    "route add throw 10.0.0.0/8 table 1157 proto 157",
    "route add blackhole default table 1157 metric 4000000 proto 157",
    "route add unreachable 192.0.2.7 table 1157 metric 1 proto 157",
    "route add 198.51.104.0/24 via 192.0.2.1 dev eth1 onlink table 1160 proto 157",
    "neigh add 10.116.0.5 lladdr 02:00:00:00:00:05 dev eth1 nud permanent",
    "rule add pref 900 from 10.116.0.2 ipproto tcp sport 61000-61063 lookup 1160 protocol 157",
    "rule add pref 990 iif eth1 from 10.244.0.0/24 ipproto udp sport 53 lookup main protocol 157",
    "rule add pref 991 to 198.51.100.0/24 fwmark 0x10/0xf0 lookup 1157 protocol 157",
    "rule add pref 993 iif gone0 unreachable protocol 157",
    "rule add pref 994 iif lo blackhole protocol 157",
    "rule add pref 1000 lookup main suppress_prefixlength 0 protocol 157",
    "rule add pref 5000 oif eth1 uidrange 1000-1999 lookup 99 protocol static",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for arguments in MADE {
        let made = Command::new("ip").args(arguments.split_whitespace()).status()?;
        if !made.success() {
            return Err(format!("ip {arguments}: {made}").into());
        }
    }
    let any = |kind| Request { kind, flags: flag::DUMP, body: vec![0; 16] };
    let missing = nexthop::delete(NexthopId(7));
    for (name, target, request) in [
        ("links", None, any(kind::GET_LINK)),
        ("addresses", None, any(kind::GET_ADDRESS)),
        ("routes", Some("read_route"), route::dump(None, None)),
        ("rules", Some("read_rule"), rule::dump()),
        ("nexthops", Some("read_nexthop"), nexthop::dump()),
        ("neighbours", None, any(kind::GET_NEIGHBOUR)),
        ("buckets", None, buckets(241_000_100)),
        ("refusal", None, missing),
    ] {
        let answer = ask(&request)?;
        keep("conversation", name, &answer)?;
        let Some(target) = target else { continue };
        for (number, frame) in wire::frames(&answer).filter_map(Result::ok).enumerate() {
            if frame.kind != kind::DONE {
                keep(target, &format!("{number:02}"), frame.payload)?;
            }
        }
    }
    Ok(())
}

/// Asks for the buckets of one group: `struct nhmsg` and `NHA_ID`.
fn buckets(group: u32) -> Request {
    let mut body = vec![0; 8];
    put_attribute(&mut body, 1, &group.to_ne_bytes());
    Request { kind: kind::GET_BUCKET, flags: flag::DUMP, body }
}

/// All datagrams of the answer, one behind the other.
fn ask(request: &Request) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.set_netlink_get_strict_chk(true)?;
    socket.set_ext_ack(true)?;
    let mut message = Vec::new();
    request.write(1, 0, &mut message);
    socket.send_to(&message, &SocketAddr::new(0, 0), 0)?;
    let mut answer = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        answer.extend_from_slice(&datagram);
        let ends = |kind| kind == kind::DONE || kind == kind::ERROR;
        if wire::frames(&datagram).any(|frame| frame.is_ok_and(|frame| ends(frame.kind))) {
            return Ok(answer);
        }
    }
}

fn keep(target: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join(name), bytes)
}
