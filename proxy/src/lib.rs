//! `edgeproxy`: the L4 proxy of both ends of a homelab. It reads the first bytes of a client, never what follows, decides by
//! one list of rules, and carries bytes both ways; the backend sees the client's address by `IP_TRANSPARENT` or by a PROXY
//! header.
//!
//! ```text
//! client -> listener -> preface (PROXY header, first bytes) -> decide -> resolve, dial -> relay -> close reason
//! ```

pub mod config;
pub mod operation;
pub mod sandbox;
pub mod sniff;
pub mod wire;

use std::process::ExitCode;

/// The whole command.
#[must_use]
pub fn run() -> ExitCode {
    ExitCode::from(2)
}
