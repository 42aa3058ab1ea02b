use super::*;
use crate::route::sample::config;

fn judged(policy: &TargetPolicy, address: &str, origin: Origin) -> Option<Forbidden> {
    forbidden(policy, &own(&[]), Transport::Tcp, SocketAddr::new(address.parse().unwrap(), 80), origin)
}

fn by_name(address: &str) -> Option<Forbidden> {
    judged(&TargetPolicy::default(), address, Origin::Name)
}

const SAMPLES: [(&str, Forbidden); 33] = [
    ("127.0.0.1", Forbidden::Loopback),
    ("127.255.255.254", Forbidden::Loopback),
    ("::1", Forbidden::Loopback),
    ("::ffff:127.0.0.1", Forbidden::Loopback),
    ("::127.0.0.1", Forbidden::Loopback),
    ("64:ff9b::127.0.0.1", Forbidden::Loopback),
    ("2002:7f00:1::", Forbidden::Loopback),
    ("169.254.0.1", Forbidden::LinkLocal),
    ("::ffff:169.254.0.1", Forbidden::LinkLocal),
    ("fe80::1", Forbidden::LinkLocal),
    ("febf::1", Forbidden::LinkLocal),
    ("0.0.0.0", Forbidden::Unspecified),
    ("0.1.2.3", Forbidden::Unspecified),
    ("::", Forbidden::Unspecified),
    ("::ffff:0.0.0.0", Forbidden::Unspecified),
    ("224.0.0.1", Forbidden::Multicast),
    ("239.255.255.255", Forbidden::Multicast),
    ("::ffff:224.0.0.1", Forbidden::Multicast),
    ("ff02::1", Forbidden::Multicast),
    ("ff0e::1", Forbidden::Multicast),
    ("255.255.255.255", Forbidden::Broadcast),
    ("::ffff:255.255.255.255", Forbidden::Broadcast),
    ("169.254.169.254", Forbidden::Metadata),
    ("::ffff:169.254.169.254", Forbidden::Metadata),
    ("64:ff9b::169.254.169.254", Forbidden::Metadata),
    ("169.254.170.2", Forbidden::Metadata),
    ("fd00:ec2::254", Forbidden::Metadata),
    ("fd20:ce::254", Forbidden::Metadata),
    ("100.100.100.200", Forbidden::Metadata),
    ("192.0.0.192", Forbidden::Metadata),
    ("168.63.129.16", Forbidden::Metadata),
    ("::ffff:100.100.100.200", Forbidden::Metadata),
    ("2002:a9fe:a9fe::1", Forbidden::Metadata),
];

#[test]
fn names_lead_to_none_of_these_and_the_file_may() {
    for (address, why) in SAMPLES {
        assert_eq!(by_name(address), Some(why), "{address}");
        assert_eq!(judged(&TargetPolicy::default(), address, Origin::File), None, "{address}");
    }
}

#[test]
fn names_lead_to_all_others() {
    for address in [
        "192.0.2.1",
        "10.0.0.1",
        "100.64.0.1",
        "100.100.100.100",
        "fd00::1",
        "2001:db8::1",
        "fec0::1",
        "126.0.0.1",
        "::ffff:10.0.0.1",
    ] {
        assert_eq!(by_name(address), None, "{address}");
    }
}

#[test]
fn what_the_file_allows_is_allowed_in_each_form() {
    let policy = allowing(&["127.0.0.0/8", "fe80::/10"]);
    for address in ["127.0.0.1", "::ffff:127.0.0.1", "fe80::1"] {
        assert_eq!(judged(&policy, address, Origin::Name), None, "{address}");
    }
    assert_eq!(judged(&policy, "::1", Origin::Name), Some(Forbidden::Loopback));
    let translated = allowing(&["64:ff9b::/96"]);
    assert_eq!(judged(&translated, "64:ff9b::127.0.0.1", Origin::Name), None);
    assert_eq!(judged(&translated, "127.0.0.1", Origin::Name), Some(Forbidden::Loopback));
}

fn prefixes(written: &[&str]) -> Vec<ipnet::IpNet> {
    written.iter().map(|it| it.parse().unwrap()).collect()
}

fn allowing(allow: &[&str]) -> TargetPolicy {
    TargetPolicy { allow: prefixes(allow), ..TargetPolicy::default() }
}

fn own(listeners: &[&str]) -> Own {
    let addresses: [IpAddr; 3] = ["198.51.100.1", "2001:db8::1", "2002:c633:6401::1"].map(|it| it.parse().unwrap());
    Own {
        is_local: Arc::new(move |address| addresses.contains(&address)),
        tcp: listeners.iter().map(|it| it.parse().unwrap()).collect(),
        udp: BTreeSet::new(),
    }
}

