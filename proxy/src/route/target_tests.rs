use proptest::prelude::*;
use regex::Regex;

use super::*;

fn captured(value: &str) -> Captures {
    Captures::of(&Regex::new("(?s)^(?P<host>.*)$").unwrap(), value).unwrap()
}

fn chosen_by(value: &str, suffixes: &[&str]) -> Result<Destination, TargetError> {
    let host = Host::Name(vec![NamePart::Capture("host".to_owned())]);
    filled(host, suffixes, value)
}

fn below_tailnet(value: &str) -> Result<Destination, TargetError> {
    let host = Host::Name(vec![NamePart::Capture("host".to_owned()), NamePart::Literal(".tailnet".to_owned())]);
    filled(host, &[".tailnet"], value)
}

fn filled(host: Host, suffixes: &[&str], value: &str) -> Result<Destination, TargetError> {
    let suffixes = suffixes.iter().map(|it| (*it).to_owned()).collect();
    let bounds = NameBounds { suffixes, single_labels: false };
    fill(&Target { host, port: TargetPort::Fixed(80) }, &bounds, &captured(value), 443)
}

fn name(name: &str) -> Result<Destination, TargetError> {
    Ok(Destination::Name { name: name.to_owned(), port: 80, is_searched: false })
}

fn name_of_file(name: &str) -> Result<Destination, TargetError> {
    Ok(Destination::Name { name: name.to_owned(), port: 80, is_searched: true })
}

#[test]
fn captures_stand_in_their_places() {
    assert_eq!(below_tailnet("Box"), name("box.tailnet"));
    assert_eq!(below_tailnet("a.b"), name("a.b.tailnet"));
    let missing = Host::Name(vec![NamePart::Capture("other".to_owned())]);
    assert_eq!(filled(missing, &[".tailnet"], "box"), Err(TargetError::CaptureMissing));
}

#[test]
fn ports_are_fixed_or_the_original_one() {
    let host = || Host::Address("192.0.2.7".parse().unwrap());
    let filled =
        |port, original| fill(&Target { host: host(), port }, &NameBounds::default(), &Captures::default(), original);
    let at = |text: &str| Ok(Destination::Address(text.parse().unwrap(), Origin::File));
    assert_eq!(filled(TargetPort::Fixed(80), 443), at("192.0.2.7:80"));
    assert_eq!(filled(TargetPort::Original, 443), at("192.0.2.7:443"));
    assert_eq!(filled(TargetPort::Original, 0), Err(TargetError::PortZero));
}

#[test]
fn a_choice_must_end_as_the_backend_allows() {
    for good in ["box.tailnet", "BOX.tailnet.", "a.b.tailnet"] {
        assert!(chosen_by(good, &[".home", ".tailnet"]).is_ok(), "{good}");
    }
    for bad in ["box.example", "box.nottailnet", "tailnet.example", "home.tail"] {
        assert_eq!(chosen_by(bad, &[".home", ".tailnet"]), Err(TargetError::Suffix), "{bad}");
    }
    for bad in ["nottailnet", "tailnet", "Tailnet.", "home"] {
        assert_eq!(chosen_by(bad, &[".home", ".tailnet"]), Err(TargetError::SingleLabel), "{bad}");
    }
    assert_eq!(chosen_by("box.tailnet", &[]), Err(TargetError::NoSuffixes));
}

#[test]
fn one_label_may_be_allowed_beside_suffixes_and_alone() {
    let chosen = |value: &str, suffixes: &[&str]| {
        let suffixes = suffixes.iter().map(|it| (*it).to_owned()).collect();
        let bounds = NameBounds { suffixes, single_labels: true };
        let host = Host::Name(vec![NamePart::Capture("host".to_owned())]);
        fill(&Target { host, port: TargetPort::Fixed(80) }, &bounds, &captured(value), 443)
    };
    for suffixes in [&[][..], &[".tailnet"]] {
        assert_eq!(chosen("Box", suffixes), name("box"));
        assert_eq!(chosen("box.", suffixes), name("box"), "which is not searched either");
        assert_eq!(chosen("box.example", suffixes), Err(TargetError::Suffix));
        assert_eq!(chosen("localhost", suffixes), Err(TargetError::Localhost));
        for address in ["2130706433", "0x7f000001", "127"] {
            assert_eq!(chosen(address, suffixes), Err(TargetError::AddressLiteral), "{address}");
        }
        assert_eq!(chosen("", suffixes), Err(TargetError::LabelEmpty));
        assert_eq!(chosen("-box", suffixes), Err(TargetError::Hyphen));
    }
    assert_eq!(chosen("box.tailnet", &[".tailnet"]), name("box.tailnet"));
    assert_eq!(chosen("box.tailnet", &[]), Err(TargetError::Suffix));
}

