//! The internet: who-am-I on every address, and the oracle of what arrived.

mod arrivals;
pub mod oracle;
pub mod resolver;
mod whoami;

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Doing, Result};
use crate::state::StateDir;
use arrivals::Arrivals;

/// Ports of the who-am-I server.
pub const WHOAMI_PORTS: [u16; 3] = [80, 8080, 443];
/// Port for counted datagrams.
pub const STREAM_PORT: u16 = 9999;

/// What arrived, shared by everything that listens.
#[derive(Debug, Clone, Default)]
struct Seen(Arc<Mutex<Arrivals>>);

impl Seen {
    fn with<T>(&self, body: impl FnOnce(&mut Arrivals) -> T) -> T {
        // Arrivals are valid after any single step, so a panicked holder left nothing half done.
        body(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// `egress-lab internet`: serves until it is killed. Runs inside the internet's namespace.
pub fn run(dir: &StateDir) -> Result<()> {
    let seen = Seen::default();
    let streams = seen.clone();
    let socket = oracle::stream_socket()?;
    std::thread::spawn(move || oracle::receive(&socket, &streams));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .doing(|| "start the async runtime".into())?;
    runtime.block_on(async {
        for port in WHOAMI_PORTS {
            let address = (Ipv4Addr::UNSPECIFIED, port);
            let listener = tokio::net::TcpListener::bind(address).await;
            let listener = listener.doing(|| format!("listen on port {port}"))?;
            tokio::spawn(whoami::serve(listener, seen.clone()));
        }
        oracle::answer(&oracle::socket_path(dir), seen).await
    })
}
