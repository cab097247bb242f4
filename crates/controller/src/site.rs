//! Where gateways must be: the region and VPC of the cluster's own nodes, found through their provider ids.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use egress_api::{DropletTemplate, EgressGatewaySpec, PublicIp};
use egress_digitalocean::{DropletId, Error, RefusalKind, VpcId};
use ipnet::Ipv4Net;
use jiff::Timestamp;

use crate::cloud::{Cloud, elapsed};
use crate::observation::{Site, Trouble};
use crate::user_data::{LeavesWith, UserData, UserDataError, UserDataInput, render};

/// So many nodes are asked for in a look; the others of a cluster of hundreds in the looks after it, each once in its life.
const NODES_ASKED: usize = 8;

/// DOKS gives a cluster a /16 for its pods by default; nodes to come have their ranges in it.
const POD_SUPERNET: u8 = 16;

/// Finds and remembers where nodes are: neither a Droplet's VPC nor a VPC's range ever changes.
#[derive(Default)]
pub struct Locator {
    nodes: Mutex<BTreeMap<DropletId, Place>>,
    ranges: Mutex<BTreeMap<VpcId, Ipv4Net>>,
    // What was rendered last: the same for most, and too much work for each look.
    rendered: Mutex<VecDeque<(UserDataInput, UserData)>>,
    // What the token does not see, and since when: asked for again only now and then, however many ask here.
    unseen: Mutex<BTreeMap<String, Timestamp>>,
}

/// With and without SSH keys, before and after a change of the pods' ranges.
const RENDERED: usize = 4;

/// What the token did not see is asked for again after this.
const ASK_AGAIN: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    region: String,
    vpc: VpcId,
}

impl Locator {
    /// The site for gateways of this kind among these nodes.
    pub async fn locate(
        &self,
        cloud: &Cloud,
        spec: &EgressGatewaySpec,
        nodes: &BTreeSet<DropletId>,
        pod_ranges: &[Ipv4Net],
    ) -> Result<Site, Trouble> {
        let template = &spec.droplet;
        let places = self.places(cloud, nodes).await.map_err(|error| of_cloud(&error))?;
        let place = choose(template, &places)?;
        let range = self.range(cloud, &place.vpc).await.map_err(|error| of_cloud(&error))?;
        let Some(vpc_range) = range else {
            let message =
                format!("The cloud does not show VPC {}; the token needs the scope vpc:read", place.vpc);
            return Err(Trouble { reason: "VpcUnknown", message });
        };
        let input = UserDataInput {
            vpc_range,
            pod_ranges: pod_ranges.to_vec(),
            ssh: !template.ssh_keys.is_empty(),
            leaves_with: leaves_with(spec),
        };
        let user_data = self.user_data(&input).map_err(|error| Trouble {
            reason: "UserDataInvalid",
            message: format!("No user data: {error}"),
        })?;
        Ok(Site {
            region: place.region,
            vpc: place.vpc.as_str().to_owned(),
            sources: input.sources(),
            user_data,
        })
    }

