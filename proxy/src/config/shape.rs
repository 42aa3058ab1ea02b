//! Whether a file has the shape of the schema: every key known, every value of its type and notation. What has not is told
//! and taken out, so that the rest can be examined further.

use serde_json::Value;
use toml::de::{DeInteger, DeTable, DeValue};
use toml::Spanned;

use super::findings::Findings;
use super::nearest::nearest;
use super::notation::{allowed_by, fault_of};

/// Tells all faults of shape, notes the place of each key, and leaves in `table` what is right.
pub(crate) fn examine(table: &mut DeTable<'_>, schema: &Value, findings: &mut Findings<'_>) {
    walk_table("", table, schema, findings);
}

fn walk_table(path: &str, table: &mut DeTable<'_>, schema: &Value, findings: &mut Findings<'_>) {
    let mut refused = Vec::new();
    for (key, value) in table.iter_mut() {
        let place = below(path, key.get_ref());
        findings.note_place(&place, key.span().start);
        let is_right = match schema_of_key(schema, key.get_ref()) {
            Some(inner) => walk(&place, value, inner, findings),
            None => {
                tell_unknown(&place, key.get_ref(), schema, findings);
                false
            }
        };
        if !is_right {
            refused.push(key.clone());
        }
    }
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    for name in required {
        if !table.keys().any(|key| key.get_ref() == name) {
            findings.fault(path, format!("the key {name:?} is missing"), format!("add {}", example(schema, name)));
        }
    }
    for key in &refused {
        table.remove(key);
    }
}

/// Whether the value may stay.
fn walk(path: &str, value: &mut Spanned<DeValue<'_>>, schema: &Value, findings: &mut Findings<'_>) -> bool {
    let start = value.span().start;
    let found = described(value.get_ref());
    let name = json_type(value.get_ref());
    let Some(schema) = alternatives(schema).find(|one| type_of(one) == Some(name)) else {
        findings.fault(path, format!("{found} is of the wrong kind"), allowed(schema));
        return false;
    };
    match value.get_mut() {
        DeValue::Table(table) => {
            walk_table(path, table, schema, findings);
            true
        }
        DeValue::Array(items) => {
            if items.is_empty() && schema.get("minItems").is_some() {
                findings.fault(path, "an empty list".to_owned(), "leave the key out, or name at least one".to_owned());
                return false;
            }
            let inner = schema.get("items").unwrap_or(&Value::Null);
            let mut are_right = true;
            for (index, item) in items.iter_mut().enumerate() {
                let place = format!("{path}[{index}]");
                findings.note_place(&place, item.span().start);
                are_right &= walk(&place, item, inner, findings);
            }
            are_right
        }
        DeValue::Integer(number) => is_in_bounds(path, number, schema, findings),
        DeValue::String(text) => {
            findings.note_place(path, start);
            is_right_text(path, text, schema, findings)
        }
        DeValue::Boolean(_) | DeValue::Float(_) | DeValue::Datetime(_) => true,
    }
}

fn is_in_bounds(path: &str, number: &DeInteger<'_>, schema: &Value, findings: &mut Findings<'_>) -> bool {
    let bound = |name| schema.get(name).and_then(Value::as_i64);
    let least = bound("minimum").unwrap_or(0);
    let most = bound("maximum").unwrap_or_else(|| i64::from(u32::MAX));
    let is_right =
        i64::from_str_radix(number.as_str(), number.radix()).is_ok_and(|value| (least..=most).contains(&value));
    if !is_right {
        findings.fault(path, format!("{number} is out of bounds"), allowed(schema));
    }
    is_right
}

fn is_right_text(path: &str, text: &str, schema: &Value, findings: &mut Findings<'_>) -> bool {
    let words = words(schema);
    if !words.is_empty() && !words.contains(&text) {
        let meant = match nearest(text, words.iter().copied()) {
            Some(word) => format!("did you mean {word:?}? "),
            None => String::new(),
        };
        findings.fault(path, format!("{text:?} is not known"), format!("{meant}{}", allowed(schema)));
        return false;
    }
    let format = schema.get("format").and_then(Value::as_str).unwrap_or_default();
    if let Some((fault, allowed)) = fault_of(format, text) {
        findings.fault(path, fault, allowed.to_owned());
        return false;
    }
    true
}

