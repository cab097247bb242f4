//! A server that answers what a test says, byte by byte, and keeps what it was asked.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use egress_digitalocean::{
    Client, CreateDroplet, DropletName, Fence, FenceLost, ImageRef, ImageSlug, RegionSlug, SharedToken,
    SizeSlug, SshKeyRef, TagName, UserData, VpcId,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The token of all tests; it must be seen nowhere but in the Authorization header.
pub const CANARY: &str = "dop_v1_CANARY0123456789";

/// A request as it came over the wire.
#[derive(Debug, Clone)]
pub struct Request {
    /// Which connection it came on: the client's port.
    pub port: u16,
    pub method: String,
    pub path: String,
    pub query: Vec<(String, String)>,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(held, _)| held == name).map(|(_, value)| value.as_str())
    }

    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(held, _)| held == name).map(|(_, value)| value.as_str())
    }
}

/// What the server does with a request.
pub enum Reply {
    /// Writes these bytes and closes.
    Bytes(Vec<u8>),
    /// Writes these bytes and waits for the next request on the same connection.
    KeepAlive(Vec<u8>),
    /// Closes with a reset, unanswered.
    Reset,
    /// Never answers.
    Silence,
}

/// An answer with a JSON body.
pub fn json(status: u16, body: &str) -> Reply {
    with_headers(status, "", body)
}

/// An answer with more headers, each line ended by CR LF.
pub fn with_headers(status: u16, headers: &str, body: &str) -> Reply {
    let length = body.len();
    Reply::Bytes(
        format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\
             x-request-id: req-{status}\r\n{headers}\r\n{body}"
        )
        .into_bytes(),
    )
}

/// The API's own error body.
pub fn refusal(status: u16, id: &str, message: &str) -> Reply {
    json(status, &format!(r#"{{"id": "{id}", "message": "{message}"}}"#))
}

type Script = dyn Fn(&Request, usize) -> Reply + Send + Sync;

/// The running server; stops when dropped.
pub struct Fake {
    pub address: String,
    asked: Arc<Mutex<Vec<Request>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    /// Answers the n-th request (from 0) with what `script` returns.
    pub async fn start(script: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (script, seen): (Arc<Script>, _) = (Arc::new(script), asked.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, script.clone(), seen.clone()));
            }
        });
        Self { address, asked, task }
    }

    pub fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.asked().len()
    }

    pub fn client(&self) -> Client {
        client(&self.address)
    }
}

async fn serve(mut stream: TcpStream, script: Arc<Script>, seen: Arc<Mutex<Vec<Request>>>) {
    while let Some(request) = read_request(&mut stream).await {
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.push(request.clone());
            seen.len() - 1
        };
        match script(&request, number) {
            Reply::KeepAlive(bytes) => {
                let _ = stream.write_all(&bytes).await;
                continue;
            }
            Reply::Bytes(bytes) => {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
            }
            Reply::Reset => stream.set_zero_linger().unwrap(),
            Reply::Silence => {
                // Until the client has had enough and closes.
                let _ = stream.read(&mut [0; 64]).await;
            }
        }
        return;
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(position) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break position;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length =
        headers.iter().find(|(name, _)| name == "content-length").map_or(0, |(_, n)| n.parse().unwrap());
    while bytes.len() < head_end + 4 + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let url = reqwest::Url::parse(&format!("http://fake{target}")).unwrap();
    let query = url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    let body = bytes[head_end + 4..].to_vec();
    let port = stream.peer_addr().ok()?.port();
    Some(Request { port, method, path: url.path().to_owned(), query, headers, body })
}

pub fn client(address: &str) -> Client {
    client_with_token(address, &format!(" {CANARY}\n"))
}

pub fn client_with_token(address: &str, token: &str) -> Client {
    provide_tls();
    Client::new(address, Arc::new(SharedToken::new(token.to_owned().into()))).unwrap()
}

pub fn provide_tls() {
    // Err means that another test was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A fence that always says yes.
pub struct Leader;

impl Fence for Leader {
    fn check(&self) -> Result<(), FenceLost> {
        Ok(())
    }
}

pub fn new_droplet(name: &str) -> CreateDroplet {
    CreateDroplet {
        name: DropletName::new(name).unwrap(),
        region: RegionSlug::new("nyc1").unwrap(),
        size: SizeSlug::new("s-1vcpu-1gb").unwrap(),
        image: ImageRef::Slug(ImageSlug::new("debian-12-x64").unwrap()),
        vpc_uuid: VpcId::new("5a4981aa-9653-4bd1-bef5-d6bff52042e4").unwrap(),
        ssh_keys: vec![SshKeyRef::Id(512_189), SshKeyRef::Fingerprint("3b:16:bf".to_owned())],
        tags: vec![TagName::new("egress-gateway").unwrap(), TagName::new("egress-slot:0").unwrap()],
        user_data: Some(UserData::new("#cloud-config\n").unwrap()),
        monitoring: true,
        with_droplet_agent: Some(false),
    }
}

/// Runs `work` and fails when it takes longer than `most`.
pub async fn within<T>(most: Duration, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(most, work).await.expect("a call that never ends")
}
