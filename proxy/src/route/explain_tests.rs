use proptest::prelude::*;
use regex::Regex;

use super::*;
use crate::config::model::ListenerId;
use crate::route::decide::{decide, Arrived, Decision};
use crate::route::preface::TcpPreface;
use crate::route::sample::{arrived, config, rule, speaking, Told};

fn rules() -> Vec<Rule> {
    vec![
        Rule {
            listeners: vec![ListenerId(1)],
            transport: Some(Transport::Tcp),
            ports: vec![443..=443, 1000..=2000],
            from: vec!["192.0.2.0/24".parse().unwrap()],
            server_name: Some(Regex::new(r"^(?P<host>\w+)\.example$").unwrap()),
            alpn: vec![b"h2".to_vec()],
            ech: Some(true),
            protocols: vec![Protocol::Tls],
            ..rule(0)
        },
        speaking(&[Protocol::EternalTerminal], 1),
        rule(2),
    ]
}

fn claimed(name: &str) -> Claimed {
    Claimed { name: Some(name.to_owned()), alpn: vec![b"h2".to_vec()], ech: Some(true), ..Claimed::default() }
}

fn whole() -> Known {
    Known::from(&Arrived { listener: ListenerId(1), ..arrived() })
}

fn holdings(trace: &RuleTrace) -> Vec<(Condition, Holding)> {
    trace.conditions.iter().map(|it| (it.condition, it.holding)).collect()
}

#[test]
fn each_condition_is_shown_with_what_was_compared() {
    let explained = explain(&config(rules()), &whole(), &mut claimed("Box.example."));
    let why: Vec<_> = explained.rules[0].conditions.iter().map(|it| it.why.as_str()).collect();
    assert_eq!(
        why,
        [
            "home; wanted: home",
            "tcp; wanted: tcp",
            "443; wanted: 443, 1000-2000",
            "192.0.2.1; wanted: 192.0.2.0/24",
            "tls: yes",
            r"box.example; wanted: ^(?P<host>\w+)\.example$",
            "h2; wanted: h2",
            "true; wanted: true",
        ]
    );
    assert!(holdings(&explained.rules[0]).iter().all(|(_, holding)| *holding == Holding::Holds));
    assert_eq!(explained.rules[1].conditions[0].why, "eternal_terminal: no");
    assert!(explained.rules[2].conditions.is_empty());
    let Outcome::Decided(id, captures) = explained.outcome else { panic!("not decided") };
    assert_eq!((id, captures.named("host")), (RuleId(0), Some("box")));
    let facts: Vec<_> = explained.rules.iter().map(|it| (it.name.as_str(), it.line, it.holding)).collect();
    let expected = [("to 0", 1, Holding::Holds), ("to 1", 2, Holding::DoesNot), ("to 2", 3, Holding::Holds)];
    assert_eq!(facts, expected);
}

#[test]
fn one_condition_that_does_not_hold_is_the_one_shown() {
    let fails = |known: Known, mut claimed: Claimed| -> Vec<Condition> {
        let explained = explain(&config(rules()), &known, &mut claimed);
        assert_eq!(explained.rules[0].holding, Holding::DoesNot);
        assert_eq!(explained.outcome, Outcome::Decided(RuleId(2), Captures::default()));
        holdings(&explained.rules[0]).into_iter().filter(|(_, it)| *it != Holding::Holds).map(|(it, _)| it).collect()
    };
    let good = || claimed("box.example");
    assert_eq!(fails(Known { listener: Some(ListenerId(0)), ..whole() }, good()), [Condition::Listeners]);
    assert_eq!(fails(Known { transport: Some(Transport::Udp), ..whole() }, good()), [Condition::Transport]);
    assert_eq!(fails(Known { port: Some(444), ..whole() }, good()), [Condition::Ports]);
    assert_eq!(fails(Known { client: Some("198.51.100.1".parse().unwrap()), ..whole() }, good()), [Condition::From]);
    assert_eq!(fails(whole(), claimed("box.other")), [Condition::ServerName]);
    assert_eq!(fails(whole(), Claimed { alpn: vec![b"h3".to_vec()], ..good() }), [Condition::Alpn]);
    assert_eq!(fails(whole(), Claimed { ech: Some(false), ..good() }), [Condition::Ech]);
    let other = Claimed { protocol: Some(Protocol::Http1), ..good() };
    assert_eq!(fails(whole(), other), [Condition::Protocols, Condition::ServerName, Condition::Alpn, Condition::Ech]);
}

