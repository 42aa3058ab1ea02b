//! From a target of the file, captures and the original port to the endpoint or name that is dialled. What a client chose of
//! a name is never trusted: it must be a host name and end as the backend allows.

use std::net::SocketAddr;

use thiserror::Error;

use super::decide::Captures;
use super::forbidden::Origin;
use crate::config::model::{Host, NameBounds, NamePart, Target, TargetPort};

/// RFC 1035, section 2.3.4: 255 octets with the length of each label and the root's.
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

/// What is dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// An address, and who chose it.
    Address(SocketAddr, Origin),
    /// A name to resolve, in lower case, without a final dot; each of its addresses is of [`Origin::Name`].
    Name {
        /// Who.
        name: String,
        /// At which port.
        port: u16,
        /// The file says all of it, without a final dot, so that this host's search list holds.
        is_searched: bool,
    },
}

/// Why a target is not dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum TargetError {
    /// A group of the regex that stands in the target took no part in the match.
    #[error("the name has nothing for a capture of the target")]
    CaptureMissing,
    /// A label is empty: two dots follow each other, or there is no name at all.
    #[error("the target's name has an empty label")]
    LabelEmpty,
    /// More than 63 octets.
    #[error("a label of the target's name has more than 63 octets")]
    LabelTooLong,
    /// More than 253 octets.
    #[error("the target's name has more than 253 octets")]
    NameTooLong,
    /// Something other than letters, digits, hyphens and underscores.
    #[error("the target's name has a character that no host name has")]
    Character,
    /// A label begins or ends with a hyphen.
    #[error("a label of the target's name begins or ends with a hyphen")]
    Hyphen,
    /// A resolver would take the name for an address (`10.1`, `0x7f.1`).
    #[error("the client's choice is an address, not a name")]
    AddressLiteral,
    /// `localhost` or a name below it (RFC 6761, section 6.3).
    #[error("the client's choice is this host")]
    Localhost,
    /// The backend allows no name of a client's choice.
    #[error("the backend has no allow_suffixes")]
    NoSuffixes,
    /// None of the backend's suffixes.
    #[error("the target's name ends in none of allow_suffixes")]
    Suffix,
    /// One label, and the backend asks for a suffix.
    #[error("the target's name is one label, which takes allow_single_labels")]
    SingleLabel,
    /// Nothing listens there.
    #[error("the target's port is 0")]
    PortZero,
}

impl TargetError {
    /// A short word for metrics and logs; it does not change.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::CaptureMissing => "capture_missing",
            Self::LabelEmpty => "label_empty",
            Self::LabelTooLong => "label_too_long",
            Self::NameTooLong => "name_too_long",
            Self::Character => "character",
            Self::Hyphen => "hyphen",
            Self::AddressLiteral => "address_literal",
            Self::Localhost => "localhost",
            Self::NoSuffixes => "no_suffixes",
            Self::Suffix => "suffix",
            Self::SingleLabel => "single_label",
            Self::PortZero => "port_zero",
        }
    }
}

/// Fills a target. `bounds` are those of its backend.
///
/// # Errors
///
/// The reason why it must not be dialled.
pub fn fill(
    target: &Target,
    bounds: &NameBounds,
    captures: &Captures,
    original_port: u16,
) -> Result<Destination, TargetError> {
    let port = match target.port {
        TargetPort::Fixed(port) => port,
        TargetPort::Original => original_port,
    };
    if port == 0 {
        return Err(TargetError::PortZero);
    }
    match &target.host {
        Host::Address(address) => Ok(Destination::Address(SocketAddr::new(*address, port), Origin::File)),
        Host::Name(parts) => {
            let name = joined(parts, captures)?;
            host_name(&name)?;
            if parts.iter().any(|part| matches!(part, NamePart::Capture(_))) {
                chosen(name, bounds, port)
            } else {
                let is_complete = matches!(parts.last(), Some(NamePart::Literal(end)) if end.ends_with('.'));
                Ok(Destination::Name { name, port, is_searched: !is_complete })
            }
        }
    }
}

fn joined(parts: &[NamePart], captures: &Captures) -> Result<String, TargetError> {
    let mut name = String::new();
    for part in parts {
        name.push_str(match part {
            NamePart::Literal(text) => text,
            NamePart::Capture(group) => captures.named(group).ok_or(TargetError::CaptureMissing)?,
        });
    }
    name.make_ascii_lowercase();
    if name.ends_with('.') {
        name.pop();
    }
    Ok(name)
}

/// Letters, digits, hyphens (RFC 1123, section 2.1) and, as containers have them, underscores.
fn host_name(name: &str) -> Result<(), TargetError> {
    if name.len() > LONGEST_NAME {
        return Err(TargetError::NameTooLong);
    }
    name.split('.').try_for_each(|label| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        match label.len() {
            0 => Err(TargetError::LabelEmpty),
            _ if !label.bytes().all(known) => Err(TargetError::Character),
            _ if label.starts_with('-') || label.ends_with('-') => Err(TargetError::Hyphen),
            length if length > LONGEST_LABEL => Err(TargetError::LabelTooLong),
            _ => Ok(()),
        }
    })
}

/// What more is asked of a name that a client had a hand in.
fn chosen(name: String, bounds: &NameBounds, port: u16) -> Result<Destination, TargetError> {
    if *bounds == NameBounds::default() {
        return Err(TargetError::NoSuffixes);
    }
    if read_as_address(&name) {
        return Err(TargetError::AddressLiteral);
    }
    if name == "localhost" || name.ends_with(".localhost") || name.starts_with("localhost.") {
        return Err(TargetError::Localhost);
    }
    let is_single = !name.contains('.');
    if (is_single && bounds.single_labels) || bounds.suffixes.iter().any(|suffix| ends_in(&name, suffix)) {
        // Not searched: what this host's search list would add bounds nothing.
        Ok(Destination::Name { name, port, is_searched: false })
    } else if is_single {
        Err(TargetError::SingleLabel)
    } else {
        Err(TargetError::Suffix)
    }
}

/// Whether `name` lies below the domain that `suffix` names with its dot: `nottailnet` does not end in `.tailnet`, and
/// `tailnet` itself is not below it.
fn ends_in(name: &str, suffix: &str) -> bool {
    suffix.starts_with('.') && name.len() > suffix.len() && name.ends_with(suffix)
}

/// `inet_aton` and what follows it (getaddrinfo(3)) take any name whose last label is a number for an address.
fn read_as_address(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    match last.strip_prefix("0x") {
        Some(digits) => digits.bytes().all(|digit| digit.is_ascii_hexdigit()),
        None => last.bytes().all(|digit| digit.is_ascii_digit()),
    }
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
