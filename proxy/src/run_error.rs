//! Why the proxy does not run, or runs no more, and what mends it.

use std::io;

use tokio::sync::mpsc::UnboundedSender;

use crate::commands::{HOST_NOT_ABLE, RAN_AND_FAILED};
use crate::listening::ListenError;
use crate::mend;
use crate::sandbox::SandboxError;
use crate::succession::heir::HeirError;

/// Why the proxy does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// An endpoint cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A file or socket that the configuration names.
    #[error("{key}: {what}: {cause}{}", mend::of_what_is_named(cause))]
    Named { key: &'static str, what: String, cause: io::Error },
    /// The running proxy does not hand over.
    #[error("take over: {0}")]
    TakeOver(String),
    /// Rules that transparency needs are not there.
    #[error("transparent.manage_rules: {said}{mend}", said = .0, mend = mend::of_rules(.0))]
    Rules(String),
    /// The kernel lacks something.
    #[error("{what}: {cause}{}", mend::of_host(cause))]
    Host { what: &'static str, cause: io::Error },
    /// The process cannot give up what it must not have.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A worker could not begin.
    #[error("{0}")]
    Worker(Failure),
    /// A worker failed while others served: the clients of whom the kernel gave it some would wait for ever.
    #[error("ended, for {0}")]
    WorkerLost(Failure),
}

impl RunError {
    /// The exit status that tells of it.
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Self::Listen(_) | Self::Named { .. } | Self::TakeOver(_) | Self::WorkerLost(_) => RAN_AND_FAILED,
            Self::Rules(_) | Self::Host { .. } | Self::Sandbox(_) | Self::Worker(_) => HOST_NOT_ABLE,
        }
    }
}

/// What a worker cannot do, though the kernel goes on giving it clients: who shares a port by `SO_REUSEPORT` gets its part of
/// them as long as its socket is open anywhere.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {cause}{}", mend::of_host(cause))]
pub(crate) struct Failure {
    what: String,
    cause: io::Error,
}

impl Failure {
    pub(crate) fn tell(to: &UnboundedSender<Self>, what: String, cause: io::Error) {
        // Where nobody hears of failures, all ends.
        let _ = to.send(Self { what, cause });
    }
}

/// The kernel lacks something.
pub(crate) fn host(what: &'static str) -> impl Fn(io::Error) -> RunError {
    move |cause| RunError::Host { what, cause }
}

/// What the configuration names at this key cannot be had.
pub(crate) fn named(key: &'static str, what: impl ToString) -> impl Fn(io::Error) -> RunError {
    move |cause| RunError::Named { key, what: what.to_string(), cause }
}

/// The running proxy does not hand over.
pub(crate) fn taking(error: impl Into<HeirError>) -> RunError {
    RunError::TakeOver(error.into().to_string())
}
