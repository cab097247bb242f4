//! The way to the cloud that the controller has: its flags, its token, its API.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Parser as _};
use egress_controller::credentials;
use egress_controller::settings::Settings;
use egress_digitalocean::{Client as CloudClient, SharedToken};
use egress_runtime::kubernetes::within_deadline;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, Client};

/// Name of the controller's Deployment and of its container.
pub const CONTROLLER: &str = "egress-controller";

/// Where the controller is, and with which token the cloud is asked.
#[derive(Clone, Debug, Args)]
pub struct Access {
    /// Namespace of the controller: of its Deployment and of the Secret with its token.
    #[arg(short = 'n', long, default_value = "egress-gateway")]
    pub namespace: String,

    /// File with an API token. Left out: the one that the controller has. For commands that delete nothing, the `:read` scopes of
    /// docs/token.md are enough.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Address of DigitalOcean's API. Left out: the one that the controller has.
    #[arg(long, value_name = "URL")]
    pub digitalocean_api: Option<String>,
}

impl Access {
    /// The controller's flags.
    pub async fn settings(&self, client: &Client) -> Settings {
        let mut settings = settings(client, &self.namespace).await;
        if let Some(address) = &self.digitalocean_api {
            settings.digitalocean_api.clone_from(address);
        }
        settings
    }

    /// A client of the cloud.
    pub async fn cloud(&self, client: &Client, settings: &Settings) -> anyhow::Result<CloudClient> {
        let token = self.token(client, &settings.token_secret).await?;
        Ok(CloudClient::new(&settings.digitalocean_api, Arc::new(token))?)
    }

    async fn token(&self, client: &Client, secret: &str) -> anyhow::Result<SharedToken> {
        let Self { namespace, token_file, .. } = self;
        let Some(file) = token_file else {
            let token = credentials::read_once(client.clone(), namespace, secret).await;
            return token.with_context(|| {
                format!("Secret {secret} in namespace {namespace} cannot be read; name a file with a token: --token-file")
            });
        };
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        Ok(SharedToken::new(text.trim().to_owned().into()))
    }
}

// A controller that runs elsewhere, or a Deployment that may not be read, has its defaults.
async fn settings(client: &Client, namespace: &str) -> Settings {
    let defaults = || Settings::parse_from([CONTROLLER]);
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let deployment = match within_deadline(deployments.get(CONTROLLER)).await {
        Ok(deployment) => deployment,
        Err(error) => {
            let reason = error.category();
            tracing::warn!(
                reason,
                namespace,
                "the controller's Deployment cannot be read: its flags are taken to be the defaults"
            );
            return defaults();
        }
    };
    let pod = deployment.spec.and_then(|spec| spec.template.spec).unwrap_or_default();
    let container = pod.containers.into_iter().find(|container| container.name == CONTROLLER);
    let flags = container.and_then(|container| container.args).unwrap_or_default();
    Settings::try_parse_from([CONTROLLER.to_owned()].into_iter().chain(flags)).unwrap_or_else(|error| {
        tracing::warn!(%error, "the controller has flags that this version does not know: they are taken to be the defaults");
        defaults()
    })
}
