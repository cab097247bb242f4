//! Log output: one subscriber per process, JSON for machines or text for people, filtered by the environment.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::TryInitError;
use tracing_subscriber::{layer::SubscriberExt, util::SubscriberInitExt};

/// What is logged when nobody says otherwise. kube_client warns of an answer that it can't read with the whole answer, up to
/// megabytes of objects; who asked for it says what was wrong.
pub const DEFAULT_FILTER: &str = "info,kube_client=error";

/// How a log line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line, fields flattened.
    #[default]
    Json,
    /// For a person at a terminal.
    Text,
}

/// A format name that is neither `json` nor `text`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown log format {0:?}: write json or text")]
pub struct UnknownFormat(String);

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            other => Err(UnknownFormat(other.to_owned())),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Json => "json",
            Self::Text => "text",
        })
    }
}

/// Why no subscriber could be installed.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one: see the directives of `tracing_subscriber::EnvFilter`.
    #[error("log filter {filter:?} is not valid")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// A subscriber was there already.
    #[error("a log subscriber is installed already")]
    Installed(#[from] TryInitError),
}

/// Sends the process's log to standard error.
///
/// `filter` is a list of directives such as `info,egress_agent=debug`.
pub fn init(format: Format, filter: &str) -> Result<(), TelemetryError> {
    let parsed = EnvFilter::try_new(filter)
        .map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })?;
    let registry = tracing_subscriber::registry().with(parsed);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        Format::Json => registry.with(layer.json().flatten_event(true)).try_init()?,
        Format::Text => registry.with(layer.with_ansi(std::io::stderr().is_terminal())).try_init()?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use k8s_openapi::api::core::v1::Namespace;
    use kube::{Api, Client, Config};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is logged while the client gets an answer that is no Namespace.
    async fn logged_with(filter: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _request = stream.read(&mut [0; 4096]).await.unwrap();
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n{\"metadata\": \"a body\"}";
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let written = Written::default();
        let writer = written.clone();
        let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
        let registry = tracing_subscriber::registry().with(EnvFilter::try_new(filter).unwrap()).with(layer);
        let heard = tracing::subscriber::set_default(registry);
        let config =
            crate::kubernetes::with_timeouts(Config::new(format!("http://{address}").parse().unwrap()));
        let namespaces: Api<Namespace> = Api::all(Client::try_from(config).unwrap());
        namespaces.get("default").await.unwrap_err();
        drop(heard);
        server.await.unwrap();
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[tokio::test]
    async fn an_answer_that_cannot_be_read_is_not_copied_into_the_log() {
        let loud = logged_with("info").await;
        assert!(
            loud.contains("a body"),
            "kube_client no longer warns with the answer, and the filter may go: {loud}"
        );
        assert_eq!(logged_with(DEFAULT_FILTER).await, "");
    }

    #[test]
    fn formats_are_read_as_they_are_written() {
        for format in [Format::Json, Format::Text] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert_eq!(
            "yaml".parse::<Format>().unwrap_err().to_string(),
            "unknown log format \"yaml\": write json or text"
        );
    }

    #[test]
    fn a_filter_that_is_none_is_an_error_with_its_text() {
        let error = init(Format::Json, "egress=notalevel").unwrap_err();
        assert_eq!(error.to_string(), "log filter \"egress=notalevel\" is not valid");
    }
}
