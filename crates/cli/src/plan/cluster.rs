//! The cluster and its cloud, read and never written.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use egress_api::{EgressGateway, GROUP, GatewayRole};
use egress_controller::clock::Clock;
use egress_controller::cloud::Cloud;
use egress_controller::decision::Limits;
use egress_controller::forecast::Prices;
use egress_controller::health::Endpoints;
use egress_controller::identity::droplet_id;
use egress_controller::metrics::{ControllerMetrics, PREFIX};
use egress_controller::observation::HealthSeen;
use egress_controller::observe::{Found, Known, Observer};
use egress_controller::settings::Settings;
use egress_controller::watches::Mirrors;
use egress_digitalocean::DropletId;
use egress_runtime::kubernetes::within_deadline;
use egress_runtime::metrics::Metrics;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, Client};
use serde_json::Value;

use super::Arguments;
use super::manifest::{Manifest, applied};

/// What a plan is made from.
pub struct Cluster {
    client: Client,
    cloud: Arc<Cloud>,
    observer: Observer,
    endpoints: Arc<Recorded>,
    settings: Settings,
}

/// An EgressGateway as the API server would have it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// It.
    pub gateway: EgressGateway,
    /// Whether there is none yet.
    pub is_new: bool,
}

impl Cluster {
    /// Reads what all EgressGateways share.
    pub async fn read(client: Client, arguments: &Arguments) -> anyhow::Result<Self> {
        let namespace = &arguments.access.namespace;
        let settings = arguments.access.settings(&client).await;
        let cloud = arguments.access.cloud(&client, &settings).await?;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let system = within_deadline(namespaces.get("kube-system")).await.context("namespace kube-system")?;
        let cluster = system.metadata.uid.context("namespace kube-system has no uid")?;
        let metrics = ControllerMetrics::register(&mut Metrics::new(PREFIX, env!("CARGO_PKG_VERSION")));
        let cloud = Arc::new(Cloud::new(cloud, &cluster, metrics, Clock::default()));
        let mirrors = Mirrors::read_once(&client, namespace)
            .await
            .context("nodes, NodeEgresses and StaticRoutes cannot be read")?;
        let known = Known {
            pod_range: settings.cluster_pod_range,
            firewall_age: Duration::from_secs(settings.firewall_age_seconds.into()),
            reserved_ip_age: Duration::from_secs(settings.reserved_ip_age_seconds.into()),
        };
        let endpoints = Arc::new(Recorded::default());
        let observer =
            Observer::new(client.clone(), cluster, cloud.clone(), mirrors, endpoints.clone(), known);
        Ok(Self { client, cloud, observer, endpoints, settings })
    }

    /// What the API server would make of this manifest, by a dry run: with defaults, and refused where it would be.
    pub async fn stored(&self, manifest: Manifest) -> anyhow::Result<Stored> {
        let there = self.get(&manifest.name).await?;
        let is_new = there.is_none();
        let (method, path, object) = match there {
            Some(stored) => ("PUT", format!("/{}", manifest.name), applied(&stored, &manifest.object)),
            None => ("POST", String::new(), manifest.object),
        };
        let uri = format!(
            "/apis/{GROUP}/v1alpha1/egressgateways{path}?dryRun=All&fieldValidation=Strict&fieldManager=kubectl-egress-plan"
        );
        let request = http::Request::builder()
            .method(method)
            .uri(uri)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(serde_json::to_vec(&object)?)?;
        let gateway = within_deadline(self.client.request::<EgressGateway>(request)).await;
        Ok(Stored { gateway: gateway.context("the API server would not take it")?, is_new })
    }

    /// The EgressGateway of this manifest, as if its deletion had just been asked for.
    pub async fn deleted(&self, manifest: &Manifest) -> anyhow::Result<Stored> {
        let there = self.get(&manifest.name).await?.context("there is no such EgressGateway")?;
        let mut gateway: EgressGateway = serde_json::from_value(there)?;
        let now = Timestamp::from_second(Timestamp::now().as_second())?;
        gateway.metadata.deletion_timestamp.get_or_insert(Time(now));
        Ok(Stored { gateway, is_new: false })
    }

    /// What the controller would see.
    pub async fn observe(&self, gateway: EgressGateway) -> anyhow::Result<Found> {
        self.endpoints.take(&gateway);
        Ok(Box::pin(self.observer.observe_as(gateway, None)).await?)
    }

    /// Prices as far as they are known.
    pub async fn prices(&self) -> Prices {
        let sizes = self.cloud.sizes().await.unwrap_or_default();
        let price = |size: &egress_digitalocean::Size| Some((size.slug.to_string(), size.price_monthly?));
        sizes.iter().filter_map(price).collect()
    }

    /// The controller's own times and bounds.
    pub fn limits(&self) -> Limits {
        self.settings.limits()
    }

    async fn get(&self, name: &str) -> anyhow::Result<Option<Value>> {
        let request = http::Request::get(format!("/apis/{GROUP}/v1alpha1/egressgateways/{name}"));
        match within_deadline(self.client.request::<Value>(request.body(Vec::new())?)).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error).context("it cannot be read"),
        }
    }
}

/// The gateways' endpoints, which cannot be reached from here: what the status says of them last.
#[derive(Default)]
struct Recorded(Mutex<BTreeMap<DropletId, HealthSeen>>);

impl Recorded {
    fn take(&self, gateway: &EgressGateway) {
        let mut recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.clear();
        for entry in gateway.status.iter().flat_map(|status| &status.gateways) {
            let Some(id) = droplet_id(entry) else { continue };
            let peers: BTreeSet<Ipv4Addr> = entry.admits.iter().filter_map(|one| one.parse().ok()).collect();
            let seen = if entry.role == GatewayRole::Failed {
                HealthSeen::Silent("it is not asked from here, and was said to have failed".to_owned())
            } else {
                HealthSeen::Ready {
                    version: entry.user_data_version.clone(),
                    public_address: entry.public_address.as_ref().and_then(|one| one.parse().ok()),
                    peers: Some(peers),
                }
            };
            recorded.insert(id, seen);
        }
    }
}

impl Endpoints for Recorded {
    fn ask(&self, gateways: Vec<(DropletId, Ipv4Addr)>) -> BoxFuture<'_, BTreeMap<DropletId, HealthSeen>> {
        let recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen: BTreeMap<DropletId, HealthSeen> =
            gateways.iter().filter_map(|(id, _)| Some((*id, recorded.get(id)?.clone()))).collect();
        std::future::ready(seen).boxed()
    }

    fn admit<'a>(&'a self, _gateway: Ipv4Addr, _peers: &'a [Ipv4Addr]) -> BoxFuture<'a, Result<(), String>> {
        std::future::ready(Err("nothing is changed from here".to_owned())).boxed()
    }
}
