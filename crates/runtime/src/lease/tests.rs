//! The election: a table for the decision, a property for the guarantee, and the driver against a server that misbehaves.

use std::sync::{Arc, Mutex};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use proptest::prelude::*;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;

const OWN: Duration = Duration::from_secs(15);

fn held_by(name: &str, renewed: i64) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(name.to_owned()),
        lease_duration_seconds: Some(15),
        renew_time: Some(MicroTime(jiff::Timestamp::from_second(renewed).unwrap())),
        ..LeaseSpec::default()
    }
}

#[test]
fn decision_table() {
    let start = Instant::now();
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let seen = |spec: &LeaseSpec, seconds| Observation::after(None, Some(spec), at(seconds));
    let other = held_by("b", 1);
    let longer = LeaseSpec { lease_duration_seconds: Some(40), ..other.clone() };
    let damaged = LeaseSpec { lease_duration_seconds: Some(i32::MAX), ..other.clone() };
    let negative = LeaseSpec { lease_duration_seconds: Some(-5), ..other.clone() };
    let given_back = LeaseSpec { holder_identity: None, ..other.clone() };
    let emptied = LeaseSpec { holder_identity: Some(String::new()), ..other.clone() };
    let mine = held_by("a", 1);

    let table = [
        ("there is none", None, None, 0, Action::Acquire),
        ("given back", Some(&given_back), seen(&given_back, 0), 0, Action::Acquire),
        ("given back by an empty name", Some(&emptied), seen(&emptied, 0), 0, Action::Acquire),
        ("mine", Some(&mine), seen(&mine, 0), 99, Action::Renew),
        ("never observed", Some(&other), None, 7, Action::Wait(at(22))),
        ("seen just now", Some(&other), seen(&other, 7), 7, Action::Wait(at(22))),
        ("one second too early", Some(&other), seen(&other, 7), 21, Action::Wait(at(22))),
        ("silent for its duration", Some(&other), seen(&other, 7), 22, Action::Acquire),
        ("it promised longer than we would", Some(&longer), seen(&longer, 0), 39, Action::Wait(at(40))),
        ("damaged: at most an hour", Some(&damaged), seen(&damaged, 0), 3600, Action::Acquire),
        ("damaged: ours is the least", Some(&negative), seen(&negative, 0), 14, Action::Wait(at(15))),
        ("deleted while held", None, seen(&other, 0), 14, Action::Wait(at(15))),
        ("deleted long ago", None, seen(&other, 0), 15, Action::Acquire),
        ("deleted while we held it", None, seen(&mine, 0), 1, Action::Acquire),
    ];
    for (name, lease, observed, now, expected) in table {
        assert_eq!(evaluate(lease, "a", at(now), observed.as_ref(), OWN), expected, "{name}");
    }
}

#[test]
fn an_observation_ages_until_the_lease_says_something_new() {
    let start = Instant::now();
    let later = start + Duration::from_secs(9);
    let first = Observation::after(None, Some(&held_by("b", 1)), start);
    assert_eq!(Observation::after(first.clone(), Some(&held_by("b", 1)), later), first);
    assert_eq!(Observation::after(first.clone(), None, later), first);
    let renewed = Observation::after(first.clone(), Some(&held_by("b", 2)), later);
    assert_ne!(renewed, first);
}

#[test]
fn times_that_would_let_two_lead_are_refused() {
    let seconds = Duration::from_secs;
    assert!(Timing::new(seconds(15), seconds(10), seconds(2), seconds(1)).is_ok());
    for (lease, deadline, period, poll) in
        [(10, 10, 2, 1), (10, 11, 2, 1), (15, 10, 10, 1), (15, 10, 0, 1), (15, 10, 2, 0)]
    {
        assert_eq!(
            Timing::new(seconds(lease), seconds(deadline), seconds(period), seconds(poll)),
            Err(TimingError)
        );
    }
    assert_eq!(
        Timing::new(Duration::from_millis(15_500), seconds(10), seconds(2), seconds(1)),
        Err(TimingError)
    );
    let default = Timing::default();
    assert_eq!(
        Timing::new(
            default.lease_duration,
            default.renew_deadline,
            default.renew_period,
            default.poll_period
        ),
        Ok(default)
    );
}

