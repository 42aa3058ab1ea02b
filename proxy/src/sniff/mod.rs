//! What the first bytes of a client say: which protocol, for which name. Pure; three-valued.

mod authority;
pub(crate) mod dispatch;
mod hellos;
mod scan;
pub mod client_hello;
mod cursor;
pub mod dtls;
mod extensions;
#[doc(hidden)]
pub mod fuzz;
mod host_name;
pub mod quic;
mod quic_frames;
pub mod quic_header;
mod quic_keys;
mod quic_seal;
mod reassembly;
#[cfg(test)]
mod sample_hello;
mod ssl2_hello;
pub mod tls;
mod tls_records;

/// The answer to "is this protocol spoken here?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sniffed {
    /// It is; with what its first bytes tell.
    Yes(Found),
    /// It is not, whatever follows.
    No,
    /// It may be: the bytes so far are a beginning of it.
    NeedMore,
}

/// What the first bytes of a recognised protocol tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The name that the client asks for (SNI, Host, Minecraft's host), in lower case, without a final dot or port.
    pub name: Option<String>,
    /// The application protocols that the client offers, in its order (RFC 7301).
    pub alpn: Vec<Vec<u8>>,
    /// A TLS hello carries an encrypted inner hello (or GREASE that looks like one); `name` is the outer one.
    pub ech: bool,
}
