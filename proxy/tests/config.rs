//! Whole configurations: golden pairs, examples, defaults, and that each key is heeded.
#![allow(clippy::unwrap_used)] // clippy.toml lets tests do so, but not what stands beside them

use std::env;
use std::fs;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use edgeproxy::config::model::{
    Action, Arrival, Balance, Config, HeaderFraming, HeaderPolicy, KeyId, NameBounds, Protocol, Rule, SendProxy,
    SendProxyUdp, Source, Transport,
};
use edgeproxy::config::{self, parse, Faults};

const SMALLEST: &str = include_str!("config/valid/smallest.toml");
const EVERY_KEY: &str = include_str!("config/valid/every_key.toml");

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Each configuration in a folder, by name; never none.
fn configurations(name: &str) -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(folder(name)).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{name}");
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn wrong_configurations_have_exactly_these_faults() {
    let are_written = env::var_os("LAB_WRITE_GOLDEN").is_some();
    for (path, text) in configurations("tests/config/invalid") {
        let name = path.file_name().unwrap().to_str().unwrap();
        let told = Faults(parse(&text, name).expect_err(name)).to_string() + "\n";
        let golden = path.with_extension("faults.txt");
        if are_written {
            fs::write(&golden, &told).unwrap();
        }
        assert_eq!(told, fs::read_to_string(&golden).unwrap_or_default(), "{name}");
    }
}

#[test]
fn every_list_of_faults_belongs_to_a_configuration() {
    for entry in fs::read_dir(folder("tests/config/invalid")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(name.ends_with(".toml") || path.with_extension("").with_extension("toml").exists(), "{name}");
    }
}

#[test]
fn right_configurations_and_examples_pass_without_a_note() {
    for (path, _) in configurations("tests/config/valid").into_iter().chain(configurations("examples")) {
        let checked = config::check(&path).unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!(checked.notes, [], "{}", path.display());
    }
}

#[test]
fn an_identifier_goes_with_datagrams_where_version_2_does_and_that_is_asked_for() {
    let has_id = |written: &str| {
        let text = format!("{SMALLEST}[backend.x]\ntargets = [\"192.0.2.1:1\"]\n{written}\n");
        parse(&text, "f").map(|config| config.backends[0].send_proxy_udp_id).ok()
    };
    let with = "send_proxy_udp_with = [\"unique_id\"]";
    for form in ["every", "first"] {
        let udp = format!("send_proxy_udp = \"{form}\"");
        assert_eq!([has_id(&udp), has_id(&format!("{udp}\n{with}"))], [Some(false), Some(true)]);
        let both = format!("{udp}\nsend_proxy = \"v2\"\n");
        assert_eq!(has_id(&format!("{both}{with}")), Some(true));
        assert_eq!(has_id(&format!("{both}send_proxy_with = [\"unique_id\"]")), Some(false), "that is for TCP");
    }
    let spp = "send_proxy_udp = \"spp\"";
    assert_eq!([has_id(spp), has_id(&format!("{spp}\n{with}")), has_id(with)], [Some(false), None, None]);
}

#[test]
fn what_is_hardly_meant_is_noted_with_its_line() {
    let text =
        "[listener.a]\ntcp = [\"0.0.0.0:1\"]\n[listener.b]\ntcp = [\"0.0.0.0:2\"]\n[[rule]]\nlisteners = [\"a\"]\n\
                to = \"x\"\n[backend.x]\ntargets = [\"192.0.2.1:1\"]\nsend_proxy_udp = \"every\"\n[backend.y]\n\
                targets = [\"192.0.2.1:1\"]\n";
    let path = env::temp_dir().join(format!("edgeproxy-notes-{}.toml", std::process::id()));
    fs::write(&path, text).unwrap();
    let notes = config::check(&path).unwrap().notes;
    fs::remove_file(&path).unwrap();
    let places: Vec<_> = notes.iter().map(|note| (note.line.unwrap(), note.path.as_str())).collect();
    assert_eq!(places, [(3, "listener.b"), (10, "backend.x.send_proxy_udp"), (11, "backend.y")]);
}

