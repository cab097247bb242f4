//! What a gateway loses, over windows of time: the verdict on loss, and when it is taken back.

use std::time::Duration;

use super::Watched;
use crate::detector::Outcome;
use crate::loss::Share;
use crate::tick::Tick;
use crate::watch::Level;

/// Windows of the loss detectors, fast and slow. Besides the share that is lost, so many probes must have been lost that chance does
/// not do it at a true 10 %: of eleven probes through a gateway in six seconds (two levels, about one a second each) seven, of about
/// fifty-five in thirty seconds sixteen: about once in 44,000 windows, and in 15,000. Misses are asked again at once, so that at 60 % loss there are
/// twenty probes and more in six seconds. The VPC is asked ten times a second.
pub(in crate::watch) const FAST: Window =
    Window { span: Duration::from_secs(6), lost: 7, clean: 6, lost_in_vpc: 20, clean_in_vpc: 30 };
pub(in crate::watch) const SLOW: Window =
    Window { span: Duration::from_secs(30), lost: 16, clean: 30, lost_in_vpc: 50, clean_in_vpc: 150 };
/// Whoever lost packets is forgiven when of so many probes since then, through it and in the VPC, hardly any was lost. At a true 25 % that
/// happens by chance in one of forty such times, and the time on trial asks again.
const FORGIVEN: (u32, u32) = (20, 50);
/// In clusters that are so large that so many probes take longer, this must do.
const FORGIVEN_AFTER: u64 = 20;

/// Where probes are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::watch) enum Lossy {
    Vpc,
    Path,
}

#[derive(Debug, Clone, Copy)]
pub(in crate::watch) struct Window {
    pub(in crate::watch) span: Duration,
    /// The fewest lost probes that condemn, and the fewest probes that clear, on the way through.
    lost: u32,
    clean: u32,
    /// The same in the VPC.
    lost_in_vpc: u32,
    clean_in_vpc: u32,
}

impl<G, W: Copy + Ord> Watched<G, W> {
    /// Whether the way through it is probed, by somebody who answers.
    pub(super) fn is_probed(&self) -> bool {
        self.is_asked(Level::Forwarding) && self.has_answered(Level::Forwarding)
    }

    /// Takes a verdict on loss.
    pub(in crate::watch) fn convict_of_loss(&mut self, now: Tick) {
        if !self.loses {
            self.loses = true;
            self.loss.on_probe(now, Outcome::Missed);
        }
    }

    /// Since when, within the last half minute, it loses hardly any probe, if that is long enough to say so.
    pub(super) fn clean_since(&self, now: Tick) -> Option<Tick> {
        let is_probed = self.is_probed();
        (1..=SLOW.span.as_secs()).rev().find_map(|seconds| {
            let begun = Tick(Duration::from_secs((now.0.as_secs() + 1).saturating_sub(seconds)));
            let vpc = self.detector(Level::Reachability).lost_since(begun);
            let path = self.path.since(begun);
            let (of_path, of_vpc) = if seconds < FORGIVEN_AFTER { FORGIVEN } else { (1, 1) };
            (vpc.is_clean(of_vpc) && (!is_probed || path.is_clean(of_path))).then_some(begun)
        })
    }

    /// What it loses, and where, if that is so many percent in that time.
    pub(in crate::watch) fn loses(&self, window: Window, percent: u32, now: Tick) -> Option<(Share, Lossy)> {
        let vpc = self.detector(Level::Reachability).lost(window.span, now);
        let path = self.path.over(window.span, now);
        let shares = [(vpc, Lossy::Vpc, window.lost_in_vpc), (path, Lossy::Path, window.lost)];
        let lossy = shares.into_iter().find(|(share, _, enough)| share.loses(percent, *enough));
        lossy.map(|(share, on, _)| (share, on))
    }

    /// Whether it loses hardly any there. Where the way through it is not probed, the VPC alone tells; and where another loses in the VPC,
    /// of few probes on the way through none must be lost: in a large cluster there are no more.
    pub(in crate::watch) fn hardly_loses(&self, window: Window, on: Lossy, now: Tick) -> bool {
        let vpc = self.detector(Level::Reachability).lost(window.span, now);
        let path = self.path.over(window.span, now);
        let is_probed = self.is_probed();
        let enough = if on == Lossy::Path { window.clean } else { 0 };
        vpc.is_clean(window.clean_in_vpc) && (!is_probed || path.is_clean(enough))
    }
}
