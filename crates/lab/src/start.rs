//! Starting a lab.

use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use nix::fcntl::{Flock, FlockArg};

use crate::error::{Doing, LabError, Result};
use crate::internet::resolver;
use crate::network::addresses::{API_NAME_ADDRESSES, API_SERVER, API_SERVER_PORT, CLOUD_API, NODES};
use crate::network::{INTERNET, PROVIDER};
use crate::processes::Launch;
use crate::progress::Progress;
use crate::state::{ApiServerBy, Lab, LabName, Settings, Size, StateDir, Variant, hex};
use crate::{cloud, cluster, netns, network, prerequisites, stop};

/// What a lab is started with.
#[derive(Debug, Clone, clap::Args)]
pub struct StartArgs {
    /// How much of the world is started.
    #[arg(long, value_enum, default_value = "all")]
    size: Size,
    /// DOKS' kind of cluster network.
    #[arg(long, value_enum, default_value = "overlay")]
    variant: Variant,
    /// How nodes reach the API server.
    #[arg(long, value_enum, default_value = "address")]
    api_server: ApiServerBy,
    /// Folder with the control plane's programs (`tests/control-plane/build.sh` prints it).
    #[arg(long, env = "KUBEBUILDER_ASSETS")]
    assets: Option<PathBuf>,
    /// The simulator; default is the do-simulator beside this program, if there is one.
    #[arg(long, env = "EGRESS_LAB_SIMULATOR")]
    simulator: Option<PathBuf>,
}

/// One start or stop of a lab at a time.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _held: Flock<File>,
}

impl Lock {
    /// Waits for it. By name: what a lab makes and removes is named after it, whatever its folder.
    pub fn take(name: &LabName) -> Result<Self> {
        let path = PathBuf::from(format!("/run/egress-lab-{name}.lock"));
        let what = || format!("lock {} (egress-lab needs root)", path.display());
        loop {
            let file = File::options().create(true).truncate(false).write(true).open(&path).doing(what)?;
            let held = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno).doing(what)?;
            // Whoever had it may have removed the file: then others lock another one.
            let locked = held.metadata().doing(what)?.ino();
            if std::fs::metadata(&path).is_ok_and(|there| there.ino() == locked) {
                return Ok(Self { path, _held: held });
            }
        }
    }

    /// Gives it back and leaves no file.
    pub fn remove(self) -> Result<()> {
        std::fs::remove_file(&self.path).doing(|| format!("remove {}", self.path.display()))
    }
}

/// Starts a lab after removing what an earlier one of that name left.
pub fn start(name: &LabName, dir: StateDir, arguments: &StartArgs) -> Result<Lab> {
    let progress = Progress::begin();
    if !nix::unistd::geteuid().is_root() {
        return Err(LabError::Usage("namespaces and cgroups need root: use sudo".into()));
    }
    prerequisites::check(arguments.size)?;
    for taken in ["/run", "/var/log", "/proc", "/sys", "/etc/cni"] {
        if dir.path().starts_with(taken) {
            return Err(LabError::Usage(format!(
                "the state folder cannot be below {taken}: nodes have their own"
            )));
        }
    }
    stop::stop(name, &dir, &progress)?;
    dir.create()?;
    let lab = Lab { settings: settings(name, arguments)?, dir };
    lab.save()?;
    match lab.settings.size {
        Size::Api => start_api(&lab, &progress)?,
        Size::Network => {
            start_network(&lab, &progress)?;
            wait_for_cloud(&lab, &progress)?;
        }
        Size::All => start_all(&lab, &progress)?,
    }
    progress.say(&format!("lab {name} is up"));
    Ok(lab)
}

/// Says how the lab is reached.
pub fn print_access(lab: &Lab) {
    if lab.settings.size != Size::Network {
        println!("export KUBECONFIG={}", lab.dir.kubeconfig().display());
    }
    if lab.settings.size != Size::Api && lab.settings.simulator.is_some() {
        println!("export DIGITALOCEAN_API_URL=http://127.0.0.1:{}", lab.settings.cloud_port);
    }
}

fn settings(name: &LabName, arguments: &StartArgs) -> Result<Settings> {
    let beside = std::env::current_exe().doing(|| "find this program".into())?.with_file_name("do-simulator");
    let beside = beside.exists().then_some(beside);
    let absolute = |path: &PathBuf| std::path::absolute(path).doing(|| format!("resolve {}", path.display()));
    let mut random = [0; 32];
    let random_source = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random));
    random_source.doing(|| "read /dev/urandom".into())?;
    let (token, operator_token) = random.split_at(random.len() / 2);
    let [api_port, cloud_port, client, peer] = free_ports(&random)?;
    let etcd_ports = if arguments.size == Size::Api { (client, peer) } else { (2379, 2380) };
    Ok(Settings {
        name: name.clone(),
        size: arguments.size,
        variant: arguments.variant,
        api_server: arguments.api_server,
        assets: arguments.assets.as_ref().map(absolute).transpose()?,
        simulator: arguments.simulator.as_ref().map(absolute).transpose()?.or(beside),
        token: format!("dop_v1_{}", hex(token)),
        operator_token: format!("dop_v1_{}", hex(operator_token)),
        api_port,
        cloud_port,
        etcd_ports,
    })
}

