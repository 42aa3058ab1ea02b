//! One connection or flow as one line of JSON. Pure. What clients chose is hostile: the line is printable ASCII and bounded.

use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::close_reason::CloseReason;
use super::outcomes::{HeaderIn, HeaderOut, SourceUsed};
use super::protocols;
use super::unique_id::UniqueId;
use crate::config::model::{Protocol, Transport};

/// Characters of a name that a client chose; RFC 1035 allows 255.
const MOST_NAME: usize = 256;
/// Application protocols that are written; browsers offer two or three.
const MOST_ALPN: usize = 8;
/// Bytes of one of them; RFC 7301 allows 255.
const MOST_ALPN_BYTES: usize = 32;

/// What is written of a connection or a flow when it has ended.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// When it ended.
    pub time: SystemTime,
    /// Joins the lines of each hop.
    pub unique_id: &'a UniqueId,
    /// The listener's name.
    pub listener: &'a str,
    /// TCP or UDP.
    pub transport: Transport,
    /// Who sent the packets.
    pub peer: SocketAddr,
    /// Whom the peer speaks for; the peer itself without a PROXY header.
    pub client: SocketAddr,
    /// Where the client wanted to.
    pub original_dst: SocketAddr,
    /// What was recognised.
    pub protocol: Option<Protocol>,
    /// The name asked for.
    pub server_name: Option<&'a str>,
    /// Application protocols offered.
    pub alpn: &'a [Vec<u8>],
    /// The hello hides an inner one, or pretends to.
    pub ech: bool,
    /// The rule that decided.
    pub rule: Option<&'a str>,
    /// The backend it led to.
    pub backend: Option<&'a str>,
    /// The candidate that was connected to.
    pub target: Option<SocketAddr>,
    /// Which endpoint that candidate sees.
    pub source: Option<SourceUsed>,
    /// Ways to a candidate that is to be reached by Multipath TCP; 0: it was reached by plain TCP.
    pub subflows: Option<u8>,
    /// The PROXY header of the peer.
    pub header_in: HeaderIn,
    /// The PROXY header to the candidate.
    pub header_out: HeaderOut,
    /// Payload from the client.
    pub bytes_in: u64,
    /// Payload to the client.
    pub bytes_out: u64,
    /// From accept (or the end of the header) until it was known what is spoken.
    pub preface: Option<Duration>,
    /// Until a candidate was connected to, from the decision.
    pub connect: Option<Duration>,
    /// From accept to the end.
    pub total: Duration,
    /// Why it ended.
    pub close: CloseReason,
    /// So many of the same end before it have no line.
    pub left_out: u64,
}

impl Record<'_> {
    /// Appends the line, its line feed included. What is unknown is left out.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut line = Line { out, first: true };
        line.text("time", Rfc3339(self.time));
        line.text("unique_id", self.unique_id);
        line.text("listener", self.listener);
        line.text("transport", transport(self.transport));
        line.text("peer", self.peer);
        line.text("client", self.client);
        line.text("original_dst", self.original_dst);
        line.text("protocol", protocols::label(self.protocol));
        if let Some(name) = self.server_name {
            line.text("server_name", Cut(name, MOST_NAME));
        }
        line.texts("alpn", self.alpn.iter().take(MOST_ALPN).map(|name| Bytes(name)));
        if self.ech {
            line.truth("ech");
        }
        line.text_if("rule", self.rule);
        line.text_if("backend", self.backend);
        line.text_if("target", self.target);
        line.text_if("source", self.source.map(SourceUsed::label));
        if let Some(subflows) = self.subflows {
            line.number("backend_subflows", subflows.into());
        }
        line.text("header_in", self.header_in.label());
        line.text("header_out", self.header_out.label());
        line.number("bytes_in", self.bytes_in);
        line.number("bytes_out", self.bytes_out);
        line.duration("preface_us", self.preface);
        line.duration("connect_us", self.connect);
        line.duration("total_us", Some(self.total));
        line.text("close", self.close.label());
        line.text_if("close_detail", self.close.detail());
        if self.left_out > 0 {
            line.number("left_out", self.left_out);
        }
        line.out.extend_from_slice(b"}\n");
    }
}

