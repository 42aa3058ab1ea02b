//! `edgeproxy explain`: which rule would take a client, to which targets, and why.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{json, Value};

use super::{fail, print, say, WRONG_INPUT};
use crate::config;
use crate::config::model::{
    Action, Backend, BackendId, Config, ListenerId, Protocol, RuleId, Target, TargetPort, Transport,
};
use crate::route::explain::{explain, Claimed, Condition, Explanation, Holding, Known, Outcome};
use crate::route::forbidden::{forbidden, Own};
use crate::route::target::{fill, Destination};
use crate::route::Captures;

/// What is asked: all that is said of the client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Explain {
    pub(crate) config: PathBuf,
    pub(crate) sni: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) from: Option<IpAddr>,
    pub(crate) transport: Option<Transport>,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) alpn: Vec<String>,
    pub(crate) listener: Option<String>,
    pub(crate) json: bool,
}

pub(crate) fn run(asked: &Explain) -> ExitCode {
    let config = match config::load(&asked.config) {
        Ok(config) => config,
        Err(faults) => {
            say(&faults.to_string());
            return ExitCode::from(WRONG_INPUT);
        }
    };
    match known(asked, &config) {
        Ok(known) => print(&answer(asked, &config, &known)),
        Err(fault) => fail(WRONG_INPUT, &fault),
    }
}

fn known(asked: &Explain, config: &Config) -> Result<Known, String> {
    let listener = match (&asked.listener, config.listeners.as_slice()) {
        (Some(name), listeners) => match listeners.iter().position(|listener| listener.name == *name) {
            Some(id) => Some(ListenerId(id)),
            None => {
                let names: Vec<_> = listeners.iter().map(|listener| listener.name.as_str()).collect();
                return Err(format!("--listener: no listener is called {name:?}; there are: {}", names.join(", ")));
            }
        },
        (None, [_]) => Some(ListenerId(0)),
        (None, _) => None,
    };
    Ok(Known { listener, transport: asked.transport, port: asked.port, client: asked.from })
}

fn answer(asked: &Explain, config: &Config, known: &Known) -> String {
    let mut claimed = Claimed {
        transport: asked.transport,
        protocol: asked.protocol,
        name: asked.sni.clone(),
        alpn: asked.alpn.iter().map(|name| name.clone().into_bytes()).collect(),
    };
    if let Some(client) = asked.from.filter(|client| config.deny.iter().any(|prefix| prefix.contains(client))) {
        return if asked.json {
            format!("{}\n", json!({"outcome": "denied", "rules": [], "ends": []}))
        } else {
            format!("{client} is in `deny`: refused before any rule\n")
        };
    }
    let explanation = explain(config, known, &mut claimed);
    let ends = ends(config, known, &explanation.outcome);
    if asked.json {
        format!("{}\n", as_json(&explanation, &ends))
    } else {
        as_text(&explanation, &ends)
    }
}

/// Where one rule leads.
struct End {
    rule: String,
    line: usize,
    captures: Vec<(String, String)>,
    /// The backend, then its fallbacks; none: the client is refused.
    backends: Vec<(String, Vec<Candidate>)>,
}

/// One target of a backend.
struct Candidate {
    target: String,
    /// Why it would not be dialled.
    refused: Option<String>,
}

fn ends(config: &Config, known: &Known, outcome: &Outcome) -> Vec<End> {
    match outcome {
        Outcome::Decided(id, captures) => end(config, known, *id, Some(captures)).into_iter().collect(),
        Outcome::NoRule => Vec::new(),
        Outcome::Depends { candidates, .. } => {
            candidates.iter().filter_map(|id| end(config, known, *id, None)).collect()
        }
    }
}

