//! Where a client is led: rules, the target's name and order, and the addresses that are never led to. Pure.

mod conditions;
pub mod decide;
pub mod explain;
pub mod forbidden;
pub mod order;
pub mod preface;
#[cfg(test)]
pub(crate) mod sample;
pub mod target;

pub(crate) use conditions::{asked, asks_clients, asks_content};
pub use decide::{awaits_silence, decide, final_decision, Arrived, Captures, Decision, Spoken};
pub use preface::{DatagramPreface, TcpPreface};
