//! Who may see the page: whoever has a token of Kubernetes and may list what the page shows.
//!
//! On the loopback nobody is asked: who gets there came through `kubectl port-forward`, which Kubernetes has allowed him. What is asked
//! there is the name that the browser used, so that a page from elsewhere cannot read this one by a name of its own that leads to
//! the loopback (DNS rebinding).
//!
//! The token comes as `Authorization: Bearer`, or as the password of `Basic`, which browsers ask for by themselves: no cookie, no form,
//! and nothing to be kept here but a digest, for a minute.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use egress_api::GROUP;
use egress_runtime::kubernetes::{CallError, within_deadline};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// How long an answer counts: rights that were taken away are gone after this time at the latest.
pub const REMEMBERED: Duration = Duration::from_secs(60);

/// How long a refusal counts: who was just given the right need not wait.
pub const REFUSAL_REMEMBERED: Duration = Duration::from_secs(5);

// Tokens whose answer is remembered.
const MOST_REMEMBERED: usize = 256;

// Reviews at a time: whoever sends made-up tokens costs the API server no more than this.
const MOST_REVIEWS: usize = 4;

// Tokens of service accounts have about a thousand characters.
const LONGEST_TOKEN: usize = 8 * 1024;

/// What the page shows, and what one must therefore be allowed to list.
const SHOWN: [&str; 2] = ["egressgateways", "nodeegresses"];

/// What Kubernetes says of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its owner may see the page.
    Allowed,
    /// It is nobody's.
    Unknown,
    /// Its owner may not.
    Forbidden {
        /// Who that is.
        user: String,
        /// What he may not list.
        resource: &'static str,
    },
}

/// Whoever knows whose a token is and what he may do.
pub trait Review: Send + Sync {
    /// What is to be said of this token.
    fn review<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Verdict, CallError>>;
}

impl Review for Client {
    fn review<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Verdict, CallError>> {
        async move {
            let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: None };
            let asked = TokenReview { spec, ..TokenReview::default() };
            let reviews: Api<TokenReview> = Api::all(self.clone());
            let status = within_deadline(reviews.create(&PostParams::default(), &asked)).await?.status;
            let Some(user) =
                status.filter(|status| status.authenticated == Some(true)).and_then(|status| status.user)
            else {
                return Ok(Verdict::Unknown);
            };
            let reviews: Api<SubjectAccessReview> = Api::all(self.clone());
            for resource in SHOWN {
                let what = ResourceAttributes {
                    group: Some(GROUP.to_owned()),
                    resource: Some(resource.to_owned()),
                    verb: Some("list".to_owned()),
                    ..ResourceAttributes::default()
                };
                let spec = SubjectAccessReviewSpec {
                    user: user.username.clone(),
                    groups: user.groups.clone(),
                    uid: user.uid.clone(),
                    extra: user.extra.clone(),
                    resource_attributes: Some(what),
                    ..SubjectAccessReviewSpec::default()
                };
                let asked = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
                let answer = within_deadline(reviews.create(&PostParams::default(), &asked)).await?;
                if !answer.status.is_some_and(|status| status.allowed) {
                    return Ok(Verdict::Forbidden { user: user.username.unwrap_or_default(), resource });
                }
            }
            Ok(Verdict::Allowed)
        }
        .boxed()
    }
}

type TokenDigest = [u8; 32];

/// Who may come in.
#[derive(Clone)]
pub enum Access {
    /// Whoever reaches it, by a name of this machine: the listener is on the loopback.
    Loopback,
    /// Who shows a token.
    Token(Arc<Tokens>),
}

/// What was said of tokens.
pub struct Tokens {
    reviewer: Box<dyn Review>,
    remembered: Mutex<HashMap<TokenDigest, (Verdict, Instant)>>,
    reviews: Semaphore,
}

/// Why somebody is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The name in the request is none of the loopback.
    ForeignHost,
    /// There is no token, or it is nobody's.
    NoToken,
    /// Its owner has not the right.
    Forbidden {
        /// Who that is.
        user: String,
        /// What he may not list.
        resource: &'static str,
    },
    /// The API server did not say.
    NotKnown,
}

impl Access {
    /// For a listener that is not on the loopback.
    pub fn by_token(reviewer: impl Review + 'static) -> Self {
        Self::Token(Arc::new(Tokens {
            reviewer: Box::new(reviewer),
            remembered: Mutex::default(),
            reviews: Semaphore::new(MOST_REVIEWS),
        }))
    }

