//! `edgeproxy`: the L4 proxy of both ends of a homelab. It reads the first bytes of a client, never what follows, decides by
//! one list of rules, and carries bytes both ways; the backend sees the client's address by `IP_TRANSPARENT` or by a PROXY
//! header.
//!
//! ```text
//! client -> listener -> preface (PROXY header, first bytes) -> decide -> resolve, dial -> relay -> close reason
//! ```

mod admission;
mod arguments;
mod chain;
mod circle;
mod commands;
pub mod config;
mod drain;
mod generation;
mod hop;
mod kernel;
mod listening;
mod mend;
pub mod multipath;
pub mod names;
pub mod operation;
mod reload;
pub mod route;
mod run;
mod run_error;
pub mod sandbox;
mod signals;
pub mod sniff;
mod steering;
mod story;
mod succession;
mod suspicion;
mod tcp;
pub mod transparent;
mod udp;
pub mod upstream;
pub mod wire;
mod worker;

use std::env;
use std::process::ExitCode;

use arguments::Request;
use commands::{ask, check, doctor, explain, fail, print, reload as ask_to_reload, rules, schema, WRONG_INPUT};

/// The whole command.
///
/// Exit status: 0 done, or ended by a signal; 1 it failed while running; 2 the arguments or the configuration are wrong;
/// 3 the host is not able.
#[must_use]
pub fn run() -> ExitCode {
    match request_of_the_command_line() {
        Ok(Request::Run { config, start }) => run::command(&config, &start),
        Ok(Request::Check(asked)) => check::run(&asked),
        Ok(Request::Schema) => schema::run(),
        Ok(Request::Explain(asked)) => explain::run(&asked),
        Ok(Request::Doctor(asked)) => doctor::run(&asked),
        Ok(Request::Rules(asked)) => rules::run(&asked),
        Ok(Request::Reload(asked)) => ask_to_reload::run(&asked),
        Ok(Request::Ask(command)) => ask::run(&command),
        Ok(Request::KeepRules) => rules::keep(),
        Ok(Request::ReadNames) => commands::names::read(),
        Ok(Request::Help(text)) => print(&text),
        Ok(Request::Version) => print(concat!("edgeproxy ", env!("CARGO_PKG_VERSION"), "\n")),
        Err(fault) => fail(WRONG_INPUT, fault.trim_end()),
    }
}

fn request_of_the_command_line() -> Result<Request, String> {
    let words: Vec<String> = env::args_os()
        .skip(1)
        .map(|word| word.into_string().map_err(|raw| format!("{} is not UTF-8", raw.to_string_lossy())))
        .collect::<Result<_, _>>()?;
    arguments::parse(&words)
}