#[test]
fn a_time_that_connections_of_several_ways_have_not_is_noted() {
    let text = "[listener.a]\ntcp = [\"0.0.0.0:1\"]\n[[rule]]\nto = \"x\"\n[backend.x]\ntargets = [\"192.0.2.1:1\"]\n";
    let timed = |text: String| text + "[timeouts]\nuser_timeout = \"5s\"\n";
    let path = env::temp_dir().join(format!("edgeproxy-times-{}.toml", std::process::id()));
    let several = format!("{text}mptcp = true\n");
    for (text, noted) in
        [(timed(text.to_owned()), &[][..]), (several.clone(), &[]), (timed(several), &["timeouts.user_timeout"])]
    {
        fs::write(&path, text).unwrap();
        let notes = config::check(&path).unwrap_or_else(|faults| panic!("{faults}")).notes;
        let places: Vec<_> = notes.iter().map(|note| note.path.as_str()).collect();
        assert_eq!(places, noted);
    }
    fs::remove_file(&path).unwrap();
}

#[test]
fn what_lets_others_do_more_than_is_usually_meant_is_noted() {
    let with = |trusts: &str, operation: &str| {
        format!(
            "[listener.a]\ntcp = [\"0.0.0.0:1\"]\nproxy_header = [{trusts}]\n[[rule]]\nto = \"x\"\n[backend.x]\n\
             targets = [\"192.0.2.1:1\"]\n[operation]\n{operation}\n"
        )
    };
    let right = "{from = \"192.0.2.0/24\", policy = \"require\"}";
    let trust = |from: &str, policy: &str| format!("{right}, {{from = \"{from}\", policy = \"{policy}\"}}");
    let (of_trust, of_metrics, of_log) =
        (&["listener.a.proxy_header[1]"][..], &["operation.metrics"][..], &["operation.access_log"][..]);
    let none = &[][..];
    for (text, noted) in [
        (with(&trust("0.0.0.0/0", "require"), ""), of_trust),
        (with(&trust("::/0", "optional"), ""), of_trust),
        (with(&trust("0.0.0.0/0", "never"), ""), none),
        (with(&trust("198.51.100.0/24", "require"), ""), none),
        (with(right, "metrics = \"0.0.0.0:9464\""), of_metrics),
        (with(right, "metrics = \"[2001:db8::1]:9464\""), of_metrics),
        (with(right, "metrics = \"127.0.0.9:9464\""), none),
        (with(right, "metrics = \"[::1]:9464\""), none),
        (with(right, "access_log = \"/var/log/edge.log\""), of_log),
        (with(right, "access_log = \"/var/log/edge/access.log\""), none),
        (with(right, "access_log = \"-\""), none),
    ] {
        let path = env::temp_dir().join(format!("edgeproxy-exposed-{}.toml", std::process::id()));
        fs::write(&path, &text).unwrap();
        let notes = config::check(&path).unwrap_or_else(|faults| panic!("{faults}")).notes;
        fs::remove_file(&path).unwrap();
        let places: Vec<_> = notes.iter().map(|note| note.path.as_str()).collect();
        assert_eq!(places, noted, "{text}");
    }
}

#[test]
fn own_addresses_that_are_allowed_all_the_same_are_noted() {
    let text = "[listener.a]\ntcp = [\"0.0.0.0:1\"]\n[[rule]]\nrefuse = true\n[targets]\n\
                allow = [\"203.0.113.0/24\"]\nown = [\"198.51.100.7/32\", \"203.0.113.10/32\", \"203.0.0.0/16\"]\n";
    let path = env::temp_dir().join(format!("edgeproxy-own-{}.toml", std::process::id()));
    for (text, noted) in [
        (text.replace(", \"203.0.0.0/16\"", ""), &[(7, "targets.own[1]".to_owned())][..]),
        (text.replace(", \"203.0.113.10/32\"", ""), &[]),
    ] {
        fs::write(&path, text).unwrap();
        let notes = config::check(&path).unwrap_or_else(|faults| panic!("{faults}")).notes;
        let places: Vec<_> = notes.iter().map(|note| (note.line.unwrap(), note.path.clone())).collect();
        assert_eq!(places, noted);
    }
    fs::remove_file(&path).unwrap();
}

