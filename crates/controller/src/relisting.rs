//! Watches that also list anew, every minute.
//!
//! A watch tells of changes, and nothing makes up for one that it did not tell of: not the end of the watch, after which the next one
//! goes on from a version past it. Watches have lost events (a watch cache that was stale or compacted, a proxy in between), and an
//! EgressGateway, a report or a token that was never seen would stay unseen until the process ends.

use std::fmt::Debug;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use kube::runtime::watcher;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// How old a view may be of which an event was lost.
pub const EVERY: Duration = Duration::from_secs(60);

/// A watch of these objects that begins anew every minute, with a list. The view that is kept from it is exchanged as a whole.
pub fn relisted<K>(
    api: Api<K>,
    settings: watcher::Config,
) -> impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let watch = move |()| watcher(api.clone(), settings.clone()).take_until(tokio::time::sleep(EVERY));
    stream::repeat(()).map(watch).flatten()
}
