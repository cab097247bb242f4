//! Where the lease lies. A trait, because the election is tested against a server that fails on demand.

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, Client};

/// Why a lease was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is not what it was when it was read: changed, made or deleted by somebody else.
    #[error("the lease was changed by somebody else")]
    Conflict,
    /// Refused, or no answer.
    #[error(transparent)]
    Kubernetes(#[from] kube::Error),
}

/// One lease. Calls need no deadline of their own: the elector gives them one.
pub trait LeaseStore: Send + Sync + 'static {
    /// The lease as it is; `None` when there is none.
    fn read(&self) -> impl Future<Output = Result<Option<Lease>, StoreError>> + Send;

    /// Writes it on condition that it is unchanged since it was read: with a resource version that one is replaced, without
    /// it there must be none.
    fn write(&self, lease: &Lease) -> impl Future<Output = Result<Lease, StoreError>> + Send;
}

/// A lease at the API server.
#[derive(Clone)]
pub struct KubernetesLease {
    api: Api<Lease>,
    name: String,
}

impl KubernetesLease {
    /// The lease of this name. The ServiceAccount needs get, create and update on it.
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), name: name.to_owned() }
    }
}

impl LeaseStore for KubernetesLease {
    async fn read(&self) -> Result<Option<Lease>, StoreError> {
        Ok(self.api.get_opt(&self.name).await?)
    }

    async fn write(&self, lease: &Lease) -> Result<Lease, StoreError> {
        let mut lease = lease.clone();
        lease.metadata.name = Some(self.name.clone());
        let parameters = PostParams::default();
        let written = if lease.metadata.resource_version.is_some() {
            self.api.replace(&self.name, &parameters, &lease).await
        } else {
            self.api.create(&parameters, &lease).await
        };
        written.map_err(|error| match &error {
            // Gone between read and write is a change like any other.
            kube::Error::Api(status) if matches!(status.code, 404 | 409) => StoreError::Conflict,
            _ => StoreError::Kubernetes(error),
        })
    }
}
