//! What the first bytes of a client say: which protocol, for which name. Pure; three-valued.

mod adb;
mod amqp;
mod authority;
mod bitcoin;
mod bittorrent;
pub mod client_hello;
mod cursor;
pub(crate) mod dispatch;
mod dns;
pub mod dtls;
mod eternal_terminal;
mod extensions;
#[doc(hidden)]
pub mod fuzz;
mod git;
mod hellos;
mod host_name;
mod hpack;
mod http1;
mod http2;
mod minecraft;
mod mqtt;
mod openvpn;
mod postgres;
pub mod quic;
mod quic_frames;
pub mod quic_header;
mod quic_keys;
mod quic_seal;
mod rdp;
mod reassembly;
mod redis;
mod rsync;
#[cfg(test)]
mod sample_hello;
mod scan;
mod smb;
mod socks;
mod source_query;
mod ssh;
mod ssl2_hello;
mod stun;
mod syncthing_relay;
mod syslog;
mod teamspeak3;
pub mod tls;
mod tls_records;
#[cfg(test)]
mod vectors;
mod wireguard;
mod xmpp;

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
    /// A hello holds a key share of a group that resists quantum computers, too.
    pub post_quantum: bool,
}
