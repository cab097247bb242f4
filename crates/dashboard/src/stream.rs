//! Tells an open page what changed: of each block that is new the whole content, and in which order blocks stand.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::response::sse::Event;
use futures::Stream;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::board::{Board, Place};
use crate::page::{self, Block};

/// How often a page hears that it is still connected; one that does not says so.
pub const BEAT: Duration = Duration::from_secs(5);

/// A stream ends after this time and the page opens another: nothing is kept for whoever is gone.
pub const LONGEST_STREAM: Duration = Duration::from_secs(600);

// How soon a page whose stream ended opens another.
const AGAIN: Duration = Duration::from_millis(500);

/// Who looks.
pub(crate) struct Viewer {
    pub(crate) access: Access,
    pub(crate) headers: HeaderMap,
}

/// The part of a page that is new.
#[derive(Serialize)]
struct Change<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<Vec<&'a str>>,
    blocks: Vec<&'a Block>,
}

struct Following {
    board: Board,
    place: Place,
    viewer: Viewer,
    // Counted for as long as this lives.
    _room: OwnedSemaphorePermit,
    shutdown: CancellationToken,
    news: watch::Receiver<u64>,
    beat: Interval,
    ends: Instant,
    told: Told,
}

/// What the page has.
#[derive(Default)]
struct Told {
    versions: HashMap<String, String>,
    order: Vec<String>,
}

/// Everything at first, then what changes, until the viewer may not see it any more.
pub(crate) fn follow(
    board: Board,
    place: Place,
    viewer: Viewer,
    room: OwnedSemaphorePermit,
    shutdown: CancellationToken,
) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    let mut news = board.news();
    news.mark_changed();
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ends = Instant::now() + LONGEST_STREAM;
    let following =
        Following { board, place, viewer, _room: room, shutdown, news, beat, ends, told: Told::default() };
    futures::stream::unfold(following, |mut following| async move {
        let event = following.next().await?;
        Some((Ok(event), following))
    })
}

impl Following {
    async fn next(&mut self) -> Option<Event> {
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return None,
                () = tokio::time::sleep_until(self.ends) => return None,
                changed = self.news.changed() => {
                    changed.ok()?;
                    self.board.look_at();
                    if let Some(event) = self.change() {
                        return Some(event);
                    }
                }
                _ = self.beat.tick() => {
                    // Rights may have been taken away; what is remembered of them is forgotten in time.
                    self.viewer.access.check(&self.viewer.headers).await.ok()?;
                    self.board.look_at();
                    return Some(Event::default().event("beat").data("1").retry(AGAIN));
                }
            }
        }
    }

    fn change(&mut self) -> Option<Event> {
        let blocks = self
            .board
            .blocks(&self.place)
            .unwrap_or_else(|| page::gone(self.place.gateway.as_deref().unwrap_or_default()).into());
        let change = self.told.news(&blocks)?;
        match serde_json::to_string(&change) {
            Ok(text) => Some(Event::default().event("change").data(text)),
            Err(error) => {
                tracing::warn!(%error, "a change of the health page cannot be told");
                None
            }
        }
    }
}

impl Told {
    fn news<'a>(&mut self, blocks: &'a [Block]) -> Option<Change<'a>> {
        let is_new = |block: &&Block| self.versions.get(&block.id) != Some(&block.version);
        let new: Vec<&Block> = blocks.iter().filter(is_new).collect();
        let order: Vec<&str> = blocks.iter().map(|block| block.id.as_str()).collect();
        let order = (order != self.order).then_some(order);
        if new.is_empty() && order.is_none() {
            return None;
        }
        if let Some(order) = &order {
            self.order = order.iter().map(|id| (*id).to_owned()).collect();
        }
        self.versions = blocks.iter().map(|block| (block.id.clone(), block.version.clone())).collect();
        Some(Change { order, blocks: new })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made_up::{Cluster, at};
    use crate::page;

    #[test]
    fn a_page_hears_of_what_is_new_to_it_and_of_nothing_else() {
        let mut cluster = Cluster::of(3, 3);
        let mut told = Told::default();
        let blocks = page::overview(&cluster.overview(), &[]);
        let first = told.news(&blocks).unwrap();
        assert_eq!(
            (first.blocks.len(), first.order.map(|order| order.len())),
            (blocks.len(), Some(blocks.len()))
        );
        assert!(told.news(&page::overview(&cluster.overview(), &[])).is_none());
        // The one that fails moves to the top.
        cluster.fail_over(1, at(5));
        let blocks = page::overview(&cluster.overview(), &[]);
        let change = told.news(&blocks).unwrap();
        assert_eq!(change.order.unwrap()[2], "gateway-gw-001");
        let ids: Vec<&str> = change.blocks.iter().map(|block| block.id.as_str()).collect();
        assert_eq!(ids, ["headline", "gateway-gw-001", "nodes"]);
        // One that is gone is in no order, and comes back whole.
        let gone = cluster.gateways.remove(1);
        let blocks = page::overview(&cluster.overview(), &[]);
        assert!(!told.news(&blocks).unwrap().order.unwrap().contains(&"gateway-gw-001"));
        cluster.gateways.insert(1, gone);
        let blocks = page::overview(&cluster.overview(), &[]);
        assert!(told.news(&blocks).unwrap().blocks.iter().any(|block| block.id == "gateway-gw-001"));
    }
}
