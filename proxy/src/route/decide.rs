//! The first rule of the file that matches, or that more bytes are needed to know which one it is.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use regex::Regex;

use super::conditions::{asks_hello, at_once, content, Content, Holding, Known};
use crate::config::model::{Action, BackendId, Config, ListenerId, Protocol, Rule, RuleId, Transport};
use crate::sniff::Sniffed;

/// What is known of a client before it has said anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    /// Where it arrived.
    pub listener: ListenerId,
    /// By connection or by datagram.
    pub transport: Transport,
    /// Whom it addressed.
    pub original_dst: SocketAddr,
    /// Who it is: the peer, or whom the peer's PROXY header names.
    pub client: SocketAddr,
}

/// Answers which protocol the client speaks. An answer other than [`Sniffed::NeedMore`] stays the answer, whatever follows.
pub trait Spoken {
    /// Whether it is spoken, with all that its first bytes tell.
    fn is(&mut self, protocol: Protocol) -> Sniffed;

    /// The same for those who need neither name nor application protocol, which may come later than the certainty that
    /// the protocol is spoken. What it has found is not to be used.
    fn is_certainly(&mut self, protocol: Protocol) -> Sniffed {
        self.is(protocol)
    }

    /// Whether what is found of this protocol tells if its hello hides another one. Bytes do.
    fn tells_ech(&self, _protocol: Protocol) -> bool {
        true
    }
}

/// What a rule's regex captured by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captures(BTreeMap<String, String>);

impl Captures {
    /// `None` where the name does not match.
    #[must_use]
    pub fn of(regex: &Regex, name: &str) -> Option<Self> {
        let found = regex.captures(name)?;
        let named = regex.capture_names().flatten();
        Some(Self(named.filter_map(|key| Some((key.to_owned(), found.name(key)?.as_str().to_owned()))).collect()))
    }

    /// What this group captured; `None` where it took no part in the match.
    #[must_use]
    pub fn named(&self, group: &str) -> Option<&str> {
        self.0.get(group).map(String::as_str)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// What becomes of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// A rule may match or not, by what the client says next; no later rule is looked at before that is known.
    NeedMore,
    /// It is led to a backend.
    Forward {
        /// By this rule.
        rule: RuleId,
        /// Thither.
        backend: BackendId,
        /// What may stand in the backend's targets.
        captures: Captures,
    },
    /// A rule refuses it.
    Refuse {
        /// This one.
        rule: RuleId,
    },
    /// No rule matches.
    NoRule,
}

/// Decides by what is known so far. Rules that ask nothing of the content decide before the first byte.
#[must_use]
pub fn decide(config: &Config, arrived: &Arrived, spoken: &mut dyn Spoken) -> Decision {
    first_match(config, arrived, spoken, Unsettled::Waits)
}

/// Decides when nothing more is waited for: the deadline has passed, the byte budget is used up, or the client has ended
/// its side. What still needed more is not spoken. Never [`Decision::NeedMore`].
#[must_use]
pub fn final_decision(config: &Config, arrived: &Arrived, spoken: &mut dyn Spoken) -> Decision {
    first_match(config, arrived, spoken, Unsettled::CountsAsNo)
}

/// Whether a client that says nothing could match a rule by [`Protocol::Silence`]. If so, the caller tells the preface
/// when `Timeouts::silence` has passed without a byte and decides again; if not, it waits until its deadline.
#[must_use]
pub fn awaits_silence(config: &Config, arrived: &Arrived) -> bool {
    let known = Known::from(arrived);
    let mut here = config.rules.iter().filter(|rule| at_once(rule, &known) == Holding::Holds);
    here.any(|rule| rule.protocols.contains(&Protocol::Silence) && !asks_hello(rule))
}

/// What an unsettled rule does to the search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unsettled {
    Waits,
    CountsAsNo,
}

fn first_match(config: &Config, arrived: &Arrived, spoken: &mut dyn Spoken, unsettled: Unsettled) -> Decision {
    let known = Known::from(arrived);
    for (index, rule) in config.rules.iter().enumerate() {
        if at_once(rule, &known) != Holding::Holds {
            continue;
        }
        match content(rule, spoken) {
            Content::Holds(captures) => return carried_out(RuleId(index), rule, captures),
            Content::Unknown if unsettled == Unsettled::Waits => return Decision::NeedMore,
            Content::Unknown | Content::DoesNot => {}
        }
    }
    Decision::NoRule
}

fn carried_out(id: RuleId, rule: &Rule, captures: Captures) -> Decision {
    match rule.action {
        Action::Forward(backend) => Decision::Forward { rule: id, backend, captures },
        Action::Refuse => Decision::Refuse { rule: id },
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