#[test]
fn every_default_is_this() {
    let Config {
        workers,
        listeners,
        rules,
        backends,
        resolver,
        limits,
        timeouts,
        targets,
        transparent,
        operation,
        deny,
        key_files,
    } = parse(&format!("{SMALLEST}[backend.x]\ntargets = [\"192.0.2.1:1\"]\nhealth = {{}}\neject = {{}}\n"), "f")
        .unwrap();
    let seconds = Duration::from_secs;
    assert_eq!((workers.get(), deny.len(), targets.allow.len(), targets.own.len()), (1, 0, 0, 0));
    assert!(key_files.is_empty());

    let listener = &listeners[0];
    assert_eq!((listener.udp.len(), listener.proxy_header.len(), listener.connections.get()), (0, 0, 10_000));
    assert_eq!((listener.arrival, listener.rate_per_flow, listener.rate), (Arrival::Direct, None, None));

    let rule = &rules[0];
    assert_eq!((rule.name.as_str(), rule.line, rule.transport, rule.action), ("rule 1", 3, None, Action::Refuse));
    assert_eq!((rule.listeners.len(), rule.ports.len(), rule.protocols.len()), (0, 0, 0));
    assert_eq!((rule.server_name.is_none(), rule.alpn.len(), rule.from.len()), (true, 0, 0));

    let backend = &backends[0];
    assert_eq!((backend.balance, backend.source), (Balance::InOrder, Source::Own));
    assert_eq!((backend.send_proxy, backend.send_proxy_udp, backend.fallback), (None, None, None));
    assert_eq!((backend.connect_timeout, &backend.allow_names), (seconds(3), &NameBounds::default()));
    let (health, eject) = (backend.health.unwrap(), backend.eject.unwrap());
    assert_eq!((health.interval, health.timeout), (seconds(10), seconds(2)));
    assert_eq!((health.rise.get(), health.fall.get()), (2, 3));
    assert_eq!((eject.failures.get(), eject.duration), (3, seconds(30)));

    assert_eq!((resolver.servers.len(), resolver.timeout, resolver.stale), (0, seconds(2), seconds(86_400)));
    assert_eq!((resolver.negative, resolver.min_ttl, resolver.max_ttl), (seconds(30), seconds(1), seconds(3_600)));
    assert_eq!(resolver.cache_entries.get(), 4_096);

    assert_eq!((limits.connections.get(), limits.connections_per_source.get()), (10_000, 1_000));
    assert_eq!((limits.udp_flows.get(), limits.udp_flows_per_source.get()), (10_000, 1_000));
    assert_eq!((limits.undecided_per_source.get(), limits.source.v4, limits.source.v6), (1_000, 32, 64));
    assert_eq!(limits.preface_bytes.get(), 16_384);

    for (name, time, expected) in [
        ("header", timeouts.header, 3),
        ("preface", timeouts.preface, 5),
        ("silence", timeouts.silence, 3),
        ("idle", timeouts.idle, 3_600),
        ("half_closed", timeouts.half_closed, 300),
        ("udp_one_way", timeouts.udp_one_way, 60),
        ("udp_idle", timeouts.udp_idle, 180),
        ("drain_delay", timeouts.drain_delay, 0),
        ("drain", timeouts.drain, 30),
        ("handed_over", timeouts.handed_over, 7 * 86_400),
        ("keepalive", timeouts.keepalive, 60),
    ] {
        assert_eq!(time, seconds(expected), "{name}");
    }
    assert_eq!(timeouts.user_timeout, None);

    assert_eq!((transparent.manage_rules, transparent.mark.get(), transparent.table.get()), (false, 25_968, 25_968));
    assert_eq!((operation.admin_socket, operation.metrics, operation.access_log), (None, None, None));
    assert!(!operation.fixed_ports);
}

