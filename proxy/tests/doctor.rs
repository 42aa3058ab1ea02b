//! `edgeproxy doctor` on real kernels: what it says is missing is missing, and the line that it gives mends it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

mod namespaces;

use std::process::Command;

use edgeproxy::config::model::Config;
use edgeproxy::transparent::doctor::{exit_status, judge, Finding, Status};
use edgeproxy::transparent::host_facts::HostFacts;
use namespaces::{in_namespaces, ip, run};

/// A home: backends on loopback, at another address of this host, and in a container.
const HOME: &str = r#"
[listener.home]
tcp = ["0.0.0.0:443", "[::]:443"]
udp = ["0.0.0.0:443"]

[[rule]]
from = ["198.51.100.0/25"]
to = "container"
[[rule]]
from = ["198.51.100.128/25"]
to = "inner"
[[rule]]
to = "loopback"

[backend.loopback]
targets = ["127.0.0.1:8080", "[::1]:8080"]
source = "client"

[backend.inner]
targets = ["192.168.5.1:8080", "[fd05::1]:8080"]
source = "client"

[backend.container]
targets = ["10.0.0.2:8080"]
source = "client"
send_proxy_udp = "every"
"#;

fn config(text: &str) -> Config {
    edgeproxy::config::parse(text, "home.toml").unwrap_or_else(|faults| panic!("{faults:?}"))
}

fn ask(config: &Config) -> Vec<Finding> {
    judge(config, &HostFacts::ask(config).unwrap())
}

fn network() {
    ip("link add inner type veth peer name nobody");
    ip("link add outer type veth peer name container");
    for (device, address) in [("inner", "192.168.5.1/24"), ("outer", "10.0.0.1/24"), ("inner", "fd05::1/64")] {
        let nodad = if address.contains(':') { " nodad" } else { "" };
        ip(&format!("address add {address} dev {device}{nodad}"));
        ip(&format!("link set {device} up"));
    }
    ip("route add default via 10.0.0.2");
    ip("-6 route add default dev inner");
}

fn mend(findings: &[Finding]) {
    for finding in findings.iter().filter(|finding| finding.status == Status::Missing) {
        run(Command::new("sh").args(["-ec", &finding.mend]));
    }
}

fn missing(findings: &[Finding]) -> Vec<&str> {
    let is_amiss = |finding: &&Finding| ![Status::Ok, Status::Note].contains(&finding.status);
    findings.iter().filter(is_amiss).map(|finding| finding.name.as_str()).collect()
}

#[test]
fn the_lines_that_it_gives_mend_what_is_missing() {
    in_namespaces("the_lines_that_it_gives_mend_what_is_missing", || {
        network();
        let config = config(HOME);
        let before = ask(&config);
        // Two routes, two rules of loopback, two of the mark; the table.
        assert_eq!(missing(&before), [&["rules and routes"; 6][..], &["table inet edgeproxy_0x6570"]].concat());
        assert_eq!(exit_status(&before), 1);
        mend(&before);
        let after = ask(&config);
        assert_eq!((missing(&after), exit_status(&after)), (vec![], 0), "{after:#?}");
    });
}

#[test]
fn what_the_proxy_manages_itself_is_not_missing_before_it_runs() {
    in_namespaces("what_the_proxy_manages_itself_is_not_missing_before_it_runs", || {
        network();
        let findings = ask(&config(&format!("{HOME}\n[transparent]\nmanage_rules = true\n")));
        assert_eq!(missing(&findings), [""; 0], "{findings:#?}");
        let capabilities = &findings[0];
        assert!(capabilities.found.contains("CAP_NET_ADMIN"), "{capabilities}");
    });
}

