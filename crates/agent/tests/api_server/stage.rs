//! An API server with the CRDs and what `deploy/` ships for the agent.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::ApiServer;

/// Long enough for a busy machine; what must be quick is measured by itself.
pub const SOON: Duration = Duration::from_secs(30);

pub async fn server() -> ApiServer {
    let server = ApiServer::start().await.unwrap();
    let definitions = egress_api::custom_resource_definitions();
    server.install(definitions.into_iter().map(|(_, one)| one).collect()).await.unwrap();
    server
}

/// Applies files of `deploy/base/`.
pub fn install(server: &ApiServer, files: &[&str]) {
    for file in files {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/base").join(file);
        kubectl(server, &["apply", "--server-side", "-f", &path.display().to_string()]);
    }
}

pub fn kubectl(server: &ApiServer, arguments: &[&str]) -> String {
    let output = server.kubectl().args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub fn apply(server: &ApiServer, object: &Value) {
    assert!(server.apply(object).unwrap());
}

/// Waits until something is there.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(started.elapsed() < SOON, "{what}: not after {SOON:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