#[test]
fn names_of_the_file_are_free_as_long_as_they_are_names() {
    let literal = |text: &str| filled(Host::Name(vec![NamePart::Literal(text.to_owned())]), &[], "");
    assert_eq!(literal("localhost"), name_of_file("localhost"));
    assert_eq!(literal("Box.Example"), name_of_file("box.example"));
    assert_eq!(literal("Box.Example."), name("box.example"), "a final dot ends the search");
    assert_eq!(literal("a b"), Err(TargetError::Character));
}

#[test]
fn each_fault_has_its_error() {
    let long_label = "a".repeat(64);
    let long_name = ["a"; 130].join(".");
    for (value, error) in [
        ("", TargetError::LabelEmpty),
        (".", TargetError::LabelEmpty),
        ("a..b", TargetError::LabelEmpty),
        (".a", TargetError::LabelEmpty),
        ("../../etc", TargetError::LabelEmpty),
        ("a/b", TargetError::Character),
        ("a:80", TargetError::Character),
        ("a\0", TargetError::Character),
        ("a\n", TargetError::Character),
        ("a%b", TargetError::Character),
        ("ä", TargetError::Character),
        ("-a", TargetError::Hyphen),
        ("a-", TargetError::Hyphen),
        ("a.-b", TargetError::Hyphen),
        (long_label.as_str(), TargetError::LabelTooLong),
        (long_name.as_str(), TargetError::NameTooLong),
    ] {
        assert_eq!(below_tailnet(value), Err(error), "{value:?}");
    }
}

#[test]
fn a_choice_is_neither_an_address_nor_this_host() {
    let any_suffix = |value: &str| chosen_by(value, &[".1", ".254", ".0x1", ".localhost", ".localdomain", ".0.0.9"]);
    let addresses = ["127.0.0.1", "10.1", "2130706433", "0x7f.0x1", "0x7f000001", "169.254.169.254", "a.0x1"];
    for address in addresses.into_iter().chain(["127.0.0.1.", "10.0.0.9"]) {
        assert_eq!(any_suffix(address), Err(TargetError::AddressLiteral), "{address}");
    }
    for here in ["localhost", "LOCALHOST.", "a.localhost", "localhost.localdomain"] {
        assert_eq!(any_suffix(here), Err(TargetError::Localhost), "{here}");
    }
}

#[test]
fn labels_differ() {
    use TargetError::{
        AddressLiteral, CaptureMissing, Character, Hyphen, LabelEmpty, LabelTooLong, Localhost, NameTooLong,
        NoSuffixes, PortZero, Suffix,
    };
    let all = [
        CaptureMissing,
        LabelEmpty,
        LabelTooLong,
        NameTooLong,
        Character,
        Hyphen,
        AddressLiteral,
        Localhost,
        NoSuffixes,
        Suffix,
        PortZero,
    ];
    let labels: std::collections::BTreeSet<_> = all.iter().map(|error| error.label()).collect();
    assert_eq!(labels.len(), all.len());
}

proptest! {
    #[test]
    fn whatever_is_captured_the_name_is_below_the_suffix(value in "\\PC{0,40}|[a-z0-9.-]{0,300}") {
        if let Ok(Destination::Name { name, .. }) = below_tailnet(&value) {
            prop_assert!(name.ends_with(".tailnet") && name.len() <= 253);
            prop_assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)));
        }
    }
}
