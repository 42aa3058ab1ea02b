//! What must hold for any bytes that a server may send or a file of the system may hold; the fuzzer's bodies, and a test's.

use super::message::{Answer, Family, Query, Reading};
use super::name::HostName;
use super::resolv_conf::{self, DNS_PORT, MOST_DOMAINS, MOST_SERVERS};
use super::system::parse_hosts;

/// Reads `bytes` as the answer to a question of theirs, if they hold one, for both kinds of addresses.
///
/// # Panics
/// When a reading breaks its laws: nothing is found in a message for another id, and addresses are few and of their kind.
#[allow(clippy::panic)] // a fuzzer learns of a fault in no other way
pub fn answer(bytes: &[u8]) {
    let id = match *bytes {
        [high, low, ..] => u16::from_be_bytes([high, low]),
        _ => 0,
    };
    for text in ["a.b", "nas.tailnet"] {
        let Some(host) = HostName::parse(text) else { panic!("{text} is a name") };
        for family in [Family::V4, Family::V6] {
            check(&Query::new(&host, family, id, || 0), bytes);
            let other = Query::new(&host, family, !id, || 0).read(bytes);
            assert!(other.is_err(), "an answer to another id was taken: {other:?}");
        }
    }
}

fn check(query: &Query, bytes: &[u8]) {
    let reading = query.read(bytes);
    assert_eq!(reading, query.read(bytes), "one input, two readings");
    if let Ok(
        Reading::Answer(Answer::Addresses(found, ttl)) | Reading::AnswerInOtherCase(Answer::Addresses(found, ttl)),
    ) = reading
    {
        assert!((1..=16).contains(&found.len()), "{} addresses", found.len());
        assert!(ttl.as_secs() <= u64::from(u32::MAX / 2), "{ttl:?}");
    }
}

/// Reads `bytes` as a hosts file and as the resolver's configuration of the system.
///
/// # Panics
/// When addresses are told twice or for a name in another form than its own, or servers are none, or too many, or names are searched in too many domains.
pub fn system_files(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for (host, addresses) in parse_hosts(&text) {
        assert_eq!(HostName::parse(&host.to_string()), Some(host));
        assert!(!addresses.is_empty());
        assert!(addresses.iter().all(|address| addresses.iter().filter(|other| *other == address).count() == 1));
        assert!(addresses.iter().all(|address| address.to_canonical() == *address), "{addresses:?}");
    }
    let read = resolv_conf::parse(&text, |name| u32::try_from(name.len()).ok());
    let servers = &read.servers;
    assert!((1..=MOST_SERVERS).contains(&servers.len()), "{servers:?}");
    assert!(servers.iter().all(|server| server.port() == DNS_PORT), "{servers:?}");
    for host in ["nas", "a.b"].map(HostName::parse).into_iter().flatten() {
        let found = read.before(&host);
        assert!(found.len() <= MOST_DOMAINS && found.iter().all(|name| name.as_str().starts_with(host.as_str())));
    }
}
