//! Where the API token comes from, and how it is kept out of everything else.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

/// Gives the token for the next request.
///
/// It is asked for every request, so a new token counts from the next request on. It must not block.
pub trait TokenSource: Send + Sync {
    /// The token as of now. Surrounding white space is cut off by the client.
    fn token(&self) -> Result<SecretString, TokenUnavailable>;
}

/// There is no token to send.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct TokenUnavailable {
    /// Why: "the secret digitalocean-token has no key token".
    pub reason: String,
}

/// A token that others can replace while the client runs; clones share it.
#[derive(Clone, Default)]
pub struct SharedToken(Arc<RwLock<Option<SecretString>>>);

impl SharedToken {
    /// Starts with a token.
    pub fn new(token: SecretString) -> Self {
        Self(Arc::new(RwLock::new(Some(token))))
    }

    /// Starts without one: calls fail with [`Error::Token`](crate::Error::Token) until [`replace`](Self::replace).
    pub fn empty() -> Self {
        Self::default()
    }

    /// Puts a new token in place.
    pub fn replace(&self, token: SecretString) {
        self.put(Some(token));
    }

    /// Takes the token away.
    pub fn clear(&self) {
        self.put(None);
    }

    fn put(&self, token: Option<SecretString>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = token;
    }
}

impl TokenSource for SharedToken {
    fn token(&self) -> Result<SecretString, TokenUnavailable> {
        let held = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        held.ok_or_else(|| TokenUnavailable { reason: "no API token is set".to_owned() })
    }
}

impl fmt::Debug for SharedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedToken([redacted])")
    }
}

/// The token of one request: trimmed, checked, and able to strike itself out of text.
pub(crate) struct Credential(SecretString);

impl Credential {
    pub(crate) fn from_source(source: &dyn TokenSource) -> Result<Self, TokenUnavailable> {
        let raw = source.token()?;
        let trimmed = raw.expose_secret().trim();
        if trimmed.is_empty() {
            return Err(TokenUnavailable { reason: "the API token is empty".to_owned() });
        }
        if !trimmed.bytes().all(|byte| byte.is_ascii_graphic()) {
            let reason =
                "the API token has characters that no token has (spaces, line breaks, non-ASCII)".to_owned();
            return Err(TokenUnavailable { reason });
        }
        Ok(Self(SecretString::from(trimmed.to_owned())))
    }

    pub(crate) fn header(&self) -> Result<HeaderValue, TokenUnavailable> {
        let mut value =
            HeaderValue::from_str(&format!("Bearer {}", self.0.expose_secret())).map_err(|_| {
                TokenUnavailable { reason: "the API token does not fit into a header".to_owned() }
            })?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Strikes the token out of text that came from outside: a proxy's error page may echo request headers.
    pub(crate) fn redact(&self, text: &str) -> String {
        text.replace(self.0.expose_secret(), "[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_from_a_file_loses_its_line_break() {
        let source = SharedToken::new("  dop_v1_abc\n".to_owned().into());
        let credential = Credential::from_source(&source).unwrap();
        assert_eq!(credential.header().unwrap().to_str().unwrap(), "Bearer dop_v1_abc");
    }

    #[test]
    fn useless_tokens_are_refused_without_being_shown() {
        for bad in ["", " \n", "dop_v1_CANARY\nX-Evil: 1", "dop_v1_CANARY\u{e4}"] {
            let source = SharedToken::new(bad.to_owned().into());
            let refused = Credential::from_source(&source).err().unwrap();
            assert!(!refused.to_string().contains("CANARY"), "{refused}");
        }
        assert!(Credential::from_source(&SharedToken::empty()).is_err());
    }
}
