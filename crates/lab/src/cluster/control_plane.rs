//! etcd, kube-apiserver, kube-controller-manager and kube-scheduler.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::{kubeconfig, kubectl};
use crate::error::{LabError, Result};
use crate::network::PROVIDER;
use crate::network::addresses::{API_NAME, API_SERVER, API_SERVER_PORT, PODS, SERVICES};
use crate::processes::{self, Launch};
use crate::state::{ApiServerBy, Lab, Size, create_private_dir};

/// Where the API server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiServerPlace {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its port.
    pub port: u16,
}

impl ApiServerPlace {
    /// In a cluster at its public address, in the small size on the machine's loopback.
    pub fn of(lab: &Lab) -> Self {
        match lab.settings.size {
            Size::Api => Self { address: Ipv4Addr::LOCALHOST, port: lab.settings.api_port },
            Size::Network | Size::All => Self { address: API_SERVER, port: API_SERVER_PORT },
        }
    }

    fn url(self) -> String {
        format!("https://{}:{}", self.address, self.port)
    }
}

fn placed(lab: &Lab, launch: Launch) -> Launch {
    match lab.settings.size {
        Size::Api => launch,
        Size::Network | Size::All => launch.in_namespace(&lab.namespace(PROVIDER)),
    }
}

/// Starts etcd and kube-apiserver, or what of them does not run.
pub fn start_api_server(lab: &Lab) -> Result<()> {
    let place = ApiServerPlace::of(lab);
    let (client, peer) = lab.settings.etcd_ports;
    let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    if processes::running(&lab.dir, "etcd")?.is_none() {
        let data = lab.dir.join("etcd");
        create_private_dir(&data)?;
        let etcd = Launch::new("etcd", &lab.asset("etcd")?).args([
            "--name=lab".to_owned(),
            format!("--data-dir={}", data.display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=lab={peer}"),
            "--unsafe-no-fsync".to_owned(),
            "--log-level=warn".to_owned(),
        ]);
        placed(lab, etcd).start(lab)?;
    }
    if processes::running(&lab.dir, "kube-apiserver")?.is_none() {
        let pki = lab.dir.pki();
        let file = |name: &str| pki.join(name).display().to_string();
        let server = Launch::new("kube-apiserver", &lab.asset("kube-apiserver")?).args([
            format!("--advertise-address={}", place.address),
            format!("--bind-address={}", listening(lab, place)),
            format!("--secure-port={}", place.port),
            format!("--etcd-servers={client}"),
            format!("--service-cluster-ip-range={SERVICES}"),
            format!("--cert-dir={}", lab.dir.join("apiserver").display()),
            format!("--tls-cert-file={}", file("apiserver.pem")),
            format!("--tls-private-key-file={}", file("apiserver.key")),
            format!("--client-ca-file={}", file("ca.pem")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", file("service-accounts.pub")),
            format!("--service-account-signing-key-file={}", file("service-accounts.key")),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged=true".to_owned(),
            format!("--kubelet-client-certificate={}", file("kubelet-client.pem")),
            format!("--kubelet-client-key={}", file("kubelet-client.key")),
            // DOKS reaches kubelets through an agent's connection out of the node; here by the node's public address.
            "--kubelet-preferred-address-types=ExternalIP,InternalIP".to_owned(),
            "--profiling=false".to_owned(),
        ]);
        placed(lab, server).start(lab)?;
    }
    Ok(())
}

/// Where a name means other addresses than the endpoints', the API server answers at all that the provider has.
fn listening(lab: &Lab, place: ApiServerPlace) -> Ipv4Addr {
    match lab.settings.api_server {
        ApiServerBy::Address => place.address,
        ApiServerBy::Name => Ipv4Addr::UNSPECIFIED,
    }
}

/// The API server as kubelets and kube-proxies know it.
pub(super) fn url_for_nodes(lab: &Lab) -> String {
    match lab.settings.api_server {
        ApiServerBy::Address => ApiServerPlace::of(lab).url(),
        ApiServerBy::Name => format!("https://{API_NAME}:{API_SERVER_PORT}"),
    }
}

/// Starts kube-controller-manager and kube-scheduler, or what of them does not run.
pub fn start_controllers(lab: &Lab) -> Result<()> {
    let url = ApiServerPlace::of(lab).url();
    let pki = lab.dir.pki();
    let file = |name: &str| pki.join(name).display().to_string();
    let manager_config = lab.dir.join("controller-manager.kubeconfig");
    let scheduler_config = lab.dir.join("scheduler.kubeconfig");
    kubeconfig(lab, &manager_config, "controller-manager", &url)?;
    kubeconfig(lab, &scheduler_config, "scheduler", &url)?;
    if processes::running(&lab.dir, "kube-controller-manager")?.is_none() {
        let manager = Launch::new("kube-controller-manager", &lab.asset("kube-controller-manager")?).args([
            format!("--kubeconfig={}", manager_config.display()),
            "--leader-elect=false".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
            "--use-service-account-credentials=true".to_owned(),
            format!("--service-account-private-key-file={}", file("service-accounts.key")),
            format!("--root-ca-file={}", file("ca.pem")),
            // The lab, as the cloud, hands out the pod ranges.
            "--allocate-node-cidrs=false".to_owned(),
            format!("--cluster-cidr={PODS}"),
        ]);
        placed(lab, manager).start(lab)?;
    }
    if processes::running(&lab.dir, "kube-scheduler")?.is_none() {
        let scheduler = Launch::new("kube-scheduler", &lab.asset("kube-scheduler")?).args([
            format!("--kubeconfig={}", scheduler_config.display()),
            "--leader-elect=false".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
        ]);
        placed(lab, scheduler).start(lab)?;
    }
    Ok(())
}

/// Ends processes of the lab by name, if they run.
pub fn stop_processes(lab: &Lab, names: &[&str]) -> Result<()> {
    for name in names {
        if let Some(process) = processes::running(&lab.dir, name)? {
            process.end()?;
        }
    }
    Ok(())
}

/// Writes the configuration for the administrator on the machine.
pub fn write_admin_config(lab: &Lab) -> Result<()> {
    let url = format!("https://127.0.0.1:{}", lab.settings.api_port);
    kubeconfig(lab, &lab.dir.kubeconfig(), "admin", &url)
}

/// Waits until `/readyz` says ok.
pub fn wait_until_ready(lab: &Lab, progress: &crate::progress::Progress) -> Result<()> {
    let deadline = Duration::from_secs(60);
    let started = Instant::now();
    loop {
        let last = match kubectl(lab, &["get", "--raw", "/readyz", "--request-timeout=5s"], "") {
            Ok(_) => return Ok(()),
            Err(error) => error.to_string(),
        };
        for name in ["etcd", "kube-apiserver"] {
            if processes::running(&lab.dir, name)?.is_none() {
                let log = lab.dir.log(name);
                return Err(LabError::Program {
                    command: name.into(),
                    detail: format!("it ended; see {}", log.display()),
                });
            }
        }
        if started.elapsed() > deadline {
            return Err(LabError::Deadline { what: "the API server is ready".into(), deadline, last });
        }
        progress.waiting("the API server to be ready");
        std::thread::sleep(Duration::from_millis(100));
    }
}