fn end(config: &Config, known: &Known, RuleId(id): RuleId, captures: Option<&Captures>) -> Option<End> {
    let rule = config.rules.get(id)?;
    let mut backends = Vec::new();
    let mut at = match rule.action {
        Action::Forward(id) => Some(id),
        Action::Refuse => None,
    };
    while let Some(backend) = at.and_then(|BackendId(id)| config.backends.get(id)) {
        let candidates = backend.targets.iter().map(|target| candidate(config, known, backend, target, captures));
        backends.push((backend.name.clone(), candidates.collect()));
        at = backend.fallback;
    }
    let captures = captures.into_iter().flat_map(Captures::iter);
    let captures = captures.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Some(End { rule: rule.name.clone(), line: rule.line, captures, backends })
}

/// As it would be dialled; as it stands in the file where captures or the port are not known.
fn candidate(
    config: &Config,
    known: &Known,
    backend: &Backend,
    target: &Target,
    captures: Option<&Captures>,
) -> Candidate {
    let as_written = |refused| Candidate { target: target.to_string(), refused };
    let port = match (known.port, target.port) {
        (Some(port), TargetPort::Fixed(_) | TargetPort::Original) | (None, TargetPort::Fixed(port)) => port,
        (None, TargetPort::Original) => return as_written(None),
    };
    let Some(captures) = captures else { return as_written(None) };
    match fill(target, &backend.allow_suffixes, captures, port) {
        Ok(Destination::Name { name, port, .. }) => Candidate { target: format!("{name}:{port}"), refused: None },
        Ok(Destination::Address(address, origin)) => {
            let transport = known.transport.unwrap_or(Transport::Tcp);
            let refused = forbidden(&config.targets, &Own::new(config, |_| false), transport, address, origin);
            let by = if config.targets.is_own(address.ip()) { ", by targets.own" } else { "" };
            Candidate { target: address.to_string(), refused: refused.map(|why| format!("{why}{by}")) }
        }
        Err(why) => as_written(Some(why.to_string())),
    }
}

fn as_text(explanation: &Explanation, ends: &[End]) -> String {
    let mut lines = Vec::new();
    let reached = explanation.rules.iter().position(|rule| rule.holding == Holding::Holds);
    for (index, rule) in explanation.rules.iter().enumerate() {
        if reached.is_some_and(|reached| index > reached) {
            lines.push(format!("{:?} (line {}) is not reached", rule.name, rule.line));
            continue;
        }
        lines.push(format!("{:?} (line {}) {}", rule.name, rule.line, verb(rule.holding)));
        for condition in &rule.conditions {
            lines.push(format!("    {}: {}: {}", word(condition.condition), said(condition.holding), condition.why));
        }
    }
    lines.push(outcome_as_text(&explanation.outcome));
    for end in ends {
        lines.push(end_as_text(end));
    }
    lines.join("\n") + "\n"
}

fn outcome_as_text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Decided(..) => "one rule decides:".to_owned(),
        Outcome::NoRule => "no rule matches: refused".to_owned(),
        Outcome::Depends { certain_end: true, .. } => {
            "it depends on what was not said; one of these decides:".to_owned()
        }
        Outcome::Depends { certain_end: false, .. } => {
            "it depends on what was not said; one of these decides, or the client is refused:".to_owned()
        }
    }
}

fn end_as_text(end: &End) -> String {
    let mut text = format!("  {:?} (line {})", end.rule, end.line);
    for (name, value) in &end.captures {
        text += &format!(", {name} = {value:?}");
    }
    if end.backends.is_empty() {
        text += " -> refused";
    }
    for (index, (name, candidates)) in end.backends.iter().enumerate() {
        text += &format!("{} {name}", if index == 0 { " ->" } else { ", then" });
        let shown: Vec<_> = candidates.iter().map(candidate_as_text).collect();
        text += &format!(" ({})", shown.join(", "));
    }
    text
}

fn candidate_as_text(candidate: &Candidate) -> String {
    match &candidate.refused {
        Some(why) => format!("{} is not dialled: {why}", candidate.target),
        None => candidate.target.clone(),
    }
}

