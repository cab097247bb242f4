//! The faults, as commands of the lab. `{a}` is the gateway at the head of the list, `{b}` the other one.

/// A step of a fault.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// A command of egress-lab.
    Lab(&'static [&'static str]),
    /// The same, of a fault that cannot be had without the cloud's API: the second one is what the machine sees of it.
    Cloud(&'static [&'static str], &'static [&'static str]),
    /// A is frozen and healed, as often as fits into so many seconds; each time takes so many milliseconds, half of them frozen.
    Flap {
        /// One freeze and one time of health.
        period_ms: u64,
        /// All of it.
        seconds: u64,
    },
}

/// A fault, and how it ends.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// As in the table.
    pub name: &'static str,
    /// What breaks.
    pub fault: &'static [Step],
    /// What mends it, before everything that is broken at A, B, the nodes and the internet is healed.
    pub mend: &'static [Step],
    /// Seconds to look at nodes that stay.
    pub look: u64,
    /// The cloud or the machine takes a while until the fault is there: what counts is the time since A's last answer.
    pub is_slow: bool,
    /// A boots in the end. Without the metadata service its rules come from what that said at an earlier boot, after 20 s.
    pub boots: bool,
    /// Packets leave from an address that is neither a gateway's nor a node's until the fault is seen.
    pub has_other_source: bool,
    /// Agents start. Without the API server they know no order of gateways that is worth a move: they leave dead ones, and stay where
    /// they are until it answers (decision 6).
    pub restarts_agents: bool,
    /// B comes back first, and must be used by every node before A is healed.
    pub b_returns: bool,
}

const PLAIN: Row = Row {
    name: "",
    fault: &[],
    mend: &[],
    look: 4,
    is_slow: false,
    boots: false,
    has_other_source: false,
    restarts_agents: false,
    b_returns: false,
};

const fn row(name: &'static str, fault: &'static [Step]) -> Row {
    Row { name, fault, ..PLAIN }
}

use Step::{Cloud, Flap, Lab};

/// Both gateways lose that share of what they send outside.
macro_rules! both_lose {
    ($percent:literal) => {
        [Lab(&["lose", "{a}", "public", $percent, "out"]), Lab(&["lose", "{b}", "public", $percent, "out"])]
    };
}

/// Health targets of the `EgressGateway`, which it has from its defaults.
const TARGETS: [&str; 4] = ["silence", "1.1.1.1", "8.8.8.8", "9.9.9.9"];

/// What every run of all tests breaks: one of each kind, and those in which most can go wrong. `FAILOVER_ROWS=sample`.
pub const SAMPLE: [&str; 8] = [
    "kernel-freeze",
    "vpc-cut",
    "public-out",
    "nat",
    "wrong-source",
    "standby-dead",
    "node-parted",
    "both-dead",
];

