//! The world as it is: the primitive calls of [`crate::act`] against Kubernetes and DigitalOcean.
//!
//! Each call asks the lease right before it is sent and ends at a deadline.

use std::net::Ipv4Addr;
use std::time::Duration;

use egress_api::{
    CONTROLLER_FIELD_MANAGER, EGRESS_GATEWAY_FINALIZER, EgressGateway, EgressGatewayStatus, GROUP,
    OWNED_BY_LABEL, StaticRoute, StaticRouteSpec,
};
use egress_digitalocean::{
    CreateDroplet, DropletId, DropletName, Error, FenceLost, FirewallId, FirewallSpec, ImageRef, ImageSlug,
    InvalidValue, ProjectId, RefusalKind, RegionSlug, Retry, SizeSlug, SshKeyRef, TagName, UserData, VpcId,
};
use egress_runtime::kubernetes::{CallError, within_deadline};
use egress_runtime::lease::{Claim, LeadershipLost};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::Mutex;

use crate::act::{CallFailure, CreateFailure, LONGEST_REST, Ports};
use crate::cloud::{Cloud, CreateError};
use crate::decision::{Admission, Limits, Order};
use crate::firewall::OwnedFirewall;
use crate::health::Endpoints;
use crate::identity::{OwnTag, OwnedDroplet};
use crate::observation::Observation;
use crate::reserved_ip::{OwnedIp, ReleasableIp, address_tag};
use crate::site::of_cloud;

// Others take the lease over at the earliest 5 s after our claim on it ends, and a changing cloud call ends after 10 s.
const COVER: Duration = Duration::from_secs(5);

/// Why an effect failed.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// Another controller leads now.
    #[error("nothing was sent: {0}")]
    Lease(#[from] LeadershipLost),
    /// The API server refused or did not answer.
    #[error(transparent)]
    Kubernetes(#[from] CallError),
    /// The cloud refused or did not answer.
    #[error(transparent)]
    Cloud(#[from] Error),
}

impl ActError {
    /// Label for metrics, from a closed list.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Lease(_) => "lease",
            Self::Kubernetes(error) => error.category(),
            Self::Cloud(error) => error.category(),
        }
    }
}

/// One EgressGateway, as it was read, and the means to change what belongs to it.
pub struct Live<'a> {
    client: &'a Client,
    cloud: &'a Cloud,
    health: &'a dyn Endpoints,
    claim: &'a Claim,
    name: String,
    uid: String,
    finalizers: Vec<String>,
    most_droplets: usize,
    // Moves with each of our writes; a write of anybody else makes ours fail, and the step begins again.
    version: Mutex<Option<String>>,
    // What was decided about one version of the StaticRoute is not applied to another.
    route_version: Option<String>,
}

impl<'a> Live<'a> {
    /// The calls for this object.
    pub fn new(
        client: &'a Client,
        cloud: &'a Cloud,
        health: &'a dyn Endpoints,
        claim: &'a Claim,
        limits: &Limits,
        seen: &Observation,
    ) -> Self {
        let (gateway, route) = (&seen.gateway, seen.route.as_ref());
        let meta = &gateway.metadata;
        Self {
            client,
            cloud,
            health,
            claim,
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            most_droplets: limits.most_droplets,
            version: Mutex::new(meta.resource_version.clone()),
            route_version: route.and_then(|route| route.metadata.resource_version.clone()),
        }
    }

    fn gateways(&self) -> Api<EgressGateway> {
        Api::all(self.client.clone())
    }

    fn routes(&self) -> Api<StaticRoute> {
        Api::all(self.client.clone())
    }

