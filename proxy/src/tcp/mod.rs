//! TCP: from accept to close.

pub(crate) mod allowance;
mod carried;
pub(crate) mod connection;
mod delivery;
pub(crate) mod dial;
mod direction;
mod header;
mod last_words;
pub(crate) mod listener;
pub(crate) mod places;
mod preface;
mod relay;
#[cfg(test)]
mod relay_order_tests;
#[cfg(test)]
mod relay_tests;
pub(crate) mod resting;
pub(crate) mod scratch;
pub(crate) mod undecided;
mod unfinished;
