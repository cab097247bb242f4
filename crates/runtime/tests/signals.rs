//! SIGTERM to this very process, which is why the test has a program of its own.

use std::process::Command;
use std::time::Duration;

use egress_runtime::shutdown;

#[tokio::test]
async fn sigterm_cancels_the_token() {
    let token = shutdown::on_signal().unwrap();
    assert!(!token.is_cancelled());
    let sent = Command::new("kill").args(["-TERM", &std::process::id().to_string()]).status().unwrap();
    assert!(sent.success());
    tokio::time::timeout(Duration::from_secs(10), token.cancelled()).await.unwrap();
}
