//! Forwards packets as a CNI with host routing in eBPF does: past the kernel's own forwarding, on the way that the kernel's
//! routing tables name when a program asks.
//!
//! It does what Cilium's does for a packet of a pod (`fib_redirect_v4` of its `bpf/lib/fib.h`) with nothing around it: no policy, no
//! translation of addresses, no count of hops. What is for the node itself is left to the node.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::ebpf::Register::{R0, R1, R2, R3, R4, R6, R7, R8, R10};
use crate::ebpf::Width::{Bytes1, Bytes2, Bytes4, Bytes8};
use crate::ebpf::{Assembler, SECTION};

const AF_INET: i32 = 2;
const FIB_LOOKUP: i32 = 69;
const REDIRECT_NEIGHBOUR: i32 = 152;

/// `struct bpf_fib_lookup` on the stack, 64 bytes.
const QUESTION: i16 = -64;
const QUESTION_LENGTH: i32 = 64;
/// `struct bpf_redir_neigh` on the stack, 20 bytes.
const NEIGHBOUR: i16 = -88;
const NEIGHBOUR_LENGTH: i32 = 20;

/// How the program asks for a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostRouting {
    /// With the packet's addresses and the link that it came in on.
    ByAddresses,
    /// With its protocol and ports as well.
    ByAddressesAndPorts,
    /// With this address in place of its source: of an answer that reverse translation was done for already.
    From(Ipv4Addr),
    /// In the main table and no other (`BPF_FIB_LOOKUP_DIRECT`).
    InMainTableOnly,
    /// Not at all: everything leaves by the link with this index, and the kernel finds the neighbour there.
    StraightTo(u32),
}

impl HostRouting {
    /// Handles from now on whatever comes in by `link`, in the network namespace of the calling thread.
    pub fn attach(self, link: &str) -> anyhow::Result<()> {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(&self.program().object()?)?;
        let path = file.path().to_str().context("a path that can be written")?;
        tc(&["qdisc", "replace", "dev", link, "clsact"])?;
        let program = ["bpf", "direct-action", "object-file", path, "section", SECTION];
        tc(&[&["filter", "replace", "dev", link, "ingress", "prio", "1", "handle", "1"], &program[..]]
            .concat())
    }

    fn program(self) -> Assembler {
        let mut code = Assembler::default();
        match self {
            Self::StraightTo(link) => {
                to_the_node_unless_ipv4(&mut code);
                code.set(R1, link.cast_signed());
                code.set(R2, 0);
                code.set(R3, 0);
            }
            _ => self.ask(&mut code),
        }
        code.set(R4, 0);
        code.call(REDIRECT_NEIGHBOUR);
        code.exit();

        code.label("to the node");
        code.set(R0, 0);
        code.exit();
        code
    }

    /// Leaves in R1 to R3 where to.
    fn ask(self, code: &mut Assembler) {
        to_the_node_unless_ipv4(code);
        // `struct __sk_buff`: ifindex at 40, data at 76, data_end at 80.
        code.load(Bytes4, R7, R6, 76);
        code.load(Bytes4, R8, R6, 80);
        // Ethernet, IPv4 without options, ports: 14 + 20 + 4 bytes.
        code.copy(R2, R7);
        code.add(R2, 38);
        code.jump_if_above(R2, R8, "to the node");
        code.load(Bytes1, R2, R7, 14);
        code.jump_unless_equal(R2, 0x45, "to the node");

        for offset in (0..QUESTION_LENGTH as i16).step_by(8) {
            code.store_number(Bytes8, R10, QUESTION + offset, 0);
        }
        // family, l4_protocol at 1, sport at 2, dport at 4, ifindex at 8, ipv4_src at 16, ipv4_dst at 32.
        code.store_number(Bytes1, R10, QUESTION, AF_INET);
        code.load(Bytes4, R2, R6, 40);
        code.store(Bytes4, R10, QUESTION + 8, R2);
        match self {
            Self::From(source) => code.set(R2, u32::from(source).to_be().cast_signed()),
            _ => code.load(Bytes4, R2, R7, 26),
        }
        code.store(Bytes4, R10, QUESTION + 16, R2);
        code.load(Bytes4, R2, R7, 30);
        code.store(Bytes4, R10, QUESTION + 32, R2);
        if self == Self::ByAddressesAndPorts {
            code.load(Bytes2, R2, R7, 20);
            code.and(R2, i32::from(0x1fff_u16.to_be()));
            // Only the first fragment has ports.
            code.jump_unless_equal(R2, 0, "asked");
            code.load(Bytes1, R2, R7, 23);
            code.jump_if_equal(R2, 6, "with ports");
            code.jump_unless_equal(R2, 17, "asked");
            code.label("with ports");
            code.store(Bytes1, R10, QUESTION + 1, R2);
            code.load(Bytes2, R2, R7, 34);
            code.store(Bytes2, R10, QUESTION + 2, R2);
            code.load(Bytes2, R2, R7, 36);
            code.store(Bytes2, R10, QUESTION + 4, R2);
            code.label("asked");
        }
        code.copy(R1, R6);
        code.copy(R2, R10);
        code.add(R2, i32::from(QUESTION));
        code.set(R3, QUESTION_LENGTH);
        code.set(R4, i32::from(self == Self::InMainTableOnly));
        code.call(FIB_LOOKUP);

        // BPF_FIB_LKUP_RET_: SUCCESS 0, BLACKHOLE 1, UNREACHABLE 2, PROHIBIT 3, NO_NEIGH 7. Others: this node's own.
        code.jump_if_equal(R0, 0, "forward");
        code.jump_if_equal(R0, 7, "forward");
        for answer in 1..=3 {
            code.jump_if_equal(R0, answer, "drop");
        }
        code.jump("to the node");
        code.label("drop");
        code.set(R0, 2);
        code.exit();
        code.label("forward");
        // nh_family, ipv4_nh at 4: the gateway, or the destination where there is none.
        code.store_number(Bytes4, R10, NEIGHBOUR, AF_INET);
        code.load(Bytes4, R2, R10, QUESTION + 32);
        code.store(Bytes4, R10, NEIGHBOUR + 4, R2);
        code.store_number(Bytes8, R10, NEIGHBOUR + 8, 0);
        code.store_number(Bytes4, R10, NEIGHBOUR + 16, 0);
        code.load(Bytes4, R1, R10, QUESTION + 8);
        code.copy(R2, R10);
        code.add(R2, i32::from(NEIGHBOUR));
        code.set(R3, NEIGHBOUR_LENGTH);
    }
}

/// Begins a program; leaves the packet in R6.
fn to_the_node_unless_ipv4(code: &mut Assembler) {
    // `struct __sk_buff`: protocol at 16.
    code.copy(R6, R1);
    code.load(Bytes4, R2, R6, 16);
    code.jump_unless_equal(R2, i32::from(0x0800_u16.to_be()), "to the node");
}

fn tc(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("tc").args(arguments).output()?;
    ensure!(output.status.success(), "tc {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
