//! The health page as an operator opens it: `kubectl egress dashboard`, and a browser.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use testkit::browser::{Browser, DESK};

use crate::MINUTE;
use crate::lab::{Lab, until};

/// Ends with the scene, and kubectl with it.
struct Dashboard(Child);

impl Drop for Dashboard {
    fn drop(&mut self) {
        let id = nix::unistd::Pid::from_raw(self.0.id().cast_signed());
        let _gone = nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGINT);
        let _reaped = self.0.wait();
    }
}

impl Dashboard {
    /// Where the page is.
    fn open(lab: &Lab) -> (Self, String) {
        let program = lab.root.join("target/release/kubectl-egress");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(&program);
        command
            .args(["dashboard", "--port=0", "--no-browser"])
            .env("KUBECONFIG", lab.state.join("kubeconfig"))
            .env("PATH", format!("{}:{path}", lab.assets.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.next().expect("kubectl egress dashboard ended").unwrap();
        std::thread::spawn(move || lines.for_each(drop));
        (Self(child), address)
    }
}

pub fn a_gateway_that_is_killed_goes_red_and_the_standby_takes_over_without_a_reload(lab: &Lab) {
    lab.apply(&json!({
        "apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway", "metadata": {"name": "watched"},
        "spec": {"destinations": ["192.0.2.80"], "publicIP": "Ephemeral"},
    }));
    until("watched is ready", &true, 3 * MINUTE, || lab.is_ready("watched"));
    let (_dashboard, address) = Dashboard::open(lab);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let browser = Browser::start().await.unwrap();
        browser.look(DESK).await.unwrap();
        browser.open(&address).await.unwrap();
        let works = "document.querySelector('h1').textContent === 'EgressGateway watched works'";
        browser.until("it works", works).await.unwrap();
        browser.until("it is live", "document.getElementById('live').dataset.state === 'live'").await.unwrap();
        browser.until("headroom is measured", "document.querySelectorAll('meter').length >= 2").await.unwrap();
        browser.run("window.sameDocument = true").await.unwrap();
        let picture = |name: &str| lab.root.join(format!("target/dashboard/lab-{name}.png"));
        browser.screenshot(&picture("works"), true).await.unwrap();

        let names = lab.get(&["egressgateway", "watched"])["status"]["gateways"].clone();
        let active = lab.gateway_ids("watched")[0];
        let name_of = |id: u64, is: bool| {
            let mut all = names.as_array().unwrap().iter();
            let one = all.find(|one| (one["dropletID"] == id) == is).unwrap();
            one["name"].as_str().unwrap().to_owned()
        };
        let (dead, other) = (name_of(active, true), name_of(active, false));
        lab.lab(&["kill", &active.to_string()]);
        let red = format!(
            "[...document.querySelectorAll('.machine.state-down')].some((one) => one.textContent.includes('{dead}'))"
        );
        let took = browser.until("the dead one is red", &red).await.unwrap();
        browser.screenshot(&picture("killed"), true).await.unwrap();
        let cell = format!("document.querySelector('.matrix')?.textContent.includes('{dead} does not answer in the VPC')");
        browser.until("the matrix says what fails", &cell).await.unwrap();
        let over = format!(
            "[...document.querySelectorAll('.machine')].some((one) => /^Active/.test(one.textContent.trim()) && one.textContent.includes('{other}'))"
        );
        let active_after = browser.until("the other one is active", &over).await.unwrap();
        let told = "document.getElementById('moments').textContent.includes('Failover')";
        browser.until("it is in the history", told).await.unwrap();
        browser.screenshot(&picture("failover"), true).await.unwrap();
        assert_eq!(browser.run("return window.sameDocument === true").await.unwrap(), json!(true));
        assert_eq!(browser.complaints().await.unwrap(), [""; 0]);
        eprintln!(
            "ok   the page showed the dead gateway red within {:.1} s and its successor {:.1} s later",
            took.as_secs_f64(),
            active_after.as_secs_f64()
        );
        // Nodes find it within half a second, and a page has a second.
        assert!(took < Duration::from_secs(5), "{took:?}");
    });
    lab.kubectl(&["delete", "egressgateway", "watched", "--timeout=120s"]);
    until("no Droplet is left", &0, MINUTE, || lab.droplets());
}
