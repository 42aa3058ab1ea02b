//! The signals that steer the process. From the first moment on none is lost, and none ends it half-way: while it gathers what it
//! needs, which may take long, SIGTERM and SIGINT end it at once and SIGHUP waits; from the sandbox on all are held back until
//! the control thread hears them. Threads that start then hold them back for good.

use std::future::ready;
use std::io;
use std::mem;
use std::path::Path;

use nix::sys::signal::{SigSet, Signal as Number};
use tokio::signal::unix::{signal, Signal, SignalKind};
use tokio::task::yield_now;

use crate::kernel::ending;

/// What ends the proxy.
#[derive(Debug)]
pub(crate) struct Stops {
    terminate: Signal,
    interrupt: Signal,
    /// One was heard by somebody for whom it was not.
    is_due: bool,
}

/// All signals that are heard.
#[derive(Debug)]
pub(crate) struct Signals {
    pub(crate) hangup: Signal,
    pub(crate) stops: Stops,
}

const ENDS: [Number; 2] = [Number::SIGTERM, Number::SIGINT];

/// Makes SIGTERM and SIGINT end the process at once, whatever it waits for, and holds SIGHUP back: the first thing that the
/// process does.
///
/// # Errors
///
/// What the kernel says.
pub(crate) fn begin() -> io::Result<()> {
    SigSet::from_iter([Number::SIGHUP]).thread_block()?;
    ending::end_at(&ENDS)?;
    // Whoever started it may have held them back.
    Ok(SigSet::from_iter(ENDS).thread_unblock()?)
}

/// Makes a file that goes when SIGTERM or SIGINT ends the process.
///
/// # Errors
///
/// Those of making it.
pub(crate) fn with_file<T>(path: &Path, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let ends = SigSet::from_iter(ENDS);
    ends.thread_block()?;
    let made = make().and_then(|made| ending::name_file(path).map(|()| made));
    ends.thread_unblock()?;
    made
}

/// Holds all back until [`Signals::hear`].
///
/// # Errors
///
/// What the kernel says.
pub(crate) fn hold() -> io::Result<()> {
    all().thread_block()?;
    ending::end_no_more_at(&ENDS)
}

fn all() -> SigSet {
    ENDS.into_iter().chain([Number::SIGHUP]).collect()
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
        Ok(Self { hangup, stops: Stops { terminate, interrupt, is_due: false } })
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

    /// Leaves one that was heard to whoever asks next.
    pub(crate) fn put_back(&mut self) {
        self.is_due = true;
    }

    pub(crate) async fn any(&mut self) {
        if mem::take(&mut self.is_due) {
            return;
        }
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
