//! On what a verdict was made, so that a person can check it afterwards.

use std::fmt;

use super::Level;
use crate::tick::Tick;

/// Why a gateway does not work. In the order from the gateway outwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// It does not answer in the VPC.
    Unreachable,
    /// Nothing outside answers through it.
    NotForwarding,
    /// The outside does not see the expected address.
    UnexpectedSource,
    /// Packets of full size do not get through.
    LosesLargePackets,
    /// It loses too many of them.
    LosesPackets,
}

impl Fault {
    /// In one word, for `reason` fields.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Unreachable => "Unreachable",
            Self::NotForwarding => "NotForwarding",
            Self::UnexpectedSource => "UnexpectedSource",
            Self::LosesLargePackets => "LosesLargePackets",
            Self::LosesPackets => "LosesPackets",
        }
    }

    /// Whether nothing that is sent there arrives as it should.
    pub fn is_total(self) -> bool {
        matches!(self, Self::Unreachable | Self::NotForwarding | Self::UnexpectedSource)
    }

    pub(super) fn of(level: Level) -> Self {
        match level {
            Level::Reachability => Self::Unreachable,
            Level::Forwarding => Self::NotForwarding,
            Level::Source => Self::UnexpectedSource,
            Level::FullSize => Self::LosesLargePackets,
        }
    }

    /// The level that is down; none where packets are lost.
    pub fn level(self) -> Option<Level> {
        match self {
            Self::Unreachable => Some(Level::Reachability),
            Self::NotForwarding => Some(Level::Forwarding),
            Self::UnexpectedSource => Some(Level::Source),
            Self::LosesLargePackets => Some(Level::FullSize),
            Self::LosesPackets => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "it does not answer in the VPC",
            Self::NotForwarding => "nothing outside answers through it",
            Self::UnexpectedSource => "the outside does not see the expected address",
            Self::LosesLargePackets => "packets of full size do not get through it",
            Self::LosesPackets => "it loses packets",
        })
    }
}

/// What a gateway was condemned on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence<G, W> {
    /// What is wrong.
    pub fault: Fault,
    /// When the first probe was sent that stayed without an answer; with loss, when the time began over which it was counted.
    pub since: Tick,
    /// Probes without an answer, 255 at most.
    pub misses: u8,
    /// With loss: how many of 100.
    pub lost_percent: Option<u8>,
    /// Who did not answer through it, the first few.
    pub unanswered: Vec<W>,
    /// The gateway through which the answer came.
    pub other: G,
    /// When the probe was sent that was answered through the other one.
    pub answered: Option<Tick>,
}

impl<G: fmt::Display, W: fmt::Display> fmt::Display for Evidence<G, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.fault)?;
        if let Some(percent) = self.lost_percent {
            return write!(f, "{percent} % of its probes, while {} lost hardly any", self.other);
        }
        write!(f, "{} probes in a row without an answer", self.misses)?;
        for (index, witness) in self.unanswered.iter().enumerate() {
            write!(f, "{}{witness}", if index == 0 { " from " } else { ", " })?;
        }
        let Some(answered) = self.answered else { return Ok(()) };
        let later = answered.since(self.since).as_millis();
        match self.fault {
            Fault::Unreachable => write!(
                f,
                "; one to {} that was sent {later} ms after the first of them was answered",
                self.other
            ),
            _ => write!(
                f,
                "; {later} ms after the first of them one that went through {} was answered",
                self.other
            ),
        }
    }
}
