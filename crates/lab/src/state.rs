//! The lab on disk: its name, its settings, its folder.
//!
//! Invariants: everything that one lab owns on the machine (namespace, cgroup, folder) is named after it, so that a later call
//! finds it without any memory of its own; a lab's name contains no dash, so that no lab's prefix is the prefix of another's; a
//! folder that does not bear a lab's marker is never written to or removed.

use std::fmt;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Doing, LabError, Result};

/// Is in a lab's folder from its first moment to its last: proof that everything in it is the lab's.
const MARKER: &str = ".egress-lab";

/// Name of a lab: 1 to 12 lower-case letters and digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LabName(String);

impl LabName {
    /// Name of the network namespace of `part` ("internet", "cloud", "provider", "node-1", "gateway-a").
    pub fn namespace(&self, part: &str) -> String {
        format!("egl-{}-{part}", self.0)
    }

    /// What the names of all its namespaces begin with, and of all its cgroups but the one that is exactly [`Self::cgroup`].
    pub fn prefix(&self) -> String {
        format!("egl-{}-", self.0)
    }

    /// Name of the cgroup in which every process of the lab starts.
    pub fn cgroup(&self) -> String {
        format!("egl-{}", self.0)
    }
}

impl fmt::Display for LabName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LabName {
    type Err = LabError;

    fn from_str(text: &str) -> Result<Self> {
        let fits = (1..=12).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(LabError::Usage(format!(
                "{text:?} is no name for a lab: 1 to 12 lower-case letters and digits"
            )))
        }
    }
}

impl TryFrom<String> for LabName {
    type Error = LabError;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<LabName> for String {
    fn from(name: LabName) -> Self {
        name.0
    }
}

/// How much of the world is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Size {
    /// etcd and kube-apiserver on the loopback of the machine.
    Api,
    /// Namespaces, internet, cloud, hand-made gateways; nodes without Kubernetes.
    Network,
    /// All of it.
    All,
}

/// Which of DigitalOcean's two kinds of cluster network is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// Pod addresses are unknown to the VPC: nodes translate, and a pod source on the VPC side is dropped.
    Overlay,
    /// Pod ranges are routed by the VPC: pod sources pass and are routed back.
    VpcNative,
}

/// How nodes reach the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ApiServerBy {
    /// By the address that the `kubernetes` endpoints have, too.
    Address,
    /// As on DOKS by a name with addresses that are not those of the `kubernetes` endpoints and that change.
    Name,
}

/// What a lab was started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Its name.
    pub name: LabName,
    /// How much of it runs.
    pub size: Size,
    /// Its kind of cluster network.
    pub variant: Variant,
    /// How its nodes reach the API server.
    pub api_server: ApiServerBy,
    /// Folder with the programs of the control plane, where they are needed.
    pub assets: Option<PathBuf>,
    /// The simulator's program, where there is one.
    pub simulator: Option<PathBuf>,
    /// Token of the simulated cloud for the controller: it may do what `deploy/token-scopes.txt` says.
    pub token: String,
    /// Token of the simulated cloud for whoever plays a person at its own pages: it may do everything.
    pub operator_token: String,
    /// Port on the machine's 127.0.0.1 at which the API server answers.
    pub api_port: u16,
    /// Port on the machine's 127.0.0.1 at which the cloud's API answers.
    pub cloud_port: u16,
    /// etcd's ports for clients and peers, on the loopback where it runs.
    pub etcd_ports: (u16, u16),
}

