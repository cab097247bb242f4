//! A real Chromium, driven over WebDriver: Debian's `chromium-driver`, which comes from the same source as `chromium`. The protocol is
//! a few requests with JSON; a crate for it would bring more than this file is long.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

const DRIVER: &str = "/usr/bin/chromedriver";
const BROWSER: &str = "/usr/bin/chromium";

/// A browser starts in a second or two, and on a busy machine in many.
const PATIENCE: Duration = Duration::from_secs(60);

// A browser that is told to end does so in half a second.
const LAST_ANSWER: Duration = Duration::from_secs(5);

/// A browser with one window. Dropping it ends it.
#[derive(Debug)]
pub struct Browser {
    http: reqwest::Client,
    session: String,
    port: u16,
    _driver: Driver,
    _home: TempDir,
}

/// How wide a window is, and in which colours a page is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// In CSS pixels.
    pub width: u32,
    /// In CSS pixels.
    pub height: u32,
    /// Whether it is a phone's.
    pub phone: bool,
    /// Whether dark colours are preferred.
    pub dark: bool,
}

/// A window on a desk.
pub const DESK: Look = Look { width: 1280, height: 900, phone: false, dark: false };

/// A phone.
pub const PHONE: Look = Look { width: 390, height: 844, phone: true, dark: false };

impl Browser {
    /// Starts one.
    pub async fn start() -> anyhow::Result<Self> {
        for program in [DRIVER, BROWSER] {
            ensure!(
                Path::new(program).exists(),
                "{program} is missing: apt-get install chromium chromium-driver"
            );
        }
        // An error means that a provider was installed before.
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        let home = tempfile::tempdir()?;
        let mut driver = Driver(
            Command::new(DRIVER)
                .arg("--port=0")
                .process_group(0)
                .env("HOME", home.path())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()?,
        );
        let port = driver.port()?;
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(PATIENCE).build()?;
        let mut arguments = vec![
            "--headless=new",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            "--hide-scrollbars",
        ];
        if nix::unistd::geteuid().is_root() {
            // As root it wants to be told that it has no sandbox; it shows nothing but pages of ours.
            arguments.push("--no-sandbox");
        }
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": BROWSER, "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }}});
        let url = format!("http://127.0.0.1:{port}/session");
        let answer: Value = http.post(&url).json(&wanted).send().await?.json().await?;
        let id = answer["value"]["sessionId"].as_str().with_context(|| format!("no session: {answer}"))?;
        Ok(Self { http, session: format!("{url}/{id}"), port, _driver: driver, _home: home })
    }

    // Where nothing can be awaited.
    fn end_session(&self) -> std::io::Result<()> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(LAST_ANSWER))?;
        let id = self.session.rsplit('/').next().unwrap_or_default();
        write!(stream, "DELETE /session/{id} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        stream.read(&mut [0; 512]).map(drop)
    }

    async fn ask(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        let url = format!("{}{path}", self.session);
        let answer: Value = self.http.post(url).json(&body).send().await?.json().await?;
        ensure!(answer["value"]["error"].is_null(), "{path} {body}: {answer}");
        Ok(answer["value"].clone())
    }

    /// A command of Chromium's own protocol.
    pub async fn command(&self, command: &str, parameters: Value) -> anyhow::Result<Value> {
        self.ask("/goog/cdp/execute", json!({"cmd": command, "params": parameters})).await
    }

    /// From now on a window of this kind, in which nothing moves by itself.
    pub async fn look(&self, look: Look) -> anyhow::Result<()> {
        let Look { width, height, phone, dark } = look;
        let size = json!({"width": width, "height": height, "screenWidth": width, "screenHeight": height,
            "deviceScaleFactor": 1, "mobile": phone});
        self.command("Emulation.setDeviceMetricsOverride", size).await?;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"}]);
        self.command("Emulation.setEmulatedMedia", json!({"features": features})).await?;
        Ok(())
    }

    /// Opens a page.
    pub async fn open(&self, url: &str) -> anyhow::Result<()> {
        self.ask("/url", json!({"url": url})).await?;
        Ok(())
    }

    /// What this body of a function gives.
    pub async fn run(&self, script: &str) -> anyhow::Result<Value> {
        self.ask("/execute/sync", json!({"script": script, "args": []})).await
    }

    /// Waits until this expression is true, a minute at most; how long that took.
    pub async fn until(&self, what: &str, expression: &str) -> anyhow::Result<Duration> {
        let started = Instant::now();
        while self.run(&format!("return !!({expression})")).await? != json!(true) {
            if started.elapsed() > PATIENCE {
                bail!("{what}: not within {PATIENCE:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(started.elapsed())
    }

    /// Presses a key: `\u{e004}` is Tab, `\u{e007}` Enter.
    pub async fn press(&self, key: char) -> anyhow::Result<()> {
        let keys = json!([{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]);
        let actions = json!({"actions": [{"type": "key", "id": "keyboard", "actions": keys}]});
        self.ask("/actions", actions).await?;
        Ok(())
    }

    /// The page as far as the window shows it, or all of it, into a file in PNG.
    pub async fn screenshot(&self, file: &Path, whole: bool) -> anyhow::Result<()> {
        let mut parameters = json!({"format": "png"});
        if whole {
            let size = self.command("Page.getLayoutMetrics", json!({})).await?["cssContentSize"].clone();
            parameters["captureBeyondViewport"] = json!(true);
            parameters["clip"] =
                json!({"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1});
        }
        let image = self.command("Page.captureScreenshot", parameters).await?;
        let image = BASE64.decode(image["data"].as_str().context("an image")?)?;
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(fs::write(file, image)?)
    }

    /// What it complained of, such as what a page's policy forbade.
    pub async fn complaints(&self) -> anyhow::Result<Vec<String>> {
        let entries = self.ask("/se/log", json!({"type": "browser"})).await?;
        let entries = entries.as_array().context("a log")?.iter();
        Ok(entries.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect())
    }

    /// Every address that was asked for.
    pub async fn requests(&self) -> anyhow::Result<Vec<String>> {
        let entries = self.ask("/se/log", json!({"type": "performance"})).await?;
        let mut requests = Vec::new();
        for entry in entries.as_array().context("a log")? {
            let message: Value = serde_json::from_str(entry["message"].as_str().unwrap_or_default())?;
            let message = &message["message"];
            if message["method"] == "Network.requestWillBeSent" {
                requests.extend(message["params"]["request"]["url"].as_str().map(str::to_owned));
            }
        }
        Ok(requests)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Told to, the driver ends its browser in order; what does not go is ended with the driver.
        let _ended = self.end_session();
    }
}

// The driver and its browser: a process group of their own.
#[derive(Debug)]
struct Driver(Child);

impl Driver {
    // `--port=0` takes a free one, and says which.
    fn port(&mut self) -> anyhow::Result<u16> {
        let mut lines = BufReader::new(self.0.stdout.take().context("standard output")?).lines();
        let port = loop {
            let line = lines.next().context("chromedriver ended")??;
            let port = line.strip_prefix("ChromeDriver was started successfully on port ");
            if let Some(port) = port.and_then(|port| port.trim_end_matches('.').parse().ok()) {
                break port;
            }
        };
        // A pipe that nobody reads would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(port)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // A driver that ends leaves its browser behind. Already gone is as good.
        let _gone = killpg(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGKILL);
        let _reaped = self.0.wait();
    }
}
