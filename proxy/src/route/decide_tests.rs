use std::slice::from_ref;

use proptest::prelude::*;

use super::*;
use crate::route::preface::TcpPreface;
use crate::route::sample::{arrived, config, rule, speaking, Told};
use crate::sniff::Found;

fn tls(name: &str, alpn: &[&str]) -> Sniffed {
    let alpn = alpn.iter().map(|it| it.as_bytes().to_vec()).collect();
    Sniffed::Yes(Found { name: Some(name.to_owned()), alpn, ..Found::default() })
}

fn yes() -> Sniffed {
    Sniffed::Yes(Found::default())
}

fn named(pattern: &str, backend: usize) -> Rule {
    Rule { server_name: Some(Regex::new(pattern).unwrap()), ..rule(backend) }
}

/// The backend; a letter for what is no backend.
fn word(decision: &Decision) -> String {
    match decision {
        Decision::NeedMore => "more".to_owned(),
        Decision::Forward { rule, backend, .. } => {
            assert_eq!(rule.0, backend.0, "samples number both alike");
            backend.0.to_string()
        }
        Decision::Refuse { rule } => format!("refuse {}", rule.0),
        Decision::NoRule => "none".to_owned(),
    }
}

fn led(rules: Vec<Rule>, arrived: &Arrived, answers: &[(Protocol, Sniffed)]) -> String {
    word(&decide(&config(rules), arrived, &mut Told::new(answers)))
}

fn finally_led(rules: Vec<Rule>, answers: &[(Protocol, Sniffed)]) -> String {
    word(&final_decision(&config(rules), &arrived(), &mut Told::new(answers)))
}

#[test]
fn the_first_rule_that_matches_decides() {
    assert_eq!(led(vec![rule(0), rule(1)], &arrived(), &[]), "0");
    assert_eq!(led(vec![speaking(&[Protocol::Ssh], 0), rule(1)], &arrived(), &[]), "1");
    assert_eq!(led(vec![], &arrived(), &[]), "none");
    assert_eq!(led(vec![speaking(&[Protocol::Ssh], 0)], &arrived(), &[]), "none");
}

#[test]
fn a_refusal_is_a_decision() {
    let refusal = Rule { action: Action::Refuse, ..rule(0) };
    assert_eq!(led(vec![refusal, rule(1)], &arrived(), &[]), "refuse 0");
}

#[test]
fn listeners_are_heeded() {
    let rules = || vec![Rule { listeners: vec![ListenerId(1)], ..rule(0) }, rule(1)];
    assert_eq!(led(rules(), &arrived(), &[]), "1");
    assert_eq!(led(rules(), &Arrived { listener: ListenerId(1), ..arrived() }, &[]), "0");
}

#[test]
fn transport_is_heeded() {
    let rules = || vec![Rule { transport: Some(Transport::Udp), ..rule(0) }, rule(1)];
    assert_eq!(led(rules(), &arrived(), &[]), "1");
    assert_eq!(led(rules(), &Arrived { transport: Transport::Udp, ..arrived() }, &[]), "0");
}

#[test]
fn ports_are_those_of_the_original_destination() {
    let rules = || vec![Rule { ports: vec![22..=22, 1000..=2000], ..rule(0) }, rule(1)];
    for (port, backend) in [(22, "0"), (1000, "0"), (2000, "0"), (443, "1"), (999, "1"), (2001, "1")] {
        let original_dst = SocketAddr::new("198.51.100.1".parse().unwrap(), port);
        assert_eq!(led(rules(), &Arrived { original_dst, ..arrived() }, &[]), backend, "{port}");
    }
}