/// Everything that is there is spoilt in one way, and then mended by the line given.
fn spoilt(spoil: &[&str], name: &str, text: &str) {
    network();
    let config = config(text);
    mend(&ask(&config));
    assert_eq!(missing(&ask(&config)), [""; 0]);
    spoil.iter().for_each(|line| drop(run(Command::new("sh").args(["-ec", line]))));
    let found = ask(&config);
    assert_eq!(missing(&found), [name], "{found:#?}");
    mend(&found);
    let after = ask(&config);
    assert_eq!(missing(&after), [""; 0], "{after:#?}");
}

#[test]
fn clients_that_a_backend_answers_straight_are_noted_where_it_must_see_them() {
    in_namespaces("clients_that_a_backend_answers_straight_are_noted_where_it_must_see_them", || {
        network();
        let notes = |text: &str| {
            let found = ask(&config(text)).into_iter().filter(|finding| finding.status == Status::Note);
            found.map(|finding| finding.to_string()).collect::<Vec<_>>()
        };
        let [only] = &notes(HOME)[..] else { panic!("the container's alone: {:?}", notes(HOME)) };
        assert!(
            only.starts_with("note       neighbours of container: 10.0.0.2 answers clients in 10.0.0.0/24 straight"),
            "{only}"
        );
        assert_eq!(notes(&HOME.replace("\"client\"", "\"client_or_own\"")), [""; 0]);
    });
}

#[test]
fn a_mark_that_the_reverse_path_filter_looks_at() {
    in_namespaces("a_mark_that_the_reverse_path_filter_looks_at", || {
        spoilt(&["echo 1 > /proc/sys/net/ipv4/conf/all/src_valid_mark"], "reverse path filter", HOME);
    });
}

#[test]
fn no_route_by_which_answers_could_begin() {
    in_namespaces("no_route_by_which_answers_could_begin", || {
        spoilt(&["ip -6 route del default"], "ways to clients", HOME);
    });
}