    fn user_data(&self, input: &UserDataInput) -> Result<UserData, UserDataError> {
        let mut rendered = self.rendered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, user_data)) = rendered.iter().find(|(of, _)| of == input) {
            return Ok(user_data.clone());
        }
        let user_data = render(input)?;
        rendered.truncate(RENDERED - 1);
        rendered.push_front((input.clone(), user_data.clone()));
        Ok(user_data)
    }

    async fn places(&self, cloud: &Cloud, nodes: &BTreeSet<DropletId>) -> Result<BTreeSet<Place>, Error> {
        let mut places = BTreeSet::new();
        let mut asked = 0;
        for id in nodes {
            let known = self.nodes.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
            if let Some(place) = known {
                places.insert(place);
                continue;
            }
            let key = format!("node {id}");
            if asked == NODES_ASKED || self.is_unseen(&key, cloud.now()) {
                continue;
            }
            asked += 1;
            let droplet = cloud.droplet(*id).await?;
            let Some((region, vpc)) = droplet.and_then(|droplet| Some((droplet.region?, droplet.vpc_uuid?)))
            else {
                self.not_seen(key, cloud.now());
                continue;
            };
            let place = Place { region: region.as_str().to_owned(), vpc };
            let mut known = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
            // Nodes come and go for years.
            known.retain(|id, _| nodes.contains(id));
            known.insert(*id, place.clone());
            places.insert(place);
        }
        Ok(places)
    }

    fn is_unseen(&self, key: &str, now: Timestamp) -> bool {
        let mut unseen = self.unseen.lock().unwrap_or_else(PoisonError::into_inner);
        unseen.retain(|_, since| elapsed(*since, now) < ASK_AGAIN);
        unseen.contains_key(key)
    }

    fn not_seen(&self, key: String, now: Timestamp) {
        self.unseen.lock().unwrap_or_else(PoisonError::into_inner).insert(key, now);
    }

    async fn range(&self, cloud: &Cloud, vpc: &VpcId) -> Result<Option<Ipv4Net>, Error> {
        let known = self.ranges.lock().unwrap_or_else(PoisonError::into_inner).get(vpc).copied();
        if known.is_some() {
            return Ok(known);
        }
        let key = format!("VPC {vpc}");
        if self.is_unseen(&key, cloud.now()) {
            return Ok(None);
        }
        let range = match cloud.vpc(vpc).await {
            // Forbidden is not going to change from one look to the next either.
            Err(error) if error.refused_as() == Some(RefusalKind::Forbidden) => None,
            other => other?.and_then(|vpc| vpc.ip_range),
        };
        if let Some(range) = range {
            self.ranges.lock().unwrap_or_else(PoisonError::into_inner).insert(vpc.clone(), range);
        } else {
            self.not_seen(key, cloud.now());
        }
        Ok(range)
    }
}

fn leaves_with(spec: &EgressGatewaySpec) -> LeavesWith {
    match spec.public_ip {
        PublicIp::Ephemeral => LeavesWith::Own,
        PublicIp::ReservedPerGateway => LeavesWith::Reserved,
        PublicIp::Floating => {
            let targets = spec.health_check.targets.iter().filter_map(|target| target.0.parse().ok());
            LeavesWith::Floating { targets: targets.collect() }
        }
    }
}

/// A cloud error as people should read it.
pub fn of_cloud(error: &Error) -> Trouble {
    let reason = match error {
        Error::Token { .. } => "TokenMissing",
        Error::Refused { refusal, .. } => match refusal.status {
            401 => "TokenRefused",
            403 => "CloudForbids",
            429 => "CloudThrottles",
            _ => "CloudRefused",
        },
        Error::Throttled { .. } => "CloudThrottles",
        Error::Invalid { .. } => "InvalidValue",
        _ => "CloudUnreachable",
    };
    let message = match error {
        Error::Token { source, .. } => format!(
            "{source}: put a token into Secret {} under key {} in the controller's namespace; nodes keep what they have",
            crate::credentials::SECRET,
            crate::credentials::KEY
        ),
        Error::Refused { refusal, .. } => format!("DigitalOcean says: {}", refusal.message),
        // How long exactly would make another sentence, and another write, of each look.
        Error::Throttled { .. } => {
            "The hourly budget of calls to DigitalOcean's API is used up; calls go on when there is room again".to_owned()
        }
        other => other.to_string(),
    };
    Trouble { reason, message }
}

