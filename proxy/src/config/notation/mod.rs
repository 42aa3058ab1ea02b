//! Values that stand in the file as text: each has one notation, read strictly.

mod endpoint;
mod name;
mod pattern;
mod place;
mod quantity;
mod target;

use ipnet::IpNet;
use regex::Regex;
use schemars::{json_schema, JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::time::Duration;

use super::model::Target;
pub(crate) use endpoint::{Endpoint, Endpoints, Ports};
pub(crate) use name::{is_plain_name, Alpn, Suffix, NAME_RULE};
pub(crate) use place::{KeyPlace, LogPlace, SocketPlace};
pub(crate) use quantity::{Rate, Size};

/// A value with a notation of its own.
pub(crate) trait Notation: Sized {
    /// Its name in the JSON Schema.
    const FORMAT: &'static str;
    /// What is allowed, as the second half of a fault.
    const ALLOWED: &'static str;
    /// Right ones.
    const EXAMPLES: &'static [&'static str];

    /// The value, or what is wrong with the text.
    fn read(text: &str) -> Result<Self, String>;
}

/// A value whose default is shown in the schema.
pub(crate) trait Show {
    /// In its notation.
    fn show(&self) -> String;
}

/// A value as it stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written<T>(pub(crate) T);

impl<'de, T: Notation> Deserialize<'de> for Written<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        T::read(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

impl<T: Show> Serialize for Written<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.show())
    }
}

impl<T: Notation> JsonSchema for Written<T> {
    fn schema_name() -> Cow<'static, str> {
        T::FORMAT.into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": T::FORMAT, "examples": T::EXAMPLES})
    }
}

/// What is wrong with a text in the notation of that name, and what it allows; `None` when nothing is, or when the schema
/// has no such notation.
pub(crate) fn fault_of(format: &str, text: &str) -> Option<(String, &'static str)> {
    NOTATIONS.iter().find(|notation| notation.format == format).and_then(|notation| {
        let fault = (notation.fault)(text)?;
        Some((fault, notation.allowed))
    })
}

/// What the notation of that name allows.
pub(crate) fn allowed_by(format: &str) -> Option<&'static str> {
    NOTATIONS.iter().find(|notation| notation.format == format).map(|notation| notation.allowed)
}

struct Named {
    format: &'static str,
    allowed: &'static str,
    fault: fn(&str) -> Option<String>,
}

const fn named<T: Notation>() -> Named {
    Named { format: T::FORMAT, allowed: T::ALLOWED, fault: |text| T::read(text).err() }
}

const NOTATIONS: &[Named] = &[
    named::<Duration>(),
    named::<Size>(),
    named::<Rate>(),
    named::<Endpoint>(),
    named::<Endpoints>(),
    named::<Ports>(),
    named::<IpNet>(),
    named::<Regex>(),
    named::<Target>(),
    named::<Suffix>(),
    named::<Alpn>(),
    named::<SocketPlace>(),
    named::<LogPlace>(),
    named::<KeyPlace>(),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn examples_are_read<T: Notation>() {
        assert!(!T::EXAMPLES.is_empty(), "{}", T::FORMAT);
        for example in T::EXAMPLES {
            assert_eq!(T::read(example).err(), None, "{} {example}", T::FORMAT);
        }
    }

    #[test]
    fn every_example_is_right() {
        examples_are_read::<Duration>();
        examples_are_read::<Size>();
        examples_are_read::<Rate>();
        examples_are_read::<Endpoint>();
        examples_are_read::<Endpoints>();
        examples_are_read::<Ports>();
        examples_are_read::<IpNet>();
        examples_are_read::<Regex>();
        examples_are_read::<Target>();
        examples_are_read::<Suffix>();
        examples_are_read::<Alpn>();
        examples_are_read::<SocketPlace>();
        examples_are_read::<LogPlace>();
        examples_are_read::<KeyPlace>();
    }

    #[test]
    fn notations_have_names_of_their_own() {
        let mut names: Vec<_> = NOTATIONS.iter().map(|notation| notation.format).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), NOTATIONS.len());
    }

    #[test]
    fn every_notation_refuses_the_empty_text_and_says_what_it_allows() {
        for notation in NOTATIONS {
            let (fault, allowed) = fault_of(notation.format, "").expect(notation.format);
            assert!(!fault.is_empty() && !allowed.is_empty(), "{}", notation.format);
        }
    }
}
