//! The rules that the kernel makes in every network namespace: `32766 lookup main` and `32767 lookup default`.
//!
//! `ip rule flush` takes them away too and nothing makes them again. What our table passes on with `throw` (the API server, the
//! resolvers) then has no way, so while something is routed on a node they are put back.
//!
//! Invariant: they are the kernel's and not ours. They are written as the kernel writes them, with its protocol number; there
//! is no [`Managed`](crate::kernel_state::Managed) of them and no change that takes one away, so an uninstall leaves them.

use crate::kernel_state::Rule;

/// A rule of the kernel's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BuiltinRule {
    /// `32766: from all lookup main`.
    Main,
    /// `32767: from all lookup default`.
    Default,
}

impl BuiltinRule {
    /// Both, in the kernel's order.
    pub const ALL: [Self; 2] = [Self::Main, Self::Default];

    /// Protocol number that the kernel gives them (`RTPROT_KERNEL`).
    pub const PROTOCOL: u8 = 2;

    /// The rule as the kernel makes it.
    pub fn rule(self) -> Rule {
        let (priority, table) = match self {
            Self::Main => (32766, 254),
            Self::Default => (32767, 253),
        };
        Rule::lookup(priority, table)
    }

    /// What `rule` does the work of: who keeps main's lookup at another priority has not lost it.
    pub fn done_by(rule: &Rule) -> Option<Self> {
        let is_done = |one: &Self| Rule { priority: rule.priority, ..one.rule() } == *rule;
        Self::ALL.into_iter().find(is_done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel_state::RuleAction;

    #[test]
    fn only_a_rule_for_every_packet_does_the_work_of_one() {
        assert_eq!(BuiltinRule::done_by(&Rule::lookup(32766, 254)), Some(BuiltinRule::Main));
        assert_eq!(BuiltinRule::done_by(&Rule::lookup(30000, 254)), Some(BuiltinRule::Main), "moved");
        assert_eq!(BuiltinRule::done_by(&Rule::lookup(32767, 253)), Some(BuiltinRule::Default));
        assert_eq!(BuiltinRule::done_by(&Rule::lookup(1001, 1157)), None);
        let narrow = Rule { iif: Some("lo".to_owned()), ..Rule::lookup(32766, 254) };
        assert_eq!(BuiltinRule::done_by(&narrow), None);
        let action = RuleAction::Lookup { table: 254, suppress_prefix_length: Some(0) };
        assert_eq!(BuiltinRule::done_by(&Rule { action, ..Rule::lookup(1000, 254) }), None);
    }
}