/// Folder of a lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// `$XDG_STATE_HOME/egress-lab/<name>`, or `/var/lib/egress-lab/<name>`.
    pub fn default_for(name: &LabName) -> Self {
        let base = std::env::var_os("XDG_STATE_HOME").filter(|value| !value.is_empty());
        let base = base.map_or_else(|| PathBuf::from("/var/lib"), PathBuf::from);
        Self(base.join("egress-lab").join(name.to_string()))
    }

    /// That folder, made absolute.
    pub fn at(path: &Path) -> Result<Self> {
        std::path::absolute(path).doing(|| format!("resolve {}", path.display())).map(Self)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file or folder in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }

    /// Records of processes, see [`crate::processes`].
    pub fn processes(&self) -> PathBuf {
        self.join("processes")
    }

    /// Log of the process of that name.
    pub fn log(&self, process: &str) -> PathBuf {
        self.join("log").join(format!("{process}.log"))
    }

    /// What the node of that name has instead of the machine's own folders.
    pub fn node(&self, node: &str) -> PathBuf {
        self.join("nodes").join(node)
    }

    /// Administrator's configuration for kubectl.
    pub fn kubeconfig(&self) -> PathBuf {
        self.join("kubeconfig")
    }

    /// Certificates and keys.
    pub fn pki(&self) -> PathBuf {
        self.join("pki")
    }

    /// Fails unless the folder is a lab's, empty or not there: whatever else is in it is somebody's.
    pub fn check_own(&self) -> Result<()> {
        let mut entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.doing(|| format!("read {}", self.0.display()))?,
        };
        if entries.next().is_none() || self.join(MARKER).exists() {
            return Ok(());
        }
        Err(LabError::Usage(format!(
            "{} is no lab's folder and not empty, so nothing in it is touched: name another with --state-dir",
            self.0.display()
        )))
    }

    /// Makes the folder, closed to others.
    pub fn create(&self) -> Result<()> {
        self.check_own()?;
        create_private_dir(&self.0)?;
        // By one call, so that no kill can leave half a marker.
        fs::File::create(self.join(MARKER)).doing(|| format!("mark {}", self.0.display()))?;
        for folder in [self.processes(), self.join("log")] {
            create_private_dir(&folder)?;
        }
        Ok(())
    }

    /// Removes it with all that is in it, the proof last: a removal that is killed can be begun again.
    pub fn remove(&self) -> Result<()> {
        self.check_own()?;
        let what = || format!("remove {}", self.0.display());
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.doing(what)?,
        };
        for entry in entries {
            let entry = entry.doing(what)?;
            if entry.file_name() == MARKER {
                continue;
            }
            let is_folder = entry.file_type().doing(what)?.is_dir();
            let removed =
                if is_folder { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
            removed.doing(what)?;
        }
        // Its content is the marker, if even that.
        fs::remove_dir_all(&self.0).doing(what)
    }
}

/// A lab that was started, wholly or in part.
#[derive(Debug, Clone)]
pub struct Lab {
    /// What it was started with.
    pub settings: Settings,
    /// Where it keeps its state.
    pub dir: StateDir,
}

impl Lab {
    /// The lab of that folder, if its settings were written.
    pub fn load(dir: StateDir) -> Result<Option<Self>> {
        let settings = read_json(&dir.join("lab.json"))?;
        Ok(settings.map(|settings| Self { settings, dir }))
    }

    /// Writes the settings.
    pub fn save(&self) -> Result<()> {
        write_json(&self.dir.join("lab.json"), &self.settings)
    }

    /// Its name.
    pub fn name(&self) -> &LabName {
        &self.settings.name
    }

    /// Name of the network namespace of `part`.
    pub fn namespace(&self, part: &str) -> String {
        self.settings.name.namespace(part)
    }

    /// Its Droplets as machines.
    pub fn machines(&self) -> crate::machine::Place {
        crate::machine::Place { lab: self.settings.name.to_string(), state: self.dir.path().to_owned() }
    }

    /// A program of the control plane.
    pub fn asset(&self, program: &str) -> Result<PathBuf> {
        let folder = self.settings.assets.as_ref().ok_or_else(|| {
            LabError::Usage("this lab has no Kubernetes programs: start it with --assets DIR".into())
        })?;
        let path = folder.join(program);
        if path.exists() {
            Ok(path)
        } else {
            Err(LabError::Usage(format!(
                "{} is missing; tests/control-plane/build.sh builds it and prints the folder for --assets",
                path.display()
            )))
        }
    }
}

/// Makes a folder and what is above it, readable by nobody else.
pub fn create_private_dir(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .doing(|| format!("make {}", path.display()))
}

/// Replaces a file as a whole, so that a reader or a crash never meets half of it. Mode 0600.
pub fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = path.with_file_name(name);
    let what = || format!("write {}", path.display());
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .doing(what)?;
    file.write_all(content).doing(what)?;
    fs::rename(&temporary, path).doing(what)
}

/// [`write_file`] with a value as JSON.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec_pretty(value)
        .map_err(|source| LabError::State { path: path.to_owned(), source })?;
    write_file(path, &text)
}

/// The value in a JSON file; `None` if there is no such file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).doing(|| format!("read {}", path.display())),
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|source| LabError::State { path: path.to_owned(), source })
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}