    /// Whether this request may see the page now.
    pub async fn check(&self, headers: &HeaderMap) -> Result<(), Denied> {
        match self {
            Self::Loopback => headers
                .get(header::HOST)
                .is_some_and(is_of_the_loopback)
                .then_some(())
                .ok_or(Denied::ForeignHost),
            Self::Token(tokens) => {
                let token = token(headers).ok_or(Denied::NoToken)?;
                match tokens.verdict(&token).await {
                    Ok(Verdict::Allowed) => Ok(()),
                    Ok(Verdict::Unknown) => Err(Denied::NoToken),
                    Ok(Verdict::Forbidden { user, resource }) => Err(Denied::Forbidden { user, resource }),
                    Err(error) => {
                        tracing::warn!(%error, "whether a token may see the health page is not known");
                        Err(Denied::NotKnown)
                    }
                }
            }
        }
    }
}

impl Tokens {
    async fn verdict(&self, token: &str) -> Result<Verdict, CallError> {
        let digest: TokenDigest = Sha256::digest(token).into();
        if let Some(known) = self.remembered(&digest) {
            return Ok(known);
        }
        let Ok(_turn) = self.reviews.acquire().await else { return Err(CallError::Deadline) };
        // Whoever waited may find that the answer has come meanwhile.
        if let Some(known) = self.remembered(&digest) {
            return Ok(known);
        }
        let verdict = self.reviewer.review(token).await?;
        let lasts = if verdict == Verdict::Allowed { REMEMBERED } else { REFUSAL_REMEMBERED };
        let now = Instant::now();
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.retain(|_, (_, until)| *until > now);
        if remembered.len() >= MOST_REMEMBERED {
            let first = remembered.iter().min_by_key(|(_, (_, until))| *until).map(|(digest, _)| *digest);
            if let Some(first) = first {
                remembered.remove(&first);
            }
        }
        remembered.insert(digest, (verdict.clone(), now + lasts));
        Ok(verdict)
    }

    fn remembered(&self, digest: &TokenDigest) -> Option<Verdict> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered
            .get(digest)
            .filter(|(_, until)| *until > Instant::now())
            .map(|(verdict, _)| verdict.clone())
    }
}

