//! Each setting of the resolver, in a test that fails when the setting is ignored.

use std::cell::Cell;
use std::fs;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::time::Duration;

use edgeproxy::config::model::Resolver;
use edgeproxy::names::{Fault, NameError, Names, SystemFiles};
use tokio::net::UdpSocket;
use tokio::time::Instant;

use crate::fixture::{ask, local, names, no_files, pass, settings, Folder, BRIEF};
use crate::liar::{Asked, Liar};

const ONE: &str = "192.0.2.1";

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A server whose mood a test changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Addresses { ttl: u32, last: u8 },
    Denial { ttl: u32 },
    Failure,
    Silence,
}

async fn moody(mood: Mood) -> (Liar, Rc<Cell<Mood>>) {
    let current = Rc::new(Cell::new(mood));
    let mood = Rc::clone(&current);
    let say = move |asked: &Asked| match mood.get() {
        Mood::Addresses { ttl, last } => vec![asked.addresses(ttl, &[&format!("192.0.2.{last}")])],
        Mood::Denial { ttl } => vec![asked.code(3, ttl)],
        Mood::Failure => vec![asked.code(2, 60)],
        Mood::Silence => vec![],
    };
    (Liar::start(say).await, current)
}

/// How often names are asked for, when a client comes after each of these seconds.
async fn queries(liar: &Liar, names: &Names, name: &str, pauses: &[u64]) -> usize {
    let before = liar.counts().0;
    for pause in pauses {
        pass(seconds(*pause)).await;
        let _ = ask(names, name).await;
    }
    liar.counts().0 - before
}

#[test]
fn servers_are_asked_in_their_order() {
    local(async {
        let one = Liar::start(|asked| vec![asked.addresses(60, &[ONE])]).await;
        let other = Liar::start(|asked| vec![asked.addresses(60, &["192.0.2.2"])]).await;
        assert_eq!(ask(&names(&settings(&[one.address, other.address])), "nas.test").await.unwrap(), [ONE]);
        assert_eq!(ask(&names(&settings(&[other.address, one.address])), "nas.test").await.unwrap(), ["192.0.2.2"]);
        assert_eq!((one.counts(), other.counts()), ((1, 1), (1, 1)));
    });
}

#[test]
fn without_servers_those_of_resolv_conf_are_asked() {
    local(async {
        let folder = Folder::new("resolv");
        let resolv_conf = folder.path().join("resolv.conf");
        // Port 53 of an address of this machine that nobody listens at: the answer tells that it was asked.
        fs::write(&resolv_conf, "nameserver 127.253.7.9\n").unwrap();
        let names = Names::new(&settings(&[]), SystemFiles { resolv_conf: (&resolv_conf).into(), ..no_files() });
        assert_eq!(ask(&names, "nas.test").await, Err(NameError::Unanswered(Fault::Unreachable)));
    });
}

#[test]
fn timeout_is_the_time_for_one_try() {
    for millis in [200, 3000] {
        local(async {
            let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let settings =
                Resolver { timeout: Duration::from_millis(millis), ..settings(&[silent.local_addr().unwrap()]) };
            let names = names(&settings);
            // Nobody answers, so nothing is missed when the clock leaps.
            tokio::time::pause();
            let begin = Instant::now();
            assert_eq!(ask(&names, "nas.test").await, Err(NameError::Unanswered(Fault::Silent)));
            let taken = u64::try_from(begin.elapsed().as_millis()).unwrap();
            assert!((2 * millis..2 * millis + 20).contains(&taken), "{taken} ms for two tries of {millis} ms");
        });
    }
}

#[test]
fn min_ttl_and_max_ttl_bound_what_the_server_says() {
    local(async {
        let (liar, _) = moody(Mood::Addresses { ttl: 30, last: 1 }).await;
        let by_server = settings(&[liar.address]);
        assert_eq!(queries(&liar, &names(&by_server), "nas.test", &[0, 29, 1, 29, 1]).await, 3);
        let longer = Resolver { min_ttl: seconds(100), ..by_server.clone() };
        assert_eq!(queries(&liar, &names(&longer), "nas.test", &[0, 50, 49, 1]).await, 2);
        let shorter = Resolver { max_ttl: seconds(3), ..by_server };
        assert_eq!(queries(&liar, &names(&shorter), "nas.test", &[0, 2, 1, 3]).await, 3);
    });
}

#[test]
fn a_ttl_of_one_second_is_followed_when_the_address_flips() {
    local(async {
        let (liar, mood) = moody(Mood::Addresses { ttl: 1, last: 1 }).await;
        let names = names(&settings(&[liar.address]));
        for last in 1..20 {
            mood.set(Mood::Addresses { ttl: 1, last });
            assert_eq!(ask(&names, "nas.test").await.unwrap(), [format!("192.0.2.{last}")]);
            pass(seconds(1)).await;
        }
    });
}

#[test]
fn negative_bounds_how_long_a_missing_name_is_missing() {
    local(async {
        let (liar, _) = moody(Mood::Denial { ttl: 300 }).await;
        let (short, long) =
            (settings(&[liar.address]), Resolver { negative: seconds(60), ..settings(&[liar.address]) });
        assert_eq!(queries(&liar, &names(&short), "nas.test", &[0, 9, 1]).await, 2);
        assert_eq!(queries(&liar, &names(&long), "nas.test", &[0, 59, 1]).await, 2);
    });
}

