//! From what objects list to what a table holds: longest-prefix match over all objects, their exclusions and the
//! protected ranges.
//!
//! For an address x the table must say: protected, if a protected prefix contains x (then nothing is routed); else the
//! object with the longest destination that contains x, among the objects that do not exclude x; of two with the same
//! destination the senior one. All three kinds of prefixes form one tree. Between two prefixes of the tree nothing
//! changes, so it is enough to answer at each of them, parents before children, and to write a route only where the
//! answer differs from the parent's. (Every routed destination is written, so that a look at the table shows it.)

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;

use crate::protected::{Protected, ProtectedReason};
use crate::report::FailureCause;

/// One object's claims, for [`resolve`]; the senior object comes first in the list.
#[derive(Debug, Clone)]
pub(crate) struct Claims<'a> {
    pub name: &'a str,
    pub destinations: Vec<Ipv4Net>,
    pub excluded: Vec<Ipv4Net>,
}

/// The table, and what became of each claim.
#[derive(Debug, Default)]
pub(crate) struct Resolution {
    /// Object (index into the list) that a prefix is routed for; `None` is a `throw`.
    pub table: BTreeMap<Ipv4Net, Option<usize>>,
    /// Those of its prefixes that are dropped, whatever works.
    pub shut: BTreeSet<Ipv4Net>,
    /// Claims that are routed.
    pub won: Vec<(usize, Ipv4Net)>,
    /// Claims that are not.
    pub lost: Vec<(usize, Ipv4Net, FailureCause)>,
}

/// What stands at one prefix of the tree. The order makes an exclusion known before the claim it may void.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    Protected(ProtectedReason),
    Excluded(usize),
    Kept,
    Claimed(usize),
}

/// One prefix on the way from the root to where the walk is.
#[derive(Debug)]
struct Frame {
    prefix: Ipv4Net,
    protected: Option<(Ipv4Net, ProtectedReason)>,
    excluded: Vec<usize>,
    claimed: Vec<usize>,
    /// No claim from above reaches in here.
    kept: bool,
    /// What the table answers here.
    answer: Option<usize>,
}

/// `kept` are prefixes that are thrown now and must not be opened: only claims inside them count there. `obstacle` says
/// what stands in the way of a claim that is neither protected nor excluded.
pub(crate) fn resolve(
    objects: &[Claims<'_>],
    protected: &Protected,
    kept: &BTreeSet<Ipv4Net>,
    obstacle: impl Fn(Ipv4Net) -> Option<FailureCause>,
) -> Resolution {
    let mut marks: Vec<(Ipv4Net, Mark)> = Vec::new();
    marks.extend(protected.iter().map(|(prefix, reason)| (prefix, Mark::Protected(reason))));
    marks.extend(kept.iter().map(|prefix| (*prefix, Mark::Kept)));
    for (index, object) in objects.iter().enumerate() {
        marks.extend(object.excluded.iter().map(|prefix| (*prefix, Mark::Excluded(index))));
        marks.extend(object.destinations.iter().map(|prefix| (*prefix, Mark::Claimed(index))));
    }
    // By address, then length: every prefix comes right behind those that contain it.
    marks.sort_unstable();

    let mut resolution = Resolution::default();
    let mut path: Vec<Frame> = Vec::new();
    for group in marks.chunk_by(|left, right| left.0 == right.0) {
        let prefix = group[0].0;
        while path.last().is_some_and(|frame| !frame.prefix.contains(&prefix)) {
            path.pop();
        }
        let frame = visit(prefix, group, &path, objects, &obstacle, &mut resolution);
        path.push(frame);
    }
    resolution
}

fn visit(
    prefix: Ipv4Net,
    marks: &[(Ipv4Net, Mark)],
    path: &[Frame],
    objects: &[Claims<'_>],
    obstacle: impl Fn(Ipv4Net) -> Option<FailureCause>,
    resolution: &mut Resolution,
) -> Frame {
    let parent = path.last();
    let parent_answer = parent.and_then(|frame| frame.answer);
    let mut frame = Frame {
        prefix,
        protected: parent.and_then(|frame| frame.protected),
        excluded: Vec::new(),
        claimed: Vec::new(),
        kept: false,
        answer: None,
    };
    let mut winner: Option<usize> = None;
    let obstacle = obstacle(prefix);
    for (_, mark) in marks {
        match *mark {
            Mark::Protected(reason) => frame.protected = frame.protected.or(Some((prefix, reason))),
            Mark::Excluded(object) => frame.excluded.push(object),
            Mark::Kept => frame.kept = true,
            Mark::Claimed(object) => {
                let cause = if let Some((prefix, reason)) = frame.protected {
                    Some(FailureCause::Protected { prefix, reason })
                } else if let Some(exclusion) = exclusion(object, &frame, path) {
                    Some(FailureCause::Excluded { exclusion })
                } else if let Some(cause) = &obstacle {
                    Some(cause.clone())
                } else {
                    frame.claimed.push(object);
                    winner.map(|winner| FailureCause::Conflict { winner: objects[winner].name.to_owned() })
                };
                if let Some(cause) = cause {
                    resolution.lost.push((object, prefix, cause));
                } else {
                    winner = Some(object);
                    resolution.won.push((object, prefix));
                }
            }
        }
    }
    frame.answer = if frame.protected.is_some() {
        None
    } else {
        // A junior of a conflict further up serves what its senior excludes here.
        let within = || {
            let kept = path.iter().rposition(|above| above.kept).unwrap_or(0);
            if frame.kept { &path[..0] } else { &path[kept..] }
        };
        winner.or_else(|| {
            let mut claims = within().iter().rev().flat_map(|above| above.claimed.iter().copied());
            claims.find(|object| exclusion(*object, &frame, path).is_none())
        })
    };
    if winner.is_some() || frame.answer != parent_answer {
        resolution.table.insert(prefix, frame.answer);
    }
    frame
}

/// The exclusion of `object` that holds at `frame`.
fn exclusion(object: usize, frame: &Frame, path: &[Frame]) -> Option<Ipv4Net> {
    std::iter::once(frame)
        .chain(path.iter().rev())
        .find(|at| at.excluded.contains(&object))
        .map(|at| at.prefix)
}
