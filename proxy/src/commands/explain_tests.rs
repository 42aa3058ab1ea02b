//! Answers about the shipped examples and about files of few lines.

use super::*;

const EDGE: &str = include_str!("../../examples/edge.toml");
const HOME: &str = include_str!("../../examples/home.toml");

fn ask(text: &str, asked: &Explain) -> (String, Value) {
    let config = config::parse(text, "f").unwrap();
    let known = known(asked, &config).unwrap();
    let json = Explain { json: true, ..asked.clone() };
    (answer(asked, &config, &known), serde_json::from_str(&answer(&json, &config, &known)).unwrap())
}

fn named(name: &str) -> Explain {
    Explain { sni: Some(name.to_owned()), port: Some(443), ..Explain::default() }
}

#[test]
fn the_edge_leads_by_name() {
    let (text, json) = ask(EDGE, &named("git.nas.example.net"));
    let line =
        |rule: &str| json["rules"].as_array().unwrap().iter().find(|one| one["rule"] == rule).unwrap()["line"].clone();
    assert!(text.contains(&format!("\"alias\" (line {}) does not match", line("alias"))), "{text}");
    assert!(text.contains(&format!("\"no name\" (line {}) is not reached", line("no name"))), "{text}");
    let end = format!("\"by name\" (line {}), host = \"nas\" -> by-name (nas.tailnet:4443)\n", line("by name"));
    assert!(text.ends_with(&end), "{text}");
    assert_eq!((&json["outcome"], &json["ends"][0]["captures"]["host"]), (&"decided".into(), &"nas".into()));
    assert_eq!(json["ends"][0]["backends"][0]["candidates"][0]["target"], "nas.tailnet:4443");
    assert_eq!(ask(EDGE, &named("a.hub.example.net")).1["ends"][0]["rule"], "alias");
    assert_eq!(ask(EDGE, &named("example.net")).1["ends"][0]["rule"], "no name");
}

#[test]
fn a_suffix_with_its_dot_allows_what_is_below_it_only() {
    let text = "[listener.a]\ntcp = [\"0.0.0.0:1\"]\n[[rule]]\nserver_name = '^(?P<host>.+)$'\nto = \"x\"\n\
                [backend.x]\ntargets = [\"$host:443\"]\nallow_suffixes = [\".lan\"]\n";
    assert!(ask(text, &named("nas.lan")).0.ends_with("-> x (nas.lan:443)\n"));
    let (shown, json) = ask(text, &named("nas.nolan"));
    assert!(shown.contains("ends in none of allow_suffixes"), "{shown}");
    assert!(json["ends"][0]["backends"][0]["candidates"][0]["refused"].is_string(), "{json}");
    let shown = ask(text, &named("lan")).0;
    assert!(shown.contains("one label, which takes allow_single_labels"), "{shown}");
    let allowed = text.replace("allow_suffixes = [\".lan\"]", "allow_single_labels = true");
    assert!(ask(&allowed, &named("lan")).0.ends_with("-> x (lan:443)\n"));
}

#[test]
fn what_the_file_says_leads_here_is_refused_at_the_ports_of_listeners() {
    let text = "[listener.a]\ntcp = [\"0.0.0.0:443\"]\n[[rule]]\nto = \"x\"\n[backend.x]\n\
                targets = [\"203.0.113.10:$port\"]\n[targets]\nown = [\"203.0.113.10/32\"]\n";
    let at = |port| Explain { port: Some(port), ..Explain::default() };
    let (shown, json) = ask(text, &at(443));
    let refused = "a listener of this proxy, by targets.own";
    assert_eq!(json["ends"][0]["backends"][0]["candidates"][0]["refused"], refused);
    assert!(shown.contains(refused), "{shown}");
    assert!(ask(text, &at(444)).0.ends_with("-> x (203.0.113.10:444)\n"));
}

#[test]
fn a_backend_with_several_ways_is_told_of_where_tcp_may_lead_there() {
    let text = "[listener.a]\ntcp = [\"0.0.0.0:443\"]\n[[rule]]\nto = \"x\"\n[backend.x]\n\
                targets = [\"203.0.113.10:443\"]\nmptcp = true\n";
    let by = |transport| Explain { transport, ..Explain::default() };
    for (transport, end, mptcp) in [
        (Some(Transport::Tcp), "-> x by MPTCP (203.0.113.10:443)\n", true),
        (None, "-> x by MPTCP (203.0.113.10:443)\n", true),
        (Some(Transport::Udp), "-> x (203.0.113.10:443)\n", false),
    ] {
        let (shown, json) = ask(text, &by(transport));
        assert!(shown.ends_with(end), "{shown}");
        assert_eq!(json["ends"][0]["backends"][0]["mptcp"], mptcp);
    }
}

#[test]
fn what_is_not_said_leaves_several_ends() {
    let (text, json) = ask(EDGE, &Explain::default());
    assert!(text.contains("one of these decides:"), "{text}");
    let rules: Vec<_> = json["ends"].as_array().unwrap().iter().map(|end| end["rule"].clone()).collect();
    assert_eq!(
        (&json["outcome"], rules),
        (&"depends".into(), vec!["alias".into(), "by name".into(), "no name".into()])
    );
    assert_eq!(json["ends"][1]["backends"][0]["candidates"][0]["target"], "$host.tailnet:4443");
}

