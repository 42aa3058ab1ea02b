//! The internal command that reads the host's names for a proxy in its sandbox.

use std::process::ExitCode;

use super::{fail, RAN_AND_FAILED};
use crate::names::reader;
use crate::signals;

/// The word by which `edgeproxy run` starts it.
pub(crate) const READ: &str = "read-names";

/// `edgeproxy read-names`, which only `edgeproxy run` starts.
pub(crate) fn read() -> ExitCode {
    // The whole service gets signals; the proxy's end is what counts, and it drains first.
    match signals::hold().and_then(|()| reader::read_names()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(RAN_AND_FAILED, &format!("the reader of /etc/hosts: {error}")),
    }
}
