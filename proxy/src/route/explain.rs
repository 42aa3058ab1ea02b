//! Why a client goes where it goes: each rule, each of its conditions, as data. Also for a client of which only some things
//! are known, as on a command line.

use super::conditions::{
    alpn, asked, asks_content, at_once, content, ech, from, listener, port, server_name, transport, BEAR_ALPN,
};
use super::conditions::{ask, Content};
pub use super::conditions::{Holding, Known};
use super::decide::{Captures, Spoken};
use crate::config::model::{Config, Protocol, Rule, RuleId, Transport};
use crate::sniff::{dispatch, Found, Sniffed};

/// What decides about a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// All rules, in order; also those after the one that decides.
    pub rules: Vec<RuleTrace>,
    /// What comes of them.
    pub outcome: Outcome,
}

/// What the rules come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// This rule matches, and none before it can.
    Decided(RuleId, Captures),
    /// No rule can match.
    NoRule,
    /// What is known does not tell. The first of these rules that turns out to match decides.
    Depends {
        /// Those that may match; the last one may be certain to.
        candidates: Vec<RuleId>,
        /// The last of them matches for certain: one of them decides. Otherwise it may be that no rule matches.
        certain_end: bool,
    },
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleTrace {
    /// Which.
    pub rule: RuleId,
    /// Its name in the file.
    pub name: String,
    /// Its line in the file.
    pub line: usize,
    /// Whether it matches.
    pub holding: Holding,
    /// Its conditions, without those that it does not have.
    pub conditions: Vec<ConditionTrace>,
}

/// One condition of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConditionTrace {
    /// Which.
    pub condition: Condition,
    /// Whether it is fulfilled.
    pub holding: Holding,
    /// What was compared, as a sentence without its full stop.
    pub why: String,
}

/// The conditions that a rule can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are those of the fields of `Rule`
pub enum Condition {
    Listeners,
    Transport,
    Ports,
    From,
    Protocols,
    ServerName,
    Alpn,
    Ech,
}

/// Explains the decision on a client of which this is known. What [`Spoken`] does not know yet is unknown.
#[must_use]
pub fn explain(config: &Config, known: &Known, spoken: &mut dyn Spoken) -> Explanation {
    let mut rules = Vec::new();
    let mut candidates = Vec::new();
    let mut outcome = None;
    for (index, rule) in config.rules.iter().enumerate() {
        let id = RuleId(index);
        let (holding, captures) = whole(rule, known, spoken);
        if outcome.is_none() && holding != Holding::DoesNot {
            candidates.push(id);
            let certain = holding == Holding::Holds;
            outcome = certain.then(|| match candidates.len() {
                1 => Outcome::Decided(id, captures),
                _ => Outcome::Depends { candidates: candidates.clone(), certain_end: true },
            });
        }
        let conditions = conditions(config, rule, known, spoken);
        rules.push(RuleTrace { rule: id, name: rule.name.clone(), line: rule.line, holding, conditions });
    }
    let open =
        if candidates.is_empty() { Outcome::NoRule } else { Outcome::Depends { candidates, certain_end: false } };
    Explanation { rules, outcome: outcome.unwrap_or(open) }
}

/// What somebody says that a client speaks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claimed {
    /// By which transport.
    pub transport: Option<Transport>,
    /// The protocol. Without one, whoever gives a name or an application protocol means TLS, over UDP QUIC.
    pub protocol: Option<Protocol>,
    /// The name that it asks for.
    pub name: Option<String>,
    /// What it offers.
    pub alpn: Vec<Vec<u8>>,
    /// Whether its hello hides another one, if that is said.
    pub ech: Option<bool>,
}

impl Claimed {
    fn protocol(&self) -> Option<Protocol> {
        let hello = self.name.is_some() || !self.alpn.is_empty() || self.ech == Some(true);
        let usual = match self.transport {
            Some(Transport::Udp) => Protocol::Quic,
            Some(Transport::Tcp) | None => Protocol::Tls,
        };
        self.protocol.or(hello.then_some(usual))
    }
}

impl Spoken for Claimed {
    fn is(&mut self, protocol: Protocol) -> Sniffed {
        if self.transport.is_some_and(|transport| !dispatch::exists_over(protocol, transport)) {
            return Sniffed::No;
        }
        match self.protocol() {
            None => Sniffed::NeedMore,
            Some(claimed) if claimed == protocol => {
                let name = self.name.as_ref().map(|name| name.trim_end_matches('.').to_ascii_lowercase());
                Sniffed::Yes(Found { name, alpn: self.alpn.clone(), ech: self.ech == Some(true), ..Found::default() })
            }
            Some(_) => Sniffed::No,
        }
    }

    /// What has no hello hides none.
    fn tells_ech(&self, protocol: Protocol) -> bool {
        self.ech.is_some() || !BEAR_ALPN.contains(&protocol)
    }
}

fn whole(rule: &Rule, known: &Known, spoken: &mut dyn Spoken) -> (Holding, Captures) {
    match (at_once(rule, known), content(rule, spoken)) {
        (Holding::DoesNot, _) | (_, Content::DoesNot) => (Holding::DoesNot, Captures::default()),
        (Holding::Holds, Content::Holds(captures)) => (Holding::Holds, captures),
        (Holding::Unknown, _) | (_, Content::Unknown) => (Holding::Unknown, Captures::default()),
    }
}