/// The word for a transport.
#[must_use]
pub const fn transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    }
}

/// A JSON object that is being written. Keys are words of this file and need no escape.
struct Line<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl Line<'_> {
    fn key(&mut self, key: &str) {
        self.out.push(if self.first { b'{' } else { b',' });
        self.first = false;
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn text(&mut self, key: &str, value: impl fmt::Display) {
        self.key(key);
        self.quoted(value);
    }

    fn text_if(&mut self, key: &str, value: Option<impl fmt::Display>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    fn texts(&mut self, key: &str, values: impl Iterator<Item = impl fmt::Display>) {
        let mut opened = false;
        for value in values {
            if opened {
                self.out.push(b',');
            } else {
                self.key(key);
                self.out.push(b'[');
                opened = true;
            }
            self.quoted(value);
        }
        if opened {
            self.out.push(b']');
        }
    }

    fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        let _ = write!(Raw(self.out), "{value}"); // a vector takes whatever is written
    }

    fn truth(&mut self, key: &str) {
        self.key(key);
        self.out.extend_from_slice(b"true");
    }

    fn duration(&mut self, key: &str, value: Option<Duration>) {
        if let Some(value) = value {
            self.number(key, u64::try_from(value.as_micros()).unwrap_or(u64::MAX));
        }
    }

    fn quoted(&mut self, value: impl fmt::Display) {
        self.out.push(b'"');
        let _ = write!(Escaped(self.out), "{value}");
        self.out.push(b'"');
    }
}

/// Takes text as it is.
struct Raw<'a>(&'a mut Vec<u8>);

impl Write for Raw<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Takes text as the inside of a JSON string (RFC 8259 section 7). All but printable ASCII is escaped, so that neither a
/// terminal nor a reader that splits at U+2028 can be steered by a name.
struct Escaped<'a>(&'a mut Vec<u8>);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
            self.0.extend_from_slice(text.as_bytes());
            return Ok(());
        }
        for character in text.chars() {
            match character {
                '"' | '\\' => self.0.extend_from_slice(&[b'\\', if character == '"' { b'"' } else { b'\\' }]),
                ' '..='~' => self.0.extend(u8::try_from(character)),
                _ => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        write!(Raw(self.0), "\\u{unit:04x}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The first characters of a text.
struct Cut<'a>(&'a str, usize);

impl fmt::Display for Cut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.char_indices().nth(self.1).map_or(self.0.len(), |(end, _)| end);
        f.write_str(self.0.get(..end).unwrap_or_default())
    }
}

/// Bytes of which most are text: others, and the backslash, as `\xNN`.
struct Bytes<'a>(&'a [u8]);

impl fmt::Display for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.get(..MOST_ALPN_BYTES).unwrap_or(self.0);
        let is_plain = bytes.iter().all(|byte| matches!(byte, b' '..=b'~') && *byte != b'\\');
        if let Some(text) = std::str::from_utf8(bytes).ok().filter(|_| is_plain) {
            return f.write_str(text);
        }
        bytes.iter().try_for_each(|byte| match byte {
            b'\\' => f.write_str("\\x5c"),
            b' '..=b'~' => f.write_char(char::from(*byte)),
            _ => write!(f, "\\x{byte:02x}"),
        })
    }
}

/// A moment as RFC 3339 has it, in UTC, with microseconds.
pub(super) struct Rfc3339(pub(super) SystemTime);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default(); // a clock before 1970 is not set
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", since.subsec_micros())
    }
}

/// Days since 1970-01-01 as year, month and day of the Gregorian calendar. Years begin in March here, so that the leap
/// day is the last of its year; an era is 400 years, 146,097 days.
const fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 0000-03-01 to 1970-01-01
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + (month <= 2) as u64, month, day)
}

#[cfg(test)]
#[path = "access_line_tests.rs"]
pub(super) mod tests;
