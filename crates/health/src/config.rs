//! Thresholds of the failure detector, each with its reason.

use std::num::NonZeroU8;
use std::time::Duration;

/// Thresholds of one [`crate::Detector`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Time between the starts of two probes. 100 ms with `fall` 3, measured on Linux 6.18: a dead gateway is left 0.36 s
    /// after its death in the median and 0.41 s at most.
    pub interval: Duration,
    /// Misses in a row after which a gateway is down. 3: no isolated loss was seen to condemn anyone.
    pub fall: NonZeroU8,
    /// Answers in a row after which a gateway that was down is on trial. 2: one answer may be a stray.
    pub rise: NonZeroU8,
    /// How long a gateway must stay on trial before a node that works elsewhere returns to it. Moving costs the open
    /// connections, so it must be worth it; 10 s keeps "back in the order of the list within 30 s" with room.
    pub hold_down: Duration,
    /// The longest that `hold_down` grows to, doubling each time the gateway falls again soon.
    pub longest_hold_down: Duration,
    /// A gateway that falls before it was up for this long, or for twice its last hold-down, flaps.
    pub calm: Duration,
    /// Percent of probes lost over half a minute at which a gateway is left for one that loses hardly any; twice that, 90 at most,
    /// over six seconds. 25: TCP makes little progress beyond it, and at a true 10 % chance alone brings 18 probes to the half, or 90
    /// to the quarter, about twice in 100,000 windows.
    pub loss_percent: u8,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(100),
            fall: NonZeroU8::MIN.saturating_add(2),
            rise: NonZeroU8::MIN.saturating_add(1),
            hold_down: Duration::from_secs(10),
            longest_hold_down: Duration::from_secs(300),
            calm: Duration::from_secs(60),
            loss_percent: 25,
        }
    }
}

impl Config {
    /// Hold-down after `flaps` falls that came too soon.
    pub(crate) fn hold_down_after(&self, flaps: u32) -> Duration {
        let factor = 1_u32.checked_shl(flaps).unwrap_or(u32::MAX);
        self.hold_down.saturating_mul(factor).min(self.longest_hold_down.max(self.hold_down))
    }
}
