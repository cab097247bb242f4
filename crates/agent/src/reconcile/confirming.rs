//! Commit-confirm in the loop: looks are sent out while a change is on trial, and what they prove is acted on.
//!
//! A look runs in a task of its own, one at a time, and its outcome comes back over a channel: the loop never waits for it.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use egress_routing::confirm::Verdict;
use egress_routing::kernel_state::Rule;
use egress_routing::{Around, NodeView, Recovered, WantedRoute, Ways};
use tokio::time::Instant;

use super::{Agenda, Reconciler, SETTLE};
use crate::lifelines::{self, Looked, Whereabouts};

/// Somewhere ahead; a select needs an instant also while the answer comes over the channel.
const LATER: Duration = Duration::from_secs(60);

impl Reconciler {
    /// The objects as they are planned: what was rolled back in its last confirmed version.
    pub(super) fn routes_in_force(&self) -> &[WantedRoute] {
        self.in_force.as_deref().unwrap_or(&self.objects.routes)
    }

    /// The node as it is planned for: what was found cut off is protected.
    pub(super) fn view_in_force(&self) -> Option<Cow<'_, NodeView>> {
        self.view.as_ref().map(|view| self.confirmation.protect(view))
    }

    /// When to look at the lifelines.
    pub(super) fn next_look(&self) -> Instant {
        if self.looking { Instant::now() + LATER } else { self.epoch + self.confirmation.next_look() }
    }

    /// Sends out a look.
    pub(super) fn begin_look(&mut self) {
        let ours: BTreeSet<Rule> = self.observed.rules.iter().map(|rule| rule.get().clone()).collect();
        let around = Around::by(&ours, &self.layout);
        if self.looking {
            return;
        }
        self.looking = true;
        let slices = self.with.watches.api_servers.state();
        let surroundings = self.with.surroundings.borrow().clone();
        let whereabouts = Whereabouts {
            api_server: self.with.server.clone(),
            last_known: self.api_servers.clone(),
            endpoints: &lifelines::endpoints(slices.iter().map(AsRef::as_ref))
                | &self.with.api_server.named(&surroundings),
            resolvers: surroundings.resolvers.clone(),
        };
        let look = lifelines::look(self.confirmation.change(), whereabouts, around);
        let done = self.looks.clone();
        tokio::spawn(async move {
            // Nobody waits any more when the loop has ended.
            let _ended = done.send(look.await).await;
        });
    }

    /// Takes what a look brought, and has the next pass take back what it proved guilty.
    pub(super) fn on_look(&mut self, looked: Looked, agenda: &mut Agenda) {
        self.looking = false;
        self.api_servers = looked.api_servers;
        let Some(view) = &self.view else { return };
        let wanted = self.in_force.as_deref().unwrap_or(&self.objects.routes);
        let now = self.epoch.elapsed();
        let spared = self.confirmation.spared().len();
        match self.confirmation.on_look(&looked.look, &self.plan.routes, wanted, view, now) {
            Verdict::Open => {}
            Verdict::Confirmed => {
                tracing::info!("confirmed: the node reaches what it lives by");
                if self.confirmation.spared().len() != spared {
                    // What was only kept because nobody had looked yet goes.
                    agenda.wake(Instant::now(), SETTLE);
                }
            }
            Verdict::RolledBack { cut, objects } => {
                tracing::error!(%cut, ?objects, "rolled back: the change cut the node off");
                self.with.metrics.rollbacks.inc_by(objects.len() as u64);
                agenda.wake_at_once(Instant::now());
            }
            Verdict::Spared { cut } => {
                tracing::error!(%cut, "cut off by a route that no change is to blame for; kept off the gateways");
                agenda.wake_at_once(Instant::now());
            }
        }
    }

    /// The same for an agent that has only its kernel. True: something was taken out of what is kept.
    pub(super) fn on_held_look(&mut self, looked: Looked, held: &mut Recovered) -> bool {
        self.looking = false;
        self.api_servers = looked.api_servers;
        let now = self.epoch.elapsed();
        match self.confirmation.on_look(&looked.look, &[], &[], &NodeView::default(), now) {
            Verdict::Spared { cut } => {
                tracing::error!(%cut, "cut off by what the kernel holds; kept off the gateways");
                held.spare(*cut.address.ip(), &self.layout);
                self.confirmation.applied(self.held_ways(held), now);
                true
            }
            Verdict::Open | Verdict::Confirmed | Verdict::RolledBack { .. } => false,
        }
    }

    /// Where what is kept leads.
    pub(super) fn held_ways(&self, held: &Recovered) -> Ways {
        Ways::of(&held.state(&self.layout, |_| true), &self.layout)
    }
}
