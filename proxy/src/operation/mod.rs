//! How the proxy is seen and steered: why connections ended, what was counted, who was here, who is kept out.
//!
//! Counting and logging happen in workers and never wait; reading, rendering and answering happen in the control thread.

pub mod access_line;
pub mod access_log;
pub mod admin;
pub mod admin_socket;
pub mod ask;
mod bounded_io;
pub mod close_reason;
pub mod command;
pub mod counters;
pub mod deny;
pub mod fuzz;
pub mod histogram;
pub mod ledger;
pub mod metrics;
#[cfg(test)]
pub(crate) mod metrics_check;
pub mod metrics_http;
pub mod nft_sets;
pub mod notify;
pub mod outcomes;
pub mod protocols;
pub mod reload_told;
#[cfg(test)]
pub(crate) mod scratch;
pub mod socket_file;
pub(crate) mod sparing;
pub mod state;
pub mod top;
pub mod unique_id;

pub use close_reason::{CloseReason, Limit};
