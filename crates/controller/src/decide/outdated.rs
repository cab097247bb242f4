//! Which gateways are not as the spec has them, or too old, and from when on they may be replaced.
//!
//! What a person asked for is due at once. What comes by itself is spread, so that an upgrade of the controller or a birthday replaces
//! neither all gateways of a cluster nor those of all clusters in the same minutes: user data over [`Limits::user_data_spread`], by
//! EgressGateway; age over the last tenth of the greatest age, by Droplet.
//!
//! What is not known of a gateway is no reason.
//!
//! [`Limits::user_data_spread`]: crate::decision::Limits::user_data_spread

use std::time::Duration;

use egress_api::{EgressGatewayStatus, GatewayStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use sha2::{Digest, Sha256};

use super::Look;

const DAY: Duration = Duration::from_secs(86_400);

// No upgrade is followed before this part of the time over which it is spread: what is taken back at once replaces nothing.
const FIRST_PART: u32 = 24;

// The last part of the greatest age, over which Droplets that were made together are replaced.
const LAST_PART: u32 = 10;

/// Why a gateway is to be replaced though it works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outdated {
    /// A sentence.
    pub(super) reason: String,
    /// Not before this; `None` is now.
    pub(super) not_before: Option<Timestamp>,
}

impl Outdated {
    pub(super) fn is_due(&self, look: &Look<'_>) -> bool {
        self.not_before.is_none_or(|then| look.now >= then)
    }
}

/// Why this gateway is to be replaced, whatever is due first.
pub(super) fn outdated(
    look: &Look<'_>,
    status: &EgressGatewayStatus,
    gateway: &GatewayStatus,
) -> Option<Outdated> {
    // People's own are theirs to replace.
    if gateway.existing {
        return None;
    }
    let causes = [by_spec(look, gateway), by_user_data(look, status, gateway), by_age(look, gateway)];
    causes.into_iter().flatten().min_by_key(|outdated| outdated.not_before)
}

/// Writes down since when a gateway runs another version of the user data than this controller makes.
pub(super) fn note(look: &Look<'_>, status: &mut EgressGatewayStatus) {
    // Without a site nobody knows.
    let Ok(site) = &look.seen.site else { return };
    if !status.gateways.iter().any(|gateway| is_other_version(gateway, &site.user_data.version)) {
        status.user_data_outdated_since = None;
    } else if status.user_data_outdated_since.is_none() {
        status.user_data_outdated_since = Some(look.time());
    }
}

fn by_spec(look: &Look<'_>, gateway: &GatewayStatus) -> Option<Outdated> {
    let wanted = &look.seen.gateway.spec.droplet;
    let (size, image) = (gateway.size.as_ref()?, gateway.image.as_ref());
    let differs = |field: &str, is: &str, wanted: &str| Outdated {
        reason: format!("its {field} is {is}, and spec.droplet.{field} says {wanted}"),
        not_before: None,
    };
    if *size != wanted.size {
        return Some(differs("size", size, &wanted.size));
    }
    let image = image.filter(|image| **image != wanted.image)?;
    Some(differs("image", image, &wanted.image))
}

fn by_user_data(look: &Look<'_>, status: &EgressGatewayStatus, gateway: &GatewayStatus) -> Option<Outdated> {
    let site = look.seen.site.as_ref().ok()?;
    let wanted = &site.user_data.version;
    if !is_other_version(gateway, wanted) {
        return None;
    }
    let since = status.user_data_outdated_since.as_ref()?;
    let is = gateway.user_data_version.as_deref().unwrap_or_default();
    let reason = format!("it runs version {is} of the user data, and the controller makes {wanted}");
    let wait = share(look.limits.user_data_spread, FIRST_PART, &[&look.identity.owner]);
    Some(Outdated { reason, not_before: later(since, wait) })
}

fn by_age(look: &Look<'_>, gateway: &GatewayStatus) -> Option<Outdated> {
    let days = u32::try_from(look.seen.gateway.spec.droplet.max_age_days?).ok()?;
    let age = DAY * days;
    let tail = age / LAST_PART;
    let id = gateway.droplet_id.to_string();
    let lived = age.saturating_sub(tail) + part_of(tail, &[&look.identity.owner, &id]);
    let reason = format!("spec.droplet.maxAgeDays is {days}");
    Some(Outdated { reason, not_before: later(gateway.created.as_ref()?, lived) })
}

fn is_other_version(gateway: &GatewayStatus, wanted: &str) -> bool {
    gateway.user_data_version.as_deref().is_some_and(|version| version != wanted)
}

fn later(then: &Time, wait: Duration) -> Option<Timestamp> {
    // Whole seconds, as Kubernetes keeps them.
    then.0.checked_add(Duration::from_secs(wait.as_secs())).ok()
}

// A time between the first part of the whole and the whole, always the same for the same words.
fn share(whole: Duration, first_part: u32, words: &[&str]) -> Duration {
    let first = whole / first_part;
    first + part_of(whole.saturating_sub(first), words)
}

fn part_of(whole: Duration, words: &[&str]) -> Duration {
    let mut hash = Sha256::new();
    for word in words {
        hash.update((word.len() as u64).to_be_bytes());
        hash.update(word);
    }
    let hash = hash.finalize();
    let number = hash.iter().take(8).fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
    number.checked_rem(whole.as_secs()).map_or(Duration::ZERO, Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_egress_gateways_follow_an_upgrade_all_day_and_none_in_the_first_hour() {
        let waits: Vec<u64> =
            (0..1_000).map(|n| share(DAY, FIRST_PART, &[&format!("uid-{n}")]).as_secs() / 3_600).collect();
        for hour in 1..24 {
            let many = waits.iter().filter(|wait| **wait == hour).count();
            assert!((15..=80).contains(&many), "{many} in hour {hour}");
        }
        assert!(!waits.contains(&0));
        assert_eq!(share(Duration::ZERO, FIRST_PART, &["uid"]), Duration::ZERO);
    }
}
