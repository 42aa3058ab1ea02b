//! The conditions of one rule, each three-valued: those known on arrival, and those that ask what is spoken.

use std::net::IpAddr;

use super::decide::{Arrived, Captures, Spoken};
use crate::config::model::{ListenerId, Protocol, Rule, Transport};
use crate::sniff::{Found, Sniffed};

/// Whether a condition is fulfilled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Holding {
    /// It is.
    Holds,
    /// It is not.
    DoesNot,
    /// What is known does not tell.
    Unknown,
}

/// What is known of a client's arrival; on a real one, everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// Where it arrived.
    pub listener: Option<ListenerId>,
    /// By connection or by datagram.
    pub transport: Option<Transport>,
    /// The port that it addressed.
    pub port: Option<u16>,
    /// Who it is.
    pub client: Option<IpAddr>,
}

impl From<&Arrived> for Known {
    fn from(arrived: &Arrived) -> Self {
        Self {
            listener: Some(arrived.listener),
            transport: Some(arrived.transport),
            port: Some(arrived.original_dst.port()),
            client: Some(arrived.client.ip()),
        }
    }
}

/// What the conditions on the content come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// They hold, with what the name's regex captured.
    Holds(Captures),
    /// They do not, whatever follows.
    DoesNot,
    /// More bytes will tell.
    Unknown,
}

/// Protocols whose first bytes name the server that the client wants. DNS and SOCKS name somebody else: only a rule that
/// lists them is about their names.
const BEAR_NAMES: &[Protocol] = &[
    Protocol::Tls,
    Protocol::Quic,
    Protocol::Dtls,
    Protocol::Http1,
    Protocol::Http2,
    Protocol::Minecraft,
    Protocol::Xmpp,
    Protocol::Git,
];

/// Protocols that negotiate what runs inside (RFC 7301).
pub(crate) const BEAR_ALPN: &[Protocol] = &[Protocol::Tls, Protocol::Quic, Protocol::Dtls];

pub(crate) fn listener(rule: &Rule, known: &Known) -> Holding {
    among(rule.listeners.is_empty(), known.listener, |it| rule.listeners.contains(&it))
}

pub(crate) fn transport(rule: &Rule, known: &Known) -> Holding {
    among(rule.transport.is_none(), known.transport, |it| rule.transport == Some(it))
}

pub(crate) fn port(rule: &Rule, known: &Known) -> Holding {
    among(rule.ports.is_empty(), known.port, |it| rule.ports.iter().any(|range| range.contains(&it)))
}

/// A v4-mapped client is the IPv4 client that it stands for.
pub(crate) fn from(rule: &Rule, known: &Known) -> Holding {
    let client = known.client.map(|address| address.to_canonical());
    among(rule.from.is_empty(), client, |it| rule.from.iter().any(|prefix| prefix.contains(&it)))
}

/// All conditions that need no byte.
pub(crate) fn at_once(rule: &Rule, known: &Known) -> Holding {
    let mut all = Holding::Holds;
    for condition in [listener, transport, port, from] {
        match condition(rule, known) {
            Holding::Holds => {}
            Holding::DoesNot => return Holding::DoesNot,
            Holding::Unknown => all = Holding::Unknown,
        }
    }
    all
}

/// All conditions on what is spoken. Any of the rule's protocols will do, so one that is spoken outweighs others that are
/// undecided; but while any is undecided, none that is not spoken makes the rule fail.
pub(crate) fn content(rule: &Rule, spoken: &mut dyn Spoken) -> Content {
    let mut all = if asks_content(rule) { Content::DoesNot } else { return Content::Holds(Captures::default()) };
    for &protocol in asked(rule) {
        match of_protocol(rule, protocol, spoken) {
            Content::Holds(captures) => return Content::Holds(captures),
            Content::DoesNot => {}
            Content::Unknown => all = Content::Unknown,
        }
    }
    all
}

/// Whether the rule cannot be decided on arrival.
pub(crate) fn asks_content(rule: &Rule) -> bool {
    !rule.protocols.is_empty() || asks_hello(rule)
}

/// Whether clients of a listener may have to say something before it is known where they are led.
pub(crate) fn asks_clients(rules: &[Rule], at: ListenerId, transport: Transport) -> bool {
    let known = Known { listener: Some(at), transport: Some(transport), ..Known::default() };
    rules.iter().any(|rule| asks_content(rule) && at_once(rule, &known) != Holding::DoesNot)
}

/// The protocols that the rule is about; those it lists, or all that can tell what it asks.
pub(crate) fn asked(rule: &Rule) -> &[Protocol] {
    match (rule.protocols.is_empty(), rule.alpn.is_empty() && rule.ech.is_none()) {
        (false, _) => &rule.protocols,
        (true, false) => BEAR_ALPN,
        (true, true) => BEAR_NAMES,
    }
}

/// What the regex makes of a name.
pub(crate) fn server_name(rule: &Rule, found: &Found) -> Option<Captures> {
    match (&rule.server_name, &found.name) {
        (None, _) => Some(Captures::default()),
        (Some(regex), Some(name)) => Captures::of(regex, name),
        (Some(_), None) => None,
    }
}

/// Whether one of the rule's application protocols is offered.
pub(crate) fn alpn(rule: &Rule, found: &Found) -> bool {
    rule.alpn.is_empty() || rule.alpn.iter().any(|wanted| found.alpn.contains(wanted))
}

/// Whether the hello hides another one, or not, as the rule has it. What has no hello hides none.
pub(crate) fn ech(rule: &Rule, found: &Found) -> bool {
    rule.ech.map_or(true, |wanted| wanted == found.ech)
}

/// What one protocol answers, as far as the rule needs to know.
pub(crate) fn ask(rule: &Rule, protocol: Protocol, spoken: &mut dyn Spoken) -> Sniffed {
    if asks_hello(rule) {
        spoken.is(protocol)
    } else {
        spoken.is_certainly(protocol)
    }
}

fn of_protocol(rule: &Rule, protocol: Protocol, spoken: &mut dyn Spoken) -> Content {
    let is_ech_open = rule.ech.is_some() && !spoken.tells_ech(protocol);
    match ask(rule, protocol, spoken) {
        Sniffed::NeedMore => Content::Unknown,
        Sniffed::No => Content::DoesNot,
        Sniffed::Yes(found) if alpn(rule, &found) && (is_ech_open || ech(rule, &found)) => {
            match server_name(rule, &found) {
                Some(_) if is_ech_open => Content::Unknown,
                Some(captures) => Content::Holds(captures),
                None => Content::DoesNot,
            }
        }
        Sniffed::Yes(_) => Content::DoesNot,
    }
}

pub(crate) fn asks_hello(rule: &Rule) -> bool {
    rule.server_name.is_some() || !rule.alpn.is_empty() || rule.ech.is_some()
}

/// A condition that names nothing holds even where the fact is unknown.
fn among<T: Copy>(unrestricted: bool, fact: Option<T>, holds: impl Fn(T) -> bool) -> Holding {
    match fact {
        _ if unrestricted => Holding::Holds,
        None => Holding::Unknown,
        Some(fact) if holds(fact) => Holding::Holds,
        Some(_) => Holding::DoesNot,
    }
}
