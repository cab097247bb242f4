//! From a wish to the annotation that says it, and whether it has come true: pure.

use std::fmt;

use egress_api::{
    DRAINED_GATEWAYS_ANNOTATION, EgressGateway, GatewayRole, GatewayStatus, NodeEgress, NodeRoute,
    PAUSED_ANNOTATION, PREFERRED_GATEWAY_ANNOTATION, RouteMode,
};
use serde_json::{Value, json};

use crate::output::{count, some};

/// What somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// This gateway comes first; without a name the next one.
    First(Option<String>),
    /// No gateway is preferred.
    NoPreference,
    /// This gateway is left.
    Leave(String),
    /// This gateway may be used; without a name all.
    TakeBack(Option<String>),
}

/// What is to be done about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Deed {
    /// In a sentence.
    pub words: String,
    /// The patch; `None` when it is so already.
    pub patch: Option<Value>,
    /// Whether traffic moves.
    pub moves: bool,
    /// When it has come true.
    pub goal: Goal,
}

/// When it has come true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// This one is the active gateway and nodes use it.
    Active(String),
    /// No node uses this one.
    Unused(String),
    /// At once.
    Now,
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is so.
    Done(String),
    /// Not yet.
    Waiting(String),
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Done(words) | Self::Waiting(words)) = self;
        f.write_str(words)
    }
}

impl Wish {
    /// What is to be done, or why it can't be.
    pub fn deed(&self, object: &EgressGateway) -> anyhow::Result<Deed> {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        anyhow::ensure!(
            object.metadata.deletion_timestamp.is_none(),
            "EgressGateway {name} is being deleted"
        );
        if annotation(object, PAUSED_ANNOTATION) == Some("true") {
            anyhow::bail!(
                "EgressGateway {name} is paused: the controller moves nothing; kubectl annotate egw {name} {PAUSED_ANNOTATION}-"
            );
        }
        let drained = drained(object);
        match self {
            Self::First(to) => first(object, to.as_deref(), &drained),
            Self::NoPreference => {
                let preferred = annotation(object, PREFERRED_GATEWAY_ANNOTATION);
                let patch = preferred.map(|_| patch(object, PREFERRED_GATEWAY_ANNOTATION, None));
                let words = preferred.map_or("no gateway is preferred".to_owned(), |preferred| {
                    format!("{preferred} is not preferred any more; the gateways come in the controller's own order")
                });
                Ok(Deed { words, patch, moves: false, goal: Goal::Now })
            }
            Self::Leave(gateway) => leave(object, gateway, drained),
            Self::TakeBack(gateway) => {
                let (taken, left): (Vec<String>, Vec<String>) =
                    drained.into_iter().partition(|one| gateway.as_ref().is_none_or(|wanted| wanted == one));
                let patch = (!taken.is_empty())
                    .then(|| patch(object, DRAINED_GATEWAYS_ANNOTATION, joined(&left).as_deref()));
                let words = match (taken.as_slice(), gateway) {
                    ([], Some(gateway)) => format!("{gateway} is not drained"),
                    ([], None) => "no gateway is drained".to_owned(),
                    (taken, _) => {
                        format!("{} may be used again, in the controller's own order", taken.join(", "))
                    }
                };
                Ok(Deed { words, patch, moves: false, goal: Goal::Now })
            }
        }
    }
}

fn first(object: &EgressGateway, to: Option<&str>, drained: &[String]) -> anyhow::Result<Deed> {
    shares_nothing(object)?;
    let status = object.status.clone().unwrap_or_default();
    let active = status.active.clone().unwrap_or_default();
    let able = |one: &&GatewayStatus| is_proven(one) && one.name != active && !drained.contains(&one.name);
    let to = if let Some(to) = to {
        find(object, to)?.clone()
    } else {
        let next = status.gateways.iter().find(able).cloned();
        next.ok_or_else(|| {
            let states = states(object);
            anyhow::anyhow!(
                "no other gateway is proven and not drained: there is nobody to fail over to ({states})"
            )
        })?
    };
    anyhow::ensure!(
        is_proven(&to),
        "{} is not proven: {}",
        to.name,
        to.message.as_deref().unwrap_or("it is not ready")
    );
    anyhow::ensure!(!drained.contains(&to.name), "{} is drained; kubectl egress uncordon it first", to.name);
    let is_preferred = annotation(object, PREFERRED_GATEWAY_ANNOTATION) == Some(to.name.as_str());
    let words = if is_preferred && to.name == active {
        format!("{active} comes first already")
    } else {
        let address = to.public_address.as_deref().unwrap_or("an address not known yet");
        let from = status.egress_ip.as_deref().unwrap_or("none");
        format!("{} is to come first: the egress address becomes {address}; it is {from} ({active})", to.name)
    };
    let patch = (!is_preferred).then(|| patch(object, PREFERRED_GATEWAY_ANNOTATION, Some(&to.name)));
    Ok(Deed { words, patch, moves: to.name != active, goal: Goal::Active(to.name) })
}

