//! Carries out one effect. The order of the primitive calls inside an effect is part of its safety.
//!
//! Every primitive call asks the lease first and has a deadline; both are the duty of [`Ports`]. A call that fails ends the
//! step, and the next step begins with a new look at the world.

mod reserved_ips;

use std::net::Ipv4Addr;
use std::time::Duration;

use egress_api::{EgressGatewayStatus, FirewallStatus, GatewayRole, GatewayStatus, Refused, StaticRouteSpec};
use egress_digitalocean::{DropletId, FirewallId, FirewallSpec};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::decision::{Admission, Decision, Effect, Order};
use crate::firewall::OwnedFirewall;
use crate::identity::{OwnTag, OwnedDroplet};
use crate::reserved_ip::{OwnedIp, ReleasableIp};

/// Why a create gave no id.
#[derive(Debug)]
pub enum CreateFailure<E> {
    /// The cloud said no: nothing was made. Its own words.
    Refused(String),
    /// It may have happened, or was never sent; only looking can tell.
    Unknown(E),
}

/// Why nothing came of a call that nothing waits for.
#[derive(Debug)]
pub enum CallFailure<E> {
    /// The cloud said no, or did not answer to what may be repeated. Told and asked again, and nothing waits for it.
    Refused {
        /// Its own words, with the way out where there is one.
        words: String,
        /// How long it is left alone.
        pause: Duration,
    },
    /// It may have happened, or may not be tried any more.
    Unknown(E),
}

/// How an effect ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done, or asked for and accepted.
    Done,
    /// The cloud said no, or made something else of it. That is written down in the status, and is nothing to tell as done.
    Refused,
}

/// What an effect needs of the world. One call changes one thing.
pub trait Ports: Sync {
    /// Why a call failed.
    type Error: Send;

