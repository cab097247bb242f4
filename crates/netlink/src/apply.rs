//! Brings changes into the kernel.

use egress_routing::kernel_state::{Change, NexthopId, PROTOCOL, Rule};

use crate::command::CommandSocket;
use crate::connection::BATCH;
use crate::error::{ChangeError, Error, KernelError, Refusal};
use crate::exchange::Reply;
use crate::rule::SeenRule;
use crate::wire::Request;
use crate::{nexthop, route, rule};

/// How a change came out well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The kernel changed.
    Changed,
    /// It was so already: the rule was there, or what should go was gone.
    Unchanged,
}

/// How one change came out.
pub type Applied = Result<Outcome, ChangeError>;

impl CommandSocket {
    /// Takes the changes in the order given, 128 a message, and returns one outcome for each.
    ///
    /// A change that fails stops none of the others. When the conversation breaks, the changes whose fate is not known
    /// and those not yet sent come back as [`ChangeError::Unknown`], and the next request opens a new socket.
    /// An empty list sends nothing.
    pub fn apply(&mut self, changes: &[Change]) -> Vec<Applied> {
        let mut outcomes = Vec::with_capacity(changes.len());
        let mut rest = changes;
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(next_batch(rest));
            match self.apply_batch(batch) {
                Ok(applied) => outcomes.extend(applied),
                Err(error) => {
                    tracing::warn!(%error, "applying changes broke off");
                    let unknown = ChangeError::Unknown { category: error.category() };
                    outcomes.resize(changes.len(), Err(unknown));
                    return outcomes;
                }
            }
            rest = later;
        }
        outcomes
    }

    fn apply_batch(&mut self, changes: &[Change]) -> Result<Vec<Applied>, Error> {
        let mut rules = if changes.iter().any(|change| matches!(change, Change::DeleteRule(_))) {
            self.rules()?
        } else {
            Vec::new()
        };
        let owners = self.nexthop_owners(changes)?;
        let mut requests: Vec<Request> = Vec::with_capacity(changes.len());
        let planned: Vec<Result<(), ChangeError>> = changes
            .iter()
            .map(|change| {
                requests.push(request(change, &mut rules, &owners)?);
                Ok(())
            })
            .collect();
        let mut replies = self.exchange(&requests, |_| {})?.into_iter();
        let mut outcomes = Vec::with_capacity(changes.len());
        for (change, planned) in changes.iter().zip(planned) {
            let outcome = match planned {
                Ok(()) => outcome(change, replies.next()),
                Err(error) => Err(error),
            };
            outcomes.push(match (change, outcome) {
                (Change::PutRule(rule), Err(ChangeError::Refused(error)))
                    if error.refusal == Refusal::Taken =>
                {
                    self.put_beside_narrower(rule, error)?
                }
                (_, outcome) => outcome,
            });
        }
        Ok(outcomes)
    }

    /// The kernel says that a rule is there, which may mean a narrower one: see [`rule::put`].
    ///
    /// Where one says more than our words can, it may be this very rule on a kernel that shows what ours does not know. It would
    /// not be recognized either once it is put again, and each look would bring a copy more: so the refusal stands.
    fn put_beside_narrower(&mut self, rule: &Rule, refused: KernelError) -> Result<Applied, Error> {
        let rules = self.rules()?;
        let alike = rules.iter().filter(|seen| seen.protocol == PROTOCOL && seen.rule == *rule);
        match alike.map(|seen| seen.complete).max() {
            Some(true) => return Ok(Ok(Outcome::Unchanged)),
            Some(false) => return Ok(Err(refused.into())),
            None => {}
        }
        let replies = self.exchange(&[rule::put_beside(rule)], |_| {})?;
        Ok(outcome(&Change::PutRule(rule.clone()), replies.into_iter().next()))
    }

    /// Whose the existing objects are that the changes replace or delete: the kernel asks for no more than the id.
    fn nexthop_owners(&mut self, changes: &[Change]) -> Result<Vec<(NexthopId, u8)>, Error> {
        let requests: Vec<_> = changes
            .iter()
            .filter_map(|change| match change {
                Change::PutNexthop { nexthop, replaces: Some(_) } => Some(nexthop::get(nexthop.id)),
                Change::DeleteNexthop(nexthop) => Some(nexthop::get(nexthop.get().id)),
                _ => None,
            })
            .collect();
        let mut owners = Vec::new();
        self.exchange(&requests, |frame| {
            owners.extend(nexthop::parse(frame.payload).map(|seen| (seen.id, seen.protocol)));
        })?;
        Ok(owners)
    }
}

