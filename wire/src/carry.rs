//! One wire alone: carries until a signal.

use std::os::fd::AsFd;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::exchange::{Exchange, Interruption};
use crate::tap::{Tap, TapError};
use crate::wire::{Impairments, Readings};

/// The name of the only wire, which nobody sees.
const ONLY: &str = "wire";

/// Carries frames unchanged until SIGTERM or SIGINT, or until a device goes away; what passed, and why that ended it.
///
/// # Errors
/// What the kernel refuses.
pub(crate) fn until_signal(ends: (Tap, Tap)) -> Result<(Option<Readings>, Result<(), String>), TapError> {
    let signals = end_signals()?;
    let mut exchange = Exchange::new()?;
    exchange.watch_master(signals.as_fd())?;
    if let Err(fault) = exchange.attach(ONLY, 0, ends, Impairments::default()) {
        return Ok((None, Err(fault)));
    }
    let outcome = match exchange.carry()? {
        Interruption::Master { .. } => Ok(()),
        Interruption::WireEnded => Err(exchange.first_end().unwrap_or("the wire ended").to_owned()),
    };
    let readings = exchange.read(None).ok().and_then(|mut wires| wires.remove(ONLY));
    Ok((readings.map(|reading| reading.readings), outcome))
}

/// A descriptor that can be read once SIGTERM or SIGINT has come; they no more end the process by themselves.
fn end_signals() -> Result<SignalFd, TapError> {
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block().map_err(|errno| TapError::host("sigprocmask", errno))?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|errno| TapError::host("signalfd", errno))
}
