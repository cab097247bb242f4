//! etcd and kube-apiserver for one test file.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::config::AuthInfo;
use kube::{Api, Client, Config, ResourceExt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

const ADMIN_TOKEN: &str = "admin-of-this-test";

/// An API server on a busy two-core machine is ready in 3 to 10 s.
const START: Duration = Duration::from_secs(180);

/// A running API server. Dropping it ends it and removes its files.
#[derive(Debug)]
pub struct ApiServer {
    port: u16,
    programs: PathBuf,
    files: TempDir,
    // Ended in this order: the API server complains for long when its store goes first.
    processes: [Process; 2],
}

#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is as good.
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl ApiServer {
    /// Starts one and waits until it is ready.
    pub async fn start() -> anyhow::Result<Self> {
        let programs = programs()?;
        let files = tempfile::tempdir()?;
        let [store, peer, port] = free_ports()?;
        let store_url = format!("http://127.0.0.1:{store}");
        let etcd = Command::new(programs.join("etcd"))
            .arg("--data-dir")
            .arg(files.path().join("etcd"))
            .args(["--unsafe-no-fsync", "--log-level=error"])
            .args([
                &format!("--listen-client-urls={store_url}"),
                &format!("--advertise-client-urls={store_url}"),
            ])
            .arg(format!("--listen-peer-urls=http://127.0.0.1:{peer}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(files.path().join("etcd.log"))?)
            .spawn()
            .context("etcd does not start")?;
        let etcd = Process(etcd);
        let key = files.path().join("service-accounts.key");
        make_key(&key)?;
        let tokens = files.path().join("tokens.csv");
        fs::write(&tokens, format!("{ADMIN_TOKEN},admin,admin,\"system:masters\"\n"))?;
        let key = key.display();
        let api_server = Command::new(programs.join("kube-apiserver"))
            .arg(format!("--etcd-servers={store_url}"))
            .args([
                "--bind-address=127.0.0.1",
                "--authorization-mode=RBAC",
                "--service-cluster-ip-range=10.245.0.0/16",
            ])
            .arg(format!("--secure-port={port}"))
            .arg(format!("--cert-dir={}", files.path().join("certificates").display()))
            .arg(format!("--token-auth-file={}", tokens.display()))
            .args(["--service-account-issuer=https://test.invalid", "--v=1"])
            // No controller-manager makes the default ServiceAccounts that it would ask for.
            .arg("--disable-admission-plugins=ServiceAccount")
            .args([
                &format!("--service-account-key-file={key}"),
                &format!("--service-account-signing-key-file={key}"),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(files.path().join("kube-apiserver.log"))?)
            .spawn()
            .context("kube-apiserver does not start")?;
        let server = Self { port, programs, files, processes: [Process(api_server), etcd] };
        server.wait_until_ready().await?;
        server.write_kubeconfig()?;
        Ok(server)
    }

    /// Stops it and its store where they are: connections stay and are answered no more, until [`ApiServer::thaw`].
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets both go on.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        for Process(child) in &self.processes {
            kill(Pid::from_raw(child.id().cast_signed()), signal)?;
        }
        Ok(())
    }

    /// Port on the loopback of the namespace that it was started in.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A client with all rights.
    pub fn admin(&self) -> anyhow::Result<Client> {
        self.client(ADMIN_TOKEN)
    }

    /// A client that shows this bearer token.
    pub fn client(&self, token: &str) -> anyhow::Result<Client> {
        // An error means that a provider was installed before.
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        let mut config = Config::new(format!("https://127.0.0.1:{}", self.port).parse()?);
        // It signed its own certificate, on loopback, a second ago.
        config.accept_invalid_certs = true;
        config.auth_info = AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() };
        Ok(Client::try_from(config)?)
    }

    /// A kubeconfig with all rights, for programs.
    pub fn kubeconfig(&self) -> PathBuf {
        self.files.path().join("kubeconfig")
    }

    /// kubectl of the same version, with all rights.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(self.programs.join("kubectl"));
        command.env("KUBECONFIG", self.kubeconfig());
        command
    }

    /// Applies an object server-side, with all rights. Whether the API server took it.
    pub fn apply(&self, object: &Value) -> anyhow::Result<bool> {
        let mut kubectl = self
            .kubectl()
            .args(["apply", "--server-side", "--force-conflicts", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        let mut stdin = kubectl.stdin.take().context("kubectl has a standard input")?;
        write!(stdin, "{object}")?;
        drop(stdin);
        Ok(kubectl.wait()?.success())
    }

    /// Installs CRDs and waits until they are established.
    pub async fn install(&self, definitions: Vec<CustomResourceDefinition>) -> anyhow::Result<()> {
        let api: Api<CustomResourceDefinition> = Api::all(self.admin()?);
        for definition in definitions {
            let name = definition.name_any();
            api.patch(&name, &PatchParams::apply("testkit"), &Patch::Apply(&definition)).await?;
            let deadline = Instant::now() + START;
            while !is_established(&api.get(&name).await?) {
                if Instant::now() > deadline {
                    bail!("CRD {name} is not established");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    async fn wait_until_ready(&self) -> anyhow::Result<()> {
        let client = self.admin()?;
        let deadline = Instant::now() + START;
        while client.apiserver_version().await.is_err() || !is_serving(&client).await {
            if Instant::now() > deadline {
                let log =
                    fs::read_to_string(self.files.path().join("kube-apiserver.log")).unwrap_or_default();
                let end: Vec<_> = log.lines().rev().take(15).collect();
                bail!(
                    "kube-apiserver is not ready after {} s; its last words, newest first:\n{}",
                    START.as_secs(),
                    end.join("\n")
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    fn write_kubeconfig(&self) -> anyhow::Result<()> {
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.port), "insecure-skip-tls-verify": true}}],
            "users": [{"name": "admin", "user": {"token": ADMIN_TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        });
        Ok(fs::write(self.kubeconfig(), config.to_string())?)
    }
}

// Ready means that RBAC's own roles are there too; before that the first writes are refused.
async fn is_serving(client: &Client) -> bool {
    let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else { return false };
    client.request_text(request).await.is_ok_and(|answer| answer == "ok")
}

fn is_established(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Established" && condition.status == "True")
}

fn programs() -> anyhow::Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/control-plane/build.sh");
    let output = Command::new(&script).arg("api").stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot run {}", script.display()))?;
    if !output.status.success() {
        bail!("{} api failed; the API server is built from Go modules and needs Go", script.display());
    }
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

fn make_key(path: &Path) -> anyhow::Result<()> {
    let output = Command::new("openssl").args(["genrsa", "-out"]).arg(path).arg("2048").output();
    let output = output.context("openssl is needed to make a key: apt-get install openssl")?;
    if !output.status.success() {
        bail!("openssl genrsa failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

// All are held until all are known, so that they differ.
fn free_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    let listeners = (0..N).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}
