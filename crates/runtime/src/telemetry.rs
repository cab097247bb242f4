//! Log output: one subscriber per process, JSON for machines or text for people, filtered by the environment.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::TryInitError;
use tracing_subscriber::{layer::SubscriberExt, util::SubscriberInitExt};

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
    use super::*;

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
