//! Every wait of this crate, with its reason.

use std::time::Duration;

/// TCP and TLS set-up. The API's edge is near every region; five seconds survive one lost SYN and its second retry.
pub const CONNECT: Duration = Duration::from_secs(5);

/// One attempt of a read, answer included. A page of 200 Droplets with long user data takes seconds, not tens.
pub const READ_ATTEMPT: Duration = Duration::from_secs(8);

/// A whole read: the wait for the rate budget, up to three attempts and the pauses between them. The third
/// attempt is for quick failures; two that stand still use up the time.
pub const READ: Duration = Duration::from_secs(20);

/// A changing call from the fence check to the end of the answer.
///
/// Creates answer in one to three seconds as a rule, so this is an outage rather than a slow day. A [`Fence`] whose
/// claim is valid for at least this long when it says yes covers the whole call; that is why it is not longer.
///
/// [`Fence`]: crate::Fence
pub const CHANGE: Duration = Duration::from_secs(10);

/// How long a changing call may wait for the rate budget before the fence is asked.
pub const CHANGE_QUEUE: Duration = Duration::from_secs(10);

/// All pages of a list. 450 Droplets are three reads; 20,000 (the most that is read) are a hundred.
pub const LIST: Duration = Duration::from_secs(120);

/// Idle connections are closed after this. It is shorter than the idle limit of usual load balancers (60 s), so that
/// a `POST` seldom goes out on a connection the other side is just closing, which would come back as ambiguous.
pub const IDLE_CONNECTION: Duration = Duration::from_secs(20);