fn is_of_the_loopback(host: &HeaderValue) -> bool {
    let Ok(host) = host.to_str() else { return false };
    let name = match host.rsplit_once(':') {
        // Not within the brackets of an IPv6 address.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|own| name.eq_ignore_ascii_case(own))
}

fn token(headers: &HeaderMap) -> Option<String> {
    let (scheme, value) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = if scheme.eq_ignore_ascii_case("bearer") {
        value.trim().to_owned()
    } else if scheme.eq_ignore_ascii_case("basic") {
        let pair = String::from_utf8(BASE64.decode(value.trim()).ok()?).ok()?;
        pair.split_once(':')?.1.to_owned()
    } else {
        return None;
    };
    (!token.is_empty() && token.len() <= LONGEST_TOKEN).then_some(token)
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        let ask = "Basic realm=\"Egress gateways: any name, and a token of Kubernetes as the password\", charset=\"UTF-8\"";
        match self {
            Self::ForeignHost => (
                StatusCode::MISDIRECTED_REQUEST,
                "On the loopback this page is served by the names localhost, 127.0.0.1 and [::1] only.\n",
            )
                .into_response(),
            Self::NoToken => (
                StatusCode::UNAUTHORIZED,
                [(header::WWW_AUTHENTICATE, ask)],
                "This page wants a token of Kubernetes: as Authorization: Bearer, or as the password of any user name. One that lasts an hour: kubectl create token <service account>\n",
            )
                .into_response(),
            Self::Forbidden { user, resource } => (
                StatusCode::FORBIDDEN,
                [(header::WWW_AUTHENTICATE, "Bearer error=\"insufficient_scope\"")],
                format!(
                    "{user} may not list {resource}.{GROUP}, which this page shows. A ClusterRole with list on egressgateways and nodeegresses lets him.\n"
                ),
            )
                .into_response(),
            Self::NotKnown => (
                StatusCode::SERVICE_UNAVAILABLE,
                [(header::RETRY_AFTER, "5")],
                "The API server does not say whether you may see this page. kubectl egress dashboard needs no answer from it.\n",
            )
                .into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn a_token_comes_as_bearer_or_as_a_password_and_nothing_else_is_one() {
        let of = |value: &str| token(&headers(&[(header::AUTHORIZATION, value)]));
        assert_eq!(of("Bearer abc.def").as_deref(), Some("abc.def"));
        assert_eq!(of("bearer  abc").as_deref(), Some("abc"));
        let basic = |pair: &str| of(&format!("Basic {}", BASE64.encode(pair)));
        assert_eq!(basic("me:abc:def").as_deref(), Some("abc:def"));
        assert_eq!(basic("me:"), None);
        assert_eq!(basic("me"), None);
        for none in ["", "Bearer", "Bearer ", "Digest abc", "Basic %%%"] {
            assert_eq!(of(none), None, "{none}");
        }
        assert_eq!(of(&format!("Bearer {}", "x".repeat(LONGEST_TOKEN + 1))), None);
        assert_eq!(token(&HeaderMap::new()), None);
    }

    #[tokio::test]
    async fn on_the_loopback_only_its_own_names_are_answered() {
        let check = async |host: &str| Access::Loopback.check(&headers(&[(header::HOST, host)])).await;
        for own in ["localhost", "localhost:9192", "LocalHost:1", "127.0.0.1:40123", "[::1]:9192", "[::1]"] {
            assert_eq!(check(own).await, Ok(()), "{own}");
        }
        for foreign in [
            "evil.example",
            "evil.example:9192",
            "localhost.evil.example:9192",
            "127.0.0.1.evil.example",
            "10.0.0.1:9192",
            "",
        ] {
            assert_eq!(check(foreign).await, Err(Denied::ForeignHost), "{foreign}");
        }
        assert_eq!(Access::Loopback.check(&HeaderMap::new()).await, Err(Denied::ForeignHost));
    }

    #[derive(Default)]
    struct Counted {
        asked: AtomicUsize,
        at_once: AtomicUsize,
        most: AtomicUsize,
    }

    impl Review for Arc<Counted> {
        fn review<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Verdict, CallError>> {
            async move {
                self.asked.fetch_add(1, Ordering::SeqCst);
                let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
                self.most.fetch_max(now, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(10)).await;
                self.at_once.fetch_sub(1, Ordering::SeqCst);
                Ok(match token {
                    "admin" => Verdict::Allowed,
                    "dev" => Verdict::Forbidden { user: "dev".to_owned(), resource: "nodeegresses" },
                    "silence" => return Err(CallError::Deadline),
                    _ => Verdict::Unknown,
                })
            }
            .boxed()
        }
    }

    async fn check(access: &Access, token: &str) -> Result<(), Denied> {
        access.check(&headers(&[(header::AUTHORIZATION, &format!("Bearer {token}"))])).await
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_counts_for_a_minute_a_refusal_for_seconds_and_no_answer_for_nothing() {
        let counted = Arc::new(Counted::default());
        let access = Access::by_token(counted.clone());
        let asked = || counted.asked.load(Ordering::SeqCst);
        assert_eq!(access.check(&HeaderMap::new()).await, Err(Denied::NoToken));
        assert_eq!(asked(), 0);
        for _ in 0..3 {
            assert_eq!(check(&access, "admin").await, Ok(()));
        }
        assert_eq!(asked(), 1);
        tokio::time::advance(REMEMBERED).await;
        assert_eq!(check(&access, "admin").await, Ok(()));
        assert_eq!(asked(), 2);
        let forbidden = Denied::Forbidden { user: "dev".to_owned(), resource: "nodeegresses" };
        assert_eq!(check(&access, "dev").await, Err(forbidden.clone()));
        assert_eq!(check(&access, "dev").await, Err(forbidden.clone()));
        assert_eq!(asked(), 3);
        tokio::time::advance(REFUSAL_REMEMBERED).await;
        assert_eq!(check(&access, "dev").await, Err(forbidden));
        assert_eq!(asked(), 4);
        for _ in 0..2 {
            assert_eq!(check(&access, "silence").await, Err(Denied::NotKnown));
        }
        assert_eq!(asked(), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn made_up_tokens_cost_the_api_server_little_and_fill_nothing() {
        let counted = Arc::new(Counted::default());
        let access = Access::by_token(counted.clone());
        let many = (0..3 * MOST_REMEMBERED).map(|number| {
            let access = access.clone();
            async move { check(&access, &format!("made-up-{number}")).await }
        });
        let answers = futures::future::join_all(many).await;
        assert!(answers.iter().all(|answer| *answer == Err(Denied::NoToken)));
        assert!(counted.most.load(Ordering::SeqCst) <= MOST_REVIEWS);
        let Access::Token(tokens) = &access else { unreachable!() };
        assert!(tokens.remembered.lock().unwrap().len() <= MOST_REMEMBERED);
    }
}
