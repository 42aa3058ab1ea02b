//! A DNS query as bytes, and what the bytes of an answer to it say (RFC 1035, 2308). Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{Name, Packet, PacketFlag, Question, ResourceRecord, CLASS, QTYPE, TYPE};

use super::name::HostName;

/// Aliases that are followed within one answer, so that a circle ends.
const LONGEST_CHAIN: usize = 16;
/// Addresses that are taken from one answer; the rest would never be dialled.
const MOST_ADDRESSES: usize = 16;
const HEADER: usize = 12;
/// Octets that a question and a record take at least: a root name and their fixed fields (RFC 1035 section 4.1).
const SHORTEST_QUESTION: usize = 5;
const SHORTEST_RECORD: usize = 11;
/// The time of a negative answer that names none; RFC 2308 section 5 would not keep it at all, but then each client
/// of a missing name would cost a query.
const NEGATIVE_WITHOUT_SOA: Duration = Duration::from_secs(1);

/// Which kind of address is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Family {
    /// A records.
    V4,
    /// AAAA records (RFC 3596).
    V6,
}

impl Family {
    fn record_type(self) -> TYPE {
        match self {
            Self::V4 => TYPE::A,
            Self::V6 => TYPE::AAAA,
        }
    }
}

/// What a server knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Addresses, at least one, in the server's order, and how long they hold.
    Addresses(Vec<IpAddr>, Duration),
    /// The name exists without such addresses; this holds for so long.
    NoAddresses(Duration),
    /// The name does not exist; this holds for so long.
    NoSuchName(Duration),
}

/// What a message says that answers the query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reading {
    /// All there is to know.
    Answer(Answer),
    /// The same, but the question came back in other letters than were sent: a server that does not keep them, or somebody
    /// who guessed.
    AnswerInOtherCase(Answer),
    /// There is more than the datagram could hold.
    Truncated,
    /// The server had a failure of its own (SERVFAIL).
    ServerFailure,
    /// The server does not want to say, or does not understand; with its code.
    Refused(u8),
}

/// Why a message is not taken for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotTheAnswer {
    /// It cannot be read.
    Malformed,
    /// It is a query.
    NoAnswer,
    /// It answers somebody else.
    OtherId,
    /// It answers something else.
    OtherQuestion,
}

/// One question, spelt as it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    id: u16,
    family: Family,
    spelling: String,
}

impl Query {
    /// A query for the addresses of `host`. Letters become capitals as the bits of `draw` say: whoever forges an answer
    /// must guess them too (draft-vixie-dnsext-dns0x20).
    pub(crate) fn new(host: &HostName, family: Family, id: u16, mut draw: impl FnMut() -> u64) -> Self {
        let mut bits = 0;
        let spell = |(position, letter): (usize, char)| {
            if position % 64 == 0 {
                bits = draw();
            }
            let is_capital = bits & 1 == 1;
            bits >>= 1;
            if is_capital {
                letter.to_ascii_uppercase()
            } else {
                letter
            }
        };
        let spelling = host.as_str().chars().enumerate().map(spell).collect();
        Self { id, family, spelling }
    }