#[test]
fn a_link_too_small_for_quic_with_a_header() {
    in_namespaces("a_link_too_small_for_quic_with_a_header", || {
        // 20 + 8 + 28 + 1280 bytes.
        spoilt(&["ip link set dev outer mtu 1335"], "packets to container", HOME);
        run(Command::new("ip").args(["link", "set", "dev", "outer", "mtu", "1336"]));
        assert_eq!(missing(&ask(&config(HOME))), [""; 0]);
        // Clients of IPv6 make a longer header.
        let both = HOME.replace(r#"udp = ["0.0.0.0:443"]"#, r#"udp = ["0.0.0.0:443", "[::]:443"]"#);
        assert_eq!(missing(&ask(&config(&both))), ["packets to container"]);
        let spp = HOME.replace(r#""every""#, r#""spp""#);
        assert_eq!(missing(&ask(&config(&spp))), ["packets to container"]);
        // So may a peer for its own.
        let behind = HOME.replace(
            "[[rule]]\nfrom = [\"198.51.100.0/25\"]",
            "proxy_header = [{from = \"192.0.2.1/32\", policy = \"require\"}]\n[[rule]]\nfrom = [\"198.51.100.0/25\"]",
        );
        assert_ne!(behind, HOME);
        let joined = HOME.replace(r#""every""#, "\"every\"\nsend_proxy_udp_with = [\"unique_id\"]");
        assert_eq!(missing(&ask(&config(&joined))), ["packets to container"], "an identifier takes 19 bytes more");
        run(Command::new("ip").args(["link", "set", "dev", "outer", "mtu", "1355"]));
        assert_eq!(missing(&ask(&config(&joined))), [""; 0]);
        assert_eq!(missing(&ask(&config(&behind))), ["packets to container"]);
        let signed = HOME.replace(r#""every""#, "\"every\"\nsign_proxy = \"/etc/edgeproxy/hop.key\"");
        assert_eq!(missing(&ask(&config(&signed))), ["packets to container"], "a signature takes 60 bytes more");
        run(Command::new("ip").args(["link", "set", "dev", "outer", "mtu", "1396"]));
        assert_eq!(missing(&ask(&config(&signed))), [""; 0]);
    });
}

#[test]
fn what_cannot_be_looked_at_is_told() {
    in_namespaces("what_cannot_be_looked_at_is_told", || {
        network();
        let text = HOME.replace("\"10.0.0.2:8080\"", "\"none.invalid:8080\", \"10.0.0.2:8080\", \"10.0.0.3:8080\"");
        let own = config(&format!("{text}\n[resolver]\nservers = [\"127.0.0.1:9\"]\ntimeout = \"100ms\"\n"));
        mend(&ask(&own));
        let not_tried = || {
            let found = ask(&own);
            assert_eq!(exit_status(&found), 0, "{found:#?}");
            found.into_iter().filter(|one| one.status == Status::NotTried).collect::<Vec<_>>()
        };
        let [only] = &not_tried()[..] else { panic!("the name alone") };
        assert_eq!(only.name, "packets to container");
        assert!(only.found.starts_with("none.invalid has no address now: "), "{only}");
        ip("route add unreachable 10.0.0.3");
        let [_, no_route] = &not_tried()[..] else { panic!("the name, and the address without a route") };
        assert!(no_route.found.starts_with("no route leads to 10.0.0.3"), "{no_route}");
    });
}

#[test]
fn ipv6_that_is_switched_off() {
    in_namespaces("ipv6_that_is_switched_off", || {
        let only_v6 =
            "[listener.v6]\ntcp = [\"[::]:8443\"]\n[[rule]]\nto = \"b\"\n[backend.b]\ntargets = [\"[::1]:80\"]\n";
        run(Command::new("sh").args(["-ec", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"]));
        let config = config(only_v6);
        let found = ask(&config);
        assert_eq!(missing(&found), ["IPv6"]);
        mend(&found);
        assert_eq!(missing(&ask(&config)), [""; 0]);
    });
}

#[test]
fn routes_of_others_in_the_table() {
    in_namespaces("routes_of_others_in_the_table", || {
        network();
        let config = config(HOME);
        mend(&ask(&config));
        ip("route add 198.51.100.0/24 dev outer table 25968");
        ip("route add blackhole 198.51.100.0/24 metric 9 table 25968");
        ip("-6 route add default dev inner metric 7 table 25968");
        let found = ask(&config);
        assert_eq!(missing(&found), ["rules and routes"]);
        mend(&found);
        assert_eq!(missing(&ask(&config)), [""; 0]);
    });
}

/// The home whose rules are there, with another listener.
fn listening_at(addresses: &str) -> Config {
    config(&HOME.replace(r#"udp = ["0.0.0.0:443"]"#, &format!("udp = [{addresses}]")))
}

#[test]
fn listeners_of_addresses_that_no_interface_has_but_one_could() {
    in_namespaces("listeners_of_addresses_that_no_interface_has_but_one_could", || {
        network();
        // A narrower network, and one on a link that is down.
        ip("address add 10.0.0.130/25 dev inner");
        ip("link add asleep type veth peer name beside");
        ip("address add 10.0.0.194/26 dev asleep");
        mend(&ask(&config(HOME)));
        let config = listening_at(r#""10.0.0.9:443", "10.0.0.200:443", "[fd05::9]:443", "192.168.5.1:443""#);
        let found = ask(&config);
        let lines: Vec<_> = found.iter().map(|finding| finding.mend.as_str()).filter(|line| !line.is_empty()).collect();
        let expected = [
            "ip address add 10.0.0.9/24 dev outer",
            "ip address add 10.0.0.200/25 dev inner",
            "ip address add fd05::9/64 dev inner",
        ];
        assert_eq!(lines, expected, "{found:#?}");
        assert_eq!(missing(&found), ["listeners"; 3]);
        mend(&found);
        assert_eq!(missing(&ask(&config)), [""; 0]);
    });
}

#[test]
fn listeners_of_addresses_in_no_network_here_are_told_in_words() {
    in_namespaces("listeners_of_addresses_in_no_network_here_are_told_in_words", || {
        network();
        ip("address add 203.0.113.1/24 dev lo");
        mend(&ask(&config(HOME)));
        let strange = ["192.0.2.1", "203.0.113.2", "2001:db8::77", "fe80::77"];
        let listed: Vec<_> = strange.into_iter().map(quoted_endpoint).collect();
        let config = listening_at(&listed.join(", "));
        let found = ask(&config);
        assert_eq!(missing(&found), ["listeners"; 4], "{found:#?}");
        for (finding, ip) in found.iter().filter(|finding| finding.name == "listeners").zip(strange) {
            assert!(finding.found.starts_with(&format!("no interface has {ip}")), "{finding}");
            assert_eq!(finding.mend, "", "nothing that could hide a mistake is offered");
            let switch = format!("net.{}.ip_nonlocal_bind=1", if ip.contains(':') { "ipv6" } else { "ipv4" });
            assert!(finding.found.contains(&switch) && finding.found.contains("tproxy"), "{finding}");
        }
        // Each family has its own switch.
        run(Command::new("sh").args(["-ec", "echo 1 > /proc/sys/net/ipv4/ip_nonlocal_bind"]));
        assert_eq!(missing(&ask(&config)), ["listeners"; 2]);
        run(Command::new("sh").args(["-ec", "echo 1 > /proc/sys/net/ipv6/ip_nonlocal_bind"]));
        assert_eq!(missing(&ask(&config)), [""; 0]);
    });
}

fn quoted_endpoint(ip: &str) -> String {
    if ip.contains(':') {
        format!("\"[{ip}]:443\"")
    } else {
        format!("\"{ip}:443\"")
    }
}

#[test]
fn an_ordinary_user_is_told_the_capabilities_and_what_could_not_be_asked() {
    in_namespaces("an_ordinary_user_is_told_the_capabilities_and_what_could_not_be_asked", || {
        network();
        let config = config(HOME);
        for set in [caps::CapSet::Bounding, caps::CapSet::Effective, caps::CapSet::Permitted] {
            caps::clear(None, set).unwrap();
        }
        let found = ask(&config);
        assert_eq!((found[0].name.as_str(), found[0].status), ("capabilities", Status::Missing));
        assert_eq!(found[0].mend, r#"setcap cap_net_raw,cap_net_bind_service=ep "$(command -v edgeproxy)""#);
        let not_tried: Vec<_> = found.iter().filter(|finding| finding.status == Status::NotTried).collect();
        let names: Vec<_> = not_tried.iter().map(|finding| finding.name.as_str()).collect();
        assert_eq!(names, ["transparent sockets, IPv4", "transparent sockets, IPv6", "table inet edgeproxy_0x6570"]);
    });
}

#[test]
fn low_ports_need_a_capability_only_where_the_kernel_says_so() {
    in_namespaces("low_ports_need_a_capability_only_where_the_kernel_says_so", || {
        let text =
            "[listener.l]\ntcp = [\"0.0.0.0:443\"]\n[[rule]]\nto = \"b\"\n[backend.b]\ntargets = [\"127.0.0.1:80\"]\n";
        let config = config(text);
        assert_eq!(ask(&config)[0].found, "CAP_NET_BIND_SERVICE");
        run(Command::new("sh").args(["-ec", "echo 443 > /proc/sys/net/ipv4/ip_unprivileged_port_start"]));
        assert_eq!(ask(&config)[0].found, "none is needed");
    });
}

#[test]
fn a_host_that_is_not_able_counts_more_than_what_is_missing() {
    let of = |status| Finding { name: "x".into(), status, found: "y".into(), mend: "one\ntwo".into() };
    assert_eq!(exit_status(&[of(Status::Ok), of(Status::NotTried), of(Status::Note)]), 0);
    assert_eq!(exit_status(&[of(Status::Unable), of(Status::Missing)]), 3);
    assert_eq!(of(Status::Missing).to_string(), "missing    x: y\n           one\n           two");
}
