//! The client's address as the source towards backends: the sockets, what this host's addresses are, and the kernel's rules
//! without which the backends' answers would not come back.

pub mod local_addresses;
mod netlink;
pub mod rules;
pub mod socket;
pub mod udp_endpoints;
