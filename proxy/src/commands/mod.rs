//! What each command of `edgeproxy` does, and how commands speak.

pub(crate) mod ask;
pub(crate) mod check;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod names;
pub(crate) mod reload;
pub(crate) mod rules;
pub(crate) mod schema;

use std::io::{self, Write};
use std::process::ExitCode;

pub(crate) const RAN_AND_FAILED: u8 = 1;
pub(crate) const WRONG_INPUT: u8 = 2;
pub(crate) const HOST_NOT_ABLE: u8 = 3;

/// The result of a command, on stdout.
pub(crate) fn print(text: &str) -> ExitCode {
    print_and_end_by(text, 0)
}

/// The same, with this status.
pub(crate) fn print_and_end_by(text: &str, status: u8) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::from(status),
        Err(error) => fail(RAN_AND_FAILED, &format!("stdout: {error}")),
    }
}

/// Why there is none, on stderr.
pub(crate) fn fail(code: u8, text: &str) -> ExitCode {
    say(&format!("edgeproxy: {text}"));
    ExitCode::from(code)
}

/// A line on stderr.
pub(crate) fn say(text: &str) {
    // With stderr gone too, the exit status is all that can be said.
    let _ = writeln!(io::stderr(), "{text}");
}
