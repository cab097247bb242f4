//! The server with a cluster that is made up, and that the test changes.

#![allow(dead_code, reason = "each test program uses a part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by ending")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use egress_dashboard::access::Access;
use egress_dashboard::headroom::{Busiest, Gauge, Headroom, Headrooms};
use egress_dashboard::server::bind;
use egress_dashboard::view::Objects;
use egress_dashboard::{Board, Source};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::made_up::Cluster;

/// A page that is served. It ends with the scene.
pub struct Stage {
    pub address: SocketAddr,
    cluster: Arc<Mutex<Cluster>>,
    changes: mpsc::UnboundedSender<()>,
    shutdown: CancellationToken,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

struct Played(Arc<Mutex<Cluster>>);

impl Source for Played {
    fn look(&self, look: &mut dyn FnMut(&Objects<'_>)) {
        self.0.lock().unwrap().look(|objects| look(objects));
    }
}

/// Every gateway says that it is used a little, and the first that it is used much.
struct Gauged;

impl Gauge for Gauged {
    fn measure(&self, gateways: Vec<Ipv4Addr>) -> BoxFuture<'_, Headrooms> {
        let used = |index: u64| Headroom {
            connections: if index == 0 { 104_300 } else { 2_150 },
            most_connections: 131_072,
            busiest: Some(Busiest {
                destination: "tcp 203.0.113.7:443".to_owned(),
                connections: if index == 0 { 47_000 } else { 900 },
                share: if index == 0 { 0.73 } else { 0.014 },
            }),
        };
        let measured = (0..).zip(gateways).map(|(index, address)| (address, used(index))).collect();
        std::future::ready(measured).boxed()
    }
}

impl Stage {
    /// On the loopback.
    pub async fn set(cluster: Cluster) -> Self {
        Self::on("127.0.0.1:0", cluster, || unreachable!("the loopback asks for no token")).await
    }

    /// On this address.
    pub async fn on(address: &str, cluster: Cluster, access: impl FnOnce() -> Access) -> Self {
        let cluster = Arc::new(Mutex::new(cluster));
        let shutdown = CancellationToken::new();
        let server = bind(address.parse().unwrap(), access).await.unwrap();
        let mut address = server.local_addr().unwrap();
        if address.ip().is_unspecified() {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        let board = Board::new(Played(cluster.clone()), Gauged);
        let (changes, changed) = mpsc::unbounded_channel();
        let stream = futures::stream::unfold(changed, |mut changed| async move {
            let () = changed.recv().await?;
            Some(((), changed))
        });
        let keeping = tokio::spawn(board.clone().keep(stream, shutdown.clone()));
        let serving = tokio::spawn(server.serve(board, shutdown.clone()).map(drop));
        let tasks = vec![AbortOnDropHandle::new(keeping), AbortOnDropHandle::new(serving)];
        Self { address, cluster, changes, shutdown, _tasks: tasks }
    }

    /// Changes the objects, and has their watch tell of it.
    pub fn change<T>(&self, change: impl FnOnce(&mut Cluster) -> T) -> T {
        let changed = change(&mut self.cluster.lock().unwrap());
        self.changes.send(()).unwrap();
        changed
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Ends the server, as a controller that is told to end does.
    pub fn end(&self) {
        self.shutdown.cancel();
    }
}
