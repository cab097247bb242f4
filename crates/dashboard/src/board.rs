//! What is shown now, made at most once for everybody who looks, and only while somebody does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::headroom::{Gauge, Headrooms};
use crate::page::{self, Block};
use crate::timeline::Timeline;
use crate::view::{Detail, Objects, Overview};

// Changes come in bursts. A page has a second to show one, and what it takes to make it is part of that.
const GATHER: Duration = Duration::from_millis(250);

// Of a large cluster at most an eighth of a core goes into the page.
const SHARE: u32 = 8;
const LONGEST_GATHER: Duration = Duration::from_millis(700);

/// How often gateways are asked what they have left, while somebody looks.
pub const MEASURE_EVERY: Duration = Duration::from_secs(10);

/// Entries of the timeline on the first page, and on the page of one EgressGateway.
const MOMENTS: usize = 20;
const MOMENTS_OF_ONE: usize = 100;

/// Whoever has the objects.
pub trait Source: Send + Sync {
    /// Shows them as they are now.
    fn look(&self, look: &mut dyn FnMut(&Objects<'_>));
}

/// Which page somebody looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Name of the one EgressGateway; nothing is the first page.
    pub gateway: Option<String>,
    /// Which page of its nodes, from 1.
    pub page: usize,
}

/// What is shown. Clones share it.
#[derive(Clone)]
pub struct Board(Arc<Shared>);

struct Shared {
    source: Box<dyn Source>,
    gauge: Box<dyn Gauge>,
    headrooms: Mutex<Headrooms>,
    timeline: Mutex<Timeline>,
    overview: Mutex<Option<(u64, Arc<Vec<Block>>)>>,
    number: watch::Sender<u64>,
    born: Instant,
    looked_at_ms: AtomicU64,
    // That somebody looks again after a while.
    looked: Notify,
}

impl Board {
    /// A board that shows what this source has.
    pub fn new(source: impl Source + 'static, gauge: impl Gauge + 'static) -> Self {
        Self(Arc::new(Shared {
            source: Box::new(source),
            gauge: Box::new(gauge),
            headrooms: Mutex::default(),
            timeline: Mutex::default(),
            overview: Mutex::default(),
            number: watch::channel(1).0,
            born: Instant::now(),
            looked_at_ms: AtomicU64::new(0),
            looked: Notify::new(),
        }))
    }