#[test]
fn what_is_not_told_is_unknown_and_the_rules_that_it_leaves_are_listed() {
    let explained = explain(&config(rules()), &Known::default(), &mut Claimed::default());
    assert!(holdings(&explained.rules[0]).iter().all(|(_, holding)| *holding == Holding::Unknown));
    assert_eq!(explained.rules[0].conditions[0].why, "not known; wanted: home");
    let candidates = vec![RuleId(0), RuleId(1), RuleId(2)];
    assert_eq!(explained.outcome, Outcome::Depends { candidates, certain_end: true });
    let open = explain(&config(rules()[..1].to_vec()), &Known::default(), &mut Claimed::default());
    assert_eq!(open.outcome, Outcome::Depends { candidates: vec![RuleId(0)], certain_end: false });
    let none =
        explain(&config(rules()[..1].to_vec()), &Known { port: Some(1), ..Known::default() }, &mut Claimed::default());
    assert_eq!(none.outcome, Outcome::NoRule);
}

#[test]
fn whether_a_hello_hides_another_one_is_known_only_where_it_is_said_or_there_is_none() {
    for wanted in [true, false] {
        let hello = Rule { ech: Some(wanted), ..rules().remove(0) };
        let holding =
            |ech| explain(&config(vec![hello.clone()]), &whole(), &mut Claimed { ech, ..claimed("a.example") });
        for (said, expected) in
            [(None, Holding::Unknown), (Some(wanted), Holding::Holds), (Some(!wanted), Holding::DoesNot)]
        {
            let trace = holding(said).rules.remove(0);
            assert_eq!(
                (trace.holding, holdings(&trace).pop()),
                (expected, Some((Condition::Ech, expected))),
                "{said:?}"
            );
        }
        let other = |ech| explain(&config(vec![hello.clone()]), &whole(), &mut Claimed { ech, ..claimed("other") });
        assert_eq!(other(None).outcome, Outcome::NoRule, "it fails by its name whatever it hides");
        let silent = Rule { ech: Some(wanted), ..speaking(&[Protocol::Silence], 0) };
        let mut says_nothing = Claimed { protocol: Some(Protocol::Silence), ..Claimed::default() };
        let expected = if wanted { Outcome::NoRule } else { Outcome::Decided(RuleId(0), Captures::default()) };
        assert_eq!(explain(&config(vec![silent]), &whole(), &mut says_nothing).outcome, expected);
    }
}

#[test]
fn a_name_alone_means_tls_and_over_udp_quic() {
    let mut tcp = claimed("a");
    assert!(matches!(tcp.is(Protocol::Tls), Sniffed::Yes(_)));
    assert_eq!(tcp.is(Protocol::Quic), Sniffed::No);
    let mut udp = Claimed { transport: Some(Transport::Udp), ..claimed("a") };
    assert!(matches!(udp.is(Protocol::Quic), Sniffed::Yes(_)));
    assert_eq!(udp.is(Protocol::Tls), Sniffed::No);
    let mut offers = Claimed { alpn: vec![b"h2".to_vec()], ..Claimed::default() };
    assert!(matches!(offers.is(Protocol::Tls), Sniffed::Yes(_)));
    let mut nothing = Claimed { transport: Some(Transport::Tcp), ..Claimed::default() };
    assert_eq!((nothing.is(Protocol::Tls), nothing.is(Protocol::Wireguard)), (Sniffed::NeedMore, Sniffed::No));
    let mut ssh = Claimed { protocol: Some(Protocol::Ssh), ..Claimed::default() };
    assert!(matches!(ssh.is(Protocol::Ssh), Sniffed::Yes(_)));
}

#[test]
fn bytes_can_be_explained_too() {
    let mut preface = TcpPreface::new(b"\x14\0\0\0\0\0\0\0".to_vec());
    let explained = explain(&config(rules()), &whole(), &mut preface);
    assert_eq!(explained.outcome, Outcome::Decided(RuleId(1), Captures::default()));
}

proptest! {
    /// The explanation and the decision are of one mind.
    #[test]
    fn it_explains_what_is_decided(
        asked in proptest::collection::vec((0..3_usize, any::<bool>()), 0..5),
        answers in proptest::collection::vec(0..3_usize, 3),
    ) {
        let all = [Protocol::Tls, Protocol::Ssh, Protocol::Rdp];
        let words = [Sniffed::Yes(Found::default()), Sniffed::No, Sniffed::NeedMore];
        let told: Vec<_> = all.iter().zip(&answers).map(|(it, answer)| (*it, words[*answer].clone())).collect();
        let rules = asked.iter().enumerate().map(|(index, (it, here))| Rule {
            ports: if *here { Vec::new() } else { vec![1..=1] },
            ..speaking(&[all[*it]], index)
        });
        let config = config(rules.collect());
        let explained = explain(&config, &Known::from(&arrived()), &mut Told::new(&told)).outcome;
        match decide(&config, &arrived(), &mut Told::new(&told)) {
            Decision::Forward { rule, captures, .. } => prop_assert_eq!(explained, Outcome::Decided(rule, captures)),
            Decision::NoRule => prop_assert_eq!(explained, Outcome::NoRule),
            Decision::NeedMore => {
                let depends = matches!(explained, Outcome::Depends { .. });
                prop_assert!(depends);
            }
            Decision::Refuse { .. } => prop_assert!(false),
        }
    }
}