/// Ports of the machine's loopback that are free now, all different. Not from the range that the kernel gives to outgoing
/// connections: one of those could take a port before its server listens.
fn free_ports(random: &[u8]) -> Result<[u16; 4]> {
    let begin = random.iter().fold(0_usize, |sum, byte| (sum * 256 + usize::from(*byte)) % PORTS.len());
    let order = PORTS.cycle().skip(begin).take(PORTS.len());
    // Held until all are found, so that none is found twice.
    let mut held = Vec::new();
    let mut found = Vec::new();
    for port in order {
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push(listener);
            found.push(port);
        }
        if let Ok(ports) = <[u16; 4]>::try_from(found.as_slice()) {
            return Ok(ports);
        }
    }
    Err(LabError::Usage(format!("no ports are free on 127.0.0.1 between {} and {}", PORTS.start, PORTS.end)))
}

const PORTS: std::ops::Range<u16> = 20_000..30_000;

fn start_api(lab: &Lab, progress: &Progress) -> Result<()> {
    cluster::issue(lab)?;
    cluster::write_admin_config(lab)?;
    cluster::start_api_server(lab)?;
    cluster::wait_until_ready(lab, progress)
}

fn start_network(lab: &Lab, progress: &Progress) -> Result<()> {
    network::build(lab.name(), lab.settings.variant)?;
    resolver::write_names(&lab.dir)?;
    if lab.settings.api_server == ApiServerBy::Name {
        cluster::move_api_name(lab, &API_NAME_ADDRESSES)?;
    }
    Launch::own("internet", lab)?.args(["internet"]).in_namespace(&lab.namespace(INTERNET)).start(lab)?;
    Launch::own("resolver", lab)?.args(["resolver"]).in_namespace(&lab.namespace(PROVIDER)).start(lab)?;
    for node in &NODES {
        cluster::anchor(lab, node)?;
    }
    if lab.settings.simulator.is_some() {
        cloud::start(lab)?;
        relay(lab, "cloud-relay", lab.settings.cloud_port, SocketAddrV4::new(CLOUD_API, 80))?;
    } else {
        progress.say("there is no do-simulator beside this program: no cloud API in this lab");
    }
    wait_for_internet(lab, progress)?;
    progress.say("network, internet, resolvers, hand-made gateways");
    Ok(())
}

/// Both listen before anything relies on them.
fn wait_for_internet(lab: &Lab, progress: &Progress) -> Result<()> {
    let deadline = std::time::Duration::from_secs(10);
    let started = std::time::Instant::now();
    while let Err(error) = crate::internet::oracle::ask(lab, 0) {
        if started.elapsed() > deadline {
            return Err(LabError::Deadline {
                what: "the internet answers".into(),
                deadline,
                last: error.to_string(),
            });
        }
        progress.waiting("the internet");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Ok(())
}

fn wait_for_cloud(lab: &Lab, progress: &Progress) -> Result<()> {
    if lab.settings.simulator.is_none() {
        return Ok(());
    }
    cloud::wait_until_ready(lab, progress)
}

fn relay(lab: &Lab, name: &str, port: u16, to: SocketAddrV4) -> Result<()> {
    let netns = netns::path(&lab.namespace(PROVIDER)).display().to_string();
    let (port, to) = (port.to_string(), to.to_string());
    Launch::own(name, lab)?
        .args(["relay", "--port", &port, "--netns", &netns, "--to", &to])
        .start(lab)
        .map(drop)
}

fn start_all(lab: &Lab, progress: &Progress) -> Result<()> {
    // Before anything runs: a missing program is said at once.
    for program in
        ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"]
    {
        lab.asset(program)?;
    }
    start_network(lab, progress)?;
    cluster::issue(lab)?;
    cluster::write_admin_config(lab)?;
    cluster::start_api_server(lab)?;
    relay(lab, "api-relay", lab.settings.api_port, SocketAddrV4::new(API_SERVER, API_SERVER_PORT))?;
    progress.say("etcd and kube-apiserver started");
    std::thread::scope(|scope| {
        let images = scope.spawn(|| cluster::write_standard_images(lab));
        let nodes =
            NODES.iter().map(|node| scope.spawn(|| cluster::start_containerd(lab, node))).collect::<Vec<_>>();
        cluster::wait_until_ready(lab, progress)?;
        progress.say("the API server is ready");
        cluster::register(lab, &NODES)?;
        for node in nodes {
            finished(node)?;
        }
        for node in &NODES {
            cluster::start_kubelet(lab, node)?;
        }
        cluster::start_controllers(lab)?;
        let dns = scope.spawn(|| cluster::install_dns(lab));
        progress.say("controllers, kubelets and kube-proxies started");
        for archive in finished(images)? {
            let name = archive.file_name().unwrap_or_default().display();
            progress.say(&format!("importing {name} into both nodes"));
            cluster::load(lab, &archive)?;
        }
        progress.say("images of examples imported");
        finished(dns)?;
        Ok::<(), LabError>(())
    })?;
    wait_for_cloud(lab, progress)?;
    cluster::wait_until_nodes_ready(lab, &NODES, progress)?;
    progress.say("both nodes are Ready");
    cluster::wait_until_dns_ready(lab, progress)?;
    progress.say("cluster DNS is Ready");
    Ok(())
}

fn finished<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| Err(LabError::Usage("a thread of the lab died".into())))
}
