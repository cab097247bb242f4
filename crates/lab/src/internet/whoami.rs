//! The who-am-I server: answers with the address that the caller's packets came from.
//!
//! `/` and everything else: the address and a line feed. `/json`: the address and how many connections came from it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::arrivals::Connection;
use super::{Seen, now_ms};

/// A caller that sends no request within that time is left.
const PATIENCE: Duration = Duration::from_secs(30);

pub async fn serve(listener: TcpListener, seen: Seen) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(answer(stream, seen.clone()));
            }
            // Out of descriptors, say: what is open now ends soon.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn answer(mut stream: TcpStream, seen: Seen) {
    let (Ok(SocketAddr::V4(source)), Ok(SocketAddr::V4(destination))) =
        (stream.peer_addr(), stream.local_addr())
    else {
        return;
    };
    let connection = Connection {
        time_ms: now_ms(),
        source: *source.ip(),
        destination: *destination.ip(),
        port: destination.port(),
    };
    let count = seen.with(|arrivals| arrivals.connection(connection));
    let Ok(Some(path)) = tokio::time::timeout(PATIENCE, request_path(&mut stream)).await else { return };
    let (kind, body) = if path == "/json" {
        ("application/json", format!("{{\"address\":\"{}\",\"connections\":{count}}}\n", source.ip()))
    } else {
        ("text/plain", format!("{}\n", source.ip()))
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    // A caller that has gone does not want the answer.
    if stream.write_all((head + &body).as_bytes()).await.is_ok() {
        let _gone = stream.shutdown().await;
    }
}

/// Path of the request, once its header is complete.
async fn request_path(stream: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    let mut part = [0; 2048];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = stream.read(&mut part).await.ok()?;
        if read == 0 || request.len() > 16_384 {
            return None;
        }
        request.extend_from_slice(&part[..read]);
    }
    let line = request.split(|byte| *byte == b'\r').next()?;
    Some(std::str::from_utf8(line).ok()?.split(' ').nth(1)?.to_owned())
}
