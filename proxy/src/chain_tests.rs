//! Chains over real configurations, conditions and counters.

use super::*;
use crate::generation::Generation;
use crate::hop::Loaded;
use crate::names::{Names, SystemFiles};
use crate::operation::ledger::{self, Ledger};
use crate::transparent::local_addresses::LocalAddresses;

const THREE: &str = r#"
[listener.in]
tcp = ["127.0.0.1:1"]
[[rule]]
to = "one"
[backend.one]
targets = ["192.0.2.1:1", "192.0.2.2:1"]
fallback = "two"
eject = {failures = 1, duration = "1h"}
[backend.two]
targets = ["192.0.2.3:1"]
fallback = "three"
[backend.three]
targets = ["192.0.2.4:1"]
"#;

/// A configuration in force.
pub(crate) fn epoch(text: &str) -> Epoch {
    let config = crate::config::parse(text, "c.toml").unwrap_or_else(|faults| panic!("{faults:?}"));
    let counters = Ledger::default().begin(ledger::Names::of(&config), 1).pop().expect("a worker");
    let names = Names::new(&config.resolver, SystemFiles::default());
    let generation = Generation::after(None, config, Loaded::default(), &LocalAddresses::default(), Instant::now());
    Epoch::new(Arc::new(generation), counters, names)
}

fn backend(epoch: &Epoch, name: &str) -> BackendId {
    BackendId(epoch.config().backends.iter().position(|backend| backend.name == name).expect("a backend"))
}

fn chain(epoch: &Epoch, backend_name: &str, client: &str) -> Chain {
    chain_by(Transport::Tcp, epoch, backend_name, client)
}

fn chain_by(transport: Transport, epoch: &Epoch, backend_name: &str, client: &str) -> Chain {
    Chain::new(backend(epoch, backend_name), client.parse().expect("an address"), transport)
}

/// All candidates in their order.
fn all(epoch: &Epoch, chain: &mut Chain) -> Vec<String> {
    std::iter::from_fn(|| {
        let (id, index) = chain.next(epoch)?;
        Some(epoch.config().backends[id.0].targets[index].to_string())
    })
    .collect()
}

fn failures(epoch: &Epoch) -> [u64; 3] {
    ["one", "two", "three"].map(|name| {
        let counters = epoch.counters.backend(backend(epoch, name)).expect("counted");
        counters.failures.get()
    })
}

fn fail(epoch: &Epoch, name: &str, index: usize) {
    let condition = &epoch.generation.candidates(backend(epoch, name))[index].condition;
    condition.failed(Transport::Tcp, None, Instant::now().into_std());
    assert!(!condition.is_usable(Transport::Tcp, Instant::now().into_std()), "it is ejected");
}

#[test]
fn who_leaves_early_counts_for_the_backends_that_were_passed_over_and_for_no_other() {
    for (tried, expected) in
        [(0, [0, 0, 0]), (1, [0, 0, 0]), (2, [0, 0, 0]), (3, [1, 0, 0]), (4, [1, 1, 0]), (5, [1, 1, 1])]
    {
        let epoch = epoch(THREE);
        let mut chain = chain(&epoch, "one", "198.51.100.1");
        for _ in 0..tried {
            chain.next(&epoch);
        }
        drop(chain);
        assert_eq!(failures(&epoch), expected, "after {tried}");
    }
}

#[test]
fn a_backend_to_which_a_chain_comes_back_has_not_yet_failed() {
    let epoch = epoch(THREE);
    fail(&epoch, "one", 0);
    let mut chain = chain(&epoch, "one", "198.51.100.1");
    let tried: Vec<_> = (0..4).filter_map(|_| chain.next(&epoch)).collect();
    assert_eq!(tried.last(), Some(&(backend(&epoch, "one"), 0)));
    drop(chain);
    assert_eq!(failures(&epoch), [0, 1, 1]);
}

#[test]
fn what_was_told_is_counted_once() {
    for by in [None, Some("two")] {
        let epoch = epoch(THREE);
        let mut chain = chain(&epoch, "one", "198.51.100.1");
        for _ in 0..3 {
            chain.next(&epoch);
        }
        chain.served(&epoch, by.map(|name| backend(&epoch, name)));
        drop(chain);
        assert_eq!(failures(&epoch), [1, u64::from(by.is_none()), 0], "{by:?}");
    }
}

/// Of an IPv4 client, the candidate of its own family being down.
fn order_with_its_own_family_down(source: &str) -> Vec<String> {
    let text = format!(
        r#"
        [listener.in]
        tcp = ["127.0.0.1:1"]
        [[rule]]
        to = "both"
        [backend.both]
        targets = ["[2001:db8::1]:1", "192.0.2.1:1", "[2001:db8::2]:1", "192.0.2.2:1"]
        eject = {{failures = 1, duration = "1h"}}
        source = "{source}"
        "#
    );
    let epoch = epoch(&text);
    let healthy = all(&epoch, &mut chain(&epoch, "both", "198.51.100.1"));
    let expected = if source == "own" {
        ["[2001:db8::1]:1", "192.0.2.1:1", "[2001:db8::2]:1", "192.0.2.2:1"]
    } else {
        ["192.0.2.1:1", "192.0.2.2:1", "[2001:db8::1]:1", "[2001:db8::2]:1"]
    };
    assert_eq!(healthy, expected, "{source}: while all are well");
    [0, 1, 3].into_iter().for_each(|index| fail(&epoch, "both", index));
    all(&epoch, &mut chain(&epoch, "both", "198.51.100.1"))
}

