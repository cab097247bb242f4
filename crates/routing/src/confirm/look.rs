//! What was looked at, and how it answered.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddrV4;

use crate::protected::ProtectedReason;

/// What a node lives by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lifeline {
    /// The Kubernetes API server.
    ApiServer,
    /// The cloud's metadata service.
    Metadata,
    /// A resolver of the node.
    Resolver,
}

impl Lifeline {
    /// Why its addresses are protected.
    pub(super) fn protected_as(self) -> ProtectedReason {
        match self {
            Self::ApiServer => ProtectedReason::ApiServer,
            Self::Metadata => ProtectedReason::LinkLocal,
            Self::Resolver => ProtectedReason::Resolver,
        }
    }
}

impl fmt::Display for Lifeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ApiServer => "the API server",
            Self::Metadata => "the metadata service",
            Self::Resolver => "the resolver",
        })
    }
}

/// One address of a lifeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// What is there.
    pub lifeline: Lifeline,
    /// Where.
    pub address: SocketAddrV4,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.lifeline, self.address)
    }
}

/// How a target answered in one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answers {
    /// To a socket like any other on the node.
    pub through: bool,
    /// To a socket whose packets our table is not asked about.
    pub around: bool,
}

/// One look at every target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// What [`Confirmation::change`] said when the look began.
    pub change: u64,
    /// The answers.
    pub answers: BTreeMap<Target, Answers>,
}

impl Look {
    /// What answers through our table.
    pub(super) fn answering(&self) -> BTreeSet<Target> {
        self.answers.iter().filter(|(_, said)| said.through).map(|(target, _)| *target).collect()
    }

    /// Whether everything that ever `worked` does so through what is tried. An address that its name has lost and a resolver
    /// that died are not waited for: what is silent both ways, to where what is tried makes no other way, beside one of its
    /// kind that answers.
    pub(super) fn is_proof(
        &self,
        worked: &BTreeSet<Target>,
        is_first: bool,
        is_touched: impl Fn(&Target) -> bool,
    ) -> bool {
        let answers = |target: &Target| self.answers.get(target).is_some_and(|said| said.through);
        let is_dead =
            |target: &Target| self.answers.get(target).is_some_and(|said| !said.through && !said.around);
        let has_another = |target: &Target| {
            self.answers.iter().any(|(other, said)| other.lifeline == target.lifeline && said.through)
        };
        let is_left_behind = |target: &Target| is_dead(target) && has_another(target) && !is_touched(target);
        let silent_since_the_start = is_first && worked.is_empty() && !self.answers.is_empty();
        !silent_since_the_start && worked.iter().all(|target| answers(target) || is_left_behind(target))
    }
}