#[test]
fn home_leads_by_protocol_and_whatever_else_to_the_last() {
    for (protocol, transport, expected) in [
        (Protocol::Ssh, Transport::Tcp, "ssh"),
        (Protocol::Silence, Transport::Tcp, "ssh"),
        (Protocol::Http1, Transport::Tcp, "http"),
        (Protocol::Quic, Transport::Udp, "tls"),
        (Protocol::Postgres, Transport::Tcp, "others"),
        (Protocol::Dns, Transport::Udp, "others"),
    ] {
        let asked = Explain { protocol: Some(protocol), transport: Some(transport), ..Explain::default() };
        assert_eq!(ask(HOME, &asked).1["ends"][0]["rule"], expected, "{protocol:?}");
    }
    let without_the_last = HOME.replace("name = \"others\"", "name = \"others\"\ntransport = \"tcp\"");
    let asked = Explain { protocol: Some(Protocol::Dns), transport: Some(Transport::Udp), ..Explain::default() };
    let (text, json) = ask(&without_the_last, &asked);
    assert_eq!(json["outcome"], "no_rule");
    assert!(text.ends_with("no rule matches: refused\n"), "{text}");
}

#[test]
fn each_option_is_heeded() {
    let text =
        "deny = [\"198.51.100.0/24\"]\n[listener.a]\ntcp = [\"0.0.0.0:1\"]\n[listener.b]\ntcp = [\"0.0.0.0:2\"]\n\
                [[rule]]\nname = \"listener\"\nlisteners = [\"b\"]\nrefuse = true\n\
                [[rule]]\nname = \"from\"\nfrom = [\"203.0.113.0/24\"]\nto = \"x\"\n\
                [[rule]]\nname = \"alpn\"\nalpn = [\"h2\"]\nrefuse = true\n\
                [[rule]]\nname = \"ech\"\nech = true\nrefuse = true\n\
                [[rule]]\nname = \"last\"\nto = \"x\"\n\
                [backend.x]\ntargets = [\"192.0.2.1:$port\", \"127.0.0.1:1\"]\nfallback = \"y\"\n\
                [backend.y]\ntargets = [\"192.0.2.2:22\"]\n[targets]\nallow = [\"127.0.0.1/32\"]\n";
    let at = |listener: &str| Explain {
        listener: Some(listener.to_owned()),
        from: Some("192.0.2.7".parse().unwrap()),
        protocol: Some(Protocol::Tls),
        ech: Some(false),
        ..Explain::default()
    };
    let (shown, json) = ask(text, &at("b"));
    assert!(shown.ends_with("\"listener\" (line 6) -> refused\n"), "{shown}");
    assert_eq!(json["ends"][0]["backends"], json!([]));
    let from = Explain { from: Some("203.0.113.9".parse().unwrap()), port: Some(77), ..at("a") };
    let (shown, _) = ask(text, &from);
    assert!(shown.ends_with("-> x (192.0.2.1:77, 127.0.0.1:1), then y (192.0.2.2:22)\n"), "{shown}");
    let ech = Explain { ech: Some(true), ..at("a") };
    assert_eq!(ask(text, &ech).1["ends"][0]["rule"], "ech");
    let (shown, json) = ask(text, &Explain { ech: None, ..at("a") });
    assert!(shown.contains("    ech: not known: not known; wanted: true\n"), "{shown}");
    let ends = ["ech", "last"].map(|rule| json["ends"].as_array().unwrap().iter().any(|end| end["rule"] == rule));
    assert_eq!((&json["outcome"], ends), (&"depends".into(), [true, true]), "what is not said is not known");
    let alpn = Explain { alpn: vec!["h2".to_owned()], ..at("a") };
    assert_eq!(ask(text, &alpn).1["ends"][0]["rule"], "alpn");
    let (shown, json) = ask(text, &at("a"));
    assert_eq!(json["ends"][0]["rule"], "last");
    assert!(shown.contains("192.0.2.1:$port"), "{shown}");
    let denied = Explain { from: Some("198.51.100.9".parse().unwrap()), ..at("a") };
    let (shown, json) = ask(text, &denied);
    assert_eq!((shown.contains("is in `deny`"), &json["outcome"]), (true, &"denied".into()));
    let fault = known(&at("c"), &config::parse(text, "f").unwrap()).unwrap_err();
    assert!(fault.contains("no listener is called \"c\"; there are: a, b"), "{fault}");
}

#[test]
fn what_is_signed_is_said_and_no_key_is_needed_to_say_it() {
    let text =
        "[listener.a]\ntcp = [\"0.0.0.0:443\"]\n[[rule]]\nto = \"x\"\n[backend.x]\ntargets = [\"192.0.2.1:1\"]\n\
                send_proxy = \"v2\"\nsign_proxy = \"/nonexistent/hop.key\"\nfallback = \"y\"\n\
                [backend.y]\ntargets = [\"192.0.2.2:2\"]\n";
    let (shown, json) = ask(text, &Explain::default());
    assert!(shown.ends_with("-> x (192.0.2.1:1) with signed headers, then y (192.0.2.2:2)\n"), "{shown}");
    let signed = [0, 1].map(|at| json["ends"][0]["backends"][at]["signed"].clone());
    assert_eq!(signed, [json!(true), json!(false)]);
}
