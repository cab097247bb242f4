//! What people ask of the order of the list: a gateway that they prefer, gateways that they want to be left.
//!
//! Both are annotations of the EgressGateway, so that a move is one command and no change of what is wanted in the long run. They
//! order what is proven and never make a list longer or shorter: the only one that works stays first, drained or not.

use std::collections::BTreeSet;

use egress_api::{
    DRAINED_GATEWAYS_ANNOTATION, EgressGateway, EgressGatewayStatus, PREFERRED_GATEWAY_ANNOTATION,
};

/// The two annotations, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    preferred: Option<String>,
    drained: BTreeSet<String>,
}

impl Wishes {
    pub(super) fn of(gateway: &EgressGateway) -> Self {
        let annotations = gateway.metadata.annotations.as_ref();
        let words = |key| annotations.and_then(|all| all.get(key)).map(String::as_str).unwrap_or_default();
        let names = words(DRAINED_GATEWAYS_ANNOTATION).split(',').map(str::trim);
        let preferred = words(PREFERRED_GATEWAY_ANNOTATION).trim();
        Self {
            preferred: (!preferred.is_empty()).then(|| preferred.to_owned()),
            drained: names.filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        }
    }

    /// Sorts before everything else: who is drained comes last, who is preferred first; both at once is drained.
    pub(super) fn rank(&self, name: &str) -> (bool, bool) {
        (self.drained.contains(name), self.preferred.as_deref() != Some(name))
    }

    /// Why this one is first rather than that one, if it is by somebody's wish.
    pub(super) fn reason(&self, from: &str, to: &str) -> Option<String> {
        if self.drained.contains(from) && !self.drained.contains(to) {
            return Some(format!("{from} is to be drained ({DRAINED_GATEWAYS_ANNOTATION})"));
        }
        let preferred = self.preferred.as_deref() == Some(to) && !self.drained.contains(to);
        preferred.then(|| format!("{to} is preferred ({PREFERRED_GATEWAY_ANNOTATION})"))
    }

    /// Names that no gateway has, in a sentence with those that there are.
    pub(super) fn complaint(&self, status: &EgressGatewayStatus) -> Option<String> {
        let names: Vec<&str> = status.gateways.iter().map(|gateway| gateway.name.as_str()).collect();
        let unknown = |name: &&String| !names.contains(&name.as_str());
        let preferred =
            self.preferred.iter().filter(unknown).map(|name| (PREFERRED_GATEWAY_ANNOTATION, name));
        let drained = self.drained.iter().filter(unknown).map(|name| (DRAINED_GATEWAYS_ANNOTATION, name));
        let (annotation, name) = preferred.chain(drained).next()?;
        let valid = if names.is_empty() { "none yet".to_owned() } else { names.join(", ") };
        Some(format!(
            "Annotation {annotation} names {name}, and no gateway of this EgressGateway is called that; there are: {valid}. Until it \
             is changed or removed the name is ignored"
        ))
    }
}