    /// Adds the finalizer to the object as it was read.
    fn add_finalizer(&self) -> impl Future<Output = Result<(), Self::Error>> + Send;
    /// Removes it.
    fn remove_finalizer(&self) -> impl Future<Output = Result<(), Self::Error>> + Send;
    /// Replaces the status, on condition that nobody has changed the object since it was read.
    fn write_status(
        &self,
        status: &EgressGatewayStatus,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
    /// Applies our StaticRoute.
    fn apply_route(&self, spec: &StaticRouteSpec) -> impl Future<Output = Result<(), Self::Error>> + Send;
    /// Deletes our StaticRoute if it still has this uid.
    fn delete_route(&self, uid: &str) -> impl Future<Output = Result<(), Self::Error>> + Send;
    /// Sends one create.
    fn create(
        &self,
        order: &Order,
    ) -> impl Future<Output = Result<DropletId, CreateFailure<Self::Error>>> + Send;
    /// Powers on.
    fn power_on(&self, droplet: &OwnedDroplet) -> impl Future<Output = Result<(), Self::Error>> + Send;
    /// Power-cycles. What may have been done is done: it must not be asked for again.
    fn power_cycle(&self, droplet: &OwnedDroplet) -> impl Future<Output = Result<(), Self::Error>> + Send;
    /// Deletes by id.
    fn delete(
        &self,
        droplet: &OwnedDroplet,
    ) -> impl Future<Output = Result<(), CallFailure<Self::Error>>> + Send;
    /// Takes a tag off.
    fn untag(&self, tag: &OwnTag) -> impl Future<Output = Result<(), Self::Error>> + Send;
    /// Sends one create.
    fn create_firewall(
        &self,
        wanted: &FirewallSpec,
    ) -> impl Future<Output = Result<FirewallId, CallFailure<Self::Error>>> + Send;
    /// Makes a firewall what is said; whether the cloud then shows it so.
    fn update_firewall(
        &self,
        firewall: &OwnedFirewall,
        wanted: &FirewallSpec,
    ) -> impl Future<Output = Result<bool, CallFailure<Self::Error>>> + Send;
    /// Deletes by id.
    fn delete_firewall(
        &self,
        firewall: &OwnedFirewall,
    ) -> impl Future<Output = Result<(), CallFailure<Self::Error>>> + Send;
    /// Puts a Droplet into a project.
    fn assign(
        &self,
        droplet: &OwnedDroplet,
        project: &str,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
    /// Reserves an address for a Droplet, to which the cloud begins to assign it.
    fn reserve_ip(
        &self,
        droplet: &OwnedDroplet,
    ) -> impl Future<Output = Result<Ipv4Addr, CallFailure<Self::Error>>> + Send;
    /// Puts the tag on a Droplet that says whose this address is.
    fn mark_ip(
        &self,
        droplet: &OwnedDroplet,
        ip: Ipv4Addr,
    ) -> impl Future<Output = Result<(), CallFailure<Self::Error>>> + Send;
    /// Begins to assign an address.
    fn assign_ip(
        &self,
        ip: &OwnedIp,
        droplet: &OwnedDroplet,
    ) -> impl Future<Output = Result<(), CallFailure<Self::Error>>> + Send;
    /// Gives an address back.
    fn release_ip(
        &self,
        ip: &ReleasableIp,
    ) -> impl Future<Output = Result<(), CallFailure<Self::Error>>> + Send;
    /// Sends the list. One that the gateway does not take is no error: the next look shows it.
    fn admit(&self, admission: &Admission) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Carries out the decision's effect, if it has one. `now` is the time of the decision.
pub async fn perform<P: Ports>(decision: &Decision, ports: &P, now: Timestamp) -> Result<Outcome, P::Error> {
    let status = &decision.status;
    let done = match &decision.effect {
        None => Ok(()),
        Some(Effect::AddFinalizer) => ports.add_finalizer().await,
        Some(Effect::WriteStatus) => ports.write_status(status).await,
        Some(Effect::CreateDroplet(order)) => return create(order, status.clone(), ports, now).await,
        Some(Effect::ApplyStaticRoute(spec)) => ports.apply_route(spec).await,
        Some(Effect::DeleteStaticRoute { uid }) => ports.delete_route(uid).await,
        Some(Effect::PowerCycle(droplet)) => power_cycle(droplet, status.clone(), ports, now).await,
        Some(Effect::PowerOn(droplet)) => power_on(droplet, status.clone(), ports, now).await,
        Some(Effect::DeleteDroplet(droplet)) => return delete(droplet, status.clone(), ports, now).await,
        Some(Effect::Untag(tag)) => ports.untag(tag).await,
        Some(Effect::CreateFirewall(wanted)) => {
            return create_firewall(wanted, status.clone(), ports, now).await;
        }
        Some(Effect::UpdateFirewall(firewall, wanted)) => {
            let done = ports.update_firewall(firewall, wanted).await;
            let done = done.and_then(|as_asked| as_asked.then_some(()).ok_or_else(made_otherwise));
            let rest = firewall.has_failed().then_some(LONGEST_REST);
            return note(done, rest, status.clone(), ports, now).await;
        }
        Some(Effect::DeleteFirewall(firewall)) => {
            return note(ports.delete_firewall(firewall).await, None, status.clone(), ports, now).await;
        }
        Some(Effect::ReserveIp(droplet)) => {
            return reserved_ips::reserve(droplet, status.clone(), ports, now).await;
        }
        Some(Effect::MarkIp(droplet, ip)) => {
            return reserved_ips::mark(droplet, *ip, status.clone(), ports, now).await;
        }
        Some(Effect::AssignIp(ip, droplet)) => {
            return reserved_ips::assign(ip, droplet, status.clone(), ports, now).await;
        }
        Some(Effect::ReleaseIp(ip)) => {
            return reserved_ips::release(ip, status.clone(), ports, now).await;
        }
        Some(Effect::AdmitPeers(admission)) => ports.admit(admission).await,
        Some(Effect::AssignToProject(droplet, project)) => {
            assign(droplet, project, status.clone(), ports).await
        }
        Some(Effect::RemoveFinalizer) => ports.remove_finalizer().await,
    };
    done.map(|()| Outcome::Done)
}

// Marked as sent, sent once, recorded. Whatever is lost on the way is found by name and tag during the settle time.
async fn create<P: Ports>(
    order: &Order,
    mut status: EgressGatewayStatus,
    ports: &P,
    now: Timestamp,
) -> Result<Outcome, P::Error> {
    let at = whole_second(now);
    for intent in status.creating.iter_mut().filter(|intent| intent.name == order.name) {
        intent.sent = Some(at.clone());
        intent.message = None;
        intent.user_data_version.clone_from(&order.user_data_version);
        intent.image = Some(order.image.clone());
    }
    ports.write_status(&status).await?;
    match ports.create(order).await {
        Ok(id) => {
            status.creating.retain(|intent| intent.name != order.name);
            let id = i64::try_from(id.0).unwrap_or_default();
            status.gateways.push(GatewayStatus {
                since: Some(at.clone()),
                user_data_version: Some(order.user_data_version.clone()),
                size: Some(order.size.clone()),
                image: Some(order.image.clone()),
                created: Some(at),
                ..GatewayStatus::new(order.name.clone(), order.slot, id, GatewayRole::Starting)
            });
            ports.write_status(&status).await.map(|()| Outcome::Done)
        }
        Err(CreateFailure::Refused(words)) => {
            for intent in status.creating.iter_mut().filter(|intent| intent.name == order.name) {
                intent.sent = None;
                intent.since = at.clone();
                intent.message = Some(words.clone());
            }
            ports.write_status(&status).await.map(|()| Outcome::Refused)
        }
        Err(CreateFailure::Unknown(error)) => Err(error),
    }
}

// Power-on is harmless when repeated, so it is recorded afterwards, and only when the cloud took it.
async fn power_on<P: Ports>(
    droplet: &OwnedDroplet,
    mut status: EgressGatewayStatus,
    ports: &P,
    now: Timestamp,
) -> Result<(), P::Error> {
    ports.power_on(droplet).await?;
    let id = i64::try_from(droplet.id().0).unwrap_or_default();
    for gateway in status.gateways.iter_mut().filter(|gateway| gateway.droplet_id == id) {
        gateway.powered_on = Some(whole_second(now));
    }
    ports.write_status(&status).await
}

// The status as it is comes first: it is refused if anything has happened since it was read, as when a leader slept and the
// gateway is up again. That the cloud took the request is recorded, so that it is not sent again.
async fn power_cycle<P: Ports>(
    droplet: &OwnedDroplet,
    mut status: EgressGatewayStatus,
    ports: &P,
    now: Timestamp,
) -> Result<(), P::Error> {
    ports.write_status(&status).await?;
    ports.power_cycle(droplet).await?;
    let id = i64::try_from(droplet.id().0).unwrap_or_default();
    for gateway in status.gateways.iter_mut().filter(|gateway| gateway.droplet_id == id) {
        gateway.power_cycle_accepted = Some(whole_second(now));
    }
    ports.write_status(&status).await
}

// Harmless when repeated, so it is recorded afterwards.
async fn assign<P: Ports>(
    droplet: &OwnedDroplet,
    project: &str,
    mut status: EgressGatewayStatus,
    ports: &P,
) -> Result<(), P::Error> {
    ports.assign(droplet, project).await?;
    let id = i64::try_from(droplet.id().0).unwrap_or_default();
    for gateway in status.gateways.iter_mut().filter(|gateway| gateway.droplet_id == id) {
        gateway.project_id = Some(project.to_owned());
    }
    ports.write_status(&status).await
}

// What the token may not do a person must, and is told. Everything else goes on.
async fn delete<P: Ports>(
    droplet: &OwnedDroplet,
    mut status: EgressGatewayStatus,
    ports: &P,
    now: Timestamp,
) -> Result<Outcome, P::Error> {
    match ports.delete(droplet).await {
        Ok(()) => Ok(Outcome::Done),
        Err(CallFailure::Unknown(error)) => Err(error),
        Err(CallFailure::Refused { words, pause }) => {
            let id = i64::try_from(droplet.id().0).unwrap_or_default();
            for gateway in status.gateways.iter_mut().filter(|gateway| gateway.droplet_id == id) {
                let before = gateway.delete_refused.as_ref();
                let since = before.map_or_else(|| whole_second(now), |before| before.since.clone());
                let not_before = whole_second(now + pause);
                gateway.delete_refused = Some(Refused { message: words.clone(), since, not_before });
            }
            ports.write_status(&status).await.map(|()| Outcome::Refused)
        }
    }
}

// As a Droplet: marked as sent, sent once, recorded.
async fn create_firewall<P: Ports>(
    wanted: &FirewallSpec,
    mut status: EgressGatewayStatus,
    ports: &P,
    now: Timestamp,
) -> Result<Outcome, P::Error> {
    let Some(recorded) = &mut status.firewall else { return Ok(Outcome::Done) };
    *recorded =
        FirewallStatus { sent: Some(whole_second(now)), message: None, not_before: None, ..recorded.clone() };
    ports.write_status(&status).await?;
    let made = ports.create_firewall(wanted).await;
    if !matches!(made, Err(CallFailure::Unknown(_)))
        && let Some(recorded) = &mut status.firewall
    {
        recorded.sent = None;
        recorded.id = made.as_ref().ok().map(|id| id.as_str().to_owned());
        if made.is_ok() {
            recorded.refused_since = None;
        }
    }
    match made {
        Ok(_) => ports.write_status(&status).await.map(|()| Outcome::Done),
        Err(failure) => note(Err(failure), None, status, ports, now).await,
    }
}

// A refusal is written down with the time until which it rests; what went well takes it away, and rests only if that is said.
async fn note<P: Ports>(
    outcome: Result<(), CallFailure<P::Error>>,
    rest: Option<Duration>,
    mut status: EgressGatewayStatus,
    ports: &P,
    now: Timestamp,
) -> Result<Outcome, P::Error> {
    let Some(recorded) = &mut status.firewall else { return Ok(Outcome::Done) };
    let before = recorded.clone();
    let ended = match outcome {
        Ok(()) => {
            recorded.message = None;
            recorded.refused_since = None;
            recorded.not_before = rest.map(|rest| whole_second(now + rest));
            Outcome::Done
        }
        Err(CallFailure::Refused { words, pause }) => {
            // As long again as it has been refused: each pause is twice the last one.
            let since = recorded.refused_since.get_or_insert_with(|| whole_second(now));
            let refused_for = Duration::try_from(now.duration_since(since.0)).unwrap_or_default();
            recorded.message = Some(words);
            recorded.not_before = Some(whole_second(now + pause.max(refused_for.min(LONGEST_REST))));
            Outcome::Refused
        }
        Err(CallFailure::Unknown(error)) => return Err(error),
    };
    if *recorded == before {
        return Ok(ended);
    }
    ports.write_status(&status).await.map(|()| ended)
}

// Asked for again at once it would be asked for without end.
fn made_otherwise<E>() -> CallFailure<E> {
    let words = "the cloud took what was asked for and shows something else".to_owned();
    CallFailure::Refused { words, pause: LONGEST_REST }
}

/// How long a request rests at most that was refused and that nothing waits for.
pub(crate) const LONGEST_REST: Duration = Duration::from_secs(300);

fn whole_second(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}
