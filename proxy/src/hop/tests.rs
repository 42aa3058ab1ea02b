use std::net::SocketAddr;

use super::*;
use crate::config;
use crate::wire::proxy_v2::{self, Announced, Fields};

pub(crate) fn key(number: u8) -> HopKey {
    HopKey::of(&[number; 32]).expect("a key")
}

/// A ring of keys of which no signature was taken.
pub(crate) fn ring(numbers: &[u8]) -> Ring {
    let held = |number: &u8| Held { key: key(*number), used: Arc::new(Used::since(0)) };
    Ring::new(numbers.iter().map(held).collect())
}

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(100, 64, 0, 1));
const NOW: u64 = 1_790_000_000_000;

fn bare() -> Fields<'static> {
    let at = |text: &str| -> SocketAddr { text.parse().expect("an endpoint") };
    Fields::bare(Announced::Stream, at("203.0.113.7:1"), at("198.51.100.1:443"))
}

fn signed(number: u8, time: u64, nonce: u8) -> Vec<u8> {
    Fields { signed: Some((&key(number), Stamp { time, nonce: [nonce; 16] })), ..bare() }.build()
}

fn judged(ring: &Ring, header: &[u8]) -> Result<(), SignatureFault> {
    ring.judge_at(header, Coming::Once, PEER, NOW)
}

#[test]
fn what_a_ring_signs_it_believes_once() {
    let ring = ring(&[1]);
    let (key, stamp) = ring.signer().expect("a key");
    let header = Fields { signed: Some((&key, stamp)), ..bare() }.build();
    assert_eq!(ring.judge(&header, Coming::Once, PEER), Ok(()));
    assert_eq!(ring.judge(&header, Coming::Once, PEER), Err(SignatureFault::Replayed));
    assert_ne!(ring.signer().expect("a key").1.nonce, stamp.nonce);
    let check = proxy_v2::signed_local(&key, ring.signer().expect("a key").1);
    assert_eq!(ring.judge(&check, Coming::Once, PEER), Ok(()));
}

#[test]
fn what_is_before_each_datagram_may_come_again_while_it_is_in_time() {
    let (ring, header) = (ring(&[1]), signed(1, NOW, 1));
    for _ in 0..3 {
        assert_eq!(ring.judge_at(&header, Coming::Again, PEER, NOW), Ok(()));
    }
    let late = NOW + millis(WINDOW) + 1;
    assert_eq!(ring.judge_at(&header, Coming::Again, PEER, late), Err(SignatureFault::Stale));
}

#[test]
fn the_faults_are_told_apart() {
    let ring = ring(&[1]);
    assert_eq!(judged(&ring, &bare().build()), Err(SignatureFault::Unsigned));
    assert_eq!(judged(&ring, proxy_v2::LOCAL), Err(SignatureFault::Unsigned));
    assert_eq!(judged(&ring, b"PROXY UNKNOWN\r\n"), Err(SignatureFault::Unsigned));
    assert_eq!(judged(&ring, &signed(2, NOW, 1)), Err(SignatureFault::Wrong));
    // Who has no key learns nothing of this host's clock, and takes no room.
    assert_eq!(judged(&ring, &signed(2, 0, 1)), Err(SignatureFault::Wrong));
    let window = millis(WINDOW);
    for (time, expected) in [
        (NOW - window, Ok(())),
        (NOW - window - 1, Err(SignatureFault::Stale)),
        (NOW + window, Ok(())),
        (NOW + window + 1, Err(SignatureFault::Stale)),
        (u64::MAX, Err(SignatureFault::Stale)),
        (0, Err(SignatureFault::Stale)),
    ] {
        assert_eq!(judged(&ring, &signed(1, time, 1)), expected, "{time}");
    }
}

#[test]
fn each_key_of_a_file_verifies_and_the_first_signs() {
    let ring = ring(&[1, 2]);
    assert_eq!(judged(&ring, &signed(1, NOW, 1)), Ok(()));
    assert_eq!(judged(&ring, &signed(2, NOW, 1)), Ok(()), "each key remembers its own");
    assert_eq!(judged(&ring, &signed(2, NOW, 1)), Err(SignatureFault::Replayed));
    assert_eq!(ring.signer().expect("a key").0, key(1));
}