/// Length of the next batch: rules are deleted only after everything before them was acknowledged, since what a
/// deletion hits depends on the rules that are there.
fn next_batch(changes: &[Change]) -> usize {
    let is_deletion = |change: &Change| matches!(change, Change::DeleteRule(_));
    let longest = changes.len().min(BATCH);
    match changes.first() {
        Some(first) => {
            let kind = is_deletion(first);
            changes[..longest].iter().take_while(|change| is_deletion(change) == kind).count()
        }
        None => 0,
    }
}

fn request(
    change: &Change,
    rules: &mut Vec<SeenRule>,
    owners: &[(NexthopId, u8)],
) -> Result<Request, ChangeError> {
    let owned = |id: NexthopId| match owners.iter().find(|(other, _)| *other == id) {
        Some((_, protocol)) if *protocol != PROTOCOL => Err(ChangeError::Foreign { protocol: *protocol }),
        _ => Ok(()),
    };
    match change {
        Change::PutNexthop { nexthop, replaces } => {
            nexthop::check(nexthop).map_err(ChangeError::Invalid)?;
            if replaces.as_ref().is_some_and(|replaced| replaced.get().id != nexthop.id) {
                return Err(ChangeError::Invalid("a nexthop object replaces the one with its id only"));
            }
            owned(nexthop.id)?;
            Ok(nexthop::put(nexthop, replaces.is_some()))
        }
        Change::PutRoute { route, replaces } => {
            if replaces.as_ref().is_some_and(|replaced| replaced.get().key() != route.key()) {
                return Err(ChangeError::Invalid("a route replaces the one with its key only"));
            }
            Ok(route::put(route, replaces.is_some()))
        }
        Change::PutRule(rule) => {
            rule::check(rule).map_err(ChangeError::Invalid)?;
            Ok(rule::put(rule))
        }
        Change::RestoreRule(rule) => Ok(rule::restore(*rule)),
        Change::DeleteRule(rule) => {
            hits_only_itself(rules, rule.get())?;
            Ok(rule::delete(rule.get()))
        }
        Change::DeleteRoute(route) => Ok(route::delete(route.get())),
        Change::DeleteNexthop(nexthop) => {
            owned(nexthop.get().id)?;
            Ok(nexthop::delete(nexthop.get().id))
        }
    }
}

/// Makes sure that the rule the kernel would take for `target` is `target`, and takes it off the list.
fn hits_only_itself(rules: &mut Vec<SeenRule>, target: &Rule) -> Result<(), ChangeError> {
    let Some(index) = rules.iter().position(|seen| seen.could_be_hit_by(target)) else {
        // Gone: the kernel will say so.
        return Ok(());
    };
    let hit = &rules[index];
    if !hit.complete || hit.rule != *target {
        return Err(ChangeError::Invalid("another rule of ours would be deleted in its place"));
    }
    rules.remove(index);
    Ok(())
}

fn outcome(change: &Change, reply: Option<Reply>) -> Applied {
    match (change, reply) {
        (_, Some(Reply::Done)) => Ok(Outcome::Changed),
        (
            Change::DeleteRule(_) | Change::DeleteRoute(_) | Change::DeleteNexthop(_),
            Some(Reply::Refused(error)),
        ) if error.refusal == Refusal::Missing => Ok(Outcome::Unchanged),
        (_, Some(Reply::Refused(error))) => Err(ChangeError::Refused(error)),
        (_, Some(Reply::Interrupted) | None) => Err(ChangeError::Unknown { category: "protocol" }),
    }
}
