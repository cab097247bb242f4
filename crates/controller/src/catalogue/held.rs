//! Something that was read and is kept for a while.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use egress_digitalocean::Error;
use jiff::Timestamp;
use tokio::sync::Mutex;

use crate::cloud::elapsed;

/// One thing. While it is read, whoever else wants it waits for that reading.
pub(super) struct Held<T>(Mutex<Reading<T>>);

/// One thing for each key.
pub(crate) struct HeldByKey<T>(Mutex<BTreeMap<String, Reading<T>>>);

struct Reading<T> {
    value: Option<Arc<T>>,
    taken: Option<Timestamp>,
    failed: Option<Timestamp>,
}

/// What did not come, or may not be read, is not asked for again before this.
const REST: Duration = Duration::from_secs(120);

/// From so many keys on those go whose readings are too old to be of use: names that somebody has tried out.
const MANY_KEYS: usize = 64;

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self(Mutex::new(Reading::default()))
    }
}

impl<T> Default for HeldByKey<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Default for Reading<T> {
    fn default() -> Self {
        Self { value: None, taken: None, failed: None }
    }
}

impl<T> Held<T> {
    /// What was read, `age` old at most if it can be had; older, or `None`, if it cannot.
    pub(super) async fn at_most<F>(
        &self,
        age: Duration,
        now: Timestamp,
        read: impl FnOnce() -> F,
    ) -> Option<Arc<T>>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.0.lock().await.at_most(age, now, read).await
    }
}

impl<T> HeldByKey<T> {
    /// The same for one key.
    pub(crate) async fn at_most<F>(
        &self,
        key: &str,
        age: Duration,
        now: Timestamp,
        read: impl FnOnce() -> F,
    ) -> Option<Arc<T>>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut all = self.0.lock().await;
        if all.len() >= MANY_KEYS && !all.contains_key(key) {
            all.retain(|_, reading| reading.is_of_use(age, now));
        }
        all.entry(key.to_owned()).or_default().at_most(age, now, read).await
    }
}

impl<T> Reading<T> {
    fn is_of_use(&self, age: Duration, now: Timestamp) -> bool {
        let is_young = self.taken.is_some_and(|taken| elapsed(taken, now) < age);
        let rests = self.failed.is_some_and(|failed| elapsed(failed, now) < REST);
        is_young || rests
    }

    async fn at_most<F>(&mut self, age: Duration, now: Timestamp, read: impl FnOnce() -> F) -> Option<Arc<T>>
    where
        F: Future<Output = Result<T, Error>>,
    {
        if self.is_of_use(age, now) {
            return self.value.clone();
        }
        match read().await {
            Ok(value) => {
                *self = Self { value: Some(Arc::new(value)), taken: Some(now), failed: None };
            }
            Err(error) => {
                tracing::debug!(%error, "what the cloud has cannot be read");
                self.failed = Some(now);
            }
        }
        self.value.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn it_is_read_again_when_it_is_too_old_and_kept_when_it_does_not_come() {
        let reads = AtomicU32::new(0);
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let held: Held<u32> = Held::default();
        let look = async |second: i64, age: u64, comes: bool| {
            let read = async || {
                let number = reads.fetch_add(1, Ordering::Relaxed);
                let lost = Error::Lost { call: "sizes.list", reason: "no answer".into() };
                if comes { Ok(number) } else { Err(lost) }
            };
            held.at_most(Duration::from_secs(age), at(second), read).await.map(|value| *value)
        };
        assert_eq!(look(0, 600, false).await, None);
        assert_eq!(look(1, 600, true).await, None, "it rests");
        assert_eq!(look(120, 600, true).await, Some(1));
        assert_eq!(look(719, 600, true).await, Some(1));
        assert_eq!(look(720, 600, false).await, Some(1), "better than nothing");
        assert_eq!(look(780, 60, true).await, Some(1), "it rests");
        assert_eq!(look(840, 60, true).await, Some(3));
        assert_eq!(reads.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn however_many_are_kept_each_is_read_once_in_its_time_and_old_ones_go() {
        let reads = AtomicU32::new(0);
        let held: HeldByKey<u32> = HeldByKey::default();
        let look = async |key: usize, second: i64| {
            let read = async || Ok(reads.fetch_add(1, Ordering::Relaxed));
            let now = Timestamp::from_second(second).unwrap();
            held.at_most(&key.to_string(), Duration::from_secs(600), now, read).await
        };
        for second in [0, 300] {
            for key in 0..200 {
                assert!(look(key, second).await.is_some());
            }
        }
        assert_eq!(reads.load(Ordering::Relaxed), 200, "nobody's reading made room for another's");
        assert!(look(1000, 700).await.is_some());
        assert_eq!(held.0.lock().await.len(), 1);
    }
}
