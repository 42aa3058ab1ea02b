//! What must hold for any bytes that a server may send; the fuzzer's body, and a test's.

use super::message::{Answer, Family, Query, Reading};
use super::name::HostName;

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
