//! This boot of the node, and how long the node routed in it before its guards were there.
//!
//! A kernel that boots holds nothing of ours. Until the agent's Pod runs and has written its first plan, packets for routed
//! destinations leave with the node's own address; how long that was is told in the metric `egress_agent_unguarded_seconds`. A new
//! node can be spared it by the startup taint (`docs/startup.md`), one that reboots cannot.
//!
//! ```text
//!            first look at the kernel: something of ours is there
//!   Unknown ──────────────────────────────────────────────────────► Closed: 0 s, an agent was here in this boot
//!      │                                                              ▲
//!      └── nothing is there ──► Open ── a plan that routes is there ──┘ the time since boot, or since the object was made
//! ```

use std::fs;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

/// The kernel's name for this boot, which the kubelet shows in `Node.status.nodeInfo.bootID`; `None` where there is no such file.
pub fn id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}

/// Time since the kernel booted; `None` where it does not say.
pub fn uptime() -> Option<Duration> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    Duration::try_from_secs_f64(text.split_whitespace().next()?.parse().ok()?).ok()
}

/// Whether this boot's first plan that routes anything is in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BootWindow {
    /// Nobody looked yet.
    #[default]
    Unknown,
    /// The kernel held nothing of ours, and holds no plan yet.
    Open,
    /// It holds one.
    Closed,
}

impl BootWindow {
    /// A look at the kernel; only the first one counts.
    pub fn look(&mut self, holds_ours: bool) {
        if *self == Self::Unknown {
            *self = if holds_ours { Self::Closed } else { Self::Open };
        }
    }

    /// The kernel took a plan. How long the node had gone without, when this is the first of this boot that routes something: since
    /// the boot `uptime` ago, or since the eldest of the routed StaticRoutes was made, if that is later. `created` are the times of
    /// these, in seconds since 1970.
    pub fn close(
        &mut self,
        created: impl Iterator<Item = i64>,
        uptime: Option<Duration>,
        now: Timestamp,
    ) -> Option<Duration> {
        if *self != Self::Open {
            return None;
        }
        let eldest = Timestamp::from_second(created.min()?).ok()?;
        *self = Self::Closed;
        // The API server's clock may be ahead of the node's.
        let age = Duration::try_from(now.duration_since(eldest)).unwrap_or_default();
        Some(uptime.map_or(age, |uptime| uptime.min(age)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_boot_has_a_name_and_a_beginning() {
        assert_eq!(id().unwrap().len(), 36);
        assert!(uptime().unwrap() > Duration::ZERO);
    }

    #[test]
    fn the_window_is_told_once_from_the_boot_or_the_eldest_object_on_and_not_after_a_restart() {
        let now = Timestamp::from_second(10_000).unwrap();
        let minute = Some(Duration::from_secs(60));
        let close = |mut window: BootWindow, created: &[i64], uptime| {
            assert_eq!(window.close([].into_iter(), uptime, now), None, "nothing is routed");
            let told = window.close(created.iter().copied(), uptime, now);
            assert_eq!(window.close(created.iter().copied(), uptime, now), None, "told once");
            told
        };
        let mut booted = BootWindow::default();
        booted.look(false);
        booted.look(true);
        assert_eq!(close(booted, &[9_000, 9_990], minute), minute, "objects older than the boot");
        assert_eq!(close(booted, &[9_980, 9_990], minute), Some(Duration::from_secs(20)), "a younger one");
        assert_eq!(close(booted, &[10_005], minute), Some(Duration::ZERO), "clocks differ");
        assert_eq!(close(booted, &[9_980], None), Some(Duration::from_secs(20)));

        let mut restarted = BootWindow::default();
        restarted.look(true);
        assert_eq!(close(restarted, &[9_000], minute), None);
        assert_eq!(close(BootWindow::default(), &[9_000], minute), None, "nobody looked");
    }
}
