//! Many who ask for one name, both kinds of addresses, and what needs no server.

use std::collections::HashSet;
use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use edgeproxy::config::model::Resolver;
use edgeproxy::names::{Fault, NameError, Names, SystemFiles};
use tokio::task::JoinSet;

use crate::fixture::{ask, local, names, no_files, pass, settings, Folder, BRIEF, ENOUGH};
use crate::liar::Liar;

#[test]
fn a_name_that_many_ask_for_at_once_is_asked_once() {
    local(async {
        let liar = Liar::start(|asked| vec![asked.addresses(60, &["192.0.2.1"])]).await;
        let names = names(&settings(&[liar.address]));
        let mut tasks = JoinSet::new();
        for spelling in ["nas.test", "NAS.test", "nas.test."].iter().cycle().take(300) {
            let names = names.clone();
            tasks.spawn_local(async move { ask(&names, spelling).await.unwrap() });
        }
        while let Some(found) = tasks.join_next().await {
            assert_eq!(found.unwrap(), ["192.0.2.1"]);
        }
        assert_eq!(liar.counts(), (1, 1));
    });
}

#[test]
fn a_lookup_ends_well_though_who_began_it_went_away() {
    local(async {
        let liar = Liar::start(|asked| vec![asked.addresses(60, &["192.0.2.1"])]).await;
        let names = names(&settings(&[liar.address]));
        let leaving = names.clone();
        let asking = tokio::task::spawn_local(async move { ask(&leaving, "nas.test").await });
        tokio::task::yield_now().await;
        asking.abort();
        assert!(asking.await.unwrap_err().is_cancelled());
        assert_eq!(ask(&names, "nas.test").await.unwrap(), ["192.0.2.1"]);
        assert_eq!(liar.counts(), (1, 1));
    });
}