    /// The message. It carries no EDNS record: what does not fit into 512 octets is asked again over TCP, and no server or
    /// middlebox stumbles.
    pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
        let mut packet = Packet::new_query(self.id);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        let name = Name::new(&self.spelling).ok()?;
        packet.questions.push(Question::new(name, QTYPE::TYPE(self.family.record_type()), CLASS::IN.into(), false));
        packet.build_bytes_vec().ok()
    }

    /// What `bytes` answer.
    pub(crate) fn read(&self, bytes: &[u8]) -> Result<Reading, NotTheAnswer> {
        let code = check_header(bytes)?;
        let packet = Packet::parse(bytes).map_err(|_| NotTheAnswer::Malformed)?;
        if !packet.has_flags(PacketFlag::RESPONSE) {
            return Err(NotTheAnswer::NoAnswer);
        }
        if packet.id() != self.id {
            return Err(NotTheAnswer::OtherId);
        }
        let question = match packet.questions.as_slice() {
            [question] => question,
            // Who could not read the question need not repeat it.
            [] if !matches!(code, 0 | 3) => return Ok(refusal(code)),
            _ => return Err(NotTheAnswer::OtherQuestion),
        };
        let asked = Name::new(&self.spelling).map_err(|_| NotTheAnswer::OtherQuestion)?;
        let is_asked = question.qtype == QTYPE::TYPE(self.family.record_type()) && question.qclass == CLASS::IN.into();
        if !is_asked || question.qname != asked {
            return Err(NotTheAnswer::OtherQuestion);
        }
        if packet.has_flags(PacketFlag::TRUNCATION) {
            return Ok(Reading::Truncated);
        }
        let answer = match code {
            0 => self.follow(&packet, &asked),
            3 => Answer::NoSuchName(negative_time(&packet)),
            _ => return Ok(refusal(code)),
        };
        let is_spelt_alike = question.qname.as_bytes().eq(asked.as_bytes());
        Ok(if is_spelt_alike { Reading::Answer(answer) } else { Reading::AnswerInOtherCase(answer) })
    }

    /// The addresses at the end of the chain of aliases that begins with `asked`. A chain holds as long as its weakest link.
    fn follow(&self, packet: &Packet<'_>, asked: &Name<'_>) -> Answer {
        let mut owner = asked;
        let mut chain_ttl = u32::MAX;
        for _ in 0..=LONGEST_CHAIN {
            let records = || packet.answers.iter().filter(|record| record.class == CLASS::IN && record.name == *owner);
            let found: Vec<_> = records().filter_map(|record| self.address(record)).take(MOST_ADDRESSES).collect();
            if let Some(ttl) = found.iter().map(|(_, ttl)| *ttl).min() {
                let addresses = found.into_iter().map(|(address, _)| address).collect();
                return Answer::Addresses(addresses, seconds(chain_ttl.min(ttl)));
            }
            let Some((alias, ttl)) = records().find_map(alias) else { break };
            owner = alias;
            chain_ttl = chain_ttl.min(ttl);
        }
        Answer::NoAddresses(negative_time(packet))
    }

    /// The address of a record of the family asked for. An IPv4 address in IPv6 clothes is undressed, so that no rule on
    /// addresses is evaded by it.
    fn address(&self, record: &ResourceRecord<'_>) -> Option<(IpAddr, u32)> {
        let address = if let (Family::V4, RData::A(found)) = (self.family, &record.rdata) {
            IpAddr::from(Ipv4Addr::from(found.address))
        } else if let (Family::V6, RData::AAAA(found)) = (self.family, &record.rdata) {
            IpAddr::from(Ipv6Addr::from(found.address)).to_canonical()
        } else {
            return None;
        };
        Some((address, meant_ttl(record.ttl)))
    }
}

/// The code of an answer, once the header's counts could be true: a lie there must not cost memory.
fn check_header(bytes: &[u8]) -> Result<u8, NotTheAnswer> {
    let header: &[u8; HEADER] =
        bytes.get(..HEADER).and_then(|head| head.try_into().ok()).ok_or(NotTheAnswer::Malformed)?;
    let [_, _, _, flags, q0, q1, an0, an1, ns0, ns1, ar0, ar1] = *header;
    let count = |high, low| usize::from(u16::from_be_bytes([high, low]));
    let records = count(an0, an1) + count(ns0, ns1) + count(ar0, ar1);
    if HEADER + count(q0, q1) * SHORTEST_QUESTION + records * SHORTEST_RECORD > bytes.len() {
        return Err(NotTheAnswer::Malformed);
    }
    Ok(flags & 0x0f)
}

fn refusal(code: u8) -> Reading {
    match code {
        2 => Reading::ServerFailure,
        _ => Reading::Refused(code),
    }
}

fn alias<'a>(record: &'a ResourceRecord<'_>) -> Option<(&'a Name<'a>, u32)> {
    if let RData::CNAME(target) = &record.rdata {
        Some((&target.0, meant_ttl(record.ttl)))
    } else {
        None
    }
}

/// RFC 2308 section 5: the lesser of the SOA's own TTL and its last field.
fn negative_time(packet: &Packet<'_>) -> Duration {
    let of_soa = |record: &ResourceRecord<'_>| {
        if let RData::SOA(soa) = &record.rdata {
            Some(seconds(meant_ttl(record.ttl).min(meant_ttl(soa.minimum))))
        } else {
            None
        }
    };
    packet.name_servers.iter().find_map(of_soa).unwrap_or(NEGATIVE_WITHOUT_SOA)
}

/// RFC 2181 section 8: a TTL with the highest bit set is none.
fn meant_ttl(ttl: u32) -> u32 {
    if ttl > u32::MAX / 2 {
        0
    } else {
        ttl
    }
}

fn seconds(ttl: u32) -> Duration {
    Duration::from_secs(ttl.into())
}

#[cfg(test)]
mod tests;
