//! Names to addresses: the hosts file, then a cache, then servers. It never decides whether an address may be dialled.
//!
//! ```text
//! Names::addresses -> name -> hosts file -> cache -> lookup (A and AAAA at once) -> client -> exchange -> message
//! ```
//!
//! One [`Names`] belongs to one thread; nothing here is locked.

mod cache;
mod chance;
mod client;
mod copied;
mod exchange;
pub mod fuzz;
mod lookup;
mod message;
mod name;
pub(crate) mod reader;
mod resolv_conf;
mod resolver;
mod system;
mod turns;

pub(crate) use chance::Chance;
pub use exchange::Fault;
pub use resolver::{NameError, Names};
pub use system::{SystemFile, SystemFiles};