#[test]
fn two_processes_of_one_pod_have_two_names() {
    let (first, second) = (identity("controller-0").unwrap(), identity("controller-0").unwrap());
    assert!(first.starts_with("controller-0_"));
    assert_ne!(first, second);
}

// ===== The guarantee, over arbitrary interleavings =====

/// One candidate of the model: requests to the server are sent, committed and answered as separate events.
struct Candidate {
    name: String,
    /// Speed of its clock in thousandths.
    rate: u64,
    observed: Option<Observation>,
    tenure: Option<Tenure>,
    in_flight: Option<Request>,
}

enum Request {
    Read,
    Answer { lease: Option<(u64, LeaseSpec)> },
    Write { sent: Instant, version: u64, spec: LeaseSpec, committed: Option<bool> },
}

#[derive(Clone, Debug)]
enum Event {
    /// Sends a read if nothing is under way, else lets the server process what is, else delivers the answer.
    Progress(usize),
    /// The answer never arrives; the server may have acted.
    Lose(usize),
    /// Somebody deletes the lease by hand.
    Delete,
}

fn event() -> impl Strategy<Value = (u64, Event)> {
    let kind = prop_oneof![
        20 => (0..3_usize).prop_map(Event::Progress),
        2 => (0..3_usize).prop_map(Event::Lose),
        1 => Just(Event::Delete),
    ];
    // Mostly short steps, sometimes a pause longer than a lease.
    (prop_oneof![10 => 0..300_u64, 3 => 300..3000_u64, 2 => 3000..9000_u64, 1 => 9000..25_000_u64], kind)
}

struct Server {
    lease: Option<(u64, LeaseSpec)>,
    version: u64,
}

impl Server {
    fn commit(&mut self, version: u64, spec: &LeaseSpec) -> bool {
        if self.lease.as_ref().map_or(0, |(version, _)| *version) != version {
            return false;
        }
        self.version += 1;
        self.lease = Some((self.version, spec.clone()));
        true
    }
}

impl Candidate {
    fn clock(&self, start: Instant, elapsed_ms: u64) -> Instant {
        start + Duration::from_millis(elapsed_ms * self.rate / 1000)
    }

    fn progress(&mut self, server: &mut Server, timing: &Timing, now: Instant, serial: i64) {
        match self.in_flight.take() {
            None => self.in_flight = Some(Request::Read),
            Some(Request::Read) => {
                self.in_flight = Some(Request::Answer { lease: server.lease.clone() });
            }
            Some(Request::Answer { lease }) => {
                let spec = lease.as_ref().map(|(_, spec)| spec);
                self.observed = Observation::after(self.observed.take(), spec, now);
                match evaluate(spec, &self.name, now, self.observed.as_ref(), timing.lease_duration) {
                    Action::Wait(_) => self.tenure = None,
                    Action::Acquire | Action::Renew => {
                        let version = lease.as_ref().map_or(0, |(version, _)| *version);
                        let spec = held_by(&self.name, serial);
                        self.in_flight = Some(Request::Write { sent: now, version, spec, committed: None });
                    }
                }
            }
            Some(Request::Write { sent, version, spec, committed: None }) => {
                let committed = Some(server.commit(version, &spec));
                self.in_flight = Some(Request::Write { sent, version, spec, committed });
            }
            Some(Request::Write { sent, committed: Some(true), .. }) => {
                self.tenure = Some(Tenure::from_request(sent, timing.renew_deadline));
            }
            Some(Request::Write { committed: Some(false), .. }) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(2000), ..ProptestConfig::default() })]

    /// Replies come late, get lost or never come; clocks run up to 15 % too fast or too slow; the lease is deleted by hand.
    #[test]
    fn never_two_current_claims(
        rates in prop::array::uniform3(850..1150_u64),
        events in prop::collection::vec(event(), 1..250),
    ) {
        let timing = Timing::default();
        let start = Instant::now();
        let mut elapsed = 0;
        let mut server = Server { lease: None, version: 0 };
        let mut candidates = rates.map(|rate| Candidate {
            name: format!("candidate-{rate}"), rate, observed: None, tenure: None, in_flight: None,
        });
        for (index, candidate) in candidates.iter_mut().enumerate() {
            candidate.name = format!("candidate-{index}");
        }
        let deletable = |candidates: &[Candidate; 3]| {
            // A deleted lease leaves no trace for those who never saw it held: one who starts then cannot know. The model
            // deletes only what everybody has seen (see `evaluate`).
            candidates.iter().all(|candidate| candidate.observed.is_some() && candidate.in_flight.is_none())
        };
        for (serial, (advance, event)) in events.into_iter().enumerate() {
            elapsed += advance;
            match event {
                Event::Progress(index) => {
                    let now = candidates[index].clock(start, elapsed);
                    candidates[index].progress(&mut server, &timing, now, i64::try_from(serial).unwrap());
                }
                Event::Lose(index) => candidates[index].in_flight = None,
                Event::Delete if deletable(&candidates) => {
                    // Everybody has just seen the newest sign of life, as those who poll every second have.
                    for candidate in &mut candidates {
                        let now = candidate.clock(start, elapsed);
                        let spec = server.lease.as_ref().map(|(_, spec)| spec);
                        candidate.observed = Observation::after(candidate.observed.take(), spec, now);
                    }
                    server.lease = None;
                }
                Event::Delete => {}
            }
            let current: Vec<_> = candidates
                .iter()
                .filter(|candidate| {
                    candidate.tenure.is_some_and(|tenure| tenure.is_current(candidate.clock(start, elapsed)))
                })
                .map(|candidate| candidate.name.clone())
                .collect();
            prop_assert!(current.len() <= 1, "two lead at once: {current:?}");
        }
    }
}

