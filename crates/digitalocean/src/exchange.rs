//! One request out, one answer back: the last thing between this crate and the API.

use std::error::Error as StdError;
use std::future::Future;
use std::pin::Pin;

use crate::fence::{Fence, FenceLost};

/// What a request came to.
pub type Exchanged<'a> = Pin<Box<dyn Future<Output = Result<reqwest::Response, SendError>> + Send + 'a>>;

/// Sends a request and waits for the head of its answer. HTTP in every binary; a cloud in the same process where a test tries
/// thousands of lives.
pub trait Exchange: Send + Sync {
    /// Asks the fence, if there is one, right before the request leaves: nothing may wait in between. Sends it at most once.
    fn send<'a>(&'a self, request: reqwest::Request, fence: Option<&'a dyn Fence>) -> Exchanged<'a>;
}

/// Why no answer came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendError {
    /// The fence said no: nothing was sent.
    Fenced(FenceLost),
    /// Nothing was sent, in these words.
    Unsent(String),
    /// Some of it may have been sent.
    Open(String),
}

impl Exchange for reqwest::Client {
    fn send<'a>(&'a self, request: reqwest::Request, fence: Option<&'a dyn Fence>) -> Exchanged<'a> {
        Box::pin(async move {
            fence.map_or(Ok(()), Fence::check).map_err(SendError::Fenced)?;
            // Every request went through the same builder, so what is no connection error was sent, at least in part.
            self.execute(request).await.map_err(|error| {
                let failed = if error.is_connect() { SendError::Unsent } else { SendError::Open };
                failed(causes(&error.without_url()))
            })
        })
    }
}

/// An error with all its causes on one line.
pub(crate) fn causes(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}