fn leave(object: &EgressGateway, gateway: &str, mut drained: Vec<String>) -> anyhow::Result<Deed> {
    let found = find(object, gateway)?;
    let status = object.status.clone().unwrap_or_default();
    let able = |one: &&GatewayStatus| is_proven(one) && one.name != gateway && !drained.contains(&one.name);
    anyhow::ensure!(
        status.gateways.iter().any(|one| able(&one)),
        "no other gateway is proven and not drained, so nodes would keep {gateway} ({})",
        states(object)
    );
    let is_drained = drained.iter().any(|one| one == gateway);
    let goal = Goal::Unused(gateway.to_owned());
    if is_drained {
        return Ok(Deed { words: format!("{gateway} is drained already"), patch: None, moves: false, goal });
    }
    drained.push(gateway.to_owned());
    let patch = patch(object, DRAINED_GATEWAYS_ANNOTATION, joined(&drained).as_deref());
    let is_used = found.role == GatewayRole::Active || found.nodes > 0;
    let words = if is_used {
        format!(
            "{gateway} is to be left: {} it now",
            count(found.nodes.try_into().unwrap_or(0), "node uses", "nodes use")
        )
    } else {
        format!("{gateway} is to be left; nobody uses it now")
    };
    Ok(Deed { words, patch: Some(patch), moves: is_used, goal })
}

impl Goal {
    /// How far it is, by the object and by what nodes report.
    pub fn progress(&self, object: &EgressGateway, reports: &[NodeEgress]) -> Progress {
        let find = |name: &str| {
            object.status.iter().flat_map(|status| &status.gateways).find(|one| one.name == name).cloned()
        };
        match self {
            Self::Now => Progress::Done("done".to_owned()),
            Self::Active(to) => {
                let status = object.status.clone().unwrap_or_default();
                if status.active.as_ref() != Some(to) {
                    return Progress::Waiting("the controller has not ordered the gateways yet".to_owned());
                }
                let others: Vec<String> = status
                    .gateways
                    .iter()
                    .filter(|one| one.name != *to)
                    .filter_map(|one| one.private_address.clone())
                    .collect();
                match using(reports, &others).as_slice() {
                    [] => Progress::Done(format!("{to} comes first, and every node uses it")),
                    nodes => Progress::Waiting(format!(
                        "{to} comes first; open connections still use another on {}",
                        some(nodes)
                    )),
                }
            }
            Self::Unused(gateway) => match find(gateway).and_then(|one| one.private_address) {
                None => Progress::Done(format!("{gateway} is gone")),
                Some(address) => match using(reports, &[address]).as_slice() {
                    [] => Progress::Done(format!("no node uses {gateway} any more")),
                    nodes => Progress::Waiting(format!("{gateway} is still used on {}", some(nodes))),
                },
            },
        }
    }
}

// Nodes that send through one of these, be it only for connections that are open.
fn using(reports: &[NodeEgress], addresses: &[String]) -> Vec<String> {
    let uses = |route: &NodeRoute| {
        route.gateways_in_use().chain(&route.draining).any(|address| addresses.contains(address))
    };
    let using =
        reports.iter().filter(|report| report.status.iter().flat_map(|status| &status.routes).any(uses));
    using.filter_map(|report| report.metadata.name.clone()).collect()
}

fn is_proven(gateway: &GatewayStatus) -> bool {
    gateway.ready && matches!(gateway.role, GatewayRole::Active | GatewayRole::Standby)
}

