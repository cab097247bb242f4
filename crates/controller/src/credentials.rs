//! The API token, from a Secret that is watched: a new token needs no restart, a missing one is said and changes nothing.

use std::time::Duration;

use egress_digitalocean::SharedToken;
use egress_runtime::admin::Readiness;
use egress_runtime::kubernetes::{CallError, watch_settings, within_deadline};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};

use crate::relisting::relisted;

/// Name of the Secret, unless another is given.
pub const SECRET: &str = "digitalocean-token";

/// Key of the token in it.
pub const KEY: &str = "token";

/// Keeps `token` equal to what Secret `name` says, for ever. `known` becomes ready once the Secret, or its absence, was seen.
pub async fn follow(client: Client, namespace: String, name: String, token: SharedToken, known: Readiness) {
    let secrets: Api<Secret> = Api::namespaced(client, &namespace);
    let settings = watch_settings().fields(&format!("metadata.name={name}"));
    let mut events = relisted(secrets, settings).default_backoff().boxed();
    let mut found = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => found = false,
            Ok(watcher::Event::InitApply(secret) | watcher::Event::Apply(secret)) => {
                found = true;
                take(&secret, &token);
            }
            Ok(watcher::Event::InitDone) => {
                if !found {
                    tracing::warn!(
                        namespace,
                        secret = name,
                        "there is no such Secret: the cloud is out of reach"
                    );
                    token.clear();
                }
                known.set_ready();
            }
            Ok(watcher::Event::Delete(_)) => {
                tracing::warn!(namespace, secret = name, "the Secret was deleted: the cloud is out of reach");
                token.clear();
            }
            Err(error) => {
                tracing::warn!(%error, "watch of the token's Secret failed; the last token stays in use");
            }
        }
    }
    // The stream never ends by itself; should it, the task that owns this says so.
    tokio::time::sleep(Duration::ZERO).await;
}

/// The token of now, in Secret `name`.
pub async fn read_once(client: Client, namespace: &str, name: &str) -> Result<SharedToken, CallError> {
    let secrets: Api<Secret> = Api::namespaced(client, namespace);
    let secret = within_deadline(secrets.get(name)).await?;
    let token = SharedToken::empty();
    take(&secret, &token);
    Ok(token)
}

fn take(secret: &Secret, token: &SharedToken) {
    let value = secret
        .data
        .as_ref()
        .and_then(|data| data.get(KEY))
        .and_then(|value| std::str::from_utf8(&value.0).ok());
    if let Some(value) = value.map(str::trim).filter(|value| !value.is_empty()) {
        token.replace(value.to_owned().into());
    } else {
        let name = secret.metadata.name.as_deref().unwrap_or(SECRET);
        tracing::warn!(secret = name, key = KEY, "the Secret has no such key, or nothing readable in it");
        token.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use egress_digitalocean::TokenSource;
    use k8s_openapi::ByteString;

    use super::*;

    fn secret(key: &str, value: &[u8]) -> Secret {
        let data = BTreeMap::from([(key.to_owned(), ByteString(value.to_vec()))]);
        Secret { data: Some(data), ..Secret::default() }
    }

    #[test]
    fn a_secret_without_a_readable_token_takes_the_old_one_away() {
        let token = SharedToken::empty();
        take(&secret(KEY, b" dop_v1_x\n"), &token);
        assert!(token.token().is_ok());
        for useless in [secret("other", b"x"), secret(KEY, b" \n"), secret(KEY, &[0xff])] {
            take(&secret(KEY, b"dop_v1_x"), &token);
            take(&useless, &token);
            assert!(token.token().is_err());
        }
    }
}
