//! What is known of the candidates of backends ([`condition`]), how it is found out ([`health`]), and how the addresses of
//! one are dialled ([`eyeballs`]). It never decides which candidate comes first.

pub mod condition;
mod endpoints;
pub mod extent;
pub mod eyeballs;
pub mod health;
mod row;
