//! The client's address as the source towards backends: the sockets, what this host's addresses are, and the kernel's rules
//! without which the backends' answers would not come back.

pub mod doctor;
pub mod host_facts;
pub mod keeper;
pub mod keeper_channel;
pub(crate) mod kernel_rules;
pub mod local_addresses;
pub mod multiple_ways;
pub mod needs;
mod neighbours;
mod netlink;
pub(crate) mod port_sharing;
pub mod probe;
pub mod rules;
mod sharing;
pub mod socket;
pub mod udp_endpoints;
