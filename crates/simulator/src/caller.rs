//! Who calls: the token under test, whose scopes and rate count, or the operator's, which stands for a person at the cloud's own
//! pages and may do everything.

use std::collections::BTreeSet;

use axum::http::{HeaderMap, header};
use jiff::Timestamp;

use crate::cloud::{Refusal, Request};
use crate::rate::{Limits, Rate, Window};
use crate::scope::Scopes;

/// Whose token a request bears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// The token under test.
    Tested,
    /// Somebody who may do everything.
    Operator,
}

/// The tokens that are let in, and what is kept of each.
pub(crate) struct Callers {
    token: String,
    scopes: Scopes,
    needed: BTreeSet<&'static str>,
    window: Window,
    operator: Option<(String, Window)>,
}

impl Callers {
    pub(crate) fn new(token: String, scopes: Scopes, operator: Option<String>, limits: Limits) -> Self {
        let operator = operator.map(|token| (token, Window::new(limits)));
        Self { token, scopes, needed: BTreeSet::new(), window: Window::new(limits), operator }
    }

    /// Whose the token in these headers is; `None` for one that is not let in.
    pub(crate) fn of(&self, headers: &HeaderMap) -> Option<Caller> {
        let value =
            headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (scheme, credentials) = value.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        match credentials.trim() {
            token if token == self.token => Some(Caller::Tested),
            token if self.operator.as_ref().is_some_and(|(known, _)| known == token) => {
                Some(Caller::Operator)
            }
            _ => None,
        }
    }

    /// Counts a request of this caller, or refuses it.
    pub(crate) fn admit(&mut self, caller: Caller, now: Timestamp) -> Rate {
        match (caller, &mut self.operator) {
            (Caller::Operator, Some((_, window))) => window.admit(now),
            _ => self.window.admit(now),
        }
    }

    /// The rate of the token under test, without a request.
    pub(crate) fn peek(&self, now: Timestamp) -> Rate {
        self.window.peek(now)
    }

    /// # Errors
    /// 403 when the call needs a scope that the caller has not.
    pub(crate) fn check(&mut self, caller: Caller, request: &Request) -> Result<(), Refusal> {
        if caller == Caller::Operator {
            return Ok(());
        }
        self.needed.extend(crate::scope::needed(request));
        self.scopes.check(request)
    }

    /// Takes out of an answer what the caller may not read.
    pub(crate) fn hide(&self, caller: Caller, answer: &mut serde_json::Value) {
        if caller == Caller::Tested {
            self.scopes.hide(answer);
        }
    }

    /// Puts another token in place of the one under test, or gives it other scopes.
    pub(crate) fn change(&mut self, token: Option<String>, scopes: Option<Scopes>) {
        self.token = token.unwrap_or_else(|| std::mem::take(&mut self.token));
        self.scopes = scopes.unwrap_or_else(|| std::mem::take(&mut self.scopes));
    }

    /// Every scope that calls with the token under test have needed so far.
    pub(crate) fn needed(&self) -> &BTreeSet<&'static str> {
        &self.needed
    }
}
