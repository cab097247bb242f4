//! Programs under test and what they need: rights, tokens, binaries.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::ApiServer;

/// A child that ends with the scene.
pub struct Program(Child);

impl Program {
    pub fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let id = i32::try_from(self.0.id()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), signal).unwrap();
    }

    pub fn wait(&mut self) -> Option<i32> {
        self.0.wait().unwrap().code()
    }

    /// Lets it write a core of any size, should it crash.
    pub fn allow_core_dump(&self) {
        let pid = self.0.id().to_string();
        let set = Command::new("prlimit").args(["--pid", &pid, "--core=unlimited:unlimited"]).status();
        assert!(set.expect("prlimit (apt-get install util-linux)").success());
    }

    /// How much memory it takes now, in MiB, without what is read from its own file: that is of another size as it is shipped.
    pub fn memory_of_its_own(&self) -> u64 {
        self.memory("RssAnon:")
    }

    fn memory(&self, what: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Already gone is as good.
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// A controller process. Its log is shown when the test fails.
pub struct Controller {
    pub process: Program,
    log: PathBuf,
    _files: TempDir,
}

impl Controller {
    pub fn start(name: &str, kubeconfig: &Path, more: &[&str]) -> Self {
        let files = tempfile::tempdir().unwrap();
        let log = files.path().join("log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_egress-controller"));
        command
            .env("KUBECONFIG", kubeconfig)
            .args([
                "--digitalocean-api",
                super::cloud::ADDRESS,
                "--admin-listen=127.0.0.1:0",
                "--dashboard-listen=127.0.0.1:0",
                "--pod-name",
                name,
            ])
            .args([
                "--settle-seconds=8",
                "--replace-after-seconds=3",
                "--lost-after-seconds=5",
                "--log-format=text",
            ])
            .args(["--power-on-seconds=20", "--log=info,egress_controller=debug"])
            .args(more)
            // Whatever it leaves when it crashes lies beside its log.
            .current_dir(files.path())
            .stdout(fs::File::create(&log).unwrap())
            .stderr(fs::File::create(files.path().join("errors")).unwrap());
        Self { process: Program::start(&mut command), log, _files: files }
    }

    pub fn log(&self) -> String {
        let errors = fs::read_to_string(self.log.with_file_name("errors")).unwrap_or_default();
        fs::read_to_string(&self.log).unwrap_or_default() + &errors
    }
}

impl Controller {
    /// Everything that it has written, by name of the file.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let files = fs::read_dir(self.log.parent().unwrap()).unwrap().map(Result::unwrap);
        files.map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())).collect()
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("controller:\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
}

fn top(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Where there is a network: what the API server is made of may have to be fetched.
pub fn build_control_plane() {
    let built = Command::new(top("tests/control-plane/build.sh")).arg("api").output().unwrap();
    assert!(
        built.status.success(),
        "tests/control-plane/build.sh api: {}",
        String::from_utf8_lossy(&built.stderr)
    );
}

/// The simulator, built beside this test.
pub fn simulator() -> PathBuf {
    beside("do-simulator")
}

/// The command line, built beside this test.
pub fn command_line() -> PathBuf {
    beside("kubectl-egress")
}

fn beside(name: &str) -> PathBuf {
    let program = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join(name);
    assert!(program.exists(), "{} is missing: cargo build --workspace --bins", program.display());
    program
}

/// Applies the shipped namespace, account and rights; gives a kubeconfig with that account's token.
pub fn install(server: &ApiServer) -> PathBuf {
    apply(server, &["namespace.yaml", "controller-rbac.yaml", "controller-nodes.yaml"]);
    let token = token_of(server, "egress-controller", &[]);
    let mut config: Value = serde_json::from_str(&fs::read_to_string(server.kubeconfig()).unwrap()).unwrap();
    config["users"][0]["user"] = json!({"token": token});
    let path = server.kubeconfig().with_file_name("kubeconfig-of-the-controller");
    fs::write(&path, config.to_string()).unwrap();
    path
}

/// Applies files of `deploy/base/`.
pub fn apply(server: &ApiServer, files: &[&str]) {
    for file in files {
        let path = top("deploy/base").join(file);
        let applied = server.kubectl().args(["apply", "--server-side", "-f"]).arg(&path).output().unwrap();
        assert!(applied.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&applied.stderr));
    }
}

/// A token of one of our accounts; `more` are arguments of `kubectl create token`.
pub fn token_of(server: &ApiServer, account: &str, more: &[&str]) -> String {
    let create = ["create", "token", account, "-n", super::NAMESPACE];
    let token = server.kubectl().args(create).args(more).output().unwrap();
    assert!(token.status.success(), "{}", String::from_utf8_lossy(&token.stderr));
    String::from_utf8(token.stdout).unwrap().trim().to_owned()
}