// ===== The driver =====

#[derive(Clone, Default)]
struct FakeServer {
    inner: Arc<Mutex<FakeState>>,
}

#[derive(Default)]
struct FakeState {
    lease: Option<Lease>,
    version: u64,
    mute: bool,
    /// Writes are done and not answered.
    swallow_answers: bool,
    writes: u64,
}

impl FakeServer {
    fn set(&self, change: impl FnOnce(&mut FakeState)) {
        change(&mut self.inner.lock().unwrap());
    }

    fn holder(&self) -> Option<String> {
        let state = self.inner.lock().unwrap();
        state.lease.as_ref()?.spec.as_ref()?.holder_identity.clone()
    }

    fn candidate(&self, name: &str) -> (Elector<Self>, Claim) {
        Elector::new(self.clone(), name.to_owned(), Timing::default())
    }
}

impl LeaseStore for FakeServer {
    async fn read(&self) -> Result<Option<Lease>, StoreError> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if self.inner.lock().unwrap().mute {
            std::future::pending::<()>().await;
        }
        Ok(self.inner.lock().unwrap().lease.clone())
    }

    async fn write(&self, lease: &Lease) -> Result<Lease, StoreError> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if self.inner.lock().unwrap().mute {
            std::future::pending::<()>().await;
        }
        let (written, answered) = {
            let mut state = self.inner.lock().unwrap();
            let current = state.lease.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
            if current != lease.metadata.resource_version {
                return Err(StoreError::Conflict);
            }
            state.version += 1;
            state.writes += 1;
            let mut written = lease.clone();
            written.metadata.resource_version = Some(state.version.to_string());
            state.lease = Some(written.clone());
            (written, !state.swallow_answers)
        };
        if !answered {
            std::future::pending::<()>().await;
        }
        Ok(written)
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_leads_and_renews_and_the_second_waits() {
    let server = FakeServer::default();
    let ((first, mut claim), (second, other)) = (server.candidate("a"), server.candidate("b"));
    let stop = CancellationToken::new();
    let first = tokio::spawn(first.run(stop.clone()));
    claim.acquired().await.unwrap();
    let second = tokio::spawn(second.run(stop.clone()));
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(claim.check(), Ok(()));
        assert_eq!(other.check(), Err(LeadershipLost::NotHeld));
    }
    let writes = server.inner.lock().unwrap().writes;
    assert!((28..=32).contains(&writes), "{writes} writes in a minute");
    let spec = server.inner.lock().unwrap().lease.clone().unwrap().spec.unwrap();
    assert_eq!((spec.lease_transitions, spec.lease_duration_seconds), (Some(1), Some(15)));
    stop.cancel();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lease_given_back_is_taken_within_two_seconds() {
    let server = FakeServer::default();
    let ((first, mut claim), (second, mut other)) = (server.candidate("a"), server.candidate("b"));
    let stop = CancellationToken::new();
    let first = tokio::spawn(first.run(stop.clone()));
    claim.acquired().await.unwrap();
    let second = tokio::spawn(second.run(CancellationToken::new()));
    tokio::time::sleep(Duration::from_secs(20)).await;
    let before = Instant::now();
    stop.cancel();
    other.acquired().await.unwrap();
    let gap = before.elapsed();
    assert!(gap < Duration::from_secs(2), "{gap:?}");
    assert_eq!(claim.check(), Err(LeadershipLost::NotHeld));
    first.await.unwrap().unwrap();
    assert_eq!(server.holder().as_deref(), Some("b"));
    second.abort();
}