fn choose(template: &DropletTemplate, places: &BTreeSet<Place>) -> Result<Place, Trouble> {
    let Some(place) = places.first() else {
        let message = "No node of this cluster has a provider id of a Droplet that the API token can see; gateways must be \
                       in the nodes' VPC"
            .to_owned();
        return Err(Trouble { reason: "NodesNotFound", message });
    };
    let vpcs: BTreeSet<&str> = places.iter().map(|place| place.vpc.as_str()).collect();
    if vpcs.len() > 1 {
        let list = vpcs.into_iter().collect::<Vec<_>>().join(", ");
        let message =
            format!("The nodes are in several VPCs ({list}); a gateway can be reached in its own only");
        return Err(Trouble { reason: "SeveralVpcs", message });
    }
    if let Some(asked_for) = template.vpc_uuid.as_deref()
        && asked_for != place.vpc.as_str()
    {
        let message = format!(
            "spec.droplet.vpcUUID is {asked_for}, but the nodes are in VPC {}; leave it out or name that one",
            place.vpc
        );
        return Err(Trouble { reason: "WrongVpc", message });
    }
    if let Some(asked_for) = template.region.as_deref()
        && asked_for != place.region
    {
        let message = format!(
            "spec.droplet.region is {asked_for}, but the nodes' VPC is in {}; leave it out or name that one",
            place.region
        );
        return Err(Trouble { reason: "WrongRegion", message });
    }
    Ok(place.clone())
}

/// The ranges that pods may be in: what was configured, else one prefix around the ranges of all nodes.
pub fn pod_ranges<'a>(configured: Option<Ipv4Net>, of_nodes: impl Iterator<Item = &'a str>) -> Vec<Ipv4Net> {
    if let Some(range) = configured {
        return vec![range];
    }
    let mut ranges: Vec<Ipv4Net> = of_nodes
        .filter_map(|text| text.parse::<Ipv4Net>().ok())
        .filter_map(|range| Ipv4Net::new(range.network(), range.prefix_len().min(POD_SUPERNET)).ok())
        .map(|range| range.trunc())
        .collect();
    ranges.sort_unstable();
    ranges.dedup();
    Ipv4Net::aggregate(&ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(region: &str, vpc: &str) -> Place {
        Place { region: region.into(), vpc: VpcId::new(vpc).unwrap() }
    }

    #[test]
    fn several_vpcs_a_wrong_one_a_wrong_region_and_no_nodes_make_no_droplet() {
        let template = DropletTemplate::default();
        let one = BTreeSet::from([place("nyc1", "v1")]);
        assert_eq!(choose(&template, &one).unwrap(), place("nyc1", "v1"));
        let two = BTreeSet::from([place("nyc1", "v1"), place("nyc1", "v2")]);
        assert_eq!(choose(&template, &two).unwrap_err().reason, "SeveralVpcs");
        let wrong = DropletTemplate { vpc_uuid: Some("v2".into()), ..DropletTemplate::default() };
        assert_eq!(choose(&wrong, &one).unwrap_err().reason, "WrongVpc");
        assert_eq!(choose(&template, &BTreeSet::new()).unwrap_err().reason, "NodesNotFound");
        let elsewhere = DropletTemplate { region: Some("fra1".into()), ..DropletTemplate::default() };
        let refused = choose(&elsewhere, &one).unwrap_err();
        assert_eq!(refused.reason, "WrongRegion");
        assert!(refused.message.contains("the nodes' VPC is in nyc1"), "{}", refused.message);
        let right = DropletTemplate { region: Some("nyc1".into()), ..DropletTemplate::default() };
        assert!(choose(&right, &one).is_ok());
    }

    #[test]
    fn pods_of_nodes_to_come_are_in_the_range() {
        let nodes = ["10.244.0.0/24", "10.244.7.0/24", "fd00::/64"];
        assert_eq!(pod_ranges(None, nodes.into_iter()), ["10.244.0.0/16".parse().unwrap()]);
        let flag: Ipv4Net = "10.100.0.0/20".parse().unwrap();
        assert_eq!(pod_ranges(Some(flag), nodes.into_iter()), [flag]);
        assert!(pod_ranges(None, std::iter::empty()).is_empty());
    }
}
