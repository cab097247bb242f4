//! A cloud on a clock of the test's own, and shorthand for calls.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cloud::*;

pub const D: Delays = Delays::quick();

/// A cloud, its time, and shorthand for calls.
pub struct World {
    pub cloud: Cloud,
    pub now: Timestamp,
}

impl World {
    pub fn new(machines: bool) -> Self {
        let mut cloud = Cloud::new(D, machines);
        cloud.vpcs.push(Vpc {
            id: "vpc-1".into(),
            name: "lab".into(),
            description: String::new(),
            region: "nyc1".into(),
            default: true,
            created_at: Timestamp::UNIX_EPOCH,
            pool: address::Pool::of("10.116.0.0/20".parse().unwrap()),
        });
        cloud.account.floating_ip_limit = 3;
        Self { cloud, now: Timestamp::from_second(1_770_000_000).unwrap() }
    }

    pub fn call_with(
        &mut self,
        method: &str,
        address: &str,
        body: &Value,
        variant: Option<&Variant>,
    ) -> (u16, Value) {
        let (path, query) = address.split_once('?').unwrap_or((address, ""));
        let query = query.split('&').filter_map(|pair| pair.split_once('='));
        let request = Request {
            method: method.into(),
            path: path.into(),
            query: query.map(|(key, value)| (key.into(), value.into())).collect(),
            body: if body.is_null() { Vec::new() } else { body.to_string().into_bytes() },
        };
        let answer = self.cloud.apply(&request, variant, self.now);
        (answer.status, answer.body.unwrap_or(Value::Null))
    }

    pub fn call(&mut self, method: &str, address: &str, body: &Value) -> (u16, Value) {
        self.call_with(method, address, body, None)
    }

    pub fn get(&mut self, address: &str) -> (u16, Value) {
        self.call("GET", address, &Value::Null)
    }

    pub fn wait(&mut self, milliseconds: u64) {
        self.now = later(self.now, milliseconds);
    }

    pub fn create(&mut self, variant: Option<&Variant>) -> u64 {
        let (status, body) = self.call_with("POST", "/v2/droplets", &wish("gw-0"), variant);
        assert_eq!(status, 202, "{body}");
        body["droplet"]["id"].as_u64().unwrap()
    }

    /// A Droplet whose create is through and that the tag index knows.
    pub fn live(&mut self) -> u64 {
        let id = self.create(None);
        for effect in self.cloud.take_effects() {
            self.cloud.machine_finished(effect.action, true, self.now);
        }
        self.wait(D.networks.max(D.tag_index));
        assert_eq!(self.state(id), ("active".into(), 2, false));
        id
    }

    /// Status, number of v4 networks, locked.
    pub fn state(&mut self, id: u64) -> (String, usize, bool) {
        let (status, body) = self.get(&format!("/v2/droplets/{id}"));
        assert_eq!(status, 200, "{body}");
        let droplet = &body["droplet"];
        (
            droplet["status"].as_str().unwrap().into(),
            droplet["networks"]["v4"].as_array().unwrap().len(),
            droplet["locked"].as_bool().unwrap(),
        )
    }

    pub fn tagged(&mut self) -> u64 {
        self.get("/v2/droplets?tag_name=egress-gateway").1["meta"]["total"].as_u64().unwrap()
    }

    pub fn action_status(&mut self, id: &Value) -> String {
        self.get(&format!("/v2/actions/{id}")).1["action"]["status"].as_str().unwrap().into()
    }
}

pub fn wish(name: &str) -> Value {
    json!({
        "name": name, "region": "nyc1", "size": "s-1vcpu-1gb", "image": "debian-12-x64", "vpc_uuid": "vpc-1",
        "tags": ["egress-gateway", "egress-slot:0"], "user_data": "#cloud-config",
    })
}

pub fn message(body: &Value) -> &str {
    body["message"].as_str().unwrap_or_default()
}
