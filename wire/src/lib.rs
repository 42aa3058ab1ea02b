//! `linkwire`: a wire in user space between two TAP devices, for links that the kernel cannot impair by itself.
//!
//! ```text
//! node A: eth0 = TAP --- frames ---> [ Direction a_to_b ] --- frames ---> TAP = eth0 :node B
//!                    <-- frames ---- [ Direction b_to_a ] <-- frames ----
//! ```
//!
//! A TAP's descriptor stays with this process while its interface moves to a node's network namespace, so one wire needs
//! no right in either node. A TAP has a carrier from the moment its wire is attached: that is the sign that it is ready.
//!
//! Frames carry the kernel's `virtio_net_hdr` (`IFF_VNET_HDR`) unread and unchanged, so that segments of up to 64 KiB and
//! checksums still to be computed pass through whole, as they do through a veth pair.
//!
//! What happens to a frame is decided in [`direction`] alone, which sees neither clock nor descriptor.

mod arguments;
mod carry;
pub mod direction;
mod report;
mod tap;

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use arguments::{Ends, Request};
use tap::{Tap, TapError};

const RAN_AND_FAILED: u8 = 1;
const WRONG_INPUT: u8 = 2;
const HOST_NOT_ABLE: u8 = 3;

/// The whole command: reads the arguments, carries frames until SIGTERM or SIGINT, prints one JSON line of counters.
///
/// Exit status: 0 ended by a signal, 1 a device went away or the counters could not be printed, 2 the arguments or a
/// device they name are wrong, 3 the host has no TAP devices or refuses them.
#[must_use]
pub fn run() -> ExitCode {
    match request_of_the_command_line() {
        Ok(Request::Carry(ends)) => carry_between(&ends),
        Ok(Request::Help) => print(arguments::USAGE),
        Ok(Request::Version) => print(concat!("linkwire ", env!("CARGO_PKG_VERSION"), "\n")),
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

fn carry_between(ends: &Ends) -> ExitCode {
    let opened = match ends {
        Ends::Named(a, b) => Tap::attach(a).and_then(|tap_a| Ok((tap_a, Tap::attach(b)?))),
        Ends::Inherited(a, b) => Tap::inherit(*a).and_then(|tap_a| Ok((tap_a, Tap::inherit(*b)?))),
    };
    let (tap_a, tap_b) = match opened {
        Ok(taps) => taps,
        Err(error) => return fail(exit_code_of(&error), &error.to_string()),
    };
    let start = Instant::now();
    let (carried, outcome) = carry::until_signal(&tap_a, &tap_b, || start.elapsed());
    let printed = print(&report::json_line(&carried));
    match outcome {
        Ok(()) => printed,
        Err(error) => fail(RAN_AND_FAILED, &error.to_string()),
    }
}

fn exit_code_of(error: &TapError) -> u8 {
    match error {
        TapError::NoSuchDevice { .. } | TapError::NotATap { .. } | TapError::NotOpen { .. } => WRONG_INPUT,
        TapError::Host { .. } => HOST_NOT_ABLE,
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
    let _ = writeln!(io::stderr(), "linkwire: {text}");
    ExitCode::from(code)
}
