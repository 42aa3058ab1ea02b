//! `edgeproxy`: the L4 proxy of both ends of a homelab. It reads the first bytes of a client, never what follows, decides by
//! one list of rules, and carries bytes both ways; the backend sees the client's address by `IP_TRANSPARENT` or by a PROXY
//! header.
//!
//! ```text
//! client -> listener -> preface (PROXY header, first bytes) -> decide -> resolve, dial -> relay -> close reason
//! ```

mod admission;
pub mod config;
mod kernel;
mod listening;
pub mod operation;
pub mod route;
pub mod sniff;
mod tcp;
mod udp;
pub mod transparent;
pub mod names;
pub mod sniff;
pub mod upstream;
pub mod wire;

use std::process::ExitCode;

/// The whole command.
#[must_use]
pub fn run() -> ExitCode {
    ExitCode::from(2)
}
