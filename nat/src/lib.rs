//! `natbox`: a NAT in user space for what the kernel's NAT cannot do exactly: every combination of RFC 4787's mapping and
//! filtering, sequential and parity-keeping ports, blocks, refresh by one direction, and so on.
//!
//! ```text
//! inside -> [POSTROUTING, queue 0] -> outside     source becomes an outside endpoint
//! inside <- [PREROUTING,  queue 1] <- outside     destination becomes an inside endpoint, if mapping and filter say so
//! inside -> [PREROUTING,  queue 1]                hairpin: destination first,
//!        <- [POSTROUTING, queue 2]                and on the way back in the source
//! ```
//!
//! The router's kernel hands packets over by NFQUEUE, without the GSO flag: it cuts large segments and completes checksums
//! first, because a queue that changes a packet gives it back as one whole packet. [`rules`] has the rules that do it, and
//! says why they stand where they stand. [`table`] decides; it sees neither clock nor descriptor.

mod answers;
mod arguments;
mod checksum;
pub mod config;
mod kernel;
mod netlink;
pub mod packet;
mod random;
mod report;
mod reset;
pub mod rewrite;
pub mod rules;
#[cfg(test)]
mod samples;
mod serve;
pub mod settings;
pub mod table;

use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use arguments::Request;
use serve::ServeError;
use settings::Settings;

const RAN_AND_FAILED: u8 = 1;
const WRONG_INPUT: u8 = 2;
const HOST_NOT_ABLE: u8 = 3;

/// The whole command. `run` prints `natbox: ready` once packets are translated.
///
/// Exit status: 0 done, or ended by a signal; 1 it failed while running, or nothing answers at the socket; 2 the arguments
/// or the configuration are wrong; 3 the host has no packet queues or refuses them.
#[must_use]
pub fn run() -> ExitCode {
    match request_of_the_command_line() {
        Ok(Request::Run { config, socket }) => {
            with_settings(&config, |settings| translate(settings, socket.as_deref()))
        }
        Ok(Request::Rules { config }) => with_settings(&config, |settings| print(&rules::iptables_restore(&settings))),
        Ok(Request::Check { config }) => with_settings(&config, |_| ExitCode::SUCCESS),
        Ok(Request::Table { socket }) => ask_for_table(&socket),
        Ok(Request::Help) => print(arguments::USAGE),
        Ok(Request::Version) => print(concat!("natbox ", env!("CARGO_PKG_VERSION"), "\n")),
        Err(fault) => fail(WRONG_INPUT, &format!("{fault}\n{}", arguments::USAGE)),
    }
}

fn request_of_the_command_line() -> Result<Request, String> {
    let words: Vec<String> = env::args_os()
        .skip(1)
        .map(|word| word.into_string().map_err(|raw| format!("{} is not UTF-8", raw.to_string_lossy())))
        .collect::<Result<_, _>>()?;
    arguments::parse(&words)
}

fn with_settings(path: &Path, work: impl FnOnce(Settings) -> ExitCode) -> ExitCode {
    let shown = path.display();
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return fail(WRONG_INPUT, &format!("{shown}: {error}")),
    };
    match config::parse(&text) {
        Ok(settings) => work(settings),
        Err(faults) => {
            let lines: Vec<_> = faults.iter().map(|fault| format!("{shown}: {fault}")).collect();
            fail(WRONG_INPUT, &lines.join("\nnatbox: "))
        }
    }
}

fn translate(settings: Settings, socket: Option<&Path>) -> ExitCode {
    let seed = match settings.seed.map_or_else(any_seed, Ok) {
        Ok(seed) => seed,
        Err(error) => return fail(HOST_NOT_ABLE, &format!("/dev/urandom: {error}")),
    };
    let ready = || io::stdout().write_all(b"natbox: ready\n");
    match serve::until_signal(settings, seed, socket, ready) {
        Ok(()) => ExitCode::SUCCESS,
        Err(ServeError::NoInterface { name }) => {
            fail(WRONG_INPUT, &format!("outside.interface: no interface {name:?} in this network namespace"))
        }
        Err(ServeError::Host { what, cause }) => fail(HOST_NOT_ABLE, &format!("{what}: {cause}")),
        Err(ServeError::Failed { what, cause }) => fail(RAN_AND_FAILED, &format!("{what}: {cause}")),
    }
}

fn any_seed() -> io::Result<u64> {
    let mut bytes = [0; 8];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

fn ask_for_table(socket: &Path) -> ExitCode {
    let mut text = String::new();
    match UnixStream::connect(socket).and_then(|mut stream| stream.read_to_string(&mut text)) {
        Ok(_) if text.ends_with('\n') => print(&text),
        Ok(_) => fail(RAN_AND_FAILED, &format!("{}: the answer ended too soon", socket.display())),
        Err(error) => {
            fail(RAN_AND_FAILED, &format!("{}: {error}; is natbox running with this socket?", socket.display()))
        }
    }
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(RAN_AND_FAILED, &format!("stdout: {error}")),
    }
}

fn fail(code: u8, text: &str) -> ExitCode {
    // With stderr gone too, the exit status is all that can be said.
    let _ = writeln!(io::stderr(), "natbox: {text}");
    ExitCode::from(code)
}
