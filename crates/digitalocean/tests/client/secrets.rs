//! The token is in the Authorization header and nowhere else.

use std::error::Error as StdError;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use egress_digitalocean::{Client, DropletId, SharedToken};
use tracing::field::{Field, Visit};
use tracing::span;

use crate::fake::{CANARY, Fake, Leader, Reply, json, new_droplet, provide_tls, with_headers};

/// Keeps all that is logged, of every crate at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, "{field}={value:?} ");
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        span.record(&mut Line(&mut self.0.lock().unwrap()));
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        values.record(&mut Line(&mut self.0.lock().unwrap()));
    }
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut Line(&mut self.0.lock().unwrap()));
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[tokio::test]
async fn an_echoed_token_is_struck_out_of_errors_and_logs() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let echo = format!("you sent Authorization: Bearer {CANARY}");
    let fake = Fake::start(move |_, number| match number {
        0 => json(422, &format!(r#"{{"id": "{CANARY}", "message": "{echo}", "request_id": "{CANARY}"}}"#)),
        1 => with_headers(403, &format!("x-request-id: {CANARY}\r\n"), &format!("<p>{echo}</p>")),
        2 => json(200, &format!(r#"{{"droplet": {{"id": "{CANARY}"}}}}"#)),
        3 => json(400, &format!(r#"{{"error": "{echo}", "root_causes": ["{CANARY}"]}}"#)),
        4 => json(202, &format!(r#"{{"droplet": "{CANARY}"}}"#)),
        5 => Reply::Bytes(format!("HTTP/1.1 2{CANARY}\r\n\r\n").into_bytes()),
        _ => json(502, &echo),
    })
    .await;
    let token = SharedToken::new(CANARY.to_owned().into());
    provide_tls();
    let client = Client::new(&fake.address, Arc::new(token.clone())).unwrap();
    let mut shown = format!("{client:?} {token:?} {:#?}", client.quota());
    for number in 0..7 {
        let error = match number {
            0 | 4 | 5 | 6 => client.create_droplet(&new_droplet("a"), &Leader).await.err(),
            _ => client.droplet(DropletId(1)).await.err(),
        };
        let error = error.unwrap();
        let _ = write!(shown, "\n{number}: {error} {error:?}");
        let mut source = error.source();
        while let Some(cause) = source {
            let _ = write!(shown, " <- {cause} {cause:?}");
            source = cause.source();
        }
    }
    assert_eq!(fake.count(), 7);
    assert!(shown.contains("[redacted]"));
    assert!(!shown.contains("CANARY"), "{shown}");
    let log = log.0.lock().unwrap();
    assert!(log.contains("droplets.create"), "the log was not captured: {log}");
    assert!(!log.contains("CANARY"), "{log}");
}

#[tokio::test]
async fn a_rotated_token_counts_from_the_next_request() {
    let fake = Fake::start(|_, _| json(200, r#"{"account": {}}"#)).await;
    let token = SharedToken::empty();
    provide_tls();
    let client = Client::new(&fake.address, Arc::new(token.clone())).unwrap();
    assert_eq!(client.account().await.unwrap_err().category(), "no_token");
    for value in ["dop_v1_old\n", " dop_v1_new "] {
        token.replace(value.to_owned().into());
        client.account().await.unwrap();
    }
    token.clear();
    assert_eq!(client.account().await.unwrap_err().category(), "no_token");
    let seen: Vec<_> =
        fake.asked().iter().map(|request| request.header("authorization").unwrap().to_owned()).collect();
    assert_eq!(seen, ["Bearer dop_v1_old", "Bearer dop_v1_new"]);
}
