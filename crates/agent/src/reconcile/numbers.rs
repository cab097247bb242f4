//! Moves what is in the kernel to other numbers, once all of it is known.
//!
//! An agent that was given other tables, priorities, ports or nexthop ids goes on with those that it finds, like any agent after a
//! restart: what keeps routes while the API server is away, while a StaticRoute can't be read or after its definition was deleted
//! looks for them there. When nothing of that is the case it plans with its own numbers, and the difference is the move. When
//! something of that comes up before the move is made, the agent goes back to the numbers that it finds, and waits again.

use egress_routing::Layout;
use egress_routing::kernel_state::Observed;

use super::Reconciler;
use crate::concerns::Concern;

/// The agent does not use the numbers that it was given yet.
pub const FORMER_NUMBERS: &str = "FormerNumbers";

/// Whether the numbers in use are those that the agent was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Numbers {
    /// The kernel was not read yet.
    Unread,
    /// Others are in the kernel.
    Former,
    /// They are, and the kernel does not have everything there yet.
    Moving,
    /// They are.
    Given,
}

impl Reconciler {
    /// Reads what is ours, and what others have at our places; the first time also where these are.
    pub(super) async fn snapshot(&mut self) -> Result<Observed, egress_netlink::Error> {
        let observed = self.with.kernel.snapshot(self.claim()).await?;
        if self.numbers != Numbers::Unread {
            return Ok(observed);
        }
        self.go_on_with(Layout::in_kernel(&observed, &self.with.layout));
        if self.numbers == Numbers::Given {
            return Ok(observed);
        }
        tracing::info!(found = %self.layout, "the kernel's routes are at other numbers");
        self.with.kernel.snapshot(self.claim()).await
    }

    fn go_on_with(&mut self, found: Layout) {
        self.numbers = if found == self.with.layout { Numbers::Given } else { Numbers::Former };
        self.layout = found;
    }

    /// Before a plan is made: something may have come up since the move was decided, and what is planned by looking at the kernel
    /// would not be found at the new numbers.
    pub(super) async fn turn_back(&mut self) -> Result<(), egress_netlink::Error> {
        let Some(obstacle) = self.obstacle().filter(|_| self.numbers == Numbers::Moving) else {
            return Ok(());
        };
        self.go_on_with(Layout::in_kernel(&self.observed, &self.with.layout));
        tracing::info!(found = %self.layout, "not moving to the given numbers until {obstacle}");
        self.observed = self.with.kernel.snapshot(self.claim()).await?;
        Ok(())
    }

    /// After a pass that left the whole plan in the kernel.
    pub(super) fn move_numbers(&mut self) {
        match self.numbers {
            Numbers::Former if self.obstacle().is_none() => {
                tracing::info!(from = %self.layout, to = %self.with.layout, "moving to the given numbers");
                self.layout = self.with.layout.clone();
                self.numbers = Numbers::Moving;
                self.with.changed.notify_one();
            }
            Numbers::Moving => {
                self.numbers = Numbers::Given;
                // What was told of the old numbers is over.
                self.publish();
            }
            Numbers::Unread | Numbers::Former | Numbers::Given => {}
        }
    }

    /// That the given numbers are not in use, and what they wait for.
    pub(super) fn not_moved(&self) -> Option<Concern> {
        let obstacle = self.obstacle().filter(|_| self.numbers == Numbers::Former)?;
        let message = format!(
            "The agent goes on with the numbers that it found ({}), and moves to those that it was given when {obstacle}",
            self.layout
        );
        Some(Concern { type_: FORMER_NUMBERS, reason: "Waiting", message })
    }

    /// What must be the case before anything may be planned that finds nothing in the kernel. (The gateways of a StaticRoute whose
    /// EgressGateway is missing are found at any numbers.)
    fn obstacle(&self) -> Option<&'static str> {
        let view = self.view.as_ref();
        if self.objects.may_hold_unknown_routes() {
            Some("every StaticRoute can be read")
        } else if !self.searched || !self.departed.is_empty() {
            Some("no StaticRoute is orphaned")
        } else if view.is_none_or(|view| view.uncertain.is_some()) {
            Some("it is known where the API server is")
        } else if !view.and_then(|view| view.vpc.as_ref()).is_some_and(|vpc| vpc.up) {
            Some("the link in the VPC is up")
        } else {
            None
        }
    }
}
