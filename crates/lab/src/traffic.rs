//! A client that makes new connections all the time and writes down what became of each.
//!
//! It runs inside the network namespace of a pod or node (`egress-lab exec ... -- egress-lab traffic ...`), so what it sees is
//! what a program there would see. Each connection asks the who-am-I server for the address it came from.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::internet::STREAM_PORT;

/// What to do.
#[derive(Debug, Clone, clap::Args)]
pub struct TrafficArgs {
    /// Who-am-I server, address and port.
    #[arg(long)]
    pub target: SocketAddrV4,

    /// Milliseconds between two new connections.
    #[arg(long, default_value_t = 20)]
    pub interval_ms: u64,

    /// Milliseconds after which a connection counts as failed. Above the second after which a lost SYN is sent again.
    #[arg(long, default_value_t = 3000)]
    pub timeout_ms: u64,

    /// Ends after that many seconds at the latest.
    #[arg(long, default_value_t = 120)]
    pub seconds: u64,

    /// Ends when this file exists.
    #[arg(long)]
    pub until: PathBuf,

    /// Name of a stream of numbered datagrams, as many as connections, to port 9999 of the same address: the oracle tells which
    /// of them arrived. Without it there are none.
    #[arg(long)]
    pub stream: Option<String>,

    /// One JSON object per connection goes here, in the order in which they ended.
    #[arg(long)]
    pub out: PathBuf,
}

/// What became of one connection. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    /// When it was begun.
    pub begun_ms: f64,
    /// When the answer was there, or it was given up.
    pub ended_ms: f64,
    /// The address that the server saw.
    pub seen_as: Option<Ipv4Addr>,
    /// Why there is no answer.
    pub error: Option<String>,
}

/// What one client writes down, read while it grows.
#[derive(Debug)]
pub struct Record {
    file: PathBuf,
    read_to: u64,
}

impl Record {
    /// Of a client that is to be started with `--out file`. What an earlier one left there goes: read in its place, it would hide what the
    /// new one writes until that is as long. Fails where the file can't be removed.
    pub fn begin(file: PathBuf) -> anyhow::Result<Self> {
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", file.display()))
            }
            _ => Ok(Self { file, read_to: 0 }),
        }
    }

    /// Where it is.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Connections that ended since the last time, in that order. None while the client has not begun; fails on what no client writes.
    pub fn more(&mut self) -> anyhow::Result<Vec<Connection>> {
        let Ok(mut file) = File::open(&self.file) else { return Ok(Vec::new()) };
        let mut text = String::new();
        file.seek(SeekFrom::Start(self.read_to))?;
        file.read_to_string(&mut text)?;
        // The client may be in the middle of its last line.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let connections = text[..whole].lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        self.read_to += whole as u64;
        Ok(connections)
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1000.0
}

/// Makes connections until told to stop, then waits for the last ones.
pub async fn run(args: TrafficArgs) -> anyhow::Result<()> {
    let mut out = File::create(&args.out).with_context(|| format!("cannot write {}", args.out.display()))?;
    let (done, mut ended) = mpsc::unbounded_channel::<Connection>();
    let target = args.target;
    let timeout = Duration::from_millis(args.timeout_ms);
    let until = args.until.clone();
    let datagrams = args.stream.map(|name| Datagrams::to(*target.ip(), name)).transpose()?;
    let maker = tokio::spawn(async move {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(args.seconds);
        let mut ticks = tokio::time::interval(Duration::from_millis(args.interval_ms));
        let mut number = 0_u64;
        while tokio::time::Instant::now() < deadline && !until.exists() {
            ticks.tick().await;
            number += 1;
            if let Some(datagrams) = &datagrams {
                datagrams.send(number);
            }
            let done = done.clone();
            tokio::spawn(async move {
                // The receiver outlives every sender.
                let _closed = done.send(connect_once(target, timeout).await);
            });
        }
    });
    // Ends when the maker and every connection have dropped their senders.
    while let Some(connection) = ended.recv().await {
        serde_json::to_writer(&mut out, &connection)?;
        out.write_all(b"\n")?;
    }
    maker.await?;
    Ok(())
}

/// A stream of numbered datagrams from one source port.
struct Datagrams {
    socket: UdpSocket,
    target: SocketAddrV4,
    name: String,
}

impl Datagrams {
    fn to(address: Ipv4Addr, name: String) -> anyhow::Result<Self> {
        let socket =
            UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot make a socket for datagrams")?;
        socket.set_nonblocking(true).context("cannot make a socket for datagrams")?;
        Ok(Self { socket, target: SocketAddrV4::new(address, STREAM_PORT), name })
    }

    fn send(&self, number: u64) {
        // One that the kernel refuses, for want of a route say, is a datagram that did not arrive.
        let _refused = self.socket.send_to(format!("{} {number}", self.name).as_bytes(), self.target);
    }
}

async fn connect_once(target: SocketAddrV4, timeout: Duration) -> Connection {
    let begun_ms = now_ms();
    let answer = tokio::time::timeout(timeout, ask(target)).await;
    let ended_ms = now_ms();
    let (seen_as, error) = match answer {
        Ok(Ok(address)) => (Some(address), None),
        Ok(Err(error)) => (None, Some(format!("{error:#}"))),
        Err(_) => (None, Some("timed out".to_owned())),
    };
    Connection { begun_ms, ended_ms, seen_as, error }
}

/// Asks a who-am-I server once over a new connection.
pub async fn ask(target: SocketAddrV4) -> anyhow::Result<Ipv4Addr> {
    let mut stream = TcpStream::connect(target).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: whoami.example.com\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let body = answer.rsplit("\r\n\r\n").next().unwrap_or_default().trim();
    body.parse().with_context(|| format!("the answer is no address: {answer:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(begun_ms: f64) -> String {
        let connection = Connection { begun_ms, ended_ms: begun_ms + 1.0, seen_as: None, error: None };
        serde_json::to_string(&connection).unwrap() + "\n"
    }

    fn begun(connections: &[Connection]) -> Vec<f64> {
        connections.iter().map(|one| one.begun_ms).collect()
    }

    #[test]
    fn a_record_is_read_as_it_grows_and_nothing_of_an_earlier_client() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("client.jsonl");
        std::fs::write(&file, line(1.0) + &line(2.0) + &line(3.0)).unwrap();
        let mut record = Record::begin(file.clone()).unwrap();
        assert_eq!(record.more().unwrap(), [], "not begun");
        let (first, second) = (line(4.0), line(5.0));
        let (half, rest) = second.split_at(10);
        std::fs::write(&file, first.clone() + half).unwrap();
        assert_eq!(begun(&record.more().unwrap()), [4.0]);
        std::fs::write(&file, first + half + rest).unwrap();
        assert_eq!(begun(&record.more().unwrap()), [5.0]);
        assert_eq!(record.more().unwrap(), []);
    }
}
