//! The Kubernetes client with timeouts that fit a product whose work is to notice failures quickly.
//!
//! kube's own defaults would notice a silently dead watch after 295 s, wait for ever for a list that is accepted and never
//! answered, and repeat a refused call up to 15 times behind the caller's back.

use std::time::Duration;

use kube::config::InferConfigError;
use kube::runtime::watcher;
use kube::{Client, Config};

/// How long one watch request may last before it is made anew. kube adds 5 s of its own before it gives a silent one up.
pub const WATCH_TIMEOUT: Duration = Duration::from_secs(25);
/// Objects of a list that are read at a time. A Node is 15 kB and more of JSON; 500 of them, kube's default, would be most of what an agent
/// ever needs of memory, and the C library keeps it.
const PAGE_SIZE: u32 = 50;

/// How long the client waits for the next byte. Above [`WATCH_TIMEOUT`] and its 5 s, or it would cut quiet watches.
pub const READ_TIMEOUT: Duration = Duration::from_secs(35);

/// How long a TCP connection may take to come up.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one ordinary call (get, list of a page, patch) may take; see [`within_deadline`].
pub const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Neither a kubeconfig nor a service account was found.
    #[error("no Kubernetes configuration: neither KUBECONFIG nor a service account")]
    Configuration(#[from] InferConfigError),
    /// The configuration cannot be used.
    #[error("the Kubernetes client could not be built")]
    Build(#[source] kube::Error),
}

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It took longer than [`CALL_DEADLINE`]. Whether it had an effect is unknown.
    #[error("the API server did not answer within {CALL_DEADLINE:?}")]
    Deadline,
    /// The API server refused it, or could not be reached.
    #[error(transparent)]
    Kubernetes(#[from] kube::Error),
}

impl CallError {
    /// Label for metrics, from a closed list.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Kubernetes(kube::Error::Api(status)) => match status.code {
                403 => "forbidden",
                404 => "not_found",
                409 => "conflict",
                422 => "invalid",
                429 => "throttled",
                500..=599 => "server",
                _ => "refused",
            },
            Self::Kubernetes(_) => "transport",
        }
    }

    /// The API server says that there is no such object.
    pub fn is_not_found(&self) -> bool {
        self.category() == "not_found"
    }

    /// Somebody else changed the object first, or it is there already.
    pub fn is_conflict(&self) -> bool {
        self.category() == "conflict"
    }
}

/// Makes ring the process's one TLS provider. First thing in `main`; later calls change nothing.
pub fn install_crypto_provider() {
    // An error means that one was installed before, which is what is wanted.
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
}

/// A client of the API server named by `KUBECONFIG` (or `~/.kube/config`), else of the cluster this pod runs in.
///
/// Token files are read again as they rotate.
pub async fn client() -> Result<Client, ClientError> {
    Ok(client_and_server().await?.0)
}

/// The same, and the server's host and port.
pub async fn client_and_server() -> Result<(Client, Option<(String, u16)>), ClientError> {
    let config = with_timeouts(Config::infer().await?);
    let server = host_and_port(&config);
    Ok((Client::try_from(config).map_err(ClientError::Build)?, server))
}

fn host_and_port(config: &Config) -> Option<(String, u16)> {
    let url = &config.cluster_url;
    let default = if url.scheme_str() == Some("http") { 80 } else { 443 };
    Some((url.host()?.to_owned(), url.port_u16().unwrap_or(default)))
}

/// The same configuration with this module's timeouts and without silent repetition.
pub fn with_timeouts(mut config: Config) -> Config {
    install_crypto_provider();
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    config.write_timeout = Some(CALL_DEADLINE);
    // Watches back off by themselves and callers know what may be repeated; 15 silent repetitions hold a reconcile for minutes.
    config.default_retry = false;
    config
}

/// Settings for every watch of ours.
pub fn watch_settings() -> watcher::Config {
    let timeout = u32::try_from(WATCH_TIMEOUT.as_secs()).unwrap_or(u32::MAX);
    watcher::Config::default().timeout(timeout).page_size(PAGE_SIZE)
}

/// Awaits one ordinary call, at most for [`CALL_DEADLINE`].
pub async fn within_deadline<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
    match tokio::time::timeout(CALL_DEADLINE, call).await {
        Ok(answer) => Ok(answer?),
        Err(_elapsed) => Err(CallError::Deadline),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use k8s_openapi::api::core::v1::Namespace;
    use kube::Api;
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_quiet_watch_outlives_the_read_timeout_and_a_dead_one_does_not_last_long() {
        let kubes_own_margin = Duration::from_secs(5);
        assert!(READ_TIMEOUT > WATCH_TIMEOUT + kubes_own_margin);
        assert!(READ_TIMEOUT <= Duration::from_secs(40));
        assert_eq!(watch_settings().timeout, Some(25));
    }

    #[test]
    fn the_server_is_known_by_host_and_port() {
        let of = |url: &str| host_and_port(&Config::new(url.parse().unwrap())).unwrap();
        assert_eq!(of("https://10.245.0.1"), ("10.245.0.1".to_owned(), 443));
        assert_eq!(
            of("https://a1b2.k8s.ondigitalocean.com:6443/"),
            ("a1b2.k8s.ondigitalocean.com".to_owned(), 6443)
        );
    }

    #[tokio::test]
    async fn a_server_that_accepts_and_never_answers_ends_the_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mute = tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.push(stream);
            }
        });
        let mut config = with_timeouts(Config::new(format!("http://{address}").parse().unwrap()));
        assert_eq!(config.read_timeout, Some(READ_TIMEOUT));
        // The real value is checked above; a test need not wait for it.
        config.read_timeout = Some(Duration::from_millis(300));
        let namespaces: Api<Namespace> = Api::all(Client::try_from(config).unwrap());
        let started = Instant::now();
        let error = within_deadline(namespaces.get("default")).await.unwrap_err();
        assert_eq!(error.category(), "transport", "{error}");
        assert!(started.elapsed() < Duration::from_secs(5));
        mute.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_answer_ends_at_the_deadline() {
        let error = within_deadline(std::future::pending::<kube::Result<()>>()).await.unwrap_err();
        assert_eq!(error.category(), "deadline");
    }
}
