//! UDP: flows of datagrams between clients and backends.

mod dial;
pub(crate) mod door;
pub(crate) mod flow;
pub(crate) mod listener;
mod reply;
mod sending;
pub(crate) mod table;
mod upstream;
