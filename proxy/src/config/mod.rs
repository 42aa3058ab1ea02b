//! The configuration: as written ([`file`]), as meant ([`model`]), and the way from one to the other.

pub mod model;
