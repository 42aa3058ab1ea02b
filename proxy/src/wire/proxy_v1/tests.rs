use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

fn refusal(line: &str) -> HeaderRefusal {
    match parse(line.as_bytes()) {
        Parse::Refuse(refusal) => refusal,
        other @ (Parse::NeedMore | Parse::Done { .. }) => panic!("{line:?}: {other:?}"),
    }
}

#[test]
fn the_line_is_as_the_specification_has_it() {
    let line = |client: &str, destination: &str| {
        String::from_utf8(build(client.parse().unwrap(), destination.parse().unwrap())).unwrap()
    };
    assert_eq!(line("192.168.0.1:56324", "192.168.0.11:443"), "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n");
    assert_eq!(line("[2001:db8::1]:1", "[2001:db8::2]:2"), "PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n");
    assert_eq!(line("192.0.2.1:1", "[2001:db8::2]:2"), "PROXY TCP6 ::ffff:c000:201 2001:db8::2 1 2\r\n");
    assert_eq!(line("[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.2]:2"), "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
}

#[test]
fn every_byte_of_a_line_that_becomes_another_character_changes_the_answer_or_an_address() {
    let line = build("192.0.2.1:56324".parse().unwrap(), "198.51.100.1:443".parse().unwrap());
    let right = parse(&line);
    for at in 0..line.len() {
        for other in (0..=255).filter(|other| *other != line[at]) {
            let mut wrong = line.clone();
            wrong[at] = other;
            assert_ne!(parse(&wrong), right, "byte {at} as {other:#04x}");
        }
    }
}

#[test]
fn a_word_that_is_not_the_first_is_refused_at_its_first_wrong_byte() {
    assert_eq!(parse(b"PROX"), Parse::NeedMore);
    assert_eq!(refusal("PROT"), HeaderRefusal::V1Missing);
    assert_eq!(refusal("GET / HTTP/1.1\r\n"), HeaderRefusal::V1Missing);
}

#[test]
fn nothing_is_decoded_before_the_line_ends() {
    assert_eq!(parse(b"PROXY TCP9 nonsense"), Parse::NeedMore);
    assert_eq!(refusal("PROXY TCP9 nonsense\r\n"), HeaderRefusal::V1Protocol);
}

proptest! {
    #[test]
    fn what_is_built_is_read(client: (IpAddr, u16), destination: (IpAddr, u16), after: Vec<u8>) {
        let (client, destination) = (SocketAddr::from(client), SocketAddr::from(destination));
        let line = build(client, destination);
        prop_assert!(line.len() <= 104);
        let Parse::Done { value, consumed } = parse(&[line.as_slice(), &after].concat()) else { panic!("{line:?}") };
        prop_assert_eq!(consumed, line.len());
        prop_assert_eq!(value.addresses, Some(Endpoints::of(client, destination).pair()));
    }
}
