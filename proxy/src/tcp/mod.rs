//! TCP: from accept to close.

mod allowance;
mod direction;
mod relay;
#[cfg(test)]
mod relay_tests;
mod scratch;
