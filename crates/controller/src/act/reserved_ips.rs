//! Effects on reserved addresses.

use std::net::Ipv4Addr;
use std::time::Duration;

use egress_api::{Assigning, EgressGatewayStatus, Refused, ReservedIpStatus};
use jiff::Timestamp;

use super::{CallFailure, LONGEST_REST, Outcome, Ports, whole_second};
use crate::identity::OwnedDroplet;
use crate::reserved_ip::{OwnedIp, ReleasableIp, address};

/// Marked as sent, sent once, recorded: the API has no idempotency key. What is lost on the way is found at the Droplet.
pub(super) async fn reserve<P: Ports>(
    droplet: &OwnedDroplet,
    mut status: EgressGatewayStatus,
    ports: &P,
    now: Timestamp,
) -> Result<Outcome, P::Error> {
    let Some(reserving) = &mut status.reserving_ip else { return Ok(Outcome::Done) };
    let before = reserving.sent.replace(whole_second(now));
    ports.write_status(&status).await?;
    let made = ports.reserve_ip(droplet).await;
    let Some(reserving) = status.reserving_ip.as_mut() else { return Ok(Outcome::Done) };
    let outcome = match made {
        Ok(ip) => {
            let since = whole_second(now);
            let assigning = Assigning { droplet_id: reserving.droplet_id, since: since.clone() };
            status.reserving_ip = None;
            status.reserved_ips.push(ReservedIpStatus {
                ip: ip.to_string(),
                given: false,
                droplet_id: None,
                since,
                assigning: Some(assigning),
                refused: None,
            });
            Outcome::Done
        }
        Err(CallFailure::Refused { words, pause }) => {
            // An earlier one without an answer may still come to light.
            reserving.sent = before;
            reserving.refused = Some(refusal(reserving.refused.as_ref(), words, pause, now));
            Outcome::Refused
        }
        Err(CallFailure::Unknown(error)) => return Err(error),
    };
    ports.write_status(&status).await.map(|()| outcome)
}

/// Repeated, it changes nothing, and the Droplet itself shows that it was done.
pub(super) async fn mark<P: Ports>(
    droplet: &OwnedDroplet,
    ip: Ipv4Addr,
    status: EgressGatewayStatus,
    ports: &P,
    now: Timestamp,
) -> Result<Outcome, P::Error> {
    match ports.mark_ip(droplet, ip).await {
        Ok(()) => Ok(Outcome::Done),
        Err(failure) => note(failure, ip, status, ports, now).await,
    }
}

/// Repeated, it does no harm; that the cloud said yes is recorded, so that it is given time.
pub(super) async fn assign<P: Ports>(
    ip: &OwnedIp,
    droplet: &OwnedDroplet,
    mut status: EgressGatewayStatus,
    ports: &P,
    now: Timestamp,
) -> Result<Outcome, P::Error> {
    if let Err(failure) = ports.assign_ip(ip, droplet).await {
        return note(failure, ip.ip(), status, ports, now).await;
    }
    let droplet_id = i64::try_from(droplet.id().0).unwrap_or_default();
    for recorded in status.reserved_ips.iter_mut().filter(|recorded| address(recorded) == Some(ip.ip())) {
        recorded.assigning = Some(Assigning { droplet_id, since: whole_second(now) });
    }
    ports.write_status(&status).await.map(|()| Outcome::Done)
}

/// What is given back is forgotten at once.
pub(super) async fn release<P: Ports>(
    ip: &ReleasableIp,
    mut status: EgressGatewayStatus,
    ports: &P,
    now: Timestamp,
) -> Result<Outcome, P::Error> {
    if let Err(failure) = ports.release_ip(ip).await {
        return note(failure, ip.ip(), status, ports, now).await;
    }
    status.reserved_ips.retain(|recorded| address(recorded) != Some(ip.ip()));
    ports.write_status(&status).await.map(|()| Outcome::Done)
}

async fn note<P: Ports>(
    failure: CallFailure<P::Error>,
    ip: Ipv4Addr,
    mut status: EgressGatewayStatus,
    ports: &P,
    now: Timestamp,
) -> Result<Outcome, P::Error> {
    let (words, pause) = match failure {
        CallFailure::Refused { words, pause } => (words, pause),
        CallFailure::Unknown(error) => return Err(error),
    };
    for recorded in status.reserved_ips.iter_mut().filter(|recorded| address(recorded) == Some(ip)) {
        recorded.refused = Some(refusal(recorded.refused.as_ref(), words.clone(), pause, now));
    }
    ports.write_status(&status).await.map(|()| Outcome::Refused)
}

// As long again as it has been refused: each pause is twice the last one.
fn refusal(before: Option<&Refused>, message: String, pause: Duration, now: Timestamp) -> Refused {
    let since = before.map_or_else(|| whole_second(now), |before| before.since.clone());
    let refused_for = Duration::try_from(now.duration_since(since.0)).unwrap_or_default();
    let not_before = whole_second(now + pause.max(refused_for.min(LONGEST_REST)));
    Refused { message, since, not_before }
}