    // A merge patch, since other finalizers are not ours to apply; the resource version keeps it from losing one.
    async fn set_finalizers(&self, finalizers: &[String]) -> Result<(), ActError> {
        let mut version = self.version.lock().await;
        let patch = json!({"metadata": {"resourceVersion": &*version, "finalizers": finalizers}});
        self.claim.check()?;
        let api = self.gateways();
        let manager = PatchParams {
            field_manager: Some(CONTROLLER_FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let written = within_deadline(api.patch_metadata(&self.name, &manager, &Patch::Merge(patch))).await?;
        *version = written.metadata.resource_version;
        Ok(())
    }

    fn fence(&self) -> impl Fn() -> Result<(), FenceLost> + Send + Sync {
        let claim = self.claim.clone();
        move || claim.check_lasting(COVER).map_err(|lost| FenceLost::new(lost.to_string()))
    }
}

impl Ports for Live<'_> {
    type Error = ActError;

    async fn add_finalizer(&self) -> Result<(), ActError> {
        let mut finalizers = self.finalizers.clone();
        finalizers.push(EGRESS_GATEWAY_FINALIZER.to_owned());
        self.set_finalizers(&finalizers).await
    }

    async fn remove_finalizer(&self) -> Result<(), ActError> {
        let mut finalizers = self.finalizers.clone();
        finalizers.retain(|finalizer| finalizer != EGRESS_GATEWAY_FINALIZER);
        match self.set_finalizers(&finalizers).await {
            Err(ActError::Kubernetes(error)) if error.is_not_found() => Ok(()),
            other => other,
        }
    }

    async fn write_status(&self, status: &EgressGatewayStatus) -> Result<(), ActError> {
        let mut version = self.version.lock().await;
        let patch = json!({
            "apiVersion": format!("{GROUP}/v1alpha1"),
            "kind": "EgressGateway",
            "metadata": {"name": self.name, "uid": self.uid, "resourceVersion": &*version},
            "status": status,
        });
        self.claim.check()?;
        let api = self.gateways();
        let manager = PatchParams::apply(CONTROLLER_FIELD_MANAGER).force();
        let written = within_deadline(api.patch_status(&self.name, &manager, &Patch::Apply(patch))).await?;
        *version = written.metadata.resource_version;
        Ok(())
    }

    async fn apply_route(&self, spec: &StaticRouteSpec) -> Result<(), ActError> {
        let mut patch = json!({
            "apiVersion": format!("{GROUP}/v1"),
            "kind": "StaticRoute",
            "metadata": {
                "name": self.name,
                "labels": {OWNED_BY_LABEL: self.name},
                "ownerReferences": [{
                    "apiVersion": format!("{GROUP}/v1alpha1"),
                    "kind": "EgressGateway",
                    "name": self.name,
                    "uid": self.uid,
                    "controller": true,
                    "blockOwnerDeletion": false,
                }],
            },
            "spec": spec,
        });
        if let Some(version) = &self.route_version {
            patch["metadata"]["resourceVersion"] = json!(version);
        }
        self.claim.check()?;
        // Forced for our own fields only: that the object is ours was seen before.
        let manager = PatchParams::apply(CONTROLLER_FIELD_MANAGER).force();
        within_deadline(self.routes().patch(&self.name, &manager, &Patch::Apply(patch))).await?;
        Ok(())
    }

    async fn delete_route(&self, uid: &str) -> Result<(), ActError> {
        let preconditions = Preconditions { uid: Some(uid.to_owned()), ..Preconditions::default() };
        let parameters = DeleteParams::background().preconditions(preconditions);
        self.claim.check()?;
        match within_deadline(self.routes().delete(&self.name, &parameters)).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn create(&self, order: &Order) -> Result<DropletId, CreateFailure<ActError>> {
        let request = request(order).map_err(|invalid| CreateFailure::Refused(invalid.to_string()))?;
        let made = self.cloud.create(&request, self.most_droplets, &self.fence()).await;
        let failure = |error: Error| match &error {
            Error::Refused { refusal, .. } => CreateFailure::Refused(refusal.message.clone()),
            Error::Invalid { source, .. } => CreateFailure::Refused(source.to_string()),
            // Not sent for certain, as far as the client can tell; said as a refusal, so that nothing waits for it.
            Error::Token { .. } | Error::Throttled { .. } | Error::Unreachable { .. } => {
                CreateFailure::Refused(error.to_string())
            }
            _ => CreateFailure::Unknown(error.into()),
        };
        made.map_err(|error| match error {
            CreateError::Limit(_) => CreateFailure::Refused(error.to_string()),
            CreateError::Cloud(error) => failure(error),
        })
    }

    async fn power_on(&self, droplet: &OwnedDroplet) -> Result<(), ActError> {
        Ok(self.cloud.power_on(droplet.id(), &self.fence()).await?)
    }

    async fn power_cycle(&self, droplet: &OwnedDroplet) -> Result<(), ActError> {
        match self.cloud.power_cycle(droplet.id(), &self.fence()).await {
            Err(Error::Ambiguous { reason, .. }) => {
                tracing::warn!(droplet = droplet.name(), reason, "whether the power was cycled is open");
                Ok(())
            }
            other => Ok(other?),
        }
    }

    async fn create_firewall(&self, wanted: &FirewallSpec) -> Result<FirewallId, CallFailure<ActError>> {
        let made = self.cloud.create_firewall(wanted, &self.fence()).await;
        made.map_err(|error| resting(error, "firewall:create"))
    }

    async fn update_firewall(
        &self,
        firewall: &OwnedFirewall,
        wanted: &FirewallSpec,
    ) -> Result<bool, CallFailure<ActError>> {
        let shown = self.cloud.update_firewall(firewall.id(), wanted, &self.fence()).await;
        let shown = shown.map_err(|error| resting(error, "firewall:update"))?;
        Ok(wanted.is_met_by(&shown))
    }

    async fn delete_firewall(&self, firewall: &OwnedFirewall) -> Result<(), CallFailure<ActError>> {
        let deleted = self.cloud.delete_firewall(firewall.id(), &self.fence()).await;
        deleted.map_err(|error| resting(error, "firewall:delete"))
    }

    async fn assign(&self, droplet: &OwnedDroplet, project: &str) -> Result<(), ActError> {
        let project =
            ProjectId::new(project).map_err(|source| Error::Invalid { call: "projects.assign", source })?;
        Ok(self.cloud.assign(droplet.id(), &project, &self.fence()).await?)
    }

    async fn reserve_ip(&self, droplet: &OwnedDroplet) -> Result<Ipv4Addr, CallFailure<ActError>> {
        let made = self.cloud.reserve_ip(droplet.id(), &self.fence()).await;
        made.map_err(|error| resting(error, "reserved_ip:create"))
    }

    async fn mark_ip(&self, droplet: &OwnedDroplet, ip: Ipv4Addr) -> Result<(), CallFailure<ActError>> {
        let tag = TagName::new(address_tag(ip))
            .map_err(|source| Error::Invalid { call: "tags.create", source })
            .map_err(|error| CallFailure::Unknown(error.into()))?;
        let marked = self.cloud.tag(&tag, droplet.id(), &self.fence()).await;
        marked.map_err(|error| resting(error, "tag:create"))
    }

    async fn assign_ip(&self, ip: &OwnedIp, droplet: &OwnedDroplet) -> Result<(), CallFailure<ActError>> {
        let assigned = self.cloud.assign_ip(ip.ip(), droplet.id(), &self.fence()).await;
        assigned.map_err(|error| resting(error, "reserved_ip:update"))
    }

    async fn release_ip(&self, ip: &ReleasableIp) -> Result<(), CallFailure<ActError>> {
        let released = self.cloud.release_ip(ip.ip(), &self.fence()).await;
        released.map_err(|error| resting(error, "reserved_ip:delete"))
    }

    async fn admit(&self, admission: &Admission) -> Result<(), ActError> {
        self.claim.check()?;
        if let Err(reason) = self.health.admit(admission.gateway, &admission.peers).await {
            tracing::info!(
                gateway = admission.name,
                reason,
                "the gateway did not take the list of its peers"
            );
        }
        Ok(())
    }

    async fn delete(&self, droplet: &OwnedDroplet) -> Result<(), CallFailure<ActError>> {
        let deleted = self.cloud.delete(droplet.id(), &self.fence()).await;
        deleted.map_err(|error| match error.refused_as() {
            Some(RefusalKind::Forbidden) => resting(error, "droplet:delete"),
            _ => CallFailure::Unknown(error.into()),
        })
    }

    async fn untag(&self, tag: &OwnTag) -> Result<(), ActError> {
        Ok(self.cloud.untag(tag, &self.fence()).await?)
    }
}

// What was refused is told and rests for as long as its kind is likely to last, longer while it goes on. Gateways do not wait for it.
fn resting(error: Error, scope: &str) -> CallFailure<ActError> {
    let pause = match error.retry() {
        // Ours no more, or perhaps done.
        Retry::Never | Retry::AmbiguousMayHaveHappened => return CallFailure::Unknown(error.into()),
        Retry::After(pause) => pause.min(LONGEST_REST),
        Retry::Soon => SHORTEST_REST,
        Retry::AfterSpecChange => LONGEST_REST,
    };
    let words = of_cloud(&error).message;
    let words = match error.refused_as() {
        Some(RefusalKind::Forbidden) => format!("{words}: the API token needs the scope {scope}"),
        _ => words,
    };
    CallFailure::Refused { words, pause: pause.max(SHORTEST_REST) }
}

const SHORTEST_REST: Duration = Duration::from_secs(10);

fn request(order: &Order) -> Result<CreateDroplet, InvalidValue> {
    let Order {
        slot: _,
        name,
        region,
        vpc,
        size,
        image,
        ssh_keys,
        tags,
        monitoring,
        user_data,
        user_data_version: _,
    } = order;
    let image = match image.parse() {
        Ok(id) => ImageRef::Id(id),
        Err(_) => ImageRef::Slug(ImageSlug::new(image.as_str())?),
    };
    let key = |key: &String| key.parse().map_or_else(|_| SshKeyRef::Fingerprint(key.clone()), SshKeyRef::Id);
    Ok(CreateDroplet {
        name: DropletName::new(name.as_str())?,
        region: RegionSlug::new(region.as_str())?,
        size: SizeSlug::new(size.as_str())?,
        image,
        vpc_uuid: VpcId::new(vpc.as_str())?,
        ssh_keys: ssh_keys.iter().map(key).collect(),
        tags: tags.iter().map(TagName::new).collect::<Result<_, _>>()?,
        user_data: Some(UserData::new(user_data.as_str())?),
        monitoring: *monitoring,
        // A gateway has nobody to log in, and less on it is better.
        with_droplet_agent: Some(false),
    })
}
