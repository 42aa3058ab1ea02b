//! What the process may do once it has started: two capabilities, the files that are named, the calls of the kernel that it
//! needs. Entered once, on the only thread, before workers start; threads inherit it (capabilities(7), landlock(7),
//! seccomp(2)).
//!
//! | kept out by | what |
//! |---|---|
//! | capabilities | all but `CAP_NET_RAW` (transparent sockets) and `CAP_NET_BIND_SERVICE` (low ports) |
//! | landlock | every file but the configuration and logs; with `operation.fixed_ports` all TCP ports but the configuration's |
//! | seccomp | programs, other processes, mounts, modules, raw and packet sockets, code made at run time, ... |
//!
//! Consequences: a new version of the program is started from outside and takes over through the admin socket; kernel rules
//! are kept, and the host's names read, by processes that were started before; a reload may name only files, and with
//! `operation.fixed_ports` only ports, that were allowed at the start.

mod allowed;
mod capabilities;
mod landlock;
mod seccomp;
mod syscalls;

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;

pub use allowed::{readable, Allowed, Ports, User, CAPABILITIES};
pub use caps::Capability;

use crate::mend;

/// Why the sandbox was not entered. What was given up before the fault stays so: the process should end.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Other threads run already: they would stay outside.
    #[error("{0} threads run; the sandbox is entered before any is started")]
    Threads(usize),
    /// The kernel does not say what this process is.
    #[error("/proc: {cause}{mend}", cause = .0, mend = mend::of_host(.0))]
    Proc(io::Error),
    /// Capabilities.
    #[error("capabilities: {0}; the call must be let through (`capset` in `SystemCallFilter=` of systemd, as in edgeproxy.service)")]
    Capabilities(#[from] caps::errors::CapsError),
    /// Another user.
    #[error("cannot become user {user} of group {group}: {fault}", user = .user.user, group = .user.group)]
    User {
        /// Who.
        user: User,
        /// The kernel's word.
        fault: nix::errno::Errno,
    },
    /// `PR_SET_NO_NEW_PRIVS`.
    #[error("no_new_privs: {0}; who started this keeps prctl(2) out: see its `SystemCallFilter=` or seccomp profile")]
    NoNewPrivs(nix::errno::Errno),
    /// Files.
    #[error(
        "landlock: {0}; its calls must be let through (`SystemCallFilter=` of edgeproxy.service), or be unknown to the kernel"
    )]
    Landlock(#[from] ::landlock::RulesetError),
    /// A path that cannot be opened, though it is there.
    #[error("{fault}{}", mend_of_path(fault))]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        fault: ::landlock::PathFdError,
    },
    /// Calls of the kernel.
    #[error(
        "seccomp: {0}; the kernel must have CONFIG_SECCOMP_FILTER, and `seccomp` be let through (edgeproxy.service)"
    )]
    Seccomp(#[from] seccompiler::Error),
    /// The filter cannot be made for this machine.
    #[error("seccomp: {0}; this program is for x86_64 and ARM of 64 bits: build it for the processor that runs it")]
    Filter(#[from] seccompiler::BackendError),
}

fn mend_of_path(fault: &::landlock::PathFdError) -> &'static str {
    let cause = std::error::Error::source(fault).and_then(|source| source.downcast_ref());
    cause.map_or("", mend::of_reading)
}

/// What holds since [`enter`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Capabilities that the process has.
    pub capabilities: Vec<Capability>,
    /// Whether no program that it could start may have others. Irrelevant beside seccomp; needs `CAP_SETPCAP`.
    pub bounding_set: bool,
    /// Files and ports.
    pub landlock: Landlocked,
}

/// How much of landlock this kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landlocked {
    /// All that was asked for.
    Wholly,
    /// An older kernel: files, but not all ways to use them, or not ports.
    Partly,
    /// The kernel was built or started without it.
    NotAtAll,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let capabilities: Vec<String> = self.capabilities.iter().map(ToString::to_string).collect();
        let capabilities = if capabilities.is_empty() { "no capability".to_owned() } else { capabilities.join(", ") };
        let landlock = match self.landlock {
            Landlocked::Wholly => "landlock",
            Landlocked::Partly => "landlock in part (older kernel)",
            Landlocked::NotAtAll => "no landlock (not in this kernel: see lsm= of kernel-parameters)",
        };
        write!(f, "sandbox: {capabilities}; {landlock}; seccomp")
    }
}

/// Gives up all but what is allowed, for good. Sockets, logs and the service manager's socket are opened before, threads
/// (also that of the access log) started after.
pub fn enter(allowed: &Allowed) -> Result<Report, SandboxError> {
    let threads = fs::read_dir("/proc/self/task").map_err(SandboxError::Proc)?.count();
    if threads != 1 {
        return Err(SandboxError::Threads(threads));
    }
    // Opened with the rights of the start: afterwards the process may not be allowed to look.
    let ruleset = landlock::ruleset(allowed)?;
    let bounding_set = capabilities::drop_all_but(&allowed.capabilities, allowed.user)?;
    nix::sys::prctl::set_no_new_privs().map_err(SandboxError::NoNewPrivs)?;
    let landlock = landlock::enter(ruleset)?;
    seccomp::enter(allowed.multipath)?;
    Ok(Report { capabilities: capabilities::held()?, bounding_set, landlock })
}
