//! A fresh network namespace with a pair of links, and `ip` in it.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Runs `test` in a thread with a network namespace of its own, which goes with the thread.
///
/// `eth1` (10.116.0.2/20) is up, its other end `far` too.
pub(super) fn in_namespace<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
                .expect("these tests make network namespaces: run them as root");
            ip("link set lo up");
            ip("link add eth1 type veth peer name far");
            ip("link set far up");
            ip("link set eth1 up");
            ip("address add 10.116.0.2/20 dev eth1");
            // The kernel tells of a carrier a little later; such an event must not fall into a test.
            until("both ends have a carrier", || {
                let links = ip_json("link show type veth");
                links.as_array()?.iter().all(|link| link["operstate"] == "UP").then_some(())
            });
            test()
        });
        match thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// The same with a tokio runtime on the thread.
pub(super) fn in_namespace_async<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    in_namespace(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), test()).await.unwrap() });
    });
}

/// Runs `ip ARGUMENTS`, which must succeed.
pub(super) fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `ip -j -d ARGUMENTS`; nothing printed is an empty list.
pub(super) fn ip_json(arguments: &str) -> Value {
    let text = ip(&format!("-j -d {arguments}"));
    if text.trim().is_empty() { Value::Array(Vec::new()) } else { serde_json::from_str(&text).unwrap() }
}

/// Looks again until `look` gives something, for at most five seconds.
pub(super) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(start.elapsed() < Duration::from_secs(5), "not within 5 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
