//! The node's own metadata: the cloud's word on which cluster the node belongs to and which resolvers it has.
//!
//! Responsibility: ask, within bounds, and read the answers. Only two leaves are read: the whole document has the node's user
//! data in it, which is nobody's business here.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Where every Droplet finds its metadata.
pub const ADDRESS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(169, 254, 169, 254), 80);

/// The service is on the node's own host and answers in a millisecond.
const DEADLINE: Duration = Duration::from_secs(1);

/// A silent service is asked so often, by somebody who can't do without, before a look goes on without it.
pub const ATTEMPTS: usize = 3;

/// A Droplet has 100 tags at most, of 255 characters.
const LARGEST: usize = 64 * 1024;

/// What the metadata service says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The DOKS cluster that the node belongs to.
    pub cluster: Option<String>,
    /// The resolvers that the cloud gives the node.
    pub nameservers: Vec<Ipv4Addr>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// Nobody listens there, or no way leads there.
    #[error("the metadata service can't be reached")]
    Connect(#[source] std::io::Error),
    /// It was silent.
    #[error("the metadata service did not answer within {} s", DEADLINE.as_secs())]
    Deadline,
    /// It broke off, or what came is no HTTP.
    #[error("the metadata service broke off")]
    Broken(#[source] hyper::Error),
    /// It can't say now.
    #[error("the metadata service answered with status {0}")]
    Status(StatusCode),
    /// The body was too long or broke off.
    #[error("the metadata service's answer could not be read")]
    Body,
}

impl MetadataError {
    /// Whether this says that there is no such service: the port is refused, or who answers there speaks no HTTP.
    ///
    /// That no way leads there says nothing: so it is as well on a Droplet whose link is down.
    pub fn denies_the_service(&self) -> bool {
        match self {
            Self::Connect(error) => error.kind() == ErrorKind::ConnectionRefused,
            Self::Broken(error) => error.is_parse(),
            Self::Deadline | Self::Status(_) | Self::Body => false,
        }
    }
}

/// Asks the service, where it is silent so many times.
pub async fn ask(service: SocketAddrV4, attempts: usize) -> Result<Metadata, MetadataError> {
    let tags = read(service, "/metadata/v1/tags/", attempts).await?;
    // What the tags say is not lost with the other leaf, which is asked again at the next look.
    let nameservers = match read(service, "/metadata/v1/dns/nameservers", attempts).await {
        Ok(nameservers) => nameservers,
        Err(error) => {
            tracing::debug!(%error, "no resolvers from the metadata");
            None
        }
    };
    Ok(Metadata {
        cluster: tags.as_deref().and_then(cluster_of),
        nameservers: nameservers
            .iter()
            .flat_map(|text| text.lines())
            .filter_map(|line| line.trim().parse().ok())
            .collect(),
    })
}

/// The id of the DOKS cluster among a Droplet's tags: DigitalOcean tags a worker `k8s`, `k8s:<cluster id>`, `k8s:worker`.
fn cluster_of(tags: &str) -> Option<String> {
    tags.lines()
        .filter_map(|tag| tag.trim().strip_prefix("k8s:"))
        .find(|rest| is_uuid(rest))
        .map(str::to_lowercase)
}

fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.iter().all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// One leaf; `None` when the service has none of that name. Who refuses once may be starting: that is no word before it is said again.
async fn read(service: SocketAddrV4, path: &str, attempts: usize) -> Result<Option<String>, MetadataError> {
    let mut last = MetadataError::Deadline;
    for attempt in 1..=attempts {
        last = match tokio::time::timeout(DEADLINE, get(service, path)).await {
            Ok(Ok(text)) => return Ok(text),
            Ok(Err(error)) if error.denies_the_service() && attempt < attempts => {
                tokio::time::sleep(DEADLINE).await;
                error
            }
            Ok(Err(error)) => return Err(error),
            Err(_elapsed) => MetadataError::Deadline,
        };
    }
    Err(last)
}

async fn get(service: SocketAddrV4, path: &str) -> Result<Option<String>, MetadataError> {
    let stream = TcpStream::connect(service).await.map_err(MetadataError::Connect)?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(MetadataError::Broken)?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = http::Uri::try_from(path).unwrap_or_default();
    request.headers_mut().insert(header::HOST, header::HeaderValue::from_static("169.254.169.254"));
    let asked = async {
        let answer = sender.send_request(request).await.map_err(MetadataError::Broken)?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            other => return Err(MetadataError::Status(other)),
        }
        let body =
            Limited::new(answer.into_body(), LARGEST).collect().await.map_err(|_| MetadataError::Body)?;
        Ok(Some(String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    };
    tokio::pin!(asked, connection);
    // The connection carries the request and has nothing to say after the answer.
    tokio::select! {
        biased;
        answer = &mut asked => answer,
        ended = &mut connection => match ended {
            Ok(()) => asked.await,
            Err(error) => Err(MetadataError::Broken(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service that answers one connection for each of `answers`, after refusing for as long as it takes to notice.
    fn serve_late(answers: Vec<&'static str>) -> SocketAddrV4 {
        use std::io::{Read, Write};
        let std::net::SocketAddr::V4(address) =
            std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
        else {
            unreachable!()
        };
        std::thread::spawn(move || {
            std::thread::sleep(DEADLINE / 2);
            let listener = std::net::TcpListener::bind(address).unwrap();
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let _asked = stream.read(&mut [0; 1024]).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn one_refusal_is_no_word_and_what_the_tags_say_is_not_lost_with_the_other_leaf() {
        let tags = "HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\nk8s:ba6b4a1e-0d6c-4a6f-9a0a-3a0e4b1f2c3d";
        let failing = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
        let said = ask(serve_late(vec![tags, failing]), ATTEMPTS).await.unwrap();
        let cluster = Some("ba6b4a1e-0d6c-4a6f-9a0a-3a0e4b1f2c3d".to_owned());
        assert_eq!(said, Metadata { cluster, nameservers: Vec::new() });
        let refused = ask(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1), ATTEMPTS).await.unwrap_err();
        assert!(refused.denies_the_service(), "{refused}");
    }

    #[test]
    fn the_cluster_is_the_tag_that_is_a_uuid() {
        let id = "ba6b4a1e-0d6c-4a6f-9a0a-3a0e4b1f2c3d";
        assert_eq!(cluster_of(&format!("k8s\nk8s:worker\nk8s:{id}\nteam-a\n")).as_deref(), Some(id));
        assert_eq!(cluster_of(&format!("k8s:{}", id.to_uppercase())).as_deref(), Some(id));
        for none in ["", "k8s", "k8s:worker", "web", "k8s:ba6b4a1e-0d6c-4a6f-9a0a", "k8s:g-g-g-g-g", "<html>"]
        {
            assert_eq!(cluster_of(none), None, "{none}");
        }
    }
}