#[test]
fn from_is_about_the_client_in_any_form() {
    let from = vec!["192.0.2.0/28".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
    let rules = || vec![Rule { from: from.clone(), ..rule(0) }, rule(1)];
    for (client, backend) in [
        ("192.0.2.15:1", "0"),
        ("192.0.2.16:1", "1"),
        ("[2001:db8::1]:1", "0"),
        ("[2001:db9::1]:1", "1"),
        ("[::ffff:192.0.2.1]:1", "0"),
    ] {
        assert_eq!(led(rules(), &Arrived { client: client.parse().unwrap(), ..arrived() }, &[]), backend, "{client}");
    }
}

#[test]
fn protocols_are_heeded_and_any_of_them_will_do() {
    let rules = || vec![speaking(&[Protocol::Ssh, Protocol::Rdp], 0), rule(1)];
    assert_eq!(led(rules(), &arrived(), &[(Protocol::Rdp, yes())]), "0");
    assert_eq!(led(rules(), &arrived(), &[(Protocol::Tls, yes())]), "1");
    assert_eq!(led(rules(), &arrived(), &[(Protocol::Ssh, Sniffed::NeedMore), (Protocol::Rdp, yes())]), "0");
    assert_eq!(led(rules(), &arrived(), &[(Protocol::Ssh, Sniffed::NeedMore)]), "more");
}

#[test]
fn server_name_is_heeded_for_whatever_bears_names() {
    let rules = || vec![named(r"^(?P<host>\w+)\.example$", 0), rule(1)];
    use Protocol::{Dtls, Git, Http1, Http2, Minecraft, Quic, Tls, Xmpp};
    for protocol in [Tls, Quic, Dtls, Http1, Http2, Minecraft, Xmpp, Git] {
        assert_eq!(led(rules(), &arrived(), &[(protocol, tls("box.example", &[]))]), "0", "{protocol:?}");
        assert_eq!(led(rules(), &arrived(), &[(protocol, tls("box.other", &[]))]), "1", "{protocol:?}");
        assert_eq!(led(rules(), &arrived(), &[(protocol, yes())]), "1", "{protocol:?}");
    }
    assert_eq!(led(rules(), &arrived(), &[(Protocol::Dns, tls("box.example", &[]))]), "1");
    let of_dns = Rule { protocols: vec![Protocol::Dns], ..named("^box", 0) };
    assert_eq!(led(vec![of_dns, rule(1)], &arrived(), &[(Protocol::Dns, tls("box.example", &[]))]), "0");
}

#[test]
fn captures_go_with_the_decision() {
    let rules = vec![named(r"^(?P<host>\w+)\.(?P<gone>x)?example$", 0)];
    let answers = [(Protocol::Tls, tls("box.example", &[]))];
    let Decision::Forward { captures, .. } = decide(&config(rules), &arrived(), &mut Told::new(&answers)) else {
        panic!("not led");
    };
    assert_eq!((captures.named("host"), captures.named("gone")), (Some("box"), None));
    assert_eq!(captures.iter().collect::<Vec<_>>(), [("host", "box")]);
}

#[test]
fn alpn_is_heeded() {
    let rules = || vec![Rule { alpn: vec![b"h2".to_vec(), b"bep/1.0".to_vec()], ..rule(0) }, rule(1)];
    assert_eq!(led(rules(), &arrived(), &[(Protocol::Tls, tls("a", &["http/1.1", "h2"]))]), "0");
    assert_eq!(led(rules(), &arrived(), &[(Protocol::Quic, tls("a", &["bep/1.0"]))]), "0");
    assert_eq!(led(rules(), &arrived(), &[(Protocol::Tls, tls("a", &["h3"]))]), "1");
    assert_eq!(led(rules(), &arrived(), &[(Protocol::Tls, tls("a", &[]))]), "1");
    let both = || vec![Rule { alpn: vec![b"h2".to_vec()], ..named("^a$", 0) }, rule(1)];
    assert_eq!(led(both(), &arrived(), &[(Protocol::Tls, tls("a", &["h2"]))]), "0");
    assert_eq!(led(both(), &arrived(), &[(Protocol::Tls, tls("b", &["h2"]))]), "1");
}

#[test]
fn ech_is_heeded() {
    let hello = |ech| Sniffed::Yes(Found { ech, ..Found::default() });
    for wanted in [true, false] {
        let rules = || vec![Rule { ech: Some(wanted), ..rule(0) }, rule(1)];
        for protocol in [Protocol::Tls, Protocol::Quic, Protocol::Dtls] {
            assert_eq!(led(rules(), &arrived(), &[(protocol, hello(wanted))]), "0");
            assert_eq!(led(rules(), &arrived(), &[(protocol, hello(!wanted))]), "1");
        }
        assert_eq!(led(rules(), &arrived(), &[(Protocol::Tls, Sniffed::NeedMore)]), "more");
        assert_eq!(led(rules(), &arrived(), &[(Protocol::Http1, tls("a", &[]))]), "1", "it has no hello");
        let also_http = || vec![Rule { protocols: vec![Protocol::Tls, Protocol::Http1], ..rules().remove(0) }, rule(1)];
        let expected = if wanted { "1" } else { "0" };
        assert_eq!(led(also_http(), &arrived(), &[(Protocol::Http1, tls("a", &[]))]), expected, "it hides nothing");
    }
    let silent = Rule { ech: Some(false), ..speaking(&[Protocol::Silence], 0) };
    assert!(!awaits_silence(&config(vec![silent]), &arrived()));
}

/// caddy-l4 #455: a hello in two segments, and a last rule that is not about TLS.
#[test]
fn a_later_no_or_yes_does_not_outrun_an_earlier_rule_that_needs_more() {
    let open = (Protocol::Tls, Sniffed::NeedMore);
    assert_eq!(
        led(vec![speaking(&[Protocol::Tls], 0), speaking(&[Protocol::Http1], 1)], &arrived(), from_ref(&open)),
        "more"
    );
    let later = [open.clone(), (Protocol::Socks5, yes())];
    assert_eq!(led(vec![speaking(&[Protocol::Tls], 0), speaking(&[Protocol::Socks5], 1)], &arrived(), &later), "more");
    assert_eq!(led(vec![speaking(&[Protocol::Tls], 0), rule(1)], &arrived(), from_ref(&open)), "more");
    assert_eq!(led(vec![speaking(&[Protocol::Socks5], 0), speaking(&[Protocol::Tls], 1)], &arrived(), &later), "0");
    let elsewhere = Rule { ports: vec![1..=1], ..speaking(&[Protocol::Tls], 0) };
    assert_eq!(led(vec![elsewhere, rule(1)], &arrived(), &[open]), "1");
}

#[test]
fn what_is_known_on_arrival_is_asked_first() {
    let elsewhere = Rule { ports: vec![1..=1], ..speaking(&[Protocol::Tls], 0) };
    let mut spoken = Told::default();
    let decision = decide(&config(vec![elsewhere, rule(1), speaking(&[Protocol::Ssh], 2)]), &arrived(), &mut spoken);
    assert_eq!((word(&decision).as_str(), spoken.asked), ("1", vec![]));
}

#[test]
fn at_the_end_what_needed_more_is_not_spoken() {
    let open = [(Protocol::Tls, Sniffed::NeedMore)];
    assert_eq!(finally_led(vec![speaking(&[Protocol::Tls], 0), rule(1)], &open), "1");
    assert_eq!(finally_led(vec![speaking(&[Protocol::Tls], 0)], &open), "none");
    assert_eq!(finally_led(vec![speaking(&[Protocol::Silence], 0)], &[(Protocol::Silence, Sniffed::NeedMore)]), "none");
}

#[test]
fn silence_matches_when_its_time_has_passed_without_a_byte() {
    let config = config(vec![speaking(&[Protocol::Tls, Protocol::Ssh], 0), speaking(&[Protocol::Silence], 1), rule(2)]);
    let mut preface = TcpPreface::default();
    assert_eq!(word(&decide(&config, &arrived(), &mut preface)), "more");
    preface.silence_passed();
    assert_eq!(word(&decide(&config, &arrived(), &mut preface)), "1");
    assert_eq!(word(&final_decision(&config, &arrived(), &mut preface)), "1");

    let mut spoke = TcpPreface::new(b"S".to_vec());
    spoke.silence_passed();
    assert_eq!(word(&decide(&config, &arrived(), &mut spoke)), "more");
    assert_eq!(word(&final_decision(&config, &arrived(), &mut spoke)), "2");
    let mut early = TcpPreface::default();
    assert_eq!(word(&final_decision(&config, &arrived(), &mut early)), "2");
}

#[test]
fn silence_is_awaited_only_where_a_rule_asks_for_it() {
    let silent = || speaking(&[Protocol::Silence], 0);
    let awaited = |rule: Rule| awaits_silence(&config(vec![rule]), &arrived());
    assert!(awaited(silent()));
    assert!(!awaited(speaking(&[Protocol::Ssh], 0)));
    assert!(!awaited(Rule { ports: vec![1..=1], ..silent() }));
    assert!(!awaited(Rule { protocols: vec![Protocol::Silence], ..named("a", 0) }));
}

proptest! {
    #[test]
    fn more_bytes_never_change_what_was_decided(
        asked in proptest::collection::vec(0..4_usize, 1..6),
        answers in proptest::collection::vec(0..3_usize, 4),
        open in proptest::collection::vec(any::<bool>(), 4),
    ) {
        let all = [Protocol::Tls, Protocol::Ssh, Protocol::Rdp, Protocol::Http1];
        let settled: Vec<_> =
            all.iter().zip(&answers).map(|(it, answer)| (*it, if *answer == 0 { yes() } else { Sniffed::No })).collect();
        let early: Vec<_> = settled
            .iter()
            .zip(&open)
            .map(|((it, answer), open)| (*it, if *open { Sniffed::NeedMore } else { answer.clone() }))
            .collect();
        let rules = || asked.iter().enumerate().map(|(index, it)| speaking(&[all[*it]], index)).collect::<Vec<_>>();
        let (first, last) = (led(rules(), &arrived(), &early), led(rules(), &arrived(), &settled));
        prop_assert!(first == "more" || first == last, "{} then {}", first, last);
        prop_assert_ne!(last, "more");
    }
}