fn tell_unknown(path: &str, key: &str, schema: &Value, findings: &mut Findings<'_>) {
    let keys: Vec<&str> = schema
        .get("properties")
        .and_then(Value::as_object)
        .map(|properties| properties.keys().map(String::as_str).collect())
        .unwrap_or_default();
    let meant = match nearest(key, keys.iter().copied()) {
        Some(near) => format!("did you mean {near:?}? "),
        None => String::new(),
    };
    findings.fault(path, format!("the key {key:?} is not known"), format!("{meant}allowed here: {}", keys.join(", ")));
}

fn schema_of_key<'a>(schema: &'a Value, key: &str) -> Option<&'a Value> {
    schema
        .get("properties")
        .and_then(|properties| properties.get(key))
        .or_else(|| schema.get("additionalProperties").filter(|others| others.is_object()))
}

/// The schema itself, or each that it offers where values of several types may stand.
fn alternatives(schema: &Value) -> impl Iterator<Item = &Value> {
    let offered = schema.get("anyOf").and_then(Value::as_array);
    offered.into_iter().flatten().chain(offered.is_none().then_some(schema))
}

fn type_of(schema: &Value) -> Option<&str> {
    if schema.get("oneOf").is_some() {
        return Some("string"); // an enumeration with descriptions
    }
    schema.get("type").and_then(Value::as_str)
}

/// The words of an enumeration; empty for any other schema.
fn words(schema: &Value) -> Vec<&str> {
    let described = schema.get("oneOf").and_then(Value::as_array).into_iter().flatten().flat_map(|one| words(one));
    let listed = schema.get("enum").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let single = schema.get("const").and_then(Value::as_str);
    described.chain(listed).chain(single).collect()
}

/// What a schema allows, as the second half of a fault.
fn allowed(schema: &Value) -> String {
    let format = |schema: &Value| schema.get("format").and_then(Value::as_str).and_then(allowed_by);
    if let Some(allowed) = alternatives(schema).find_map(format) {
        return allowed.to_owned();
    }
    let words = words(schema);
    if !words.is_empty() {
        let quoted: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
        return format!("allowed: {}", quoted.join(", "));
    }
    match type_of(schema) {
        Some("integer") => {
            let bound = |name| schema.get(name).map(ToString::to_string);
            let most = bound("maximum").unwrap_or_else(|| u32::MAX.to_string());
            format!("a whole number from {} to {most} is allowed", bound("minimum").unwrap_or_else(|| "0".to_owned()))
        }
        Some("boolean") => "true or false is allowed".to_owned(),
        Some("string") => "text in quotes is allowed".to_owned(),
        Some("array") => "a list in brackets is allowed, even of one".to_owned(),
        Some("object") | Some(_) | None => "a table is allowed".to_owned(),
    }
}

/// A key as it might stand in the file.
fn example(schema: &Value, name: &str) -> String {
    match (name, schema_of_key(schema, name)) {
        ("listener", _) => "a [listener.NAME] with tcp or udp".to_owned(),
        ("rule", _) => "a [[rule]] with to or refuse".to_owned(),
        (_, Some(inner)) => {
            let inner_most = inner.get("items").unwrap_or(inner);
            let sample = inner_most.get("examples").and_then(|examples| examples.get(0)).and_then(Value::as_str);
            let sample = sample.or_else(|| words(inner_most).first().copied()).unwrap_or("...");
            if inner.get("items").is_some() {
                format!("{name} = [\"{sample}\"] or the like")
            } else {
                format!("{name} = \"{sample}\" or the like")
            }
        }
        (_, None) => name.to_owned(),
    }
}

/// The path of a key; one that is not bare stands in quotes.
pub(crate) fn below(path: &str, key: &str) -> String {
    let is_bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let key = if is_bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() {
        key
    } else {
        format!("{path}.{key}")
    }
}

fn json_type(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "string",
        DeValue::Integer(_) => "integer",
        DeValue::Boolean(_) => "boolean",
        DeValue::Array(_) => "array",
        DeValue::Table(_) => "object",
        DeValue::Float(_) | DeValue::Datetime(_) => "none of the file's",
    }
}

fn described(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text {text:?}"),
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(truth) => format!("{truth}"),
        DeValue::Datetime(date) => format!("the date {date}"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
