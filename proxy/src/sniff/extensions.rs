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
