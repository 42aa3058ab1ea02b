//! TCP: from accept to close.

pub(crate) mod allowance;
pub(crate) mod connection;
pub(crate) mod dial;
mod direction;
mod header;
pub(crate) mod listener;
mod preface;
mod relay;
#[cfg(test)]
mod relay_tests;
pub(crate) mod scratch;
