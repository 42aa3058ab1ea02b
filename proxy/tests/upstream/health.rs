//! What checks find, and each setting of them in a test that fails when the setting is ignored.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use edgeproxy::config::model::{SendProxy, Transport};
use edgeproxy::upstream::condition::Change;
use edgeproxy::upstream::health::{Peer, CHECKS_AT_ONCE};
use edgeproxy::wire::{proxy_v1, proxy_v2};
use tokio::net::TcpListener;

use crate::fixture::{check, check_of, closed, conditions, health, local, millis, names, pass, Checking, Full, AMPLE};

const NOWHERE: &str = "/nonexistent/hosts";

/// At an address that no other test has, so that nobody takes the port when a test leaves it for a while.
async fn listener() -> (TcpListener, SocketAddr) {
    static GIVEN: AtomicU8 = AtomicU8::new(1);
    let (process, number) = (std::process::id().to_be_bytes(), GIVEN.fetch_add(1, Ordering::Relaxed));
    let own = Ipv4Addr::new(127, 96 + process[2] % 32, process[3], number);
    let listener = TcpListener::bind((own, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}

#[test]
fn a_candidate_goes_down_after_fall_failures_and_up_after_rise_successes() {
    for (rise, fall) in [(1, 3), (3, 1)] {
        local(async {
            let (open, address) = listener().await;
            let checks = vec![check(address, health(millis(10), AMPLE, rise, fall))];
            let condition = conditions(&checks).remove(0);
            let mut checking = Checking::of(checks);
            assert_eq!(checking.next().await.0, "answers");
            drop(open);
            let mut failed = 0;
            while condition.is_usable(Transport::Tcp, now()) {
                let (seen, _, change) = checking.next().await;
                failed += u32::from(seen == "fails: ConnectionRefused");
                assert_eq!(change.is_some(), failed == fall, "{seen}");
            }
            assert_eq!(failed, fall);
            let _open = TcpListener::bind(address).await.unwrap();
            let mut succeeded = 0;
            while !condition.is_usable(Transport::Tcp, now()) {
                let (seen, _, change) = checking.next().await;
                succeeded += u32::from(seen == "answers");
                assert_eq!(change, (succeeded == rise).then_some(Change::Up));
            }
            assert_eq!(succeeded, rise);
        });
    }
}

#[test]
fn interval_lies_between_two_checks() {
    // So long that what the test itself takes is nothing beside it.
    for seconds in [300, 1000] {
        local(async {
            let (_open, address) = listener().await;
            let interval = Duration::from_secs(seconds);
            let mut checking = Checking::of(vec![check(address, health(interval, AMPLE, 1, 1))]);
            pass(interval).await;
            checking.next().await;
            pass(interval.mul_f64(0.89)).await;
            assert!(!checking.has_report().await);
            pass(interval.mul_f64(0.22)).await;
            checking.next().await;
        });
    }
}

#[test]
fn first_checks_are_spread_over_the_interval() {
    local(async {
        let (_open, address) = listener().await;
        let checks = (0..40).map(|_| check(address, health(Duration::from_secs(10), AMPLE, 1, 1))).collect();
        let mut checking = Checking::of(checks);
        pass(Duration::from_secs(5)).await;
        let mut early = 0;
        while checking.has_report().await {
            checking.next().await;
            early += 1;
        }
        assert!((1..40).contains(&early), "{early} of 40 in the first half");
    });
}

#[test]
fn timeout_is_the_time_for_one_check() {
    let full = Full::new();
    for timeout in [200, 4000] {
        local(async {
            tokio::time::pause();
            let mut checking = Checking::of(vec![check(full.address, health(millis(1), millis(timeout), 1, 1))]);
            let (seen, after, change) = checking.next().await;
            assert_eq!((seen.as_str(), change), ("fails: silent", Some(Change::Down)));
            let after = u64::try_from(after.as_millis()).unwrap();
            assert!((timeout..timeout + 20).contains(&after), "{after} ms");
        });
    }
}

#[test]
fn checks_at_once_are_bounded() {
    let full = Full::new();
    local(async {
        tokio::time::pause();
        let checks = (0..64).map(|_| check(full.address, health(millis(1), millis(200), 1, 1))).collect();
        let mut checking = Checking::of(checks);
        let mut ends: BTreeMap<u128, usize> = BTreeMap::new();
        for _ in 0..64 {
            let (_, after, _) = checking.next().await;
            *ends.entry(after.as_millis() / 200).or_default() += 1;
        }
        assert_eq!(ends.into_values().collect::<Vec<_>>(), [CHECKS_AT_ONCE; 4]);
    });
}

#[test]
fn a_name_is_resolved_for_each_check_and_any_of_its_addresses_will_do() {
    local(async {
        let (_open, address) = listener().await;
        let path = std::env::temp_dir().join(format!("edgeproxy-health-{}", std::process::id()));
        fs::write(&path, format!("127.253.7.9 nas\n{} nas\n", address.ip())).unwrap();
        let check = check_of(Peer::Name("nas".into()), address.port(), health(millis(10), AMPLE, 1, 1));
        let mut checking = Checking::start(vec![check], names(path.to_str().unwrap(), closed()), |_| true);
        assert_eq!(checking.next().await.0, "answers");
        fs::write(&path, "127.253.7.9 nas\n").unwrap();
        pass(Duration::from_secs(1)).await;
        assert_eq!(checking.next_change().await, Change::Down);
        fs::remove_file(&path).unwrap();
    });
}

#[test]
fn a_name_that_cannot_be_is_a_failure_and_a_name_that_nobody_can_tell_is_none() {
    for (name, found, change) in [("10.1", "not found: not_a_name", Some(Change::Down)), ("nas", "not asked", None)] {
        local(async {
            let check = check_of(Peer::Name(name.into()), 443, health(millis(10), AMPLE, 1, 1));
            let condition = conditions(std::slice::from_ref(&check)).remove(0);
            let mut checking = Checking::start(vec![check], names(NOWHERE, closed()), |_| true);
            let (seen, _, changed) = checking.next().await;
            assert_eq!((seen.as_str(), changed), (found, change));
            assert_eq!(condition.is_usable(Transport::Tcp, now()), change.is_none());
        });
    }
}

#[test]
fn what_a_name_may_not_lead_to_is_not_dialled_and_an_address_of_the_file_is() {
    local(async {
        let (open, address) = listener().await;
        let asked = health(millis(10), AMPLE, 1, 1);
        let named = check_of(Peer::Name("localhost".into()), address.port(), asked);
        let mut checking = Checking::start(vec![named], names(NOWHERE, closed()), |_| false);
        for _ in 0..3 {
            assert_eq!(checking.next().await.0, "not asked");
        }
        drop(checking);
        let mut checking = Checking::start(vec![check(address, asked)], names(NOWHERE, closed()), |_| false);
        assert_eq!(checking.next().await.0, "answers");
        let (_, peer) = open.accept().await.unwrap();
        assert!(peer.ip().is_loopback());
    });
}

#[test]
fn checks_end_when_they_are_dropped() {
    local(async {
        let (open, address) = listener().await;
        let mut checking = Checking::of(vec![check(address, health(Duration::from_secs(10), AMPLE, 1, 1))]);
        pass(Duration::from_secs(10)).await;
        checking.next().await;
        open.accept().await.unwrap();
        drop(checking);
        tokio::task::yield_now().await;
        pass(Duration::from_secs(60)).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let open = open.into_std().unwrap();
        assert_eq!(open.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    });
}

#[test]
fn who_is_spoken_to_with_a_header_is_checked_with_one_of_the_checks_own() {
    let v2 = SendProxy::V2 { hello: true, unique_id: true, crc32c: true, received: true };
    for send_proxy in [None, Some(SendProxy::V1), Some(v2)] {
        local(async {
            let (open, address) = listener().await;
            let mut checked = check(address, health(millis(10), AMPLE, 1, 1));
            checked.send_proxy = send_proxy;
            let mut checking = Checking::of(vec![checked]);
            assert_eq!(checking.next().await.0, "answers");
            let (stream, peer) = open.accept().await.unwrap();
            let mut stream = stream.into_std().unwrap();
            stream.set_nonblocking(false).unwrap();
            let mut said = Vec::new();
            stream.read_to_end(&mut said).unwrap();
            let meant = match send_proxy {
                None => Vec::new(),
                Some(SendProxy::V1) => proxy_v1::build(peer, address),
                Some(SendProxy::V2 { .. }) => proxy_v2::LOCAL.to_vec(),
            };
            assert_eq!(said, meant);
        });
    }
}
