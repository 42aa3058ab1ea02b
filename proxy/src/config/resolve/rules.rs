//! Rules, each by itself and against its listeners.

use super::Names;
use crate::config::file::{ConfigFile, RuleFile};
use crate::config::findings::Findings;
use crate::config::model::{
    Action, Arrival, BackendId, HeaderPolicy, Listener, ListenerId, Protocol, Rule, Timeouts, Transport,
};
use crate::config::shape::below;
use crate::sniff::dispatch::exists_over;

/// A rule with what else is known of it.
pub(super) struct Draft {
    pub(super) path: String,
    /// Nothing in it is at fault by itself, so that it may be compared with others.
    pub(super) is_sound: bool,
    pub(super) rule: Rule,
}

impl Draft {
    pub(super) fn holds_at(&self, listener: usize) -> bool {
        self.rule.listeners.is_empty() || self.rule.listeners.contains(&ListenerId(listener))
    }

    /// Whether clients of that transport come to it.
    pub(super) fn takes(&self, transport: Transport, listeners: &[Listener]) -> bool {
        self.rule.transport.map_or(true, |own| own == transport)
            && listeners.iter().enumerate().any(|(id, listener)| self.holds_at(id) && has(listener, transport))
    }

    /// As others may be told of it.
    pub(super) fn shown(&self) -> String {
        format!("{:?} (line {})", self.rule.name, self.rule.line)
    }
}

pub(super) fn rules(
    file: &ConfigFile,
    listeners: &Names<'_>,
    backends: &Names<'_>,
    findings: &mut Findings<'_>,
) -> Vec<Draft> {
    let written = file.rule.as_deref().unwrap_or_default();
    if file.rule.is_some() && written.is_empty() {
        findings.fault("rule", "no rule", "add a [[rule]] with to or refuse");
    }
    let mut drafts: Vec<Draft> = Vec::new();
    for (index, rule) in written.iter().enumerate() {
        let path = format!("rule[{index}]");
        let name = name(rule, index, &path, &drafts, findings);
        drafts.push(as_meant(rule, name, path, listeners, backends, findings));
    }
    drafts
}

fn name(rule: &RuleFile, index: usize, path: &str, drafts: &[Draft], findings: &mut Findings<'_>) -> String {
    let name = rule.name.clone().unwrap_or_else(|| format!("rule {}", index + 1));
    let place = format!("{path}.name");
    if !(1..=64).contains(&name.chars().count()) || name.chars().any(char::is_control) {
        findings.fault(&place, format!("{name:?} is not a name"), "a name has 1 to 64 printable letters");
    }
    if let Some(other) = drafts.iter().find(|other| other.rule.name == name) {
        let found = format!("the rule of line {} is called {name:?} too", other.rule.line);
        findings.fault(&place, found, "log lines tell rules apart by their names");
    }
    name
}

fn as_meant(
    file: &RuleFile,
    name: String,
    path: String,
    listeners: &Names<'_>,
    backends: &Names<'_>,
    findings: &mut Findings<'_>,
) -> Draft {
    let mut ids = Vec::new();
    for (index, wanted) in file.listeners.iter().flatten().enumerate() {
        let id = listeners.find(wanted, &format!("{path}.listeners[{index}]"), findings).map(ListenerId);
        ids.extend(id.filter(|id| !ids.contains(id)));
    }
    let rule = Rule {
        name,
        line: findings.line(&path).unwrap_or(0),
        listeners: ids,
        transport: file.transport,
        ports: file.ports.iter().flatten().map(|ports| ports.0.clone()).collect(),
        protocols: file.protocols.clone().unwrap_or_default(),
        server_name: file.server_name.as_ref().map(|written| written.0.clone()),
        alpn: file.alpn.iter().flatten().map(|written| written.0 .0.clone()).collect(),
        ech: file.ech,
        from: file.from.iter().flatten().map(|written| written.0).collect(),
        action: action(file, &path, backends, findings),
    };
    let has_dead_listener = file.listeners.is_some() && rule.listeners.is_empty();
    Draft { is_sound: !has_dead_listener && findings.is_sound(&path), path, rule }
}

fn action(file: &RuleFile, path: &str, backends: &Names<'_>, findings: &mut Findings<'_>) -> Action {
    match (&file.to, file.refuse) {
        (Some(to), false) => {
            let id = backends.find(to, &below(path, "to"), findings);
            id.map_or(Action::Refuse, |id| Action::Forward(BackendId(id)))
        }
        (None, true) => Action::Refuse,
        (Some(to), true) => {
            let found = format!("both to = {to:?} and refuse = true");
            findings.fault(path, found, "a rule does one of them; take the other out");
            Action::Refuse
        }
        (None, false) => {
            if findings.is_sound(&below(path, "to")) && findings.is_sound(&below(path, "refuse")) {
                let allowed = "add to = \"NAME\" of a backend, or refuse = true";
                findings.fault(path, "the rule leads nowhere", allowed);
            }
            Action::Refuse
        }
    }
}

/// What can never match at the rule's listeners.
pub(super) fn examine(drafts: &[Draft], listeners: &[Listener], timeouts: &Timeouts, findings: &mut Findings<'_>) {
    if !findings.is_sound("listener") {
        return; // who may come to which rule is not known
    }
    for draft in drafts.iter().filter(|draft| draft.is_sound) {
        examine_transports(draft, listeners, findings);
        examine_ports(draft, listeners, findings);
        examine_names(draft, findings);
        if draft.rule.protocols.contains(&Protocol::Silence)
            && timeouts.silence >= timeouts.preface
            && findings.is_sound("timeouts")
        {
            findings.fault(
                format!("{}.protocols", draft.path),
                format!("silence of {:?} never comes within {:?}", timeouts.silence, timeouts.preface),
                "timeouts.silence is below timeouts.preface",
            );
        }
    }
}