#[tokio::test(start_paused = true)]
async fn a_leader_cut_off_loses_its_claim_before_anybody_else_may_lead() {
    let server = FakeServer::default();
    let (first, mut claim) = server.candidate("a");
    let first = tokio::spawn(first.run(CancellationToken::new()));
    claim.acquired().await.unwrap();
    let cut = Instant::now();
    server.set(|state| state.mute = true);
    let lost = first.await.unwrap().unwrap_err();
    assert_eq!(lost, LeadershipLost::Expired);
    let after = cut.elapsed();
    assert!(after <= Timing::default().renew_deadline, "noticed after {after:?}");
    assert!(!claim.is_current(Instant::now()));

    server.set(|state| state.mute = false);
    let (second, mut other) = server.candidate("b");
    let second = tokio::spawn(second.run(CancellationToken::new()));
    other.acquired().await.unwrap();
    assert!(cut.elapsed() >= Timing::default().lease_duration);
    second.abort();
}

#[tokio::test(start_paused = true)]
async fn a_claim_runs_out_even_when_the_elector_stands_still() {
    let server = FakeServer::default();
    let (mut elector, claim) = server.candidate("a");
    elector.round().await.unwrap();
    assert_eq!(claim.check(), Ok(()));
    assert_eq!(claim.check_lasting(Duration::from_secs(5)), Ok(()));
    // What takes its time is not begun late.
    tokio::time::advance(Duration::from_secs(6)).await;
    assert_eq!(claim.check(), Ok(()));
    assert_eq!(claim.check_lasting(Duration::from_secs(5)), Err(LeadershipLost::Expired));
    tokio::time::advance(Duration::from_secs(4)).await;
    assert_eq!(claim.check(), Err(LeadershipLost::Expired));
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_answer_was_lost_is_found_and_used() {
    let server = FakeServer::default();
    server.set(|state| state.swallow_answers = true);
    let (elector, mut claim) = server.candidate("a");
    let running = tokio::spawn(elector.run(CancellationToken::new()));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(server.holder().as_deref(), Some("a"));
    assert_eq!(claim.check(), Err(LeadershipLost::NotHeld));
    server.set(|state| state.swallow_answers = false);
    claim.acquired().await.unwrap();
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_finds_another_name_stops() {
    let server = FakeServer::default();
    let (elector, mut claim) = server.candidate("a");
    let running = tokio::spawn(elector.run(CancellationToken::new()));
    claim.acquired().await.unwrap();
    server.set(|state| {
        state.version += 1;
        let version = state.version.to_string();
        let lease = state.lease.as_mut().unwrap();
        lease.metadata.resource_version = Some(version);
        lease.spec = Some(held_by("usurper", 1));
    });
    assert_eq!(running.await.unwrap(), Err(LeadershipLost::TakenBy("usurper".to_owned())));
    assert!(claim.check().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_stop_during_the_very_first_write_leaves_the_lease_free() {
    let server = FakeServer::default();
    server.set(|state| state.swallow_answers = true);
    let (elector, _claim) = server.candidate("a");
    let stop = CancellationToken::new();
    let running = tokio::spawn(elector.run(stop.clone()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(server.holder().as_deref(), Some("a"));
    server.set(|state| state.swallow_answers = false);
    stop.cancel();
    running.await.unwrap().unwrap();
    assert_eq!(server.holder(), None);
}
