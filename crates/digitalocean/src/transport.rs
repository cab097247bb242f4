//! One request and its answer: token, rate budget, fence, deadline, and the verdict on what came back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::body;
use crate::budget::{Budget, Clock, Quota, RateHeaders};
use crate::deadline;
use crate::error::Error;
use crate::exchange::{Exchange, SendError, causes};
use crate::fence::Fence;
use crate::refusal::Refusal;
use crate::token::{Credential, TokenSource};

/// Whether a request whose answer is lost may be sent again unseen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repetition {
    /// Twice is as good as once: reads, deletes by id, creating a tag.
    Harmless,
    /// Twice may be two Droplets.
    Harmful,
}

/// How often a read is sent that fails on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// Three times at most.
    Repeated,
    /// Once.
    Once,
}

/// A request to make.
#[derive(Debug, Clone)]
pub struct Call {
    /// Its name in errors and logs.
    pub name: &'static str,
    pub method: Method,
    /// From `/v2` on. Built from checked values only.
    pub path: String,
    pub query: Vec<(&'static str, String)>,
    pub body: Option<Vec<u8>>,
    pub repetition: Repetition,
}

impl Call {
    /// A read.
    pub fn get(name: &'static str, path: String) -> Self {
        let (method, query, body) = (Method::GET, Vec::new(), None);
        Self { name, method, path, query, body, repetition: Repetition::Harmless }
    }

    /// No clear answer came, for `reason`.
    fn unclear(&self, reason: String, refusal: Option<Box<Refusal>>) -> Error {
        let call = self.name;
        match (self.repetition, refusal) {
            (Repetition::Harmful, refusal) => Error::Ambiguous { call, reason, refusal },
            (Repetition::Harmless, Some(refusal)) => Error::Refused { call, refusal },
            (Repetition::Harmless, None) => Error::Lost { call, reason },
        }
    }
}

/// A success.
pub struct Answer {
    call: Call,
    body: Vec<u8>,
    credential: Credential,
}

impl Answer {
    /// Reads the body with `read`. What was done but can not be read is as good as a lost answer.
    pub fn read_with<T>(self, read: impl FnOnce(&[u8]) -> Result<T, serde_json::Error>) -> Result<T, Error> {
        read(&self.body).map_err(|error| {
            let reason = self.credential.redact(&error.to_string());
            match self.call.repetition {
                Repetition::Harmful => self.call.unclear(format!("unreadable answer: {reason}"), None),
                Repetition::Harmless => Error::Unreadable { call: self.call.name, reason },
            }
        })
    }

    /// Reads the body as JSON.
    pub fn json<T: DeserializeOwned>(self) -> Result<T, Error> {
        self.read_with(|body| serde_json::from_slice(body))
    }
}

/// The way to the API.
pub struct Transport {
    exchange: Arc<dyn Exchange>,
    /// Scheme, host, and a path without a slash at its end.
    base: Url,
    token: Arc<dyn TokenSource>,
    clock: Arc<dyn Clock>,
    budget: Mutex<Budget>,
}

impl Transport {
    pub fn new(
        exchange: Arc<dyn Exchange>,
        base: Url,
        token: Arc<dyn TokenSource>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let budget = Mutex::new(Budget::new(clock.elapsed()));
        Self { exchange, base, token, clock, budget }
    }

    pub fn base(&self) -> &Url {
        &self.base
    }

    /// A read, repeated at most twice when it failed on the way and `reads` says so.
    pub async fn read(&self, call: Call, reads: Reads) -> Result<Answer, Error> {
        let end = Instant::now() + deadline::READ;
        let pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(200))
            .with_max_delay(Duration::from_secs(2))
            .with_max_times(2)
            .with_jitter();
        let attempts = (|| self.attempt(call.clone(), None, end, deadline::READ_ATTEMPT))
            .retry(pauses)
            .when(|error: &Error| reads == Reads::Repeated && error.is_transient() && Instant::now() < end)
            .notify(|error, pause| tracing::debug!(%error, ?pause, "read again"));
        match tokio::time::timeout_at(end, attempts).await {
            Ok(outcome) => outcome,
            Err(_) => Err(call.unclear(format!("not within {} s", deadline::READ.as_secs()), None)),
        }
    }

