//! Reserved addresses in a whole cluster: what partners see stays the same whatever becomes of Droplets.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::MINUTE;
use crate::lab::{Lab, until};

const PARTNER: &str = "192.0.2.145";

fn promised(lab: &Lab) -> Vec<String> {
    let status = lab.get(&["egressgateway", "partners"])["status"].clone();
    let all = status["publicIPs"].as_array().cloned().unwrap_or_default();
    all.iter().map(|one| one.as_str().unwrap().to_owned()).collect()
}

fn reserved(lab: &Lab) -> Vec<Value> {
    let answer = lab.lab(&["cloud", "GET", "/v2/reserved_ips"]);
    serde_json::from_str::<Value>(&answer).unwrap()["reserved_ips"].as_array().unwrap().clone()
}

/// One Droplet of the pair is deleted, and the next dies while the cloud calls it active.
pub fn partners_see_the_same_two_addresses_over_two_replacements(lab: &Lab) {
    lab.apply(&json!({
        "apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway", "metadata": {"name": "partners"},
        "spec": {"destinations": [PARTNER], "publicIP": "ReservedPerGateway", "onNoGateway": "FailClosed"},
    }));
    lab.lab(&["oracle", "reset"]);
    let seen = RefCell::new(BTreeSet::new());
    let look = || {
        seen.borrow_mut().extend(lab.seen(PARTNER));
        lab.is_ready("partners")
    };
    until("partners is ready", &true, 3 * MINUTE, look);
    let addresses = promised(lab);
    assert_eq!(addresses.len(), 2);
    let mut held: Vec<String> =
        reserved(lab).iter().map(|one| one["ip"].as_str().unwrap().to_owned()).collect();
    held.sort_unstable();
    assert_eq!(held, addresses);
    for harm in ["deleted", "dead"] {
        let gateways = lab.gateway_ids("partners");
        match harm {
            "deleted" => lab.lab(&["cloud", "DELETE", &format!("/v2/droplets/{}", gateways[0])]),
            _ => lab.lab(&["kill", &gateways[0].to_string()]),
        };
        until(&format!("the one that is {harm} has a successor"), &true, 5 * MINUTE, || {
            look() && (harm == "dead" || !lab.gateway_ids("partners").contains(&gateways[0]))
        });
        assert_eq!(promised(lab), addresses, "after one was {harm}");
    }
    until("the pod is seen as promised", &true, MINUTE, || {
        lab.seen(PARTNER).is_some_and(|address| addresses.contains(&address))
    });
    assert!(seen.borrow().iter().all(|address| addresses.contains(address)), "{seen:?}");
    let oracle: Value = serde_json::from_str(&lab.lab(&["oracle", "-o", "json"])).unwrap();
    let sources: BTreeSet<&str> = oracle["packets"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["destination"] == PARTNER)
        .map(|one| one["source"].as_str().unwrap())
        .collect();
    assert!(!sources.is_empty());
    for source in sources {
        assert!(
            addresses.iter().any(|address| address == source),
            "a packet left as {source}, promised: {addresses:?}"
        );
    }
    lab.kubectl(&["delete", "egressgateway", "partners", "--timeout=120s"]);
    assert_eq!(reserved(lab), Vec::<Value>::new(), "addresses are left");
    eprintln!("ok   partners saw {addresses:?} and nothing else");
}
