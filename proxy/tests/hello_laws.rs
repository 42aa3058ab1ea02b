//! Laws of what reads hellos, for chance bytes and for hellos of real clients with chance damage.
#![allow(clippy::unwrap_used)] // these are tests, helpers too

use std::path::Path;

use edgeproxy::sniff::{fuzz, Sniffed};
use proptest::collection::vec;
use proptest::prelude::{any, proptest};
use proptest::sample::Index;

/// The files of a corpus of the fuzzer, in order.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 5, "the corpus of {target} is kept");
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// One of the corpus, cut off and with other bytes at some places.
fn damaged(target: &str, which: Index, cut: Option<Index>, changes: &[(Index, u8)]) -> Vec<u8> {
    let mut bytes = which.get(&corpus(target)).clone();
    for (place, value) in changes {
        let place = place.index(bytes.len());
        *bytes.get_mut(place).unwrap() = *value;
    }
    bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len())));
    bytes
}

#[test]
fn the_kept_corpora_hold_and_reach_the_hello() {
    let is_yes = |answer: &Sniffed| matches!(answer, Sniffed::Yes(_));
    let streams: Vec<_> = corpus("client_hello").iter().map(|data| fuzz::client_hello(data)).collect();
    let flows: Vec<_> = corpus("quic_initial").iter().map(|data| fuzz::quic_initial(data)).collect();
    assert!(streams.iter().filter(|answer| is_yes(answer)).count() >= 8);
    assert!(flows.iter().filter(|[quic, _]| is_yes(quic)).count() >= 8);
    assert!(flows.iter().any(|[_, dtls]| is_yes(dtls)));
}

proptest! {
    #[test]
    fn chance_bytes_hold(data in vec(any::<u8>(), 0..3000)) {
        fuzz::client_hello(&data);
        fuzz::client_hello(&[&[22, 3, 1, 2, 0, 1], &*data].concat());
        fuzz::quic_initial(&data);
    }

    #[test]
    fn damaged_hellos_hold(which: Index, cut: Option<Index>, changes in vec(any::<(Index, u8)>(), 0..4)) {
        fuzz::client_hello(&damaged("client_hello", which, cut, &changes));
        fuzz::quic_initial(&damaged("quic_initial", which, cut, &changes));
    }
}