fn examine_transports(draft: &Draft, listeners: &[Listener], findings: &mut Findings<'_>) {
    let taken: Vec<_> =
        [Transport::Tcp, Transport::Udp].into_iter().filter(|one| draft.takes(*one, listeners)).collect();
    if taken.is_empty() {
        let asked = draft.rule.transport.map_or("any", word);
        findings.fault(
            format!("{}.transport", draft.path),
            format!("none of its listeners has {asked}"),
            "add endpoints to a listener, or take the rule out",
        );
        return;
    }
    for (index, protocol) in draft.rule.protocols.iter().enumerate() {
        let spoken: Vec<_> =
            [Transport::Tcp, Transport::Udp].into_iter().filter(|one| exists_over(*protocol, *one)).collect();
        if !spoken.iter().any(|one| taken.contains(one)) {
            let over: Vec<_> = spoken.iter().map(|one| word(*one)).collect();
            let come: Vec<_> = taken.iter().map(|one| word(*one)).collect();
            let protocol = spelt(*protocol);
            findings.fault(
                format!("{}.protocols[{index}]", draft.path),
                format!(
                    "{protocol} is spoken over {}, and this rule sees only {}",
                    over.join(" and "),
                    come.join(", ")
                ),
                format!("take it out, or let the rule hold for {} at a listener that has it", over.join(" or ")),
            );
        }
    }
}

/// Behind a TPROXY rule or a PROXY header any port may have been asked for.
fn examine_ports(draft: &Draft, listeners: &[Listener], findings: &mut Findings<'_>) {
    let own = || listeners.iter().enumerate().filter(|(id, _)| draft.holds_at(*id)).map(|(_, listener)| listener);
    let is_open = |listener: &Listener| {
        listener.arrival == Arrival::Tproxy
            || listener.proxy_header.iter().any(|trust| trust.policy != HeaderPolicy::Never)
    };
    if own().any(is_open) {
        return;
    }
    let asked = |transport: Transport| draft.rule.transport.map_or(true, |own| own == transport);
    for (index, ports) in draft.rule.ports.iter().enumerate() {
        let tcp = own().filter(|_| asked(Transport::Tcp)).flat_map(|listener| &listener.tcp);
        let udp = own().filter(|_| asked(Transport::Udp)).flat_map(|listener| &listener.udp);
        if !tcp.chain(udp).any(|endpoint| ports.contains(&endpoint.port())) {
            findings.fault(
                format!("{}.ports[{index}]", draft.path),
                format!("none of its listeners has {}", shown(ports)),
                "add the port to a listener, or take it out here",
            );
        }
    }
}

fn examine_names(draft: &Draft, findings: &mut Findings<'_>) {
    let protocols = &draft.rule.protocols;
    if protocols.is_empty() {
        return;
    }
    if draft.rule.server_name.is_some() && !protocols.iter().any(|protocol| names_a_server(*protocol)) {
        let found = format!("no client of {} names a server", list(protocols));
        findings.fault(format!("{}.server_name", draft.path), found, "take it out, or name other protocols");
    }
    if !draft.rule.alpn.is_empty() && !protocols.iter().any(|protocol| has_alpn(*protocol)) {
        let found = format!("no client of {} offers application protocols", list(protocols));
        findings.fault(format!("{}.alpn", draft.path), found, "it goes with tls, quic and dtls");
    }
    if draft.rule.ech.is_some() && !protocols.iter().any(|protocol| has_alpn(*protocol)) {
        let found = format!("no client of {} hides a hello", list(protocols));
        findings.fault(format!("{}.ech", draft.path), found, "it goes with tls, quic and dtls");
    }
}

fn list(protocols: &[Protocol]) -> String {
    protocols.iter().map(|protocol| spelt(*protocol)).collect::<Vec<_>>().join(", ")
}

/// As the file has it.
fn spelt(protocol: Protocol) -> String {
    let value = serde_json::to_value(protocol).ok();
    value.as_ref().and_then(|value| value.as_str()).unwrap_or_default().to_owned()
}

fn shown(ports: &std::ops::RangeInclusive<u16>) -> String {
    let (first, last) = (ports.start(), ports.end());
    if first == last {
        format!("port {first}")
    } else {
        format!("a port of {first} to {last}")
    }
}

pub(super) fn has(listener: &Listener, transport: Transport) -> bool {
    match transport {
        Transport::Tcp => !listener.tcp.is_empty(),
        Transport::Udp => !listener.udp.is_empty(),
    }
}

fn word(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    }
}

/// Whether the first bytes of such a client can hold a host's name.
fn names_a_server(protocol: Protocol) -> bool {
    match protocol {
        Protocol::Tls
        | Protocol::Quic
        | Protocol::Dtls
        | Protocol::Http1
        | Protocol::Http2
        | Protocol::Socks4
        | Protocol::Socks5
        | Protocol::Xmpp
        | Protocol::Dns
        | Protocol::Minecraft
        | Protocol::Git => true,
        Protocol::Ssh
        | Protocol::Rdp
        | Protocol::Smb
        | Protocol::Postgres
        | Protocol::Mqtt
        | Protocol::Wireguard
        | Protocol::Openvpn
        | Protocol::Stun
        | Protocol::EternalTerminal
        | Protocol::Redis
        | Protocol::Amqp
        | Protocol::Bittorrent
        | Protocol::Syslog
        | Protocol::Rsync
        | Protocol::Bitcoin
        | Protocol::Adb
        | Protocol::SyncthingRelay
        | Protocol::Teamspeak3
        | Protocol::SourceQuery
        | Protocol::Silence => false,
    }
}

fn has_alpn(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Tls | Protocol::Quic | Protocol::Dtls)
}
