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
    pub(crate) ech: Option<bool>,
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
        ech: asked.ech,
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
    backends: Vec<Led>,
}

/// Where a client is led.
struct Led {
    backend: String,
    /// By Multipath TCP, where that can be.
    mptcp: bool,
    /// The PROXY headers that it gets are signed.
    is_signed: bool,
    candidates: Vec<Candidate>,
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
        let mptcp = backend.mptcp && known.transport != Some(Transport::Udp);
        let (is_signed, candidates) = (backend.sign_proxy.is_some(), candidates.collect());
        backends.push(Led { backend: backend.name.clone(), mptcp, is_signed, candidates });
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
    match fill(target, &backend.allow_names, captures, port) {
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
    for (index, Led { backend, mptcp, is_signed, candidates }) in end.backends.iter().enumerate() {
        let by = if *mptcp { " by MPTCP" } else { "" };
        text += &format!("{} {backend}{by}", if index == 0 { " ->" } else { ", then" });
        let shown: Vec<_> = candidates.iter().map(candidate_as_text).collect();
        text += &format!(" ({})", shown.join(", "));
        if *is_signed {
            text += " with signed headers";
        }
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
    let backend = |Led { backend, mptcp, is_signed, candidates }: &Led| json!({"backend": backend, "mptcp": mptcp, "signed": is_signed, "candidates": candidates.iter().map(candidate).collect::<Vec<_>>()});
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
        Condition::Ech => "ech",
    }
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
