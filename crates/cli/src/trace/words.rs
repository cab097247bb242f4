//! An answer as it is read by people and by programs.

use std::fmt;
use std::process::ExitCode;

use serde::Serialize;

use super::answer::{Through, Traced, Way};
use crate::output::some;

/// Everything that was found out.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    to: String,
    notes: Vec<String>,
    answers: Vec<Traced>,
}

impl Trace {
    /// The answers to a question.
    pub fn new(to: &str, notes: Vec<String>, answers: Vec<Traced>) -> Self {
        Self { to: to.to_owned(), notes, answers }
    }

    /// 0, as is asked for; 1, otherwise; 2, only the nodes can tell.
    pub fn exit_code(&self) -> ExitCode {
        let any = |is: fn(&Traced) -> bool| self.answers.iter().any(is);
        ExitCode::from(if any(|one| one.answer.amiss) {
            1
        } else if any(|one| one.answer.uncertain) {
            2
        } else {
            0
        })
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        for (index, Traced { nodes, own_address, answer }) in self.answers.iter().enumerate() {
            if index > 0 || !self.notes.is_empty() {
                writeln!(f)?;
            }
            let from = format!("{} {}", if nodes.len() == 1 { "node" } else { "nodes" }, some(nodes));
            let doubt = if answer.uncertain { ", as far as can be told from here" } else { "" };
            writeln!(f, "{} from {from}: {}{doubt}", answer.address, way(&answer.way))?;
            match (&answer.way, own_address) {
                (Way::ThroughGateway { gateways, .. }, _) => {
                    for Through { private_address, public_address, .. } in gateways {
                        let seen = public_address.as_deref().unwrap_or("an address that no object names");
                        writeln!(f, "  seen as  {seen}, gateway {private_address}")?;
                    }
                }
                (Way::AsWithoutGateways, Some(own)) => writeln!(f, "  seen as  {own}, the node's own")?,
                _ => {}
            }
            for why in &answer.why {
                writeln!(f, "  because  {why}")?;
            }
            for note in &answer.notes {
                writeln!(f, "  note     {note}")?;
            }
        }
        Ok(())
    }
}

fn way(way: &Way) -> String {
    match way {
        Way::ThroughGateway { static_route, gateways, .. } if gateways.len() > 1 => {
            format!("leaves through {} gateways that share it, by StaticRoute {static_route}", gateways.len())
        }
        Way::ThroughGateway { static_route, gateways, .. } => {
            let named = gateways.first().and_then(|one| one.gateway.clone());
            let shown = named.or_else(|| gateways.first().map(|one| one.private_address.to_string()));
            format!("leaves through gateway {}, by StaticRoute {static_route}", shown.unwrap_or_default())
        }
        Way::AsWithoutGateways => "goes through no gateway, but by the node's own ways".to_owned(),
        Way::Dropped { static_route } => format!("is dropped, by StaticRoute {static_route}"),
        Way::Unknown => "can't be told".to_owned(),
    }
}
