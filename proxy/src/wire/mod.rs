//! Bytes of the network to values and back. Nothing here reads, writes, waits or knows the time.

mod endpoints;
#[doc(hidden)]
pub mod fuzz;
pub mod header;
mod octets;
pub mod proxy_header;
pub mod proxy_v1;
pub mod proxy_v2;
pub mod signature;
pub mod spp;
pub mod tlv;
pub mod udp_preface;

/// What a parser says of the bytes so far. Its laws, for every input and every cut of it:
///
/// - an answer other than [`Parse::NeedMore`] stays the answer whatever bytes follow;
/// - `consumed` is at most the length of the input, and what follows it is untouched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parse<T, R> {
    /// The value, and how many bytes of the input it took.
    Done {
        /// What was read.
        value: T,
        /// Bytes of the input that it took.
        consumed: usize,
    },
    /// What is here could still become a value.
    NeedMore,
    /// Not this, whatever follows.
    Refuse(R),
}
