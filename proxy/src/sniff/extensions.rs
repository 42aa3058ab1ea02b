//! The extensions of a ClientHello that routing looks at (RFC 8446 section 4.2), from their bytes to a [`ClientHello`].

use super::client_hello::ClientHello;
use super::cursor::Cursor;
use super::host_name::host_name;

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;
const KEY_SHARE: u16 = 51;
/// RFC 9849: `encrypted_client_hello`.
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// The only kind of name that there is (RFC 6066 section 3).
const HOST_NAME: u8 = 0;

/// More application protocols than this no client offers; each kept one costs memory several times its bytes in the hello.
const MOST_PROTOCOLS: usize = 64;

/// Groups that are, or contain, ML-KEM or its predecessor: the IANA registry "TLS Supported Groups", 2025.
const POST_QUANTUM_GROUPS: [u16; 8] = [
    0x0200, 0x0201, 0x0202, // MLKEM512, MLKEM768, MLKEM1024
    0x11eb, 0x11ec, 0x11ed, // SecP256r1MLKEM768, X25519MLKEM768, SecP384r1MLKEM1024
    0x6399, 0x639a, // X25519Kyber768Draft00, SecP256r1Kyber768Draft00
];

/// Reads all extensions; `None`: no TLS server would accept this hello.
///
/// A fault in `server_name` or `alpn`, and an extension that occurs twice, refuse the hello: two readers may disagree about
/// it, and the backend must not see another name than the rules did. A fault in what decides no route is the backend's affair.
pub(crate) fn read(extensions: &[u8], hello: &mut ClientHello) -> Option<()> {
    let mut cursor = Cursor::new(extensions);
    let mut kinds = Vec::new();
    while !cursor.is_empty() {
        let (kind, body) = (cursor.u16()?, cursor.vector16()?);
        kinds.push(kind);
        match kind {
            SERVER_NAME => hello.server_name = server_name(body)?,
            ALPN => hello.alpn = application_protocols(body)?,
            SUPPORTED_VERSIONS => hello.supported_versions = supported_versions(body).unwrap_or_default(),
            KEY_SHARE => hello.has_post_quantum_key_share = has_post_quantum_key_share(body).unwrap_or(false),
            // Whether it holds a true inner hello or GREASE only the holder of the key can tell (RFC 9849 section 6.2).
            ENCRYPTED_CLIENT_HELLO => hello.ech = true,
            _ => {}
        }
    }
    // Sorting keeps 16 000 empty extensions in 64 KiB cheap.
    kinds.sort_unstable();
    let is_each_once = kinds.windows(2).all(|pair| pair.first() != pair.last());
    is_each_once.then_some(())
}

/// The outer `None` is a fault of form. The inner one is a name that can be no host's: the hello is TLS all the same, so a
/// rule that asks for no name leads it to a backend, whose alert tells the client what is wrong.
fn server_name(body: &[u8]) -> Option<Option<String>> {
    let mut names = entire_vector16(body)?;
    let mut found = None;
    while !names.is_empty() {
        let (kind, name) = (names.u8()?, names.vector16()?);
        if kind != HOST_NAME {
            continue;
        }
        // "The ServerNameList MUST NOT contain more than one name of the same name_type" (RFC 6066 section 3).
        if found.is_some() {
            return None;
        }
        found = Some(host_name(name));
    }
    Some(found.flatten())
}

/// Empty names are forbidden (RFC 7301 section 3.1).
fn application_protocols(body: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut names = entire_vector16(body)?;
    let mut found = Vec::new();
    while !names.is_empty() {
        let name = names.vector8()?;
        if name.is_empty() || found.len() == MOST_PROTOCOLS {
            return None;
        }
        found.push(name.to_vec());
    }
    Some(found)
}

fn supported_versions(body: &[u8]) -> Option<Vec<u16>> {
    let mut outer = Cursor::new(body);
    let mut versions = Cursor::new(outer.vector8()?);
    let mut found = Vec::new();
    while !versions.is_empty() {
        let version = versions.u16()?;
        if !is_grease(version) {
            found.push(version);
        }
    }
    Some(found)
}

fn has_post_quantum_key_share(body: &[u8]) -> Option<bool> {
    let mut shares = entire_vector16(body)?;
    while !shares.is_empty() {
        let (group, _key) = (shares.u16()?, shares.vector16()?);
        if POST_QUANTUM_GROUPS.contains(&group) {
            return Some(true);
        }
    }
    Some(false)
}

/// A vector that fills the whole of `body` and is not empty.
fn entire_vector16(body: &[u8]) -> Option<Cursor<'_>> {
    let mut outer = Cursor::new(body);
    let inner = outer.vector16()?;
    (outer.is_empty() && !inner.is_empty()).then(|| Cursor::new(inner))
}

/// Values that clients offer only so that servers keep ignoring what they do not know (RFC 8701).
fn is_grease(value: u16) -> bool {
    let [high, low] = value.to_be_bytes();
    high == low && low & 0x0f == 0x0a
}

