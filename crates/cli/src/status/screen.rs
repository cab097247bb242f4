//! The whole state of a cluster, and how it is shown.

use std::collections::BTreeSet;
use std::fmt;
use std::process::ExitCode;

use egress_api::condition::READY;
use egress_api::{EgressGateway, OWNED_BY_LABEL, StaticRoute};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::Serialize;

use super::findings::{Finding, Leader, Level, age, findings, in_words};
use crate::output::{Table, count, some};
use crate::view::{View, is_ready, name};

/// The state of everything.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The gravest level that anything has; left out when all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// What is wrong first.
    pub findings: Vec<Finding>,
    egress_gateways: Vec<GatewayLine>,
    static_routes: Vec<RouteLine>,
    nodes: Nodes,
    #[serde(skip)]
    most: usize,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct GatewayLine {
    name: String,
    ready: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    active: Option<String>,
    /// With which the outside sees the traffic now.
    #[serde(rename = "egressIP", skip_serializing_if = "Option::is_none")]
    egress_ip: Option<String>,
    /// What a partner must allow.
    #[serde(rename = "publicIPs")]
    public_ips: Vec<String>,
    gateways_ready: String,
    nodes: String,
    gateways: Vec<Machine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failover: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Machine {
    name: String,
    #[serde(rename = "dropletID")]
    droplet_id: i64,
    state: String,
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    private_address: Option<String>,
    nodes: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    #[serde(skip)]
    ago: String,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RouteLine {
    name: String,
    ready: String,
    nodes: String,
    destinations: Vec<String>,
    through: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Nodes {
    total: usize,
    ready: usize,
    reporting: usize,
}

impl Status {
    /// What the objects say.
    pub fn of(view: &View, leader: &Leader, now: Timestamp) -> Self {
        let findings = findings(view, leader, now);
        let level = findings.iter().map(|one| one.level).filter(|level| *level != Level::Note).min();
        let reported = view.reported();
        let live: Vec<&str> = view.nodes.iter().filter(|node| is_ready(node)).map(name).collect();
        let nodes = Nodes {
            total: view.nodes.len(),
            ready: live.len(),
            reporting: live.iter().filter(|node| reported.contains_key(*node)).count(),
        };
        let mut status = Self {
            level,
            egress_gateways: view.gateways().map(|gateway| gateway_line(gateway, now)).collect(),
            static_routes: view.routes().map(route_line).collect(),
            nodes,
            most: usize::MAX,
            findings,
        };
        let troubled: BTreeSet<String> = status
            .findings
            .iter()
            .filter(|one| one.level != Level::Note)
            .map(|one| one.object.clone())
            .collect();
        let is_well = |kind: &str, name: &str| !troubled.contains(&format!("{kind} {name}"));
        status.egress_gateways.sort_by_key(|line| (is_well("EgressGateway", &line.name), line.name.clone()));
        status.static_routes.sort_by_key(|line| (is_well("StaticRoute", &line.name), line.name.clone()));
        status
    }

    /// Leaves out what concerns other objects. Whether there is one of this name.
    pub fn restrict_to(&mut self, wanted: &str) -> bool {
        self.egress_gateways.retain(|line| line.name == wanted);
        let owned = |line: &RouteLine| line.owner.as_deref() == Some(wanted);
        self.static_routes.retain(|line| line.name == wanted || owned(line));
        let known: BTreeSet<String> =
            self.static_routes.iter().map(|line| format!("StaticRoute {}", line.name)).collect();
        self.findings.retain(|one| {
            let of_objects =
                ["EgressGateway ", "StaticRoute "].iter().any(|kind| one.object.starts_with(kind));
            let is_it = one.object == format!("EgressGateway {wanted}")
                || one.object == format!("StaticRoute {wanted}");
            !of_objects || is_it || known.contains(&one.object)
        });
        self.level = self.findings.iter().map(|one| one.level).filter(|level| *level != Level::Note).min();
        let told = self.findings.iter().any(|one| one.object.ends_with(&format!(" {wanted}")));
        told || !self.egress_gateways.is_empty() || !self.static_routes.is_empty()
    }

    /// Shows so many lines of each table to people. Programs get all.
    pub fn show_at_most(&mut self, lines: usize) {
        self.most = lines;
    }

    /// 0, all is well; 1, something is wrong; 2, it can't be told.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self.level {
            Some(Level::Wrong) => 1,
            Some(Level::Unknown) => 2,
            Some(Level::Note) | None => 0,
        })
    }
}

fn gateway_line(gateway: &EgressGateway, now: Timestamp) -> GatewayLine {
    let status = gateway.status.clone().unwrap_or_default();
    let machines = status.gateways.iter().map(|one| {
        let since = one.since.as_ref().map(|since| since.0);
        Machine {
            name: one.name.clone(),
            droplet_id: one.droplet_id,
            state: format!("{:?}", one.role),
            ready: one.ready,
            public_address: one.public_address.clone(),
            private_address: one.private_address.clone(),
            nodes: one.nodes,
            ago: since.map(|since| in_words(age(since, now))).unwrap_or_default(),
            since,
        }
    });
    let last = status.last_failover.as_ref();
    let last_failover = last.map(|last| {
        let took = last.seconds.map(|seconds| format!(", in {seconds:.1} s")).unwrap_or_default();
        format!(
            "{} ago, {} to {}{took}: {}",
            in_words(age(last.time.0, now)),
            last.from,
            last.to,
            last.reason
        )
    });
    GatewayLine {
        name: name(gateway).to_owned(),
        ready: ready(&status.conditions),
        gateways: machines.collect(),
        active: status.active,
        egress_ip: status.egress_ip,
        public_ips: status.public_ips,
        gateways_ready: status.gateways_ready.unwrap_or_default(),
        nodes: status.nodes.unwrap_or_default(),
        last_failover,
    }
}

