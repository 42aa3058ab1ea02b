//! The signals that steer the process.

use std::io;

use tokio::signal::unix::{signal, Signal, SignalKind};

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

impl Signals {
    /// Hears them from here on: none of them ends the process by itself any more.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(crate) fn hear() -> io::Result<Self> {
        let hangup = signal(SignalKind::hangup())?;
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { hangup, stops: Stops { terminate, interrupt } })
    }
}

impl Stops {
    pub(crate) async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