#[test]
fn stale_addresses_are_used_for_so_long_while_no_server_answers() {
    for trouble in [Mood::Failure, Mood::Silence] {
        local(async {
            let (liar, mood) = moody(Mood::Addresses { ttl: 5, last: 1 }).await;
            let names = names(&Resolver { timeout: BRIEF, stale: seconds(100), ..settings(&[liar.address]) });
            assert_eq!(ask(&names, "nas.test").await.unwrap(), [ONE]);
            mood.set(trouble);
            pass(seconds(5)).await;
            assert_eq!(ask(&names, "nas.test").await.unwrap(), [ONE]);
            pass(seconds(90)).await;
            assert_eq!(ask(&names, "nas.test").await.unwrap(), [ONE]);
            pass(seconds(10)).await;
            let fault = if trouble == Mood::Failure { Fault::Failure } else { Fault::Silent };
            assert_eq!(ask(&names, "nas.test").await, Err(NameError::Unanswered(fault)));
        });
    }
}

#[test]
fn stale_of_zero_uses_nothing_that_ran_out() {
    local(async {
        let (liar, mood) = moody(Mood::Addresses { ttl: 5, last: 1 }).await;
        let names = names(&Resolver { stale: Duration::ZERO, ..settings(&[liar.address]) });
        assert_eq!(ask(&names, "nas.test").await.unwrap(), [ONE]);
        mood.set(Mood::Failure);
        pass(seconds(5)).await;
        assert_eq!(ask(&names, "nas.test").await, Err(NameError::Unanswered(Fault::Failure)));
    });
}

#[test]
fn while_servers_are_known_to_fail_nobody_waits_and_recovery_is_noticed() {
    local(async {
        let (liar, mood) = moody(Mood::Addresses { ttl: 5, last: 1 }).await;
        let names = names(&Resolver { timeout: BRIEF, ..settings(&[liar.address]) });
        ask(&names, "nas.test").await.unwrap();
        mood.set(Mood::Silence);
        pass(seconds(5)).await;
        assert_eq!(ask(&names, "nas.test").await.unwrap(), [ONE]);
        pass(seconds(1)).await;
        // A clock that stands still goes on only while everybody waits.
        tokio::time::pause();
        let begin = Instant::now();
        assert_eq!(ask(&names, "nas.test").await.unwrap(), [ONE]);
        assert_eq!(begin.elapsed(), Duration::ZERO, "it waited for a server that was silent");
        tokio::time::resume();
        mood.set(Mood::Addresses { ttl: 5, last: 2 });
        let mut asked = 1;
        while ask(&names, "nas.test").await.unwrap() == [ONE] {
            asked += 1;
            assert!(asked < 100, "the server answers again");
            pass(seconds(1)).await;
            // The lookup that this begins may end before the clock leaps again.
            let _ = ask(&names, "nas.test").await;
            for _ in 0..200 {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(ask(&names, "nas.test").await.unwrap(), ["192.0.2.2"]);
    });
}

#[test]
fn a_denial_is_an_answer_also_for_a_name_with_stale_addresses() {
    local(async {
        let (liar, mood) = moody(Mood::Addresses { ttl: 5, last: 1 }).await;
        let names = names(&settings(&[liar.address]));
        ask(&names, "nas.test").await.unwrap();
        mood.set(Mood::Denial { ttl: 300 });
        assert_eq!(ask(&names, "nas.test").await.unwrap(), [ONE], "a blip within the TTL is not seen");
        pass(seconds(5)).await;
        assert_eq!(ask(&names, "nas.test").await, Err(NameError::NoSuchName));
        mood.set(Mood::Addresses { ttl: 5, last: 1 });
        pass(seconds(10)).await;
        assert_eq!(ask(&names, "nas.test").await.unwrap(), [ONE], "and heals within `negative`");
    });
}

#[test]
fn failures_are_not_asked_after_for_a_second() {
    local(async {
        let (liar, _) = moody(Mood::Failure).await;
        let names = names(&settings(&[liar.address]));
        assert_eq!(queries(&liar, &names, "nas.test", &[0, 0, 0, 1, 0]).await, 2);
    });
}

#[test]
fn cache_entries_bounds_the_names() {
    for (entries, asked_again) in [(2, 1), (3, 0)] {
        local(async {
            let (liar, _) = moody(Mood::Addresses { ttl: 60, last: 1 }).await;
            let names =
                names(&Resolver { cache_entries: NonZeroUsize::new(entries).unwrap(), ..settings(&[liar.address]) });
            for name in ["a.test", "b.test", "c.test"] {
                ask(&names, name).await.unwrap();
            }
            assert_eq!(queries(&liar, &names, "c.test", &[0]).await, 0);
            assert_eq!(queries(&liar, &names, "a.test", &[0]).await, asked_again);
        });
    }
}

#[test]
fn servers_over_ipv6_are_asked_too() {
    local(async {
        let socket = UdpSocket::bind("[::1]:0").await.unwrap();
        let address: SocketAddr = socket.local_addr().unwrap();
        tokio::task::spawn_local(async move {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                buffer[2] |= 0x80;
                buffer[3] |= 3;
                socket.send_to(&buffer[..length], from).await.unwrap();
            }
        });
        assert_eq!(ask(&names(&settings(&[address])), "nas.test").await, Err(NameError::NoSuchName));
    });
}