fn route_line(route: &StaticRoute) -> RouteLine {
    let status = route.status.clone().unwrap_or_default();
    let through = match (&route.spec.gateway_ref, route.spec.ordered_gateways()) {
        (Some(reference), _) => format!("EgressGateway {}", reference.name),
        (None, list) => some(&list.into_iter().map(|one| one.address.0).collect::<Vec<_>>()),
    };
    RouteLine {
        name: name(route).to_owned(),
        ready: ready(&status.conditions),
        nodes: status.nodes.unwrap_or_default(),
        destinations: route.spec.destinations.iter().map(|one| one.0.clone()).collect(),
        through,
        owner: route.metadata.labels.as_ref().and_then(|labels| labels.get(OWNED_BY_LABEL)).cloned(),
    }
}

fn ready(conditions: &[Condition]) -> String {
    let found = conditions.iter().find(|condition| condition.type_ == READY);
    found.map_or_else(|| "Unknown".to_owned(), |condition| condition.status.clone())
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let many = |level| self.findings.iter().filter(|one| one.level == level).count();
        let unknown = match many(Level::Unknown) {
            0 => String::new(),
            many => format!("{} can't be told", count(many, "thing", "things")),
        };
        match (many(Level::Wrong), unknown.as_str()) {
            (0, "") if self.egress_gateways.is_empty() && self.static_routes.is_empty() => {
                writeln!(f, "There is no EgressGateway and no StaticRoute.")?;
            }
            (0, "") => writeln!(f, "All is well.")?,
            (0, unknown) => writeln!(f, "Nothing is known to be wrong, and {unknown}.")?,
            (wrong, "") => writeln!(f, "{} wrong.", count(wrong, "thing is", "things are"))?,
            (wrong, unknown) => {
                writeln!(f, "{} wrong, and {unknown}.", count(wrong, "thing is", "things are"))?;
            }
        }
        for Finding { level, object, reason, message, .. } in &self.findings {
            let mark = match level {
                Level::Wrong => "WRONG  ",
                Level::Unknown => "UNKNOWN",
                Level::Note => "note   ",
            };
            let message = if message.is_empty() { reason.clone() } else { format!("{reason}: {message}") };
            writeln!(f, "  {mark} {object}: {message}")?;
        }
        self.tables(f)?;
        let Nodes { total, ready, reporting } = &self.nodes;
        writeln!(f, "\n{}: {ready} Ready, {reporting} of them report", count(*total, "node", "nodes"))
    }
}

impl Status {
    fn tables(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = &self.egress_gateways;
        let mut gateways = Table::new(&["EGRESSGATEWAY", "READY", "EGRESS-IP", "ALLOW", "GATEWAYS", "NODES"]);
        let mut machines = Table::new(&[
            "GATEWAY", "OF", "STATE", "PROVEN", "PUBLIC", "PRIVATE", "DROPLET", "NODES", "SINCE",
        ]);
        for line in lines.iter().take(self.most) {
            gateways.row([
                line.name.clone(),
                line.ready.clone(),
                line.egress_ip.clone().unwrap_or_default(),
                line.public_ips.join(","),
                line.gateways_ready.clone(),
                line.nodes.clone(),
            ]);
            for machine in &line.gateways {
                machines.row([
                    machine.name.clone(),
                    line.name.clone(),
                    machine.state.clone(),
                    if machine.ready { "yes" } else { "no" }.to_owned(),
                    machine.public_address.clone().unwrap_or_default(),
                    machine.private_address.clone().unwrap_or_default(),
                    machine.droplet_id.to_string(),
                    machine.nodes.to_string(),
                    machine.ago.clone(),
                ]);
            }
        }
        self.table(f, &gateways, lines.len(), "EgressGateways")?;
        self.table(f, &machines, 0, "")?;
        for line in lines.iter().take(self.most) {
            if let Some(last) = &line.last_failover {
                writeln!(f, "\nlast failover of {}: {last}", line.name)?;
            }
        }
        let lines = &self.static_routes;
        let mut routes = Table::new(&["STATICROUTE", "READY", "NODES", "DESTINATIONS", "THROUGH"]);
        for line in lines.iter().take(self.most) {
            let RouteLine { name, ready, nodes, destinations, through, .. } = line;
            routes.row([name.clone(), ready.clone(), nodes.clone(), some(destinations), through.clone()]);
        }
        self.table(f, &routes, lines.len(), "StaticRoutes")
    }

    fn table(&self, f: &mut fmt::Formatter<'_>, table: &Table, of: usize, what: &str) -> fmt::Result {
        if table.is_empty() {
            return Ok(());
        }
        write!(f, "\n{table}")?;
        if of > self.most {
            writeln!(f, "… and {} more {what} (--all shows them)", of - self.most)?;
        }
        Ok(())
    }
}
