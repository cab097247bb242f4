//! No core dumps of a process that holds a secret.

use std::io;

/// Keeps the kernel from writing this process's memory to a file or to another program when it crashes, and others of the same user
/// from looking into it. For good, and for every thread.
///
/// # Errors
/// When the kernel refuses, which it has no reason to.
pub fn forbid() -> io::Result<()> {
    Ok(nix::sys::prctl::set_dumpable(false)?)
}
