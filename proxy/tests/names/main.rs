//! Names against servers: one that lies as a test says, and dnsmasq. All on loopback, at ports of the kernel's choosing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests

mod dnsmasq;
mod fixture;
mod knobs;
mod liar;
mod lies;
mod sharing;
