//! What the first bytes of a client say: which protocol, for which name. Pure; three-valued.

mod amqp;
mod authority;
mod bittorrent;
pub(crate) mod dispatch;
mod dns;
mod eternal_terminal;
#[doc(hidden)]
pub mod fuzz;
mod hellos;
mod hpack;
mod http1;
mod http2;
mod minecraft;
mod mqtt;
mod openvpn;
mod postgres;
mod rdp;
mod redis;
mod rsync;
mod scan;
mod smb;
mod socks;
mod ssh;
mod stun;
mod syslog;
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
}
