//! The way to the simulator's cloud without HTTP in between.

use std::sync::Arc;

use do_simulator::cloud::{Answer, Request};
use egress_digitalocean::{Exchange, Exchanged, Fence, SendError};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::gate::Gate;
use crate::world::World;

pub struct Way {
    pub world: World,
    pub gate: Arc<Gate>,
}

impl Exchange for Way {
    fn send<'a>(&'a self, request: reqwest::Request, fence: Option<&'a dyn Fence>) -> Exchanged<'a> {
        Box::pin(async move {
            let request = plain(&request);
            let change = (request.method != "GET").then(|| format!("{} {}", request.method, request.path));
            let pass = self.gate.enter(change).await;
            fence.map_or(Ok(()), Fence::check).map_err(SendError::Fenced)?;
            self.gate.sends(&pass);
            let Answer { status, body } = self.world.ask_cloud(&request, true);
            self.gate.leave(pass).await;
            let body = body.map(|body| body.to_string()).unwrap_or_default();
            let answer = http::Response::builder().status(status).body(body).unwrap();
            Ok(reqwest::Response::from(answer))
        })
    }
}

fn plain(request: &reqwest::Request) -> Request {
    let body = request.body().and_then(reqwest::Body::as_bytes).unwrap_or_default();
    Request {
        method: request.method().as_str().to_owned(),
        path: request.url().path().to_owned(),
        query: request.url().query_pairs().into_owned().collect(),
        body: body.to_vec(),
    }
}

/// The clock of the rate budget.
pub struct Driven {
    start: Instant,
    began: Timestamp,
}

impl Driven {
    pub fn new(began: Timestamp) -> Self {
        Self { start: Instant::now(), began }
    }
}

impl egress_digitalocean::budget::Clock for Driven {
    fn elapsed(&self) -> std::time::Duration {
        self.start.elapsed()
    }

    fn unix_seconds(&self) -> u64 {
        u64::try_from((self.began + self.elapsed()).as_second()).unwrap()
    }
}