    /// Keeps it up to date until the token is cancelled. An item of `changes` says that there is something new.
    pub async fn keep(self, changes: impl Stream<Item = ()> + Send, shutdown: CancellationToken) {
        let mut changes = std::pin::pin!(changes.fuse());
        let mut measure = tokio::time::interval(MEASURE_EVERY);
        measure.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.refresh();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(()) = changes.next() => {
                    let took = self.refresh();
                    let rest = (took * SHARE).clamp(GATHER, LONGEST_GATHER);
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = tokio::time::sleep(rest) => {}
                    }
                }
                () = self.0.looked.notified() => measure.reset_immediately(),
                _ = measure.tick() => {
                    if self.is_looked_at() {
                        tokio::select! {
                            () = shutdown.cancelled() => return,
                            () = self.measure() => {}
                        }
                    }
                }
            }
        }
    }

    // What happened is remembered whether anybody looks or not; the page is made by who does.
    fn refresh(&self) -> Duration {
        let started = Instant::now();
        self.0.source.look(&mut |objects| self.timeline().observe(objects));
        self.0.number.send_modify(|number| *number = number.wrapping_add(1));
        if self.0.number.receiver_count() > 0 {
            self.overview();
        }
        started.elapsed()
    }

    async fn measure(&self) {
        let mut addresses = Vec::new();
        self.0.source.look(&mut |objects| {
            let read = objects.gateways.iter().filter_map(|gateway| gateway.0.as_ref().ok());
            let gateways =
                read.filter_map(|gateway| gateway.status.as_ref()).flat_map(|status| &status.gateways);
            addresses = gateways.filter_map(|one| one.private_address.as_ref()?.parse().ok()).collect();
        });
        let measured = self.0.gauge.measure(addresses).await;
        let mut headrooms = self.0.headrooms.lock().unwrap_or_else(PoisonError::into_inner);
        if *headrooms != measured {
            *headrooms = measured;
            drop(headrooms);
            self.0.number.send_modify(|number| *number = number.wrapping_add(1));
        }
    }

    fn timeline(&self) -> std::sync::MutexGuard<'_, Timeline> {
        self.0.timeline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn headrooms(&self) -> Headrooms {
        self.0.headrooms.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes whenever what is shown may have.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.0.number.subscribe()
    }

    /// Somebody looks.
    pub(crate) fn look_at(&self) {
        if !self.is_looked_at() {
            self.0.looked.notify_one();
        }
        let age = self.0.born.elapsed().as_millis();
        self.0.looked_at_ms.store(u64::try_from(age).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    }

    fn is_looked_at(&self) -> bool {
        let last = self.0.looked_at_ms.load(Ordering::Relaxed);
        last > 0 && self.0.born.elapsed() < Duration::from_millis(last) + 3 * MEASURE_EVERY
    }

    /// What is shown in this place; nothing where there is no such EgressGateway.
    pub(crate) fn blocks(&self, place: &Place) -> Option<Arc<Vec<Block>>> {
        let Some(name) = &place.gateway else { return Some(self.overview()) };
        let headrooms = self.headrooms();
        let mut detail = None;
        self.0.source.look(&mut |objects| detail = Detail::of(objects, &headrooms, name, place.page));
        let moments = self.timeline().newest(Some(name), MOMENTS_OF_ONE);
        Some(Arc::new(page::detail(&detail?, &moments)))
    }

    fn overview(&self) -> Arc<Vec<Block>> {
        let number = *self.0.number.borrow();
        let mut kept = self.0.overview.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, blocks)) = &*kept
            && *of == number
        {
            return blocks.clone();
        }
        let headrooms = self.headrooms();
        let mut overview = None;
        self.0.source.look(&mut |objects| overview = Some(Overview::of(objects, &headrooms)));
        let moments = self.timeline().newest(None, MOMENTS);
        let blocks =
            Arc::new(overview.map(|overview| page::overview(&overview, &moments)).unwrap_or_default());
        *kept = Some((number, blocks.clone()));
        blocks
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::AtomicUsize;

    use futures::FutureExt as _;
    use futures::future::BoxFuture;

    use super::*;
    use crate::made_up::Cluster;

    struct Fixed(Cluster);

    impl Source for Fixed {
        fn look(&self, look: &mut dyn FnMut(&Objects<'_>)) {
            self.0.look(|objects| look(objects));
        }
    }

    #[derive(Clone, Default)]
    struct Counted(Arc<AtomicUsize>);

    impl Gauge for Counted {
        fn measure(&self, gateways: Vec<Ipv4Addr>) -> BoxFuture<'_, Headrooms> {
            self.0.fetch_add(gateways.len(), Ordering::SeqCst);
            std::future::ready(Headrooms::new()).boxed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn gateways_are_asked_for_their_headroom_only_while_somebody_looks() {
        let counted = Counted::default();
        let board = Board::new(Fixed(Cluster::of(1, 1)), counted.clone());
        let shutdown = CancellationToken::new();
        let keeping = tokio::spawn(board.clone().keep(futures::stream::pending(), shutdown.clone()));
        let asked = async |seconds| {
            let before = counted.0.load(Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            counted.0.load(Ordering::SeqCst) - before
        };
        assert_eq!(asked(60).await, 0);
        board.look_at();
        // Both gateways, three times in the half minute after somebody looked.
        let soon = asked(31).await;
        assert!((4..=8).contains(&soon), "{soon}");
        assert_eq!(asked(60).await, 0);
        shutdown.cancel();
        keeping.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_made_serves_everybody_until_something_changes() {
        let board = Board::new(Fixed(Cluster::of(1, 1)), Counted::default());
        let first = board.blocks(&Place::default()).unwrap();
        assert!(Arc::ptr_eq(&first, &board.blocks(&Place::default()).unwrap()));
        board.refresh();
        assert!(!Arc::ptr_eq(&first, &board.blocks(&Place::default()).unwrap()));
    }
}
