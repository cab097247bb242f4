//! How gateways are watched: targets and thresholds, the same for EgressGateways and StaticRoutes.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How gateways are watched. Each node does so for itself and acts on it at once; `docs/health.md` has the reason of every
/// threshold.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.longestHoldDownSeconds >= self.holdDownSeconds").message("longestHoldDownSeconds must be at least holdDownSeconds: the hold-down grows from one to the other")
)]
pub struct HealthCheck {
    /// Where nodes connect to through each gateway, as `address:port`, up to 8; an EgressGateway needs one at least. Any answer, a
    /// refusal too, proves the way; one dead target condemns nobody. Best are several of different operators.
    #[serde(default = "default_targets")]
    #[schemars(length(max = 8))]
    pub targets: Vec<ProbeTarget>,

    /// Milliseconds from one probe of a gateway in the VPC to the next, 20 to 10,000. A dead gateway is left after about `fall`
    /// times that. Large clusters probe less often, so that a gateway bears it.
    #[serde(default = "default_interval")]
    #[schemars(range(min = 20, max = 10_000))]
    pub interval_milliseconds: i32,

    /// Probes in a row that a gateway must miss to be down, 2 to 10: one lost packet must condemn nobody.
    #[serde(default = "default_fall")]
    #[schemars(range(min = 2, max = 10))]
    pub fall: i32,

    /// Probes in a row that a gateway which was down must answer to be taken for alive, 1 to 20.
    #[serde(default = "default_rise")]
    #[schemars(range(min = 1, max = 20))]
    pub rise: i32,

    /// Milliseconds from one probe through a gateway to the next, 200 to 60,000; after a miss they follow quickly.
    #[serde(default = "default_path_interval")]
    #[schemars(range(min = 200, max = 60_000))]
    pub path_interval_milliseconds: i32,

    /// Seconds that a gateway which was down must work before nodes that work elsewhere return to it, 0 to 600: moving costs
    /// connections. It doubles each time the gateway fails again soon.
    #[serde(default = "default_hold_down")]
    #[schemars(range(min = 0, max = 600))]
    pub hold_down_seconds: i32,

    /// The most that `holdDownSeconds` grows to, 1 to 3,600.
    #[serde(default = "default_longest_hold_down")]
    #[schemars(range(min = 1, max = 3_600))]
    pub longest_hold_down_seconds: i32,

    /// Percent of probes that a gateway loses over half a minute when it is left for one that loses hardly any, 10 to 90. Twice that is
    /// enough over six seconds.
    #[serde(default = "default_loss")]
    #[schemars(range(min = 10, max = 90))]
    pub loss_percent: i32,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            targets: default_targets(),
            interval_milliseconds: default_interval(),
            fall: default_fall(),
            rise: default_rise(),
            path_interval_milliseconds: default_path_interval(),
            hold_down_seconds: default_hold_down(),
            longest_hold_down_seconds: default_longest_hold_down(),
            loss_percent: default_loss(),
        }
    }
}

impl HealthCheck {
    /// The same without anything outside: of gateways nobody vouches for that they lead to the internet.
    pub fn without_targets() -> Self {
        Self { targets: Vec::new(), ..Self::default() }
    }
}

fn default_interval() -> i32 {
    100
}

fn default_fall() -> i32 {
    3
}

fn default_rise() -> i32 {
    2
}

fn default_path_interval() -> i32 {
    1_000
}

fn default_hold_down() -> i32 {
    10
}

fn default_longest_hold_down() -> i32 {
    300
}

fn default_loss() -> i32 {
    25
}

/// `address:port`, IPv4.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProbeTarget(pub String);

impl JsonSchema for ProbeTarget {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ProbeTarget".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "minLength": 9,
            "maxLength": 21,
            "description": "IPv4 address and TCP port, such as 1.1.1.1:443.",
            "x-kubernetes-validations": [
                {
                    "rule": "self.matches('^[0-9.]+:[0-9]{1,5}$') && isIP(self.split(':')[0]) && int(self.split(':')[1]) > 0 && int(self.split(':')[1]) < 65536",
                    "messageExpression": "\"'\" + self + \"' is not an IPv4 address and a port; write it like 1.1.1.1:443\"",
                    "message": "must be an IPv4 address and a port, like 1.1.1.1:443"
                },
                {
                    "rule": "!isIP(self.split(':')[0]) || ip(self.split(':')[0]).isGlobalUnicast()",
                    "messageExpression": "\"'\" + self + \"' is not outside (unspecified, loopback, link-local, multicast or broadcast); write an address that only the internet has, like 1.1.1.1:443\"",
                    "message": "must be outside, like 1.1.1.1:443"
                }
            ]
        })
    }
}

// Three operators of anycast resolvers: one of them down says nothing about a gateway.
fn default_targets() -> Vec<ProbeTarget> {
    ["1.1.1.1:443", "8.8.8.8:443", "9.9.9.9:443"].map(|target| ProbeTarget(target.to_owned())).to_vec()
}
