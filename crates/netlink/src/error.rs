//! What can go wrong between us and the kernel.
//!
//! Two kinds that must not be mixed up: the kernel answered and said no ([`KernelError`]: nothing changed), and the
//! conversation broke ([`Error::Overrun`], [`Error::Deadline`], ...: what was asked may or may not have happened, so
//! the caller takes a new snapshot).

use std::io;
use std::time::Duration;

use nix::errno::Errno;

use crate::wire::Malformed;

/// The conversation with the kernel broke, or one read-only request was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No netlink socket can be had.
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    /// The request could not be sent.
    #[error("cannot send to the kernel")]
    Send(#[source] io::Error),
    /// The answer could not be received.
    #[error("cannot receive from the kernel")]
    Receive(#[source] io::Error),
    /// Answers were lost because the receive buffer was full.
    #[error("the kernel's answers overran the receive buffer; take a new snapshot")]
    Overrun,
    /// The kernel did not answer in time.
    #[error("the kernel did not answer within {0:?}; take a new snapshot")]
    Deadline(Duration),
    /// An answer belongs to no request of ours, or is longer than any answer may be.
    #[error("the kernel's answer does not fit the request: {0}")]
    OutOfStep(&'static str),
    /// An answer could not be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The kernel answered and said no.
    #[error(transparent)]
    Refused(#[from] KernelError),
    /// The kernel's tables changed during every attempt to read them.
    #[error("the kernel's tables kept changing while they were read")]
    Unsteady,
    /// The thread that talks to the kernel is gone or has too many requests waiting.
    #[error("the netlink thread does not take requests")]
    Unavailable,
}

impl Error {
    /// A short word for metrics and event reasons.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Open(_) => "open",
            Self::Send(_) => "send",
            Self::Receive(_) => "receive",
            Self::Overrun => "overrun",
            Self::Deadline(_) => "deadline",
            Self::OutOfStep(_) | Self::Malformed(_) => "protocol",
            Self::Refused(refused) => refused.refusal.category(),
            Self::Unsteady => "unsteady",
            Self::Unavailable => "unavailable",
        }
    }

    /// Whether the socket must be thrown away because later answers could be taken for those of other requests.
    pub(crate) fn spoils_socket(&self) -> bool {
        !matches!(self, Self::Refused(_) | Self::Unsteady)
    }
}

/// The kernel's no, with its own words where it gave any.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{refusal}{}{} ({errno})", if text.is_some() { ": " } else { "" }, text.as_deref().unwrap_or_default())]
pub struct KernelError {
    /// What it means here.
    pub refusal: Refusal,
    /// The error number.
    pub errno: Errno,
    /// The kernel's explanation (extended ack).
    pub text: Option<String>,
}

impl KernelError {
    /// From the number in an error message, which is negative.
    pub fn new(code: i32, text: Option<String>) -> Self {
        let errno = Errno::from_raw(code.saturating_neg());
        // Where one number has several meanings, the kernel's words tell them apart (net/ipv4/nexthop.c).
        let refusal = match (errno, text.as_deref()) {
            (Errno::EINVAL, Some("Invalid device index")) => Refusal::NoInterface,
            (Errno::EINVAL, Some("Nexthop id does not exist")) => Refusal::NoNexthop,
            _ => Refusal::from(errno),
        };
        Self { refusal, errno, text }
    }
}

/// What a refusal means for rules, routes and nexthop objects; the text is a hint for the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// ENETUNREACH, EHOSTUNREACH.
    #[error("the gateway is not on the link: no address of the interface has it in its subnet")]
    GatewayNotOnLink,
    /// ENODEV, ENXIO, EINVAL with the kernel's word.
    #[error("the interface does not exist")]
    NoInterface,
    /// ENETDOWN.
    #[error("the interface is down or has no carrier")]
    InterfaceDown,
    /// EEXIST.
    #[error("something else is already there")]
    Taken,
    /// ENOENT, ESRCH.
    #[error("it does not exist")]
    Missing,
    /// EPERM, EACCES.
    #[error("not permitted: CAP_NET_ADMIN is missing")]
    NotPermitted,
    /// EINVAL with the kernel's word: a route or group names a nexthop object that is gone.
    #[error("the nexthop object it names does not exist")]
    NoNexthop,
    /// EINVAL.
    #[error("the kernel takes the request as invalid")]
    Invalid,
    /// EBUSY, EAGAIN, EINTR, ENOMEM, ENOBUFS.
    #[error("the kernel is short of something at the moment")]
    Transient,
    /// EOPNOTSUPP, EAFNOSUPPORT, EPROTONOSUPPORT.
    #[error("this kernel cannot do that")]
    Unsupported,
    /// Any other error number.
    #[error("the kernel refused")]
    Other,
}

impl Refusal {
    /// A short word for metrics and event reasons.
    pub fn category(self) -> &'static str {
        match self {
            Self::GatewayNotOnLink => "gateway_not_on_link",
            Self::NoInterface => "no_interface",
            Self::InterfaceDown => "interface_down",
            Self::Taken => "taken",
            Self::Missing => "missing",
            Self::NotPermitted => "not_permitted",
            Self::NoNexthop => "no_nexthop",
            Self::Invalid => "invalid",
            Self::Transient => "transient",
            Self::Unsupported => "unsupported",
            Self::Other => "other",
        }
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::ENETUNREACH | Errno::EHOSTUNREACH => Self::GatewayNotOnLink,
            Errno::ENODEV | Errno::ENXIO => Self::NoInterface,
            Errno::ENETDOWN => Self::InterfaceDown,
            Errno::EEXIST => Self::Taken,
            Errno::ENOENT | Errno::ESRCH => Self::Missing,
            Errno::EPERM | Errno::EACCES => Self::NotPermitted,
            Errno::EINVAL => Self::Invalid,
            Errno::EBUSY | Errno::EAGAIN | Errno::EINTR | Errno::ENOMEM | Errno::ENOBUFS => Self::Transient,
            Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT => Self::Unsupported,
            _ => Self::Other,
        }
    }
}

/// Why one change of a list did not come about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The kernel said no; nothing changed.
    #[error(transparent)]
    Refused(#[from] KernelError),
    /// It would have touched an object that is not ours; nothing was sent.
    #[error("somebody else's object (protocol {protocol}) is in the way")]
    Foreign {
        /// Protocol number of the object in the way.
        protocol: u8,
    },
    /// The value can't be said in a netlink message; nothing was sent.
    #[error("not a valid value: {0}")]
    Invalid(&'static str),
    /// The conversation broke: it may or may not have happened. Take a new snapshot.
    #[error("the conversation with the kernel broke ({category}); whether this happened must be read back")]
    Unknown {
        /// [`Error::category`] of what broke it.
        category: &'static str,
    },
}

impl ChangeError {
    /// A short word for metrics and event reasons.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Refused(refused) => refused.refusal.category(),
            Self::Foreign { .. } => "foreign",
            Self::Invalid(_) => "invalid",
            Self::Unknown { category } => category,
        }
    }
}
