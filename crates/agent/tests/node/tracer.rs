//! Takes hold of single threads of the agent from outside (ptrace): the program is the released one and knows nothing of it.
//!
//! The kernel works a datagram off within the system call that sends it, so a program can only die between two datagrams. To
//! die between two messages of one, the datagram is cut: the tracer shortens the call, lets it happen, and then kills.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::thread::JoinHandle;

use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// The thread that talks to the kernel.
pub const NETLINK: &str = "netlink";
/// The first one, which turns the loop and answers HTTP.
pub const LOOP: &str = "egress-agent";

/// RTM_NEW and RTM_DEL of ROUTE, RULE and NEXTHOP.
const CHANGES: [u16; 6] = [24, 25, 32, 33, 104, 105];

/// What becomes of an agent that has sent so many messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// SIGKILL, between two messages.
    Killed,
    /// SIGSTOP, between two datagrams.
    Stopped,
}

/// An agent that is watched until its fate meets it, or it ends otherwise.
pub struct Steps(JoinHandle<u32>);

impl Steps {
    /// Lets the agent send `most` messages that change routing, and no more.
    pub fn watch(agent: u32, most: u32, fate: Fate) -> Self {
        let (attached, is_attached) = std::sync::mpsc::channel();
        let watch = std::thread::spawn(move || {
            let thread = attach(agent, NETLINK);
            attached.send(()).unwrap();
            let memory = File::open(format!("/proc/{thread}/mem")).unwrap();
            let agent = Pid::from_raw(agent.cast_signed());
            Watch { agent, thread, memory, most, fate, taken: 0 }.follow()
        });
        is_attached.recv().unwrap();
        Self(watch)
    }

    /// How many messages the kernel took, once the agent has met its fate or was ended.
    pub fn taken(self) -> u32 {
        self.0.join().unwrap()
    }
}

/// A thread that stands still while this lives.
pub struct Frozen {
    release: std::sync::mpsc::Sender<()>,
    holder: Option<JoinHandle<()>>,
}

impl Frozen {
    pub fn thread(agent: u32, name: &'static str) -> Self {
        let (stopped, is_stopped) = std::sync::mpsc::channel();
        let (release, is_over) = std::sync::mpsc::channel();
        // Only the thread that attached can let go.
        let holder = std::thread::spawn(move || {
            let thread = attach(agent, name);
            waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
            stopped.send(()).unwrap();
            let _dropped = is_over.recv();
            ptrace::detach(thread, None).unwrap();
        });
        is_stopped.recv().unwrap();
        Self { release, holder: Some(holder) }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _gone = self.release.send(());
        if let Some(holder) = self.holder.take() {
            let _panicked = holder.join();
        }
    }
}

/// The oldest thread of that name, asked to stop.
fn attach(agent: u32, name: &str) -> Pid {
    let tasks = std::fs::read_dir(format!("/proc/{agent}/task")).unwrap();
    let threads = tasks.filter_map(|task| {
        let task = task.unwrap().path();
        let is_named = std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name);
        is_named.then(|| task.file_name().unwrap().to_str().unwrap().parse::<i32>().unwrap())
    });
    let thread = Pid::from_raw(threads.min().unwrap());
    ptrace::seize(thread, ptrace::Options::PTRACE_O_TRACESYSGOOD).unwrap();
    ptrace::interrupt(thread).unwrap();
    thread
}

struct Watch {
    agent: Pid,
    thread: Pid,
    memory: File,
    most: u32,
    fate: Fate,
    taken: u32,
}

enum Step {
    GoOn,
    /// This call is the last.
    Last,
    /// Not even this call.
    End,
}

impl Watch {
    fn follow(mut self) -> u32 {
        let mut last = false;
        loop {
            let signal = match waitpid(self.thread, Some(WaitPidFlag::__WALL)) {
                Ok(WaitStatus::PtraceSyscall(_)) => {
                    if last {
                        return self.end();
                    }
                    match self.step() {
                        Step::GoOn => {}
                        Step::Last => last = true,
                        Step::End => return self.end(),
                    }
                    None
                }
                Ok(WaitStatus::Stopped(_, signal)) => Some(signal),
                Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(_) => return self.taken,
                Ok(_) => None,
            };
            if ptrace::syscall(self.thread, signal).is_err() {
                return self.taken;
            }
        }
    }

    /// One stop of a system call. Only those before a call count.
    fn step(&mut self) -> Step {
        let Ok(mut registers) = ptrace::getregs(self.thread) else { return Step::GoOn };
        let is_before = registers.rax.cast_signed() == -i64::from(nix::libc::ENOSYS);
        if registers.orig_rax.cast_signed() != nix::libc::SYS_sendto || !is_before {
            return Step::GoOn;
        }
        let mut datagram = vec![0; usize::try_from(registers.rdx).unwrap()];
        self.memory.read_exact_at(&mut datagram, registers.rsi).unwrap();
        let mut at = 0;
        while at + 16 <= datagram.len() {
            let length = u32::from_ne_bytes(datagram[at..at + 4].try_into().unwrap());
            let kind = u16::from_ne_bytes(datagram[at + 4..at + 6].try_into().unwrap());
            if CHANGES.contains(&kind) {
                if self.taken == self.most && self.fate == Fate::Killed {
                    if at == 0 {
                        return Step::End;
                    }
                    registers.rdx = at as u64;
                    ptrace::setregs(self.thread, registers).unwrap();
                    return Step::Last;
                }
                self.taken += 1;
            }
            at += (length as usize).next_multiple_of(4).max(16);
        }
        if self.fate == Fate::Stopped && self.taken >= self.most { Step::Last } else { Step::GoOn }
    }

    fn end(self) -> u32 {
        match self.fate {
            Fate::Killed => {
                kill(self.agent, Signal::SIGKILL).unwrap();
                let _gone = waitpid(self.thread, Some(WaitPidFlag::__WALL));
            }
            Fate::Stopped => {
                kill(self.agent, Signal::SIGSTOP).unwrap();
                ptrace::detach(self.thread, None).unwrap();
            }
        }
        self.taken
    }
}