/// All of them, in the order in which they are run.
pub const ROWS: &[Row] = &[
    // A is dead.
    Row {
        mend: &[Lab(&["revive", "{a}"])],
        is_slow: true,
        boots: true,
        ..row("kill", &[Lab(&["kill", "{a}"])])
    },
    Row {
        mend: &[Cloud(&["power-on", "{a}"], &["revive", "{a}"])],
        is_slow: true,
        boots: true,
        ..row("power-off", &[Cloud(&["power-off", "{a}"], &["kill", "{a}"])])
    },
    Row {
        mend: &[Cloud(&[], &["revive", "{a}"])],
        is_slow: true,
        boots: true,
        ..row("reboot", &[Cloud(&["reboot", "{a}"], &["kill", "{a}"])])
    },
    row("kernel-freeze", &[Lab(&["freeze", "{a}"])]),
    row("vpc-cut", &[Lab(&["cut", "{a}", "vpc"])]),
    row("vpc-in", &[Lab(&["drop", "{a}", "vpc", "in"])]),
    row("vpc-out", &[Lab(&["drop", "{a}", "vpc", "out"])]),
    Row {
        restarts_agents: true,
        ..row(
            "agent-restart",
            &[
                Lab(&["freeze", "{a}"]),
                Lab(&["crash", "node-1", "egress-agent"]),
                Lab(&["crash", "node-2", "egress-agent"]),
            ],
        )
    },
    // A answers in the VPC, and does not do its work.
    row("public-cut", &[Lab(&["cut", "{a}", "public"])]),
    row("public-in", &[Lab(&["drop", "{a}", "public", "in"])]),
    row("public-out", &[Lab(&["drop", "{a}", "public", "out"])]),
    row("forwarding", &[Lab(&["break", "forwarding", "{a}"])]),
    row("nat", &[Lab(&["break", "nat", "{a}"])]),
    row("conntrack", &[Lab(&["break", "conntrack", "{a}"])]),
    row("black-hole", &[Lab(&["black-hole", "{a}", "1000"])]),
    row("default-route", &[Lab(&["break", "default-route", "{a}"])]),
    row("provider-gateway", &[Lab(&["part", "{a}", "provider-gateway"])]),
    Row { has_other_source: true, ..row("wrong-source", &[Lab(&["break", "source", "{a}"])]) },
    row("taken-over", &[Lab(&["break", "forwarding", "gateway-b"]), Lab(&["take-over", "{a}", "gateway-b"])]),
    Row {
        has_other_source: true,
        ..row("taken-over-by-gateway", &[Lab(&["take-over", "{a}", "gateway-b"])])
    },
    Row {
        has_other_source: true,
        ..row("gone-and-taken-over", &[Lab(&["freeze", "{a}"]), Lab(&["take-over", "{a}", "gateway-b"])])
    },
    // A loses packets.
    Row { look: 10, ..row("loss-5", &[Lab(&["lose", "{a}", "public", "5", "out"])]) },
    Row { look: 10, ..row("loss-10", &[Lab(&["lose", "{a}", "public", "10", "out"])]) },
    row("loss-30", &[Lab(&["lose", "{a}", "public", "30", "out"])]),
    row("loss-60", &[Lab(&["lose", "{a}", "public", "60", "out"])]),
    Row { look: 10, ..row("vpc-loss-10", &[Lab(&["lose", "{a}", "vpc", "10", "in"])]) },
    Row { look: 10, ..row("loss-5-both", &both_lose!("5")) },
    Row { look: 10, ..row("loss-10-both", &both_lose!("10")) },
    Row { look: 15, ..row("loss-30-both", &both_lose!("30")) },
    Row { look: 15, ..row("loss-60-both", &both_lose!("60")) },
    // A is fine, and something else is not.
    row("user-space-freeze", &[Lab(&["suspend", "{a}"])]),
    row("standby-dead", &[Lab(&["freeze", "{b}"])]),
    row("target-outage", &[Lab(&["silence", "1.1.1.1"])]),
    Row { look: 6, ..row("target-outage-all", &[Lab(&TARGETS)]) },
    row("node-parted", &[Lab(&["part", "node-1", "{a}"])]),
    Row {
        look: 15,
        ..row(
            "gateways-parted",
            &[Lab(&["part", "{a}", "{b}", "public"]), Lab(&["part", "{a}", "{b}", "vpc"])],
        )
    },
    row("node-cut-off", &[Lab(&["freeze", "node-1"])]),
    // Nothing is left.
    Row {
        mend: &[Lab(&["heal", "{b}"])],
        b_returns: true,
        ..row("both-dead", &[Lab(&["freeze", "{a}"]), Lab(&["freeze", "{b}"])])
    },
    // A comes and goes.
    row("flapping-1", &[Flap { period_ms: 1000, seconds: 10 }]),
    row("flapping-4", &[Flap { period_ms: 4000, seconds: 16 }]),
    row("flapping-20", &[Flap { period_ms: 20_000, seconds: 40 }]),
    row("flapping-60", &[Flap { period_ms: 60_000, seconds: 60 }]),
];
