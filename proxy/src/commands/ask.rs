//! `edgeproxy top`, `connections`, `deny`, `undeny`, `denied`: questions to a running proxy.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use super::{fail, RAN_AND_FAILED};
use crate::operation::command::{self, Command};

/// Asks, and shows the answer.
pub(crate) fn run(command: &Command) -> ExitCode {
    let mut out = io::stdout().lock();
    let is_terminal = out.is_terminal();
    match command::run(command, &mut out, is_terminal) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(RAN_AND_FAILED, &error.to_string()),
    }
}