#[test]
fn a_header_whose_time_is_wrong_is_told_of_with_the_difference_now_and_then() {
    let ring = ring(&[1]);
    assert_eq!(ring.to_tell_at(NOW), None);
    let _ = judged(&ring, &signed(2, NOW - 40_000, 1));
    assert_eq!(ring.to_tell_at(NOW), None, "whoever has no key says nothing of clocks");
    for (time, said) in [(NOW - 45_500, "45.5 s before it came"), (NOW + 61_000, "61.0 s after it came")] {
        let _ = judged(&ring, &signed(1, time, 1));
        ring.apart.lock().expect("whole").told = None;
        let told = ring.to_tell_at(NOW).expect("a difference");
        assert!(told.contains(said) && told.contains("100.64.0.1") && told.contains("30 s"), "{told}");
    }
    let _ = judged(&ring, &signed(1, NOW - 45_500, 1));
    assert_eq!(ring.to_tell_at(NOW + millis(TOLD) - 1), None);
    assert!(ring.to_tell_at(NOW + millis(TOLD)).is_some());
}

/// A configuration with these files of keys.
fn config(files: &[&str]) -> config::model::Config {
    let trusts: Vec<_> = (0..)
        .zip(files)
        .map(|(at, file)| format!("{{from = \"100.64.{at}.0/24\", policy = \"require\", key = \"{file}\"}}"))
        .collect();
    let listener = format!("[listener.in]\ntcp = [\"0.0.0.0:1\"]\nproxy_header = [{}]\n", trusts.join(", "));
    config::parse(&(listener + "[[rule]]\nrefuse = true\n"), "f").expect("right")
}

fn loaded(files: &[&[u8]]) -> Loaded {
    Loaded(files.iter().map(|numbers| numbers.iter().map(|number| key(*number)).collect()).collect())
}

#[test]
fn a_reload_puts_new_keys_in_place_of_the_old_for_all_when_it_comes_into_force() {
    let before = Rings::after(None, &config(&["/a"]), loaded(&[&[1]]));
    let ring = Arc::clone(before.get(config::model::KeyId(0)).expect("a ring"));
    let refused = Rings::after(Some(&before), &config(&["/a"]), loaded(&[&[2]]));
    assert_eq!(ring.signer().expect("a key").0, key(1), "it is not in force");
    drop(refused);
    let after = Rings::after(Some(&before), &config(&["/a"]), loaded(&[&[2, 1]]));
    after.come_into_force();
    assert_eq!(ring.signer().expect("a key").0, key(2), "who began before signs with it too");
}

#[test]
fn what_was_taken_is_known_after_a_reload_in_whichever_file_its_key_is() {
    let (before, now) = (Rings::after(None, &config(&["/a"]), loaded(&[&[1]])), now() + 1_000);
    let judge = |rings: &Rings, number| {
        let ring = rings.get(config::model::KeyId(number)).expect("a ring");
        ring.judge_at(&signed(1, now, 1), Coming::Once, PEER, now)
    };
    assert_eq!(judge(&before, 0), Ok(()));
    let after = Rings::after(Some(&before), &config(&["/b", "/c"]), loaded(&[&[2, 1], &[1]]));
    after.come_into_force();
    assert_eq!((judge(&after, 0), judge(&after, 1)), (Err(SignatureFault::Replayed), Err(SignatureFault::Replayed)));
}

#[test]
fn what_was_signed_before_a_process_began_is_not_taken_unless_the_one_before_tells_what_was() {
    let begun = now();
    let mine = |rings: &Rings, time, nonce| {
        let ring = rings.get(config::model::KeyId(0)).expect("a ring");
        ring.judge(&signed(1, time, nonce), Coming::Once, PEER)
    };
    let before = Rings::after(None, &config(&["/a"]), loaded(&[&[1]]));
    assert_eq!(mine(&before, begun - 1, 0), Err(SignatureFault::Stale));
    let time = begun + 1_000; // by a clock that is a little ahead, so that the next process begins before it
    assert_eq!(mine(&before, time, 1), Ok(()));
    let taken = before.taken();
    assert_eq!((taken.len(), taken[0].0, taken[0].2.len()), (1, key(1).name(), 1));
    let heir = Rings::after(None, &config(&["/a"]), loaded(&[&[2, 1]]));
    heir.inherit(taken);
    assert_eq!(mine(&heir, time, 1), Err(SignatureFault::Replayed));
    assert_eq!(mine(&heir, time, 2), Ok(()));
}
