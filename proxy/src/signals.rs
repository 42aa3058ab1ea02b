//! The signals that steer the process. While it starts they are held back, so that none ends it half-way or is lost; threads
//! that start then hold them back for good, and only the control thread hears them.

use std::future::ready;
use std::io;

use nix::sys::signal::{SigSet, Signal as Number};
use tokio::signal::unix::{signal, Signal, SignalKind};
use tokio::task::yield_now;

/// What ends the proxy.
#[derive(Debug)]
pub(crate) struct Stops {
    terminate: Signal,
    interrupt: Signal,
}

/// All signals that are heard.
#[derive(Debug)]
pub(crate) struct Signals {
    pub(crate) hangup: Signal,
    pub(crate) stops: Stops,
}

/// Holds them back until [`Signals::hear`]: the first thing that the process does.
///
/// # Errors
///
/// What the kernel says.
pub(crate) fn hold() -> io::Result<()> {
    Ok(all().thread_block()?)
}

fn all() -> SigSet {
    [Number::SIGHUP, Number::SIGTERM, Number::SIGINT].into_iter().collect()
}

impl Signals {
    /// Hears them from here on, those first that were held back: none of them ends the process by itself any more.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(crate) fn hear() -> io::Result<Self> {
        let hangup = signal(SignalKind::hangup())?;
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        all().thread_unblock()?;
        Ok(Self { hangup, stops: Stops { terminate, interrupt } })
    }
}

impl Stops {
    /// Whether one has come already.
    pub(crate) async fn has_come(&mut self) -> bool {
        // The event queue is looked at meanwhile, which is where signals come from.
        yield_now().await;
        tokio::select! {
            biased;
            () = self.any() => true,
            () = ready(()) => false,
        }
    }

    pub(crate) async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
