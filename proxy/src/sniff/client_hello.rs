//! The first message of a TLS client, from its bytes: for which name, with which protocols (RFC 8446 section 4.1.2).

use super::cursor::Cursor;
use super::{extensions, Found};
use crate::wire::Parse;

/// What a ClientHello says that is of use before the handshake; the same in TLS, QUIC and DTLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// In lower case, without a final dot; `None` if there is none, or none that could be a host's.
    pub server_name: Option<String>,
    /// Application protocols, in the client's order.
    pub alpn: Vec<Vec<u8>>,
    /// Versions as on the wire, in the client's order, without GREASE; empty if only `legacy_version` speaks.
    pub supported_versions: Vec<u16>,
    /// It carries `encrypted_client_hello`, true or GREASE; `server_name` is the outer one.
    pub ech: bool,
    /// A key share is of ML-KEM or a hybrid of it: then the hello is longer than one packet.
    pub has_post_quantum_key_share: bool,
}

/// Whose ClientHello: DTLS has one field more, and versions that count downwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Tls,
    Dtls,
}

/// The type of the message (RFC 8446 section 4).
pub(crate) const CLIENT_HELLO: u8 = 1;
/// Bytes of type and length before the body of a message of TLS.
const MESSAGE_HEADER: usize = 4;

impl ClientHello {
    /// What a rule asks about.
    #[must_use]
    pub fn found(&self) -> Found {
        Found {
            name: self.server_name.clone(),
            alpn: self.alpn.clone(),
            ech: self.ech,
            post_quantum: self.has_post_quantum_key_share,
        }
    }

    /// Reads the body of the message, all of it; `None`: no server would accept it.
    pub(crate) fn from_body(body: &[u8], dialect: Dialect) -> Option<Self> {
        let mut cursor = Cursor::new(body);
        let (major, _minor, _random) = (cursor.u8()?, cursor.u8()?, cursor.take(32)?);
        let session_id = cursor.vector8()?;
        if dialect == Dialect::Dtls {
            let _cookie = cursor.vector8()?;
        }
        let (cipher_suites, compression_methods) = (cursor.vector16()?, cursor.vector8()?);
        let is_sound = major == dialect.major_version()
            && session_id.len() <= 32
            && !cipher_suites.is_empty()
            && cipher_suites.len() % 2 == 0
            && !compression_methods.is_empty();
        if !is_sound {
            return None;
        }
        let mut hello = Self::default();
        // Before TLS 1.3 a hello may end here (RFC 5246 section 7.4.1.2).
        if !cursor.is_empty() {
            extensions::read(cursor.vector16()?, &mut hello)?;
        }
        cursor.is_empty().then_some(hello)
    }
}

impl Dialect {
    fn major_version(self) -> u8 {
        match self {
            Self::Tls => 3,
            Self::Dtls => 0xfe,
        }
    }
}

/// Reads the message from the beginning of a handshake stream (of TLS records, of CRYPTO frames). A hello whose body would
/// be over `longest` bytes is refused at its length. The cost is constant until the last byte is there.
pub(crate) fn read_message(stream: &[u8], longest: usize) -> Parse<ClientHello, ()> {
    let mut cursor = Cursor::new(stream);
    if cursor.u8().is_some_and(|kind| kind != CLIENT_HELLO) {
        return Parse::Refuse(());
    }
    let Some(length) = cursor.u24() else {
        return Parse::NeedMore;
    };
    let is_other_version = cursor.rest().first().is_some_and(|&major| major != Dialect::Tls.major_version());
    if length > longest || is_other_version {
        return Parse::Refuse(());
    }
    let Some(body) = cursor.take(length) else {
        return Parse::NeedMore;
    };
    match ClientHello::from_body(body, Dialect::Tls) {
        Some(value) => Parse::Done { value, consumed: MESSAGE_HEADER + length },
        None => Parse::Refuse(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample_hello::{server_name, SampleHello};
    use super::{read_message, ClientHello, Dialect};
    use crate::wire::Parse;

    fn sample() -> SampleHello {
        SampleHello::with(&[server_name(b"home.example")])
    }

    #[test]
    fn a_message_is_read_when_its_last_byte_is_there_and_not_before() {
        let message = [sample().message(), b"more".to_vec()].concat();
        let whole = message.len() - 4;
        for cut in 0..whole {
            assert_eq!(read_message(&message[..cut], 999), Parse::NeedMore);
        }
        for cut in whole..=message.len() {
            let Parse::Done { value, consumed } = read_message(&message[..cut], 999) else { panic!("{cut}") };
            assert_eq!((value.server_name.as_deref(), consumed), (Some("home.example"), whole));
        }
    }

    #[test]
    fn another_message_a_long_one_and_another_version_are_refused_early() {
        assert_eq!(read_message(&[2], 999), Parse::Refuse(()));
        assert_eq!(read_message(&[1, 0, 3, 232], 1000), Parse::NeedMore);
        assert_eq!(read_message(&[1, 0, 3, 232], 999), Parse::Refuse(()));
        assert_eq!(read_message(&[1, 0, 0, 99, 2], 999), Parse::Refuse(()));
    }

    type Case = (&'static str, bool, fn(&mut SampleHello));

    #[test]
    fn fields_must_be_as_a_server_would_accept_them() {
        let read = |change: fn(&mut SampleHello)| {
            let mut hello = sample();
            change(&mut hello);
            ClientHello::from_body(&hello.body(), Dialect::Tls)
        };
        let changes: [Case; 11] = [
            ("as it is", true, |_| ()),
            ("no extensions", true, |hello| hello.extensions = None),
            ("SSL 3", true, |hello| hello.version = 0x0300),
            ("TLS 1.3 in the old place", true, |hello| hello.version = 0x0304),
            ("no session", true, |hello| hello.session_id = vec![]),
            ("version 2", false, |hello| hello.version = 0x0200),
            ("a long session id", false, |hello| hello.session_id = vec![1; 33]),
            ("no cipher suite", false, |hello| hello.cipher_suites = vec![]),
            ("half a cipher suite", false, |hello| hello.cipher_suites = vec![1, 2, 3]),
            ("no compression method", false, |hello| hello.compression_methods = vec![]),
            ("a cookie", false, |hello| hello.cookie = Some(vec![])),
        ];
        for (what, is_sound, change) in changes {
            assert_eq!(read(change).is_some(), is_sound, "{what}");
        }
    }

    #[test]
    fn a_body_must_be_filled_exactly() {
        let body = sample().body();
        for cut in 0..body.len() {
            let ends_before_extensions = cut == SampleHello { extensions: None, ..sample() }.body().len();
            assert_eq!(ClientHello::from_body(&body[..cut], Dialect::Tls).is_some(), ends_before_extensions);
        }
        assert_eq!(ClientHello::from_body(&[body, vec![0]].concat(), Dialect::Tls), None);
    }
}
