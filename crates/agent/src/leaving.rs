//! EgressGateways that are being deleted: because somebody wants that, or with their definition (CRD)? Pure.
//!
//! Whoever deletes the definition deletes every EgressGateway, and the controller's finalizer keeps each of them in sight: it then
//! looks like one whose routes are to go. So an EgressGateway counts as deleted only when the API server, asked after it was seen to
//! be leaving, says that the definition stays ([`egress_api::Definition::takes_along`]); until then, and otherwise, it counts as there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use egress_api::EgressGateway;
use egress_runtime::guarded::Guarded;
use kube::Resource;

use crate::definition::{Answer, Question};

/// What is known of those that leave.
#[derive(Debug, Default)]
pub struct Leaving {
    /// By uid.
    fates: BTreeMap<String, Fate>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Asked(Question),
    Wanted,
    TakenAlong,
}

impl Leaving {
    /// The EgressGateways as they count: those that nobody is known to want gone without the mark of their deletion. `ask` asks for
    /// the definition anew.
    pub fn judge(
        &mut self,
        gateways: Vec<Arc<Guarded<EgressGateway>>>,
        answer: Option<&Answer>,
        ask: impl Fn() -> Question,
    ) -> Vec<Arc<Guarded<EgressGateway>>> {
        let mut asked = None;
        let mut leaving = BTreeSet::new();
        let judged = gateways.into_iter().map(|gateway| {
            let metadata = gateway.meta();
            if metadata.deletion_timestamp.is_none() {
                return gateway;
            }
            let uid = metadata.uid.clone().unwrap_or_default();
            leaving.insert(uid.clone());
            let fate = self.fates.entry(uid).or_insert_with(|| Fate::Asked(*asked.get_or_insert_with(&ask)));
            if let (Fate::Asked(question), Some(answer)) = (*fate, answer)
                && answer.to >= question
            {
                let goes_with_it = answer.of_gateways.takes_along(metadata);
                *fate = if goes_with_it { Fate::TakenAlong } else { Fate::Wanted };
                if goes_with_it {
                    tracing::warn!(
                        name = metadata.name,
                        "the definition of EgressGateways is being deleted, and this one with it: its routes stay"
                    );
                }
            }
            if *fate == Fate::Wanted { gateway } else { Arc::new(without_mark(&gateway)) }
        });
        let judged = judged.collect();
        self.fates.retain(|uid, _| leaving.contains(uid));
        judged
    }
}

fn without_mark(gateway: &Guarded<EgressGateway>) -> Guarded<EgressGateway> {
    let mut gateway = gateway.clone();
    gateway.meta_mut().deletion_timestamp = None;
    gateway
}

#[cfg(test)]
mod tests {
    use egress_api::Definition;
    use serde_json::json;

    use super::*;

    fn gateway(is_leaving: bool) -> Vec<Arc<Guarded<EgressGateway>>> {
        let mut object = json!({
            "apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway",
            "metadata": {"name": "demo", "uid": "uid-demo"},
            "spec": {"destinations": ["192.0.2.80"], "publicIP": "Ephemeral"},
        });
        if is_leaving {
            object["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:10:00Z");
        }
        vec![Arc::new(serde_json::from_value(object).unwrap())]
    }

    fn answer(to: u64, of_gateways: Definition) -> Answer {
        Answer {
            to: Question::numbered(to),
            definition: there(),
            of_gateways,
            reported: Vec::new(),
            gateways: Vec::new(),
            last_failover: None,
        }
    }

    fn there() -> Definition {
        Definition::There { uid: "d".to_owned(), created: 1 }
    }

    fn is_deleted(leaving: &mut Leaving, answer: Option<&Answer>) -> bool {
        let judged = leaving.judge(gateway(true), answer, || Question::numbered(5));
        judged[0].meta().deletion_timestamp.is_some()
    }

    #[test]
    fn a_deletion_counts_once_the_definition_was_seen_to_stay_and_never_with_it() {
        let mut leaving = Leaving::default();
        leaving.judge(gateway(false), None, || unreachable!("nobody leaves"));
        assert!(!is_deleted(&mut leaving, None));
        assert!(!is_deleted(&mut leaving, Some(&answer(4, there()))), "older than the question");
        assert!(is_deleted(&mut leaving, Some(&answer(5, there()))));
        assert!(is_deleted(&mut leaving, Some(&answer(6, Definition::Gone))), "somebody wanted it before");

        for going in [Definition::Going { since: 600 }, Definition::Gone] {
            let mut leaving = Leaving::default();
            assert!(!is_deleted(&mut leaving, Some(&answer(5, going))));
            assert!(!is_deleted(&mut leaving, Some(&answer(6, there()))), "what was heard of it stays true");
        }
        let before = Definition::Going { since: 700 };
        assert!(is_deleted(&mut Leaving::default(), Some(&answer(5, before))), "long before the definition");
    }
}
