//! What the loop writes to the kernel.

use std::sync::Arc;

use egress_routing::kernel_state::{Change, KernelState};
use egress_routing::{Sequence, changes};

use super::Reconciler;
use crate::drift::Tally;

/// How often an uninstall looks whether everything is gone; the last look only tells.
const REMOVALS: usize = 4;

impl Reconciler {
    /// Takes everything of ours out of the kernel.
    pub async fn remove_everything(&mut self) {
        self.probes.reconcile(Vec::new());
        for _ in 0..REMOVALS {
            match self.with.kernel.snapshot(self.claim()).await {
                Ok(observed) => self.observed = observed,
                Err(error) => tracing::warn!(%error, "removing what was last known"),
            }
            let list = changes(&self.observed, &KernelState::default());
            if list.is_empty() {
                tracing::info!("uninstalled: nothing of ours is in the kernel");
                return;
            }
            tracing::info!(removing = list.len(), "being uninstalled");
            self.apply(list).await;
        }
        tracing::error!("uninstalled, and not everything of ours could be taken out of the kernel");
    }

    /// Writes changes and takes note of what came of each. False: not all of them are known to be in the kernel.
    pub(super) async fn apply(&mut self, list: Vec<Change>) -> bool {
        self.written = Tally::default();
        let mut is_taken = true;
        let mut sequence = Sequence::new(list, self.layout.table);
        while let Some(batch) = sequence.next_batch() {
            for change in self.send(batch).await {
                is_taken = false;
                sequence.miss(&change);
            }
        }
        for change in sequence.withheld() {
            self.refused.note(
                change,
                &self.plan.state,
                &"the kernel did not take what has to be in force before it",
            );
        }
        is_taken && sequence.withheld().is_empty()
    }

    /// The changes that the kernel did not take.
    pub(super) async fn send(&mut self, list: Vec<Change>) -> Vec<Change> {
        let mut untaken = Vec::new();
        let list = Arc::new(list);
        let outcomes = self.with.kernel.apply(Arc::clone(&list)).await;
        for (change, outcome) in list.iter().zip(outcomes) {
            match outcome {
                Ok(_) => {
                    self.with.metrics.kernel_changes.inc();
                    self.written.add(change);
                    self.observed.record(change);
                    self.refused.settle(change);
                }
                Err(error) => {
                    untaken.push(change.clone());
                    self.with.metrics.netlink_errors.inc();
                    tracing::warn!(?change, %error, "the kernel did not take a change");
                    self.refused.note(change, &self.plan.state, &error);
                }
            }
        }
        untaken
    }
}
