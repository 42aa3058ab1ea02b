//! UDP: flows of datagrams between clients and backends.
//!
//! ```text
//! door -> listener (unwrapping, table, rebinding) -> flow -> life: held -> decide -> dial -> upstream -> sending
//!                                                      <- reply <- tending <- answers
//! ```

mod absence;
mod colleagues;
mod crowd;
mod dial;
pub(crate) mod door;
pub(crate) mod flow;
mod fragments;
mod giving_way;
mod held;
mod life;
pub(crate) mod listener;
mod peers;
mod rebinding;
mod reply;
mod sending;
pub(crate) mod station;
pub(crate) mod table;
pub(crate) mod tending;
mod unwrapping;
mod upstream;
