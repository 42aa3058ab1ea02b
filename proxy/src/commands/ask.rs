//! `edgeproxy top`, `connections`, `deny`, `undeny`, `denied`: questions to a running proxy.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::process::ExitCode;

use super::{fail, RAN_AND_FAILED};
use crate::kernel;
use crate::operation::command::{self, Command};
use crate::operation::top::Screen;

/// Rows and columns of a terminal that does not say how many it has.
const USUAL: (usize, usize) = (24, 80);

/// Asks, and shows the answer.
pub(crate) fn run(command: &Command) -> ExitCode {
    let mut out = io::stdout().lock();
    let size = || {
        let (rows, columns) = kernel::terminal::size(io::stdout().as_fd()).unwrap_or(USUAL);
        Screen { rows, columns }
    };
    let screen: Option<command::Size<'_>> = if out.is_terminal() { Some(&size) } else { None };
    match command::run(command, &mut out, screen) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(RAN_AND_FAILED, &error.to_string()),
    }
}
