//! Health checks of listeners on loopback, at ports of the kernel's choosing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests

mod fixture;
mod health;