#[test]
fn a_circle_is_forbidden_whoever_asks() {
    for (listener, target, circle) in [
        ("0.0.0.0:443", "198.51.100.1:443", true),
        ("0.0.0.0:443", "127.0.0.9:443", true),
        ("0.0.0.0:443", "0.0.0.0:443", true),
        ("0.0.0.0:443", "[::ffff:198.51.100.1]:443", true),
        ("0.0.0.0:443", "198.51.100.1:444", false),
        ("0.0.0.0:443", "198.51.100.2:443", false),
        ("0.0.0.0:443", "[2001:db8::1]:443", false),
        ("[::]:443", "[2001:db8::1]:443", true),
        ("[::]:443", "[::1]:443", true),
        ("[::]:443", "198.51.100.1:443", false),
        ("198.51.100.1:443", "198.51.100.1:443", true),
        ("198.51.100.1:443", "127.0.0.1:443", false),
        ("127.0.0.1:443", "0.0.0.0:443", true),
        ("203.0.113.9:443", "203.0.113.9:443", true),
        ("[::]:443", "[2002:c633:6401::1]:443", true),
        ("[::]:443", "[2002:c633:6402::1]:443", false),
    ] {
        for origin in [Origin::File, Origin::Name] {
            let why =
                forbidden(&TargetPolicy::default(), &own(&[listener]), Transport::Tcp, target.parse().unwrap(), origin);
            assert_eq!(why == Some(Forbidden::OwnListener), circle, "{listener} {target} {origin:?}");
        }
    }
    let udp = forbidden(
        &TargetPolicy::default(),
        &own(&["0.0.0.0:443"]),
        Transport::Udp,
        "198.51.100.1:443".parse().unwrap(),
        Origin::Name,
    );
    assert_eq!(udp, None);
}

#[test]
fn a_circle_can_be_allowed() {
    let policy = allowing(&["198.51.100.1/32"]);
    let why =
        forbidden(&policy, &own(&["0.0.0.0:443"]), Transport::Tcp, "198.51.100.1:443".parse().unwrap(), Origin::Name);
    assert_eq!(why, None);
}

#[test]
fn what_the_file_says_leads_here_is_a_circle_at_the_ports_of_listeners() {
    let policy = TargetPolicy {
        own: prefixes(&["203.0.113.10/32", "2001:db8:a::/64", "2002:cb00:710b::/48"]),
        ..allowing(&["2001:db8:a::a/128"])
    };
    for (listener, target, circle) in [
        ("0.0.0.0:443", "203.0.113.10:443", true),
        ("0.0.0.0:443", "[::ffff:203.0.113.10]:443", true),
        ("0.0.0.0:443", "[64:ff9b::203.0.113.10]:443", true),
        ("10.0.0.5:443", "203.0.113.10:443", true), // the translator's inside
        ("127.0.0.1:443", "203.0.113.10:443", false),
        ("0.0.0.0:443", "203.0.113.10:444", false),
        ("0.0.0.0:443", "203.0.113.11:443", false),
        ("[::]:443", "203.0.113.10:443", false),
        ("[::]:443", "[2001:db8:a::7]:443", true),
        ("[fd00::5]:443", "[2001:db8:a::7]:443", true),
        ("[::1]:443", "[2001:db8:a::7]:443", false),
        ("0.0.0.0:443", "[2001:db8:a::7]:443", false),
        ("[::]:443", "[2001:db8:b::7]:443", false),
        ("[::]:443", "[2001:db8:a::a]:443", false), // allowed
        ("[::]:443", "[2002:cb00:710b::1]:443", true),
    ] {
        for origin in [Origin::File, Origin::Name] {
            let judged = |policy: &TargetPolicy, transport| {
                let own = Own { udp: own(&["0.0.0.0:53"]).tcp, ..own(&[listener]) };
                forbidden(policy, &own, transport, target.parse().unwrap(), origin)
            };
            let shown = format!("{listener} {target} {origin:?}");
            assert_eq!(judged(&policy, Transport::Tcp), circle.then_some(Forbidden::OwnListener), "{shown}");
            assert_eq!(judged(&policy, Transport::Udp), None, "{shown}");
            assert_eq!(judged(&TargetPolicy { own: Vec::new(), ..policy.clone() }, Transport::Tcp), None, "{shown}");
        }
    }
}

#[test]
fn what_a_listener_would_hear_is_of_its_port_and_transport_and_family() {
    for (listener, target, would) in [
        ("0.0.0.0:443", "203.0.113.10:443", true),
        ("10.0.0.5:443", "203.0.113.10:443", true),
        ("[::]:443", "[2001:db8:a::7]:443", true),
        ("0.0.0.0:443", "203.0.113.10:444", false),
        ("[::]:443", "203.0.113.10:443", false),
        ("127.0.0.1:443", "203.0.113.10:443", false),
    ] {
        let own = own(&[listener]);
        assert_eq!(own.would_answer(Transport::Tcp, target.parse().unwrap()), would, "{listener} {target}");
        assert!(!own.would_answer(Transport::Udp, target.parse().unwrap()), "{listener} {target}");
    }
}

#[test]
fn the_listeners_are_those_of_the_configuration() {
    let own = Own::new(&config(Vec::new()), |address| address == IpAddr::from([198, 51, 100, 1]));
    for (transport, target, circle) in [
        (Transport::Tcp, "198.51.100.1:443", true),
        (Transport::Udp, "198.51.100.1:8443", true),
        (Transport::Udp, "198.51.100.1:53", false),
    ] {
        let policy = TargetPolicy::default();
        assert_eq!(own.answers(&policy, transport, target.parse().unwrap()), circle, "{target}");
    }
}

#[test]
fn labels_differ() {
    let mut kinds: BTreeSet<_> = SAMPLES.iter().map(|(_, why)| *why).collect();
    kinds.insert(Forbidden::OwnListener);
    let labels: BTreeSet<_> = kinds.iter().map(|why| why.label()).collect();
    assert_eq!((labels.len(), kinds.len()), (7, 7));
}