fn find<'a>(object: &'a EgressGateway, gateway: &str) -> anyhow::Result<&'a GatewayStatus> {
    let found = object.status.iter().flat_map(|status| &status.gateways).find(|one| one.name == gateway);
    found.ok_or_else(|| anyhow::anyhow!("no gateway is called {gateway}; there are: {}", states(object)))
}

fn states(object: &EgressGateway) -> String {
    let all: Vec<String> = object
        .status
        .iter()
        .flat_map(|status| &status.gateways)
        .map(|one| format!("{} {:?}", one.name, one.role))
        .collect();
    if all.is_empty() { "none yet".to_owned() } else { all.join(", ") }
}

fn shares_nothing(object: &EgressGateway) -> anyhow::Result<()> {
    anyhow::ensure!(
        object.spec.mode != RouteMode::ActiveActive,
        "with mode: ActiveActive all gateways share the traffic and none comes first; kubectl egress drain leaves one out"
    );
    Ok(())
}

fn annotation<'a>(object: &'a EgressGateway, key: &str) -> Option<&'a str> {
    object.metadata.annotations.as_ref()?.get(key).map(|text| text.trim()).filter(|text| !text.is_empty())
}

fn drained(object: &EgressGateway) -> Vec<String> {
    let names = annotation(object, DRAINED_GATEWAYS_ANNOTATION).unwrap_or_default().split(',').map(str::trim);
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn joined(names: &[String]) -> Option<String> {
    (!names.is_empty()).then(|| names.join(","))
}

fn patch(object: &EgressGateway, key: &str, value: Option<&str>) -> Value {
    json!({"metadata": {"resourceVersion": object.metadata.resource_version, "annotations": {key: value}}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::fixture::{egress_gateway, entry, report};

    fn object(change: impl FnOnce(&mut Value)) -> EgressGateway {
        let mut object = egress_gateway("demo");
        object["metadata"]["resourceVersion"] = json!("7");
        change(&mut object);
        serde_json::from_value(object).unwrap()
    }

    fn annotated(key: &'static str, value: &'static str) -> impl FnOnce(&mut Value) {
        move |object| object["metadata"]["annotations"] = json!({key: value})
    }

    fn set(deed: &Deed, key: &str) -> Option<Value> {
        let patch = deed.patch.as_ref()?;
        assert_eq!(patch["metadata"]["resourceVersion"], "7", "only what was looked at is changed");
        patch["metadata"]["annotations"].get(key).cloned()
    }

    #[test]
    fn a_failover_prefers_the_next_proven_gateway_that_is_not_drained() {
        let deed = Wish::First(None).deed(&object(|_| {})).unwrap();
        assert_eq!(set(&deed, PREFERRED_GATEWAY_ANNOTATION), Some(json!("demo-1-uid")));
        assert!(
            deed.moves && deed.words.contains("becomes 203.0.113.101; it is 203.0.113.100"),
            "{}",
            deed.words
        );
        assert_eq!(deed.goal, Goal::Active("demo-1-uid".into()));
        let refusals: [(&str, EgressGateway, Option<&str>); 6] = [
            ("is drained", object(annotated(DRAINED_GATEWAYS_ANNOTATION, "demo-1-uid")), Some("demo-1-uid")),
            ("nobody to fail over to", object(annotated(DRAINED_GATEWAYS_ANNOTATION, "x, demo-1-uid")), None),
            (
                "is not proven: broken",
                object(|it| {
                    it["status"]["gateways"][1]["ready"] = json!(false);
                    it["status"]["gateways"][1]["message"] = json!("broken");
                }),
                Some("demo-1-uid"),
            ),
            ("there are: demo-0-uid Active, demo-1-uid Standby", object(|_| {}), Some("demo-9")),
            ("ActiveActive", object(|it| it["spec"]["mode"] = json!("ActiveActive")), None),
            ("is paused", object(annotated(PAUSED_ANNOTATION, "true")), None),
        ];
        for (why, object, to) in refusals {
            let refusal = Wish::First(to.map(str::to_owned)).deed(&object).unwrap_err().to_string();
            assert!(refusal.contains(why), "{why}: {refusal}");
        }
    }

    #[test]
    fn what_is_so_already_is_not_done_again_and_a_preference_can_be_taken_back() {
        let preferred = || object(annotated(PREFERRED_GATEWAY_ANNOTATION, "demo-0-uid"));
        let again = Wish::First(Some("demo-0-uid".into())).deed(&preferred()).unwrap();
        assert_eq!((again.patch, again.moves), (None, false));
        let back = Wish::NoPreference.deed(&preferred()).unwrap();
        assert_eq!(set(&back, PREFERRED_GATEWAY_ANNOTATION), Some(Value::Null));
        assert_eq!(Wish::NoPreference.deed(&object(|_| {})).unwrap().patch, None);
    }

    #[test]
    fn a_drain_adds_to_what_is_drained_and_leaves_the_last_one_in() {
        let first = Wish::Leave("demo-0-uid".into())
            .deed(&object(annotated(DRAINED_GATEWAYS_ANNOTATION, "gone")))
            .unwrap();
        assert_eq!(set(&first, DRAINED_GATEWAYS_ANNOTATION), Some(json!("gone,demo-0-uid")));
        assert!(first.moves && first.words.contains("2 nodes use it now"), "{}", first.words);
        let second = Wish::Leave("demo-1-uid".into())
            .deed(&object(annotated(DRAINED_GATEWAYS_ANNOTATION, "demo-0-uid")));
        assert!(second.unwrap_err().to_string().contains("nodes would keep demo-1-uid"));
        let standby = Wish::Leave("demo-1-uid".into()).deed(&object(|_| {})).unwrap();
        assert!(!standby.moves && standby.words.contains("nobody uses it now"));
        let again = Wish::Leave("demo-0-uid".into())
            .deed(&object(annotated(DRAINED_GATEWAYS_ANNOTATION, "demo-0-uid")))
            .unwrap();
        assert_eq!(again.patch, None);
    }

    #[test]
    fn uncordon_takes_one_or_all_back() {
        let both = || object(annotated(DRAINED_GATEWAYS_ANNOTATION, "demo-0-uid, demo-1-uid"));
        let one = Wish::TakeBack(Some("demo-0-uid".into())).deed(&both()).unwrap();
        assert_eq!(set(&one, DRAINED_GATEWAYS_ANNOTATION), Some(json!("demo-1-uid")));
        let all = Wish::TakeBack(None).deed(&both()).unwrap();
        assert_eq!(set(&all, DRAINED_GATEWAYS_ANNOTATION), Some(Value::Null));
        let none = Wish::TakeBack(Some("demo-9".into())).deed(&both()).unwrap();
        assert_eq!((none.patch, none.words.as_str()), (None, "demo-9 is not drained"));
    }

    #[test]
    fn it_has_come_true_when_nodes_say_so_and_not_before() {
        let reports = |first: &str, draining: Option<&str>| -> Vec<NodeEgress> {
            let mut one = entry("demo", first);
            one["draining"] = json!(draining);
            [report(1, &[one]), report(2, &[])]
                .into_iter()
                .map(|one| serde_json::from_value(one).unwrap())
                .collect()
        };
        let ordered = object(|it| it["status"]["active"] = json!("demo-1-uid"));
        let active = Goal::Active("demo-1-uid".into());
        let waits = |progress: Progress| matches!(progress, Progress::Waiting(_));
        assert!(waits(active.progress(&object(|_| {}), &reports("10.116.0.101", None))), "not ordered");
        assert!(waits(active.progress(&ordered, &reports("10.116.0.100", None))), "a node has not followed");
        assert!(
            waits(active.progress(&ordered, &reports("10.116.0.101", Some("10.116.0.100")))),
            "connections are open"
        );
        assert!(!waits(active.progress(&ordered, &reports("10.116.0.101", None))));
        let unused = Goal::Unused("demo-0-uid".into());
        assert!(waits(unused.progress(&ordered, &reports("10.116.0.101", Some("10.116.0.100")))));
        assert!(!waits(unused.progress(&ordered, &reports("10.116.0.101", None))));
        assert!(!waits(Goal::Unused("gone".into()).progress(&ordered, &[])));
    }
}