#[test]
fn both_kinds_are_asked_for_and_alternate_from_ipv6_on() {
    local(async {
        let all = ["192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2"];
        let liar = Liar::start(move |asked| vec![asked.addresses(60, &all)]).await;
        let found = ask(&names(&settings(&[liar.address])), "nas.test").await.unwrap();
        assert_eq!(found, ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2"]);
    });
}

#[test]
fn a_server_that_never_answers_for_ipv6_delays_nobody_and_spoils_nothing() {
    local(async {
        let liar = Liar::start(|asked| match asked.is_v6 {
            true => vec![],
            false => vec![asked.addresses(60, &["192.0.2.1"])],
        });
        let liar = liar.await;
        // The time for a server is ample: without the resolution delay the test would not end in time.
        let names = names(&settings(&[liar.address]));
        assert_eq!(ask(&names, "nas.test").await.unwrap(), ["192.0.2.1"]);
        assert_eq!(ask(&names, "nas.test").await.unwrap(), ["192.0.2.1"], "while the lookup is under way");
        assert_eq!(liar.counts(), (1, 1));
    });
}

#[test]
fn without_addresses_of_one_kind_the_other_is_waited_for() {
    local(async {
        let liar = Liar::start(|asked| match asked.is_v6 {
            true => vec![],
            false => vec![asked.code(3, 60)],
        });
        let liar = liar.await;
        let names = names(&Resolver { timeout: BRIEF, ..settings(&[liar.address]) });
        assert_eq!(ask(&names, "nas.test").await, Err(NameError::Unanswered(Fault::Silent)));
    });
}

/// A server that knows `nas` alone and is silent about all else.
async fn knows_nas_only() -> Liar {
    Liar::start(|asked| match asked.name.to_ascii_lowercase().starts_with("nas") {
        true => vec![asked.addresses(5, &["192.0.2.1"])],
        false => vec![],
    })
    .await
}

#[test]
fn lookups_at_once_are_bounded_and_known_names_do_not_suffer() {
    local(async {
        let liar = knows_nas_only().await;
        let names = names(&Resolver { timeout: ENOUGH, ..settings(&[liar.address]) });
        ask(&names, "nas.test").await.unwrap();
        let mut tasks = JoinSet::new();
        for number in 0..200 {
            let names = names.clone();
            tasks.spawn_local(async move { ask(&names, &format!("flood-{number}.test")).await });
        }
        let mut refused = 0;
        while refused < 72 {
            assert_eq!(tasks.join_next().await.unwrap().unwrap(), Err(NameError::TooManyLookups));
            refused += 1;
        }
        assert_eq!(tasks.len(), 128, "two sockets for each");
        pass(Duration::from_secs(6)).await;
        assert_eq!(ask(&names, "nas.test").await.unwrap(), ["192.0.2.1"], "stale, since nobody can be asked");
    });
}

#[test]
fn a_client_that_asks_for_many_names_keeps_nobody_from_asking() {
    local(async {
        let liar = knows_nas_only().await;
        let names = names(&settings(&[liar.address]));
        let mut tasks = JoinSet::new();
        for number in 0..500 {
            let names = names.clone();
            let client = Some(IpAddr::from([203, 0, 113, 1]));
            tasks.spawn_local(async move { names.addresses_for(client, &format!("flood-{number}.test")).await });
        }
        tokio::task::yield_now().await;
        let other = Some(IpAddr::from([203, 0, 113, 2]));
        let found = names.addresses_for(other, "nas.test").await.unwrap();
        assert_eq!(found, [IpAddr::from([192, 0, 2, 1])]);
        assert!(tasks.try_join_next().is_none(), "the others wait");
        let asked: HashSet<_> = liar.heard().iter().map(|asked| asked.name.to_ascii_lowercase()).collect();
        assert!(asked.len() <= 9, "eight of the one, one of the other: {asked:?}");
    });
}

#[test]
fn a_client_waits_for_its_turn_and_asks_for_nothing_twice() {
    local(async {
        let liar = Liar::start(|asked| vec![asked.addresses(60, &["192.0.2.1"])]).await;
        let names = names(&settings(&[liar.address]));
        let mut tasks = JoinSet::new();
        for number in 0..300 {
            let names = names.clone();
            let client = Some(IpAddr::from([203, 0, 113, 1]));
            tasks.spawn_local(async move { names.addresses_for(client, &format!("nas-{}.test", number % 20)).await });
        }
        while let Some(found) = tasks.join_next().await {
            assert_eq!(found.unwrap().unwrap(), [IpAddr::from([192, 0, 2, 1])]);
        }
        assert_eq!(liar.counts(), (20, 20));
    });
}

#[test]
fn what_is_no_name_and_localhost_reach_no_server() {
    local(async {
        let liar = Liar::start(|asked| vec![asked.addresses(60, &["192.0.2.1"])]).await;
        let names = names(&settings(&[liar.address]));
        for text in ["", "127.0.0.1", "169.254.169.254", "::1", "0x7f.1", "a b", "a..b"] {
            assert_eq!(ask(&names, text).await, Err(NameError::NotAName), "{text:?}");
        }
        for text in ["localhost", "LOCALHOST.", "evil.localhost"] {
            assert_eq!(ask(&names, text).await.unwrap(), ["::1", "127.0.0.1"]);
        }
        assert!(liar.heard().is_empty());
    });
}

#[test]
fn a_single_label_is_asked_for_as_it_is() {
    local(async {
        let liar = Liar::start(|asked| vec![asked.addresses(60, &["192.0.2.1"])]).await;
        assert_eq!(ask(&names(&settings(&[liar.address])), "nas").await.unwrap(), ["192.0.2.1"]);
        assert!(liar.heard().iter().all(|asked| asked.name.eq_ignore_ascii_case("nas")));
    });
}

#[test]
fn the_hosts_file_comes_first_and_is_read_again_when_it_changes() {
    local(async {
        let folder = Folder::new("hosts");
        let hosts = folder.path().join("hosts");
        fs::write(&hosts, "192.0.2.7 nas.test\n2001:db8::7 nas.test\n").unwrap();
        let liar = Liar::start(|asked| vec![asked.addresses(60, &["192.0.2.1"])]).await;
        let names = Names::new(&settings(&[liar.address]), SystemFiles { hosts: (&hosts).into(), ..no_files() });
        assert_eq!(ask(&names, "NAS.test").await.unwrap(), ["2001:db8::7", "192.0.2.7"]);
        assert!(liar.heard().is_empty());
        fs::write(&hosts, "192.0.2.8 nas.test other.test\n").unwrap();
        pass(Duration::from_secs(1)).await;
        assert_eq!(ask(&names, "nas.test").await.unwrap(), ["192.0.2.8"]);
        fs::write(&hosts, "").unwrap();
        pass(Duration::from_secs(1)).await;
        assert_eq!(ask(&names, "nas.test").await.unwrap(), ["192.0.2.1"]);
    });
}

#[test]
fn each_error_has_a_label_of_its_own() {
    let errors = [
        NameError::NotAName,
        NameError::NoSuchName,
        NameError::NoAddresses,
        NameError::Unanswered(Fault::Silent),
        NameError::TooManyLookups,
    ];
    let labels = errors.map(NameError::label);
    assert_eq!(labels, ["not_a_name", "no_such_name", "no_addresses", "unanswered", "too_many_lookups"]);
    assert_eq!(errors.map(NameError::is_denial), [true, true, true, false, false]);
}