#[test]
fn where_the_clients_address_is_a_wish_a_healthy_candidate_of_the_other_family_comes_first() {
    let expected = ["[2001:db8::2]:1", "192.0.2.1:1", "192.0.2.2:1", "[2001:db8::1]:1"];
    assert_eq!(order_with_its_own_family_down("client_or_own"), expected);
}

#[test]
fn where_the_clients_address_is_a_must_only_its_family_can_serve_and_comes_first() {
    let expected = ["192.0.2.1:1", "192.0.2.2:1", "[2001:db8::2]:1", "[2001:db8::1]:1"];
    assert_eq!(order_with_its_own_family_down("client"), expected);
}

#[test]
fn with_the_proxys_own_address_families_do_not_matter() {
    let expected = ["[2001:db8::2]:1", "[2001:db8::1]:1", "192.0.2.1:1", "192.0.2.2:1"];
    assert_eq!(order_with_its_own_family_down("own"), expected);
}

const CHOSEN: &str = r#"
[listener.in]
tcp = ["127.0.0.1:1"]
[[rule]]
server_name = '^(?P<host>[^.]+)\.example$'
to = "one"
[backend.one]
targets = ["$host.lan:1", "$host.mesh:1"]
allow_suffixes = [".lan", ".mesh"]
fallback = "two"
eject = {failures = 1, duration = "1h"}
[backend.two]
targets = ["192.0.2.3:1"]
"#;

/// One that was silent.
fn fail_at(candidate: &Candidate, to: SocketAddr) {
    let client = [198, 51, 100, 1].into();
    let failed = crate::upstream::extent::Failed { by: Transport::Tcp, seen: None, client, to, is_refusal: false };
    candidate.condition.failed_at(failed, Instant::now().into_std());
}

#[test]
fn hosts_that_clients_name_are_kept_back_while_all_of_their_endpoints_rest_and_come_at_the_end() {
    let epoch = epoch(CHOSEN);
    let one = epoch.generation.candidates(backend(&epoch, "one"));
    let (dead, alive): (SocketAddr, SocketAddr) = (([192, 0, 2, 1], 1).into(), ([192, 0, 2, 2], 1).into());
    one.iter().for_each(|candidate| fail_at(candidate, dead));
    let tried = |leads_to: [SocketAddr; 2]| {
        let mut chain = chain(&epoch, "one", "198.51.100.1");
        let mut tried = Vec::new();
        while let Some((id, index)) = chain.next(&epoch) {
            let candidate = epoch.generation.candidates(id).get(index);
            tried.push((id.0, index, chain.unless_resting((id, index), candidate, leads_to.to_vec())));
        }
        tried
    };
    let both = vec![alive, dead];
    assert_eq!(tried([dead, alive]), [(0, 0, both.clone()), (0, 1, both), (1, 0, vec![dead, alive])]);
    let both = vec![dead, dead];
    let first = [(0, 0, vec![]), (0, 1, vec![]), (1, 0, both.clone())];
    assert_eq!(tried([dead, dead]), [first.as_slice(), &[(0, 0, both.clone()), (0, 1, both)]].concat());
}

#[test]
fn a_host_that_rests_is_tried_where_there_is_no_other() {
    let alone = CHOSEN.replace(", \"$host.mesh:1\"", "").replace("fallback = \"two\"", "");
    let epoch = epoch(&alone.replace("[backend.two]\ntargets = [\"192.0.2.3:1\"]", ""));
    let dead = ([192, 0, 2, 1], 1).into();
    let id = backend(&epoch, "one");
    let candidate = &epoch.generation.candidates(id)[0];
    fail_at(candidate, dead);
    let mut chain = chain(&epoch, "one", "198.51.100.1");
    assert_eq!(chain.next(&epoch), Some((id, 0)));
    assert_eq!(chain.unless_resting((id, 0), Some(candidate), vec![dead]), [dead]);
    assert_eq!(chain.next(&epoch), None);
}

#[test]
fn what_fails_clients_of_one_transport_keeps_its_place_for_those_of_the_other() {
    let [mapped, fixed] = [epoch(CHOSEN), epoch(THREE)];
    let dead: SocketAddr = ([192, 0, 2, 1], 1).into();
    let candidate = &mapped.generation.candidates(backend(&mapped, "one"))[0];
    fail_at(candidate, dead);
    fail(&fixed, "one", 0);
    for (transport, is_kept_back) in [(Transport::Tcp, true), (Transport::Udp, false)] {
        let mut by_name = chain_by(transport, &mapped, "one", "198.51.100.1");
        let first = by_name.next(&mapped).expect("a candidate");
        let addresses = by_name.unless_resting(first, Some(candidate), vec![dead]);
        assert_eq!(addresses.is_empty(), is_kept_back, "{transport:?}");
        let first = chain_by(transport, &fixed, "one", "198.51.100.1").next(&fixed);
        assert_eq!(first, Some((backend(&fixed, "one"), usize::from(is_kept_back))), "{transport:?}");
    }
}

#[test]
fn without_ejection_of_many_hosts_addresses_stay_in_their_order() {
    let epoch = epoch(THREE);
    let candidate = &epoch.generation.candidates(backend(&epoch, "one"))[0];
    fail(&epoch, "one", 0);
    let all: Vec<SocketAddr> = (1..40).map(|port| ([192, 0, 2, 1], port).into()).collect();
    let mut chain = chain(&epoch, "one", "198.51.100.1");
    assert_eq!(chain.unless_resting((BackendId(0), 0), Some(candidate), all.clone()), all);
}
