//! `edgeproxy`: the L4 proxy of both ends of a homelab. It reads the first bytes of a client, never what follows, decides by
//! one list of rules, and carries bytes both ways; the backend sees the client's address by `IP_TRANSPARENT` or by a PROXY
//! header.
//!
//! ```text
//! client -> listener -> preface (PROXY header, first bytes) -> decide -> resolve, dial -> relay -> close reason
//! ```

mod admission;
pub mod config;
mod generation;
mod kernel;
mod listening;
pub mod names;
pub mod operation;
pub mod route;
mod run;
pub mod sniff;
mod story;
mod tcp;
pub mod transparent;
mod udp;
pub mod upstream;
pub mod wire;
mod worker;

use std::process::ExitCode;

/// The whole command.
#[must_use]
pub fn run() -> ExitCode {
    ExitCode::from(2)
}