fn as_json(explanation: &Explanation, ends: &[End]) -> Value {
    let rules: Vec<_> = explanation
        .rules
        .iter()
        .map(|rule| {
            let conditions: Vec<_> = rule
                .conditions
                .iter()
                .map(|one| json!({"condition": word(one.condition), "holds": truth(one.holding), "why": one.why}))
                .collect();
            json!({"rule": rule.name, "line": rule.line, "holds": truth(rule.holding), "conditions": conditions})
        })
        .collect();
    let outcome = match explanation.outcome {
        Outcome::Decided(..) => "decided",
        Outcome::NoRule => "no_rule",
        Outcome::Depends { .. } => "depends",
    };
    json!({"outcome": outcome, "rules": rules, "ends": ends.iter().map(end_as_json).collect::<Vec<_>>()})
}

fn end_as_json(end: &End) -> Value {
    let candidate = |one: &Candidate| json!({"target": one.target, "refused": one.refused});
    let backend = |(name, candidates): &(String, Vec<Candidate>)| json!({"backend": name, "candidates": candidates.iter().map(candidate).collect::<Vec<_>>()});
    let captures: serde_json::Map<_, _> =
        end.captures.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    let backends: Vec<_> = end.backends.iter().map(backend).collect();
    json!({"rule": end.rule, "line": end.line, "captures": captures, "backends": backends})
}

/// `null`: what is said does not tell.
fn truth(holding: Holding) -> Option<bool> {
    match holding {
        Holding::Holds => Some(true),
        Holding::DoesNot => Some(false),
        Holding::Unknown => None,
    }
}

fn verb(holding: Holding) -> &'static str {
    match holding {
        Holding::Holds => "matches",
        Holding::DoesNot => "does not match",
        Holding::Unknown => "may match",
    }
}

fn said(holding: Holding) -> &'static str {
    match holding {
        Holding::Holds => "yes",
        Holding::DoesNot => "no",
        Holding::Unknown => "not known",
    }
}

/// As the file has it.
fn word(condition: Condition) -> &'static str {
    match condition {
        Condition::Listeners => "listeners",
        Condition::Transport => "transport",
        Condition::Ports => "ports",
        Condition::From => "from",
        Condition::Protocols => "protocols",
        Condition::ServerName => "server_name",
        Condition::Alpn => "alpn",
    }
}

#[cfg(test)]
mod tests {
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
        let line = |rule: &str| {
            json["rules"].as_array().unwrap().iter().find(|one| one["rule"] == rule).unwrap()["line"].clone()
        };
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
        let (shown, json) = ask(text, &named("lan"));
        assert!(shown.contains("ends in none of allow_suffixes"), "{shown}");
        assert!(json["ends"][0]["backends"][0]["candidates"][0]["refused"].is_string(), "{json}");
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
                    [[rule]]\nname = \"last\"\nto = \"x\"\n\
                    [backend.x]\ntargets = [\"192.0.2.1:$port\", \"127.0.0.1:1\"]\nfallback = \"y\"\n\
                    [backend.y]\ntargets = [\"192.0.2.2:22\"]\n[targets]\nallow = [\"127.0.0.1/32\"]\n";
        let at = |listener: &str| Explain {
            listener: Some(listener.to_owned()),
            from: Some("192.0.2.7".parse().unwrap()),
            protocol: Some(Protocol::Tls),
            ..Explain::default()
        };
        let (shown, json) = ask(text, &at("b"));
        assert!(shown.ends_with("\"listener\" (line 6) -> refused\n"), "{shown}");
        assert_eq!(json["ends"][0]["backends"], json!([]));
        let from = Explain { from: Some("203.0.113.9".parse().unwrap()), port: Some(77), ..at("a") };
        let (shown, _) = ask(text, &from);
        assert!(shown.ends_with("-> x (192.0.2.1:77, 127.0.0.1:1), then y (192.0.2.2:22)\n"), "{shown}");
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
}