fn conditions(config: &Config, rule: &Rule, known: &Known, spoken: &mut dyn Spoken) -> Vec<ConditionTrace> {
    let listener_name = |at: usize| config.listeners.get(at).map_or("?", |it| it.name.as_str());
    let listeners: Vec<_> = rule.listeners.iter().map(|id| listener_name(id.0)).collect();
    let ports: Vec<_> = rule.ports.iter().map(|range| spelt(*range.start(), *range.end())).collect();
    let prefixes: Vec<_> = rule.from.iter().map(ToString::to_string).collect();
    let transports: Vec<_> = rule.transport.iter().map(|it| transport_name(*it)).collect();
    let here = known.listener.map(|id| listener_name(id.0));
    let client = known.client.map(|it| it.to_canonical());
    let at_once = [
        compared(Condition::Listeners, listener(rule, known), here, &listeners),
        compared(Condition::Transport, transport(rule, known), known.transport.map(transport_name), &transports),
        compared(Condition::Ports, port(rule, known), known.port, &ports),
        compared(Condition::From, from(rule, known), client, &prefixes),
    ];
    let content = asks_content(rule).then(|| content_conditions(rule, spoken));
    at_once.into_iter().flatten().chain(content.into_iter().flatten()).collect()
}

/// `None` where the rule has no such condition.
fn compared(
    condition: Condition,
    holding: Holding,
    fact: Option<impl ToString>,
    wanted: &[impl AsRef<str>],
) -> Option<ConditionTrace> {
    if wanted.is_empty() {
        return None;
    }
    let wanted: Vec<_> = wanted.iter().map(AsRef::as_ref).collect();
    let fact = fact.map_or_else(|| "not known".to_owned(), |it| it.to_string());
    Some(ConditionTrace { condition, holding, why: format!("{fact}; wanted: {}", wanted.join(", ")) })
}

fn content_conditions(rule: &Rule, spoken: &mut dyn Spoken) -> Vec<ConditionTrace> {
    let answers: Vec<_> = asked(rule).iter().map(|&protocol| (protocol, ask(rule, protocol, spoken))).collect();
    let words: Vec<_> =
        answers.iter().map(|(protocol, answer)| format!("{}: {}", protocol_name(*protocol), word(answer))).collect();
    let protocols = over(&answers, |_| true);
    let mut all = vec![ConditionTrace { condition: Condition::Protocols, holding: protocols, why: words.join(", ") }];
    let spoken_ones: Vec<_> = answers.iter().filter_map(|(_, answer)| found(answer)).collect();
    if let Some(regex) = &rule.server_name {
        let names: Vec<_> = spoken_ones.iter().map(|it| it.name.as_deref().unwrap_or("no name")).collect();
        let holding = over(&answers, |it| server_name(rule, it).is_some());
        let why = format!("{}; wanted: {regex}", listed(&names));
        all.push(ConditionTrace { condition: Condition::ServerName, holding, why });
    }
    if !rule.alpn.is_empty() {
        let offered: Vec<_> = spoken_ones.iter().flat_map(|it| &it.alpn).map(|it| readable(it)).collect();
        let wanted: Vec<_> = rule.alpn.iter().map(|it| readable(it)).collect();
        let why = format!("{}; wanted: {}", listed(&offered), wanted.join(", "));
        all.push(ConditionTrace { condition: Condition::Alpn, holding: over(&answers, |it| alpn(rule, it)), why });
    }
    if let Some(wanted) = rule.ech {
        let tells = |(protocol, answer): &(Protocol, Sniffed)| match answer {
            Sniffed::Yes(_) if !spoken.tells_ech(*protocol) => (*protocol, Sniffed::NeedMore),
            Sniffed::Yes(_) | Sniffed::No | Sniffed::NeedMore => (*protocol, answer.clone()),
        };
        let told: Vec<_> = answers.iter().map(tells).collect();
        let shown = |told: &Sniffed| found(told).map_or_else(|| "not known".to_owned(), |it| it.ech.to_string());
        let are_spoken = answers.iter().zip(&told).filter(|((_, answer), _)| found(answer).is_some());
        let hidden: Vec<_> = are_spoken.map(|(_, (_, told))| shown(told)).collect();
        let why = format!("{}; wanted: {wanted}", listed(&hidden));
        all.push(ConditionTrace { condition: Condition::Ech, holding: over(&told, |it| ech(rule, it)), why });
    }
    all
}

/// Any protocol will do.
fn over(answers: &[(Protocol, Sniffed)], holds: impl Fn(&Found) -> bool) -> Holding {
    if answers.iter().filter_map(|(_, answer)| found(answer)).any(holds) {
        return Holding::Holds;
    }
    let open = answers.iter().any(|(_, answer)| *answer == Sniffed::NeedMore);
    if open {
        Holding::Unknown
    } else {
        Holding::DoesNot
    }
}

fn found(answer: &Sniffed) -> Option<&Found> {
    match answer {
        Sniffed::Yes(found) => Some(found),
        Sniffed::No | Sniffed::NeedMore => None,
    }
}

fn word(answer: &Sniffed) -> &'static str {
    match answer {
        Sniffed::Yes(_) => "yes",
        Sniffed::No => "no",
        Sniffed::NeedMore => "not known",
    }
}

/// As the file has it: `EternalTerminal` is `eternal_terminal`.
fn protocol_name(protocol: Protocol) -> String {
    let mut name = String::new();
    for letter in format!("{protocol:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

fn transport_name(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    }
}

fn spelt(first: u16, last: u16) -> String {
    if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    }
}

fn listed<T: AsRef<str>>(items: &[T]) -> String {
    let items: Vec<_> = items.iter().map(AsRef::as_ref).collect();
    if items.is_empty() {
        "nothing".to_owned()
    } else {
        items.join(", ")
    }
}

fn readable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