#[cfg(test)]
mod tests {
    use super::super::client_hello::{ClientHello, Dialect};
    use super::super::sample_hello::{alpn, key_share, server_name, vector16, vector8, SampleHello};

    fn read(extensions: &[(u16, Vec<u8>)]) -> Option<ClientHello> {
        ClientHello::from_body(&SampleHello::with(extensions).body(), Dialect::Tls)
    }

    fn name_in(body: Vec<u8>) -> Option<Option<String>> {
        read(&[(0, body)]).map(|hello| hello.server_name)
    }

    #[test]
    fn all_that_routing_looks_at_is_read_among_grease() {
        let hello = read(&[
            (0x0a0a, vec![]),
            server_name(b"Home.Example."),
            (0xfe0d, vec![0, 1, 2]),
            alpn(&[b"h2", b"\x1a\x1a", b"http/1.1"]),
            (43, vector8(&[0x7a, 0x7a, 3, 4, 3, 3])),
            key_share(&[(0x8a8a, 1), (0x11ec, 1216), (29, 32)]),
            (0xfafa, vec![0]),
        ])
        .unwrap();
        assert_eq!(hello.server_name.as_deref(), Some("home.example"));
        assert_eq!(hello.alpn, [&b"h2"[..], b"\x1a\x1a", b"http/1.1"]);
        assert_eq!(hello.supported_versions, [0x0304, 0x0303]);
        assert!(hello.ech && hello.has_post_quantum_key_share);
    }

    #[test]
    fn without_extensions_nothing_is_known() {
        assert_eq!(read(&[]), Some(ClientHello::default()));
    }

    #[test]
    fn every_post_quantum_group_is_known_and_no_other() {
        for group in super::POST_QUANTUM_GROUPS {
            assert!(read(&[key_share(&[(23, 65), (group, 99)])]).unwrap().has_post_quantum_key_share);
        }
        assert!(!read(&[key_share(&[(0xeaea, 1), (29, 32), (30, 56)])]).unwrap().has_post_quantum_key_share);
    }

    #[test]
    fn a_fault_in_what_decides_no_route_is_let_through() {
        for (kind, body) in [(43, vec![3, 3, 4]), (43, vec![]), (51, vec![0, 9, 1]), (51, vec![0, 0]), (0xfe0d, vec![])]
        {
            let hello = read(&[server_name(b"home.example"), (kind, body)]).unwrap();
            assert_eq!(hello.server_name.as_deref(), Some("home.example"));
        }
    }

    #[test]
    fn an_extension_that_occurs_twice_refuses_the_hello() {
        assert_eq!(read(&[server_name(b"a.example"), (5, vec![]), server_name(b"b.example")]), None);
        assert_eq!(read(&[(0x0a0a, vec![]), (0x1a1a, vec![1]), (0x0a0a, vec![])]), None);
    }

    #[test]
    fn a_name_that_can_be_no_host_is_no_name_but_the_hello_stands() {
        let long = [b'a'; 254];
        let names: [&[u8]; 7] =
            [b"", b"192.0.2.1", b"2001:db8::1", b"a\0.example", b"b\xc3\xbc.example", b"a b", &long];
        for name in names {
            let hello = read(&[server_name(name), alpn(&[b"h2"])]).unwrap();
            assert_eq!((hello.server_name, hello.alpn.len()), (None, 1));
        }
    }

    #[test]
    fn a_list_of_names_must_be_whole_and_name_one_host() {
        let entry = |kind: u8, name: &[u8]| [vec![kind], vector16(name)].concat();
        let other = [entry(7, b"other"), entry(0, b"home.example")].concat();
        assert_eq!(name_in(vector16(&other)), Some(Some("home.example".into())));
        assert_eq!(name_in(vector16(&entry(7, b"other"))), Some(None));
        let two = [entry(0, b"a.example"), entry(0, b"b.example")].concat();
        let first_is_none = [entry(0, b""), entry(0, b"b.example")].concat();
        let past_the_end = [vector16(&entry(0, b"a.example")), vec![0]].concat();
        let cut_off = vector16(&[0, 0, 9, b'a']);
        for body in [vector16(&two), vector16(&first_is_none), past_the_end, cut_off, vec![], vec![0, 0]] {
            assert_eq!(name_in(body), None);
        }
    }

    #[test]
    fn empty_or_too_many_protocols_refuse_the_hello() {
        let many = |count: usize| read(&[alpn(&vec![&b"x"[..]; count])]);
        assert_eq!(many(64).map(|hello| hello.alpn.len()), Some(64));
        assert_eq!(many(65), None);
        assert_eq!(read(&[alpn(&[b"h2", b"", b"h3"])]), None);
        assert_eq!(read(&[alpn(&[])]), None);
        assert_eq!(read(&[(16, vec![0, 4, 2, b'h', b'2'])]), None);
    }
}
