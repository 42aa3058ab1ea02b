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
//! Frames carry the kernel's `virtio_net_hdr` (`IFF_VNET_HDR`), so that segments of up to 64 KiB and checksums still to
//! be computed pass through whole, as they do through a veth pair, unless what is asked for is about single frames.
//!
//! What happens to a frame is decided in [`direction`] alone, which sees neither clock nor descriptor. `linkwire serve`
//! holds many wires: one thread, one [`exchange`], in which each direction has its turn.

mod agenda;
mod arguments;
pub mod buffers;
mod carry;
mod chance;
mod control;
pub mod counters;
pub mod delays;
pub mod direction;
mod exchange;
pub mod frame;
pub mod impairment;
mod kernel;
mod line;
mod report;
mod request;
mod serve;
mod tap;
mod wire;

use std::env;
use std::io::{self, Write};
use std::os::fd::RawFd;
use std::process::ExitCode;

use arguments::{Ends, Request};
use control::Control;
use nix::sys::prctl;
use tap::{Tap, TapError};

const RAN_AND_FAILED: u8 = 1;
const WRONG_INPUT: u8 = 2;
const HOST_NOT_ABLE: u8 = 3;

/// The whole command: reads the arguments, then carries frames. With two ends: until SIGTERM or SIGINT, and prints one
/// JSON line of counters. As a server: until the master's socket ends.
///
/// Exit status: 0 ended as said, 1 a device went away or the counters could not be printed, 2 the arguments or what they
/// name are wrong, 3 the host has no TAP devices or refuses what a wire needs.
#[must_use]
pub fn run() -> ExitCode {
    match request_of_the_command_line() {
        Ok(Request::Carry(ends)) => carry_between(&ends),
        Ok(Request::Serve(descriptor)) => serve_master(descriptor),
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
    let carried = opened.and_then(|taps| {
        give_up_privileges()?;
        carry::until_signal(taps)
    });
    let (readings, outcome) = match carried {
        Ok(ended) => ended,
        Err(error) => return fail(exit_code_of(&error), &error.to_string()),
    };
    let printed = readings.map_or(ExitCode::SUCCESS, |readings| print(&report::json_line(&readings)));
    match outcome {
        Ok(()) => printed,
        Err(why) => fail(RAN_AND_FAILED, &why),
    }
}

fn serve_master(descriptor: RawFd) -> ExitCode {
    let mut control = match Control::inherit(descriptor) {
        Ok(control) => control,
        Err(fault) => return fail(WRONG_INPUT, &fault),
    };
    match give_up_privileges().and_then(|()| serve::until_end(&mut control)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(exit_code_of(&error), &error.to_string()),
    }
}

/// All that a wire needs from here on is open descriptors; a place before others at the processor is asked for while it
/// may be.
fn give_up_privileges() -> Result<(), TapError> {
    kernel::ask_for_early_turns();
    prctl::set_no_new_privs().map_err(|errno| TapError::host("no_new_privs", errno))?;
    kernel::give_up_capabilities().map_err(|cause| TapError::Host { what: "give up capabilities".to_owned(), cause })
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