#[test]
fn every_key_is_heeded() {
    let config = parse(EVERY_KEY, "f").unwrap();
    let seconds = Duration::from_secs;
    assert_eq!(config.workers.get(), 2);
    assert_eq!(config.deny, ["198.51.100.0/24".parse().unwrap(), "2001:db8:bad::/48".parse().unwrap()]);

    let [public, brought] = config.listeners.as_slice() else { panic!("{:?}", config.listeners) };
    let tcp: Vec<_> = public.tcp.iter().map(ToString::to_string).collect();
    let expected =
        ["0.0.0.0:443", "[::]:443", "0.0.0.0:8000", "0.0.0.0:8001", "0.0.0.0:8002", "0.0.0.0:8003"].map(str::to_owned);
    assert_eq!((public.name.as_str(), tcp.as_slice()), ("public", expected.as_slice()));
    assert_eq!(public.udp, ["0.0.0.0:443".parse().unwrap()]);
    let trusts: Vec<_> =
        public.proxy_header.iter().map(|trust| (trust.from.to_string(), trust.policy, trust.udp)).collect();
    let expected = [
        ("10.144.1.0/24".to_owned(), HeaderPolicy::Never, HeaderFraming::Every),
        ("10.144.0.0/16".to_owned(), HeaderPolicy::Require, HeaderFraming::First),
        ("fd00::/8".to_owned(), HeaderPolicy::Optional, HeaderFraming::Auto),
    ];
    assert_eq!(trusts, expected);
    assert_eq!((public.connections.get(), public.rate_per_flow), (500, NonZeroU32::new(10_000_000)));
    assert_eq!((public.rate, public.arrival), (NonZeroU32::new(100_000_000), Arrival::Direct));
    assert_eq!((brought.name.as_str(), brought.arrival, brought.connections.get()), ("brought", Arrival::Tproxy, 11));

    let [by_name, datagrams, refused, last] = config.rules.as_slice() else { panic!("{:?}", config.rules) };
    assert_eq!((by_name.name.as_str(), by_name.line, by_name.transport), ("by name", 19, Some(Transport::Tcp)));
    assert_eq!((by_name.listeners.len(), by_name.listeners[0].0), (1, 0));
    assert_eq!(
        (by_name.ports.as_slice(), by_name.protocols.as_slice()),
        ([443..=443, 8000..=8003].as_slice(), [Protocol::Tls, Protocol::Http1].as_slice())
    );
    let name = by_name.server_name.as_ref().unwrap().captures("git.nas.example.net").unwrap();
    assert_eq!(&name["host"], "nas");
    assert_eq!((by_name.alpn.as_slice(), by_name.from.len()), ([b"h2".to_vec(), b"http/1.1".to_vec()].as_slice(), 1));
    assert_eq!((by_name.ech, datagrams.ech), (Some(false), None));
    let leads_to = |rule: &Rule| match rule.action {
        Action::Forward(id) => config.backends[id.0].name.clone(),
        Action::Refuse => "refuse".to_owned(),
    };
    let ends: Vec<_> = [by_name, datagrams, refused, last].map(leads_to).to_vec();
    assert_eq!(ends, ["by-name", "datagrams", "refuse", "static"]);

    let names: Vec<_> = config.backends.iter().map(|backend| backend.name.as_str()).collect();
    assert_eq!(names, ["static", "by-name", "datagrams"], "in the order of the file");
    let [fixed, named, datagrams] = config.backends.as_slice() else { panic!("{names:?}") };
    assert_eq!((fixed.source, fixed.send_proxy), (Source::Client { or_own: false }, Some(SendProxy::V1)));
    assert_eq!(fixed.targets.len(), 3);
    assert_eq!((named.balance, named.source), (Balance::LeastConnections, Source::Client { or_own: true }));
    assert_eq!(named.send_proxy, Some(SendProxy::V2 { hello: true, unique_id: true, crc32c: true, received: true }));
    assert_eq!((named.connect_timeout, named.fallback.map(|id| id.0)), (seconds(8), Some(0)));
    assert_eq!(named.allow_names, NameBounds { suffixes: vec![".tailnet".to_owned()], single_labels: true });
    let (health, eject) = (named.health.unwrap(), named.eject.unwrap());
    assert_eq!((health.interval, health.timeout), (seconds(20), seconds(4)));
    assert_eq!((health.rise.get(), health.fall.get()), (5, 6));
    assert_eq!((eject.failures.get(), eject.duration), (7, seconds(40)));
    assert_eq!((datagrams.send_proxy_udp, datagrams.send_proxy_udp_id), (Some(SendProxyUdp::First), true));
    let keys: Vec<_> = config.key_files.iter().map(|file| (file.path.to_str().unwrap(), file.place.as_str())).collect();
    assert_eq!(keys, [("/etc/edgeproxy/hop.key", "listener.public.proxy_header[1].key")], "once");
    assert_eq!(public.proxy_header.iter().map(|trust| trust.key).collect::<Vec<_>>(), [None, Some(KeyId(0)), None]);
    assert_eq!([fixed, named, datagrams].map(|backend| backend.sign_proxy), [None, None, Some(KeyId(0))]);

    let resolver = &config.resolver;
    assert_eq!(resolver.servers, ["192.0.2.53:53".parse().unwrap(), "[2001:db8::53]:53".parse().unwrap()]);
    assert_eq!((resolver.timeout, resolver.stale, resolver.negative), (seconds(1), seconds(7_200), seconds(3)));
    assert_eq!((resolver.min_ttl, resolver.max_ttl, resolver.cache_entries.get()), (seconds(4), seconds(300), 6));

    let limits = config.limits;
    assert_eq!((limits.connections.get(), limits.connections_per_source.get()), (11, 12));
    assert_eq!((limits.udp_flows.get(), limits.udp_flows_per_source.get()), (13, 14));
    assert_eq!((limits.undecided_per_source.get(), limits.source.v4, limits.source.v6), (9, 24, 56));
    assert_eq!([public, brought].map(|listener| listener.udp_flows.get()), [600, 13]);
    assert_eq!(limits.preface_bytes, NonZeroUsize::new(15 * 1024).unwrap());

    let timeouts = config.timeouts;
    let times = [
        timeouts.silence,
        timeouts.header,
        timeouts.preface,
        timeouts.handed_over,
        timeouts.idle,
        timeouts.half_closed,
        timeouts.udp_one_way,
        timeouts.udp_idle,
        timeouts.drain,
        timeouts.keepalive,
        timeouts.user_timeout.unwrap(),
        timeouts.drain_delay,
    ];
    assert_eq!(times, [20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31].map(seconds));

    assert_eq!(config.targets.allow, ["127.0.0.1/32".parse().unwrap()]);
    assert_eq!(config.targets.own, ["203.0.113.10/32".parse().unwrap(), "2001:db8:a::/64".parse().unwrap()]);
    let transparent = config.transparent;
    assert_eq!((transparent.manage_rules, transparent.mark.get(), transparent.table.get()), (true, 31, 32));
    let operation = config.operation;
    assert_eq!(operation.admin_socket, Some("/run/edgeproxy/admin.sock".into()));
    assert_eq!(operation.metrics, Some("127.0.0.1:9464".parse().unwrap()));
    assert_eq!(operation.access_log, Some("/var/log/edgeproxy/access.log".into()));
    assert!(operation.fixed_ports);
}