    /// A changing call: asked for once, sent at most once.
    pub async fn change(&self, call: Call, fence: &dyn Fence) -> Result<Answer, Error> {
        let queue_end = Instant::now() + deadline::CHANGE_QUEUE;
        self.attempt(call, Some(fence), queue_end, deadline::CHANGE).await
    }

    /// What is left of the rate.
    pub fn quota(&self) -> Quota {
        self.budget().quota(self.clock.elapsed())
    }

    async fn attempt(
        &self,
        call: Call,
        fence: Option<&dyn Fence>,
        queue_end: Instant,
        limit: Duration,
    ) -> Result<Answer, Error> {
        self.wait_for_budget(call.name, queue_end).await?;
        let no_token = |source| Error::Token { call: call.name, source };
        let credential = Credential::from_source(self.token.as_ref()).map_err(no_token)?;
        let authorization = credential.header().map_err(no_token)?;
        let mut request = reqwest::Request::new(call.method.clone(), self.url(&call));
        *request.timeout_mut() = Some(limit);
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, authorization);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(body) = &call.body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.body_mut() = Some(body.clone().into());
        }
        let begin = Instant::now();
        let response = self.exchange.send(request, fence).await.map_err(|error| match error {
            SendError::Fenced(source) => Error::Fenced { call: call.name, source },
            SendError::Unsent(reason) => {
                Error::Unreachable { call: call.name, reason: credential.redact(&reason) }
            }
            SendError::Open(reason) => call.unclear(credential.redact(&reason), None),
        });
        let response =
            response.inspect_err(|error| tracing::debug!(call = call.name, %error, "request failed"))?;

        let status = response.status().as_u16();
        let rate = rate_headers(response.headers());
        let now_unix = self.clock.unix_seconds();
        self.budget().observe(&rate, status == 429, self.clock.elapsed(), now_unix);
        let request_id = text_header(response.headers(), "x-request-id").map(|id| credential.redact(id));
        let body = body::read(response).await;
        let millis = begin.elapsed().as_millis();
        tracing::debug!(call = call.name, status, millis, request_id, "answer");

        if (200..300).contains(&status) {
            return match body {
                Ok(body) => Ok(Answer { call, body, credential }),
                Err(error) => Err(call.unclear(credential.redact(&causes(&error)), None)),
            };
        }
        // Half an error page is still an error.
        let body = body.unwrap_or_default();
        let redact = |text: &str| credential.redact(text);
        let refusal = Box::new(Refusal::read(status, &body, request_id, &rate, now_unix, &redact));
        // 4xx is said before anything is done; 408 is a proxy that lost patience with someone.
        Err(if status >= 500 || status == 408 {
            call.unclear(refusal.to_string(), Some(refusal))
        } else {
            Error::Refused { call: call.name, refusal }
        })
    }

    async fn wait_for_budget(&self, call: &'static str, end: Instant) -> Result<(), Error> {
        loop {
            let taken = self.budget().take(self.clock.elapsed());
            let Err(wait) = taken else { return Ok(()) };
            if Instant::now() + wait > end {
                return Err(Error::Throttled { call, wait });
            }
            tokio::time::sleep(wait).await;
        }
    }

    fn budget(&self) -> std::sync::MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn url(&self, call: &Call) -> Url {
        let mut url = self.base.clone();
        let path = format!("{}{}", self.base.path().trim_end_matches('/'), call.path);
        url.set_path(&path);
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        url
    }
}

fn text_header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn rate_headers(headers: &HeaderMap) -> RateHeaders {
    let number = |name| text_header(headers, name)?.parse::<u64>().ok();
    RateHeaders {
        limit: number("ratelimit-limit"),
        remaining: number("ratelimit-remaining"),
        reset_unix: number("ratelimit-reset"),
        retry_after: number("retry-after").map(Duration::from_secs),
    }
}
