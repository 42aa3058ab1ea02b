//! Targets of backends: an address or a name that may hold captures, and a port.

use super::endpoint::{address, port, split};
use super::name::host_fault;
use super::Notation;
use crate::config::model::{Host, NamePart, Target, TargetPort};

impl Notation for Target {
    const FORMAT: &'static str = "target";
    const ALLOWED: &'static str = "an address or a name, and a port, are allowed, as in \"192.0.2.1:22\", \
         \"[2001:db8::1]:22\", \"nas.tailnet:443\" or \"$host.tailnet:$port\"";
    const EXAMPLES: &'static [&'static str] =
        &["192.0.2.1:22", "[2001:db8::1]:22", "nas.tailnet:443", "$host.tailnet:$port", "web-${host}.tailnet:443"];

    fn read(text: &str) -> Result<Self, String> {
        let (host, end) = split(text)?;
        let port = if end == "$port" { TargetPort::Original } else { TargetPort::Fixed(port(end)?) };
        Ok(Self { host: self::host(host)?, port })
    }
}

fn host(text: &str) -> Result<Host, String> {
    // No name ends in a label of digits (RFC 3696 section 2), so that is an address, right or wrong.
    let ends_in_digits =
        || spelt(text).rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    if text.contains(['[', ':']) || ends_in_digits() {
        let address = address(text)?;
        if address.is_unspecified() || address.is_multicast() {
            return Err(format!("{address} is not the address of one host"));
        }
        return Ok(Host::Address(address));
    }
    name(text).map(Host::Name)
}

fn name(text: &str) -> Result<Vec<NamePart>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((literal, after)) = rest.split_once('$') {
        keep(&mut parts, literal);
        let (capture, after) = capture(after).ok_or_else(|| format!("{text:?} has a $ without the name of a group"))?;
        if capture == "port" {
            return Err(format!("{text:?} has $port in its name; it stands for the port, after the colon"));
        }
        parts.push(NamePart::Capture(capture.to_owned()));
        rest = after;
    }
    keep(&mut parts, rest);
    // A capture may be any label or labels: x stands for it.
    let sample: String = parts
        .iter()
        .map(|part| match part {
            NamePart::Literal(literal) => literal.as_str(),
            NamePart::Capture(_) => "x",
        })
        .collect();
    match host_fault(if text.contains('$') { &sample } else { spelt(&sample) }) {
        Some(fault) => Err(format!("the name {text:?} {fault}")),
        None => Ok(parts),
    }
}

/// Without the final dot of a name that is complete, so that no domain is searched for it; one with captures never is.
fn spelt(text: &str) -> &str {
    text.strip_suffix('.').filter(|_| !text.contains('$')).unwrap_or(text)
}

fn keep(parts: &mut Vec<NamePart>, literal: &str) {
    if !literal.is_empty() {
        parts.push(NamePart::Literal(literal.to_ascii_lowercase()));
    }
}

/// The group's name after a `$`, bare or in braces, and what follows.
fn capture(text: &str) -> Option<(&str, &str)> {
    let (name, rest) = match text.strip_prefix('{') {
        Some(inside) => inside.split_once('}')?,
        None => text.split_at(text.find(|letter| !is_of_group(letter)).unwrap_or(text.len())),
    };
    let is_name = name.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_');
    (is_name && name.chars().all(is_of_group)).then_some((name, rest))
}

fn is_of_group(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(text: &str) -> NamePart {
        NamePart::Literal(text.to_owned())
    }

    fn capture(name: &str) -> NamePart {
        NamePart::Capture(name.to_owned())
    }

    #[test]
    fn targets_are_read() {
        let address = Host::Address("2001:db8::1".parse().unwrap());
        assert_eq!(Target::read("[2001:db8::1]:22"), Ok(Target { host: address, port: TargetPort::Fixed(22) }));
        for (text, parts) in [
            ("NAS.tailnet:1", vec![literal("nas.tailnet")]),
            ("nas.:1", vec![literal("nas.")]),
            ("$host.tailnet:1", vec![capture("host"), literal(".tailnet")]),
            ("web-${host}er.tailnet:1", vec![literal("web-"), capture("host"), literal("er.tailnet")]),
            ("${a}$b:1", vec![capture("a"), capture("b")]),
        ] {
            let expected = Target { host: Host::Name(parts), port: TargetPort::Fixed(1) };
            assert_eq!(Target::read(text), Ok(expected), "{text}");
        }
        assert_eq!(Target::read("nas:$port").map(|target| target.port), Ok(TargetPort::Original));
    }

    #[test]
    fn targets_are_shown_as_they_are_written() {
        for text in
            ["192.0.2.1:22", "[2001:db8::1]:$port", "a-${host}er.tailnet:1", "$a$b.c:$port", "nas:443", "nas.:443"]
        {
            assert_eq!(Target::read(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn wrong_targets_are_refused_with_their_reason() {
        for (text, said) in [
            ("nas", "has no port"),
            ("nas:", "\"\" is not a port"),
            ("nas:${port}", "is not a port"),
            ("nas:0", "is not a port"),
            (":443", "is not an address"),
            ("300.0.2.1:22", "\"300.0.2.1\" is not an address"),
            ("192.0.2:22", "is not an address"),
            ("2001:db8::1:22", "without brackets"),
            ("0.0.0.0:22", "not the address of one host"),
            ("[ff02::1]:22", "not the address of one host"),
            ("$:22", "without the name of a group"),
            ("${host:22", "without the name of a group"),
            ("$1.tailnet:22", "without the name of a group"),
            ("$port.tailnet:22", "$port in its name"),
            ("nas..tailnet:22", "an empty label"),
            (".tailnet:22", "an empty label"),
            ("$host..tailnet:22", "an empty label"),
            ("nas..:22", "is not an address"),
            (".:22", "is not an address"),
            ("10.1.:22", "is not an address"),
            ("$host.tailnet.:22", "is not an address"),
            ("na s:22", "' ', which no host name has"),
            ("unix:/run/x", "not a port"),
        ] {
            let fault = Target::read(text).expect_err(text);
            assert!(fault.contains(said), "{text:?}: {fault}");
        }
    }
}