#[test]
fn several_ways_are_asked_for_by_each_listener_and_each_backend() {
    let mptcp = |text: &str| {
        let config = parse(text, "f").unwrap();
        (config.listeners[0].mptcp, config.backends[0].mptcp)
    };
    let with = |listener, backend| {
        format!(
            "[listener.in]\ntcp = [\"192.0.2.1:1\"]\n{listener}[[rule]]\nto = \"x\"\n[backend.x]\ntargets = \
             [\"192.0.2.2:1\"]\n{backend}"
        )
    };
    let asked = "mptcp = true\n";
    assert_eq!(mptcp(&with("", "")), (false, false));
    assert_eq!(mptcp(&with(asked, "")), (true, false));
    assert_eq!(mptcp(&with("", asked)), (false, true));
}

#[test]
fn header_fields_are_asked_one_by_one() {
    let fields = ["hello", "unique_id", "crc32c", "received"];
    for field in fields {
        let backend =
            format!("[backend.x]\ntargets = [\"192.0.2.1:1\"]\nsend_proxy = \"v2\"\nsend_proxy_with = [\"{field}\"]\n");
        let config = parse(&format!("{SMALLEST}{backend}"), "f").unwrap();
        let [hello, unique_id, crc32c, received] = fields.map(|one| one == field);
        let expected = SendProxy::V2 { hello, unique_id, crc32c, received };
        assert_eq!(config.backends[0].send_proxy, Some(expected), "{field}");
    }
}

#[test]
fn without_workers_there_is_one_for_each_core() {
    let config = config::load(&folder("tests/config/valid/smallest.toml")).unwrap();
    assert_eq!(config.workers, std::thread::available_parallelism().unwrap());
}

#[test]
fn a_file_that_cannot_be_read_is_one_fault_without_a_line() {
    for (path, said) in [("/nonexistent.toml", "No such file"), ("/dev/zero", "more than"), ("/proc/self/exe", "")] {
        let Faults(faults) = config::load(Path::new(path)).unwrap_err();
        assert_eq!((faults.len(), faults[0].line), (1, None), "{faults:?}");
        assert!(faults[0].to_string().starts_with(&format!("{path}: ")), "{}", faults[0]);
        assert!(faults[0].found.contains(said), "{}", faults[0]);
    }
}
