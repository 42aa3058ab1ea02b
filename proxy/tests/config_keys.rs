//! The JSON Schema, the example that has every key, and the page of the documentation: they name the same keys.
#![allow(clippy::unwrap_used)] // clippy.toml lets tests do so, but not what stands beside them

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use edgeproxy::config::schema;
use serde_json::Value;

const EVERY_KEY: &str = include_str!("config/valid/every_key.toml");

/// All keys of a schema, as `a.b`, without the names of listeners and backends.
fn keys(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (key, inner) in properties {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            found.insert(path.clone());
            keys(inner, &path, found);
        }
    }
    for inner in [schema.get("items"), schema.get("additionalProperties")].into_iter().flatten() {
        keys(inner, path, found);
    }
}

#[test]
fn every_key_has_a_description_and_no_null() {
    fn walk(schema: &Value, path: &str) {
        for (key, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            assert!(inner.get("description").is_some_and(Value::is_string), "{path}.{key}");
            walk(inner, &format!("{path}.{key}"));
        }
        [schema.get("items"), schema.get("additionalProperties")]
            .into_iter()
            .flatten()
            .for_each(|inner| walk(inner, path));
    }
    let schema = schema();
    walk(&schema, "");
    let text = schema.to_string();
    assert!(!text.contains("null") && !text.contains("$ref"), "{text}");
    assert_eq!(schema["required"], serde_json::json!(["listener", "rule"]));
    assert_eq!(schema["properties"]["timeouts"]["properties"]["idle"]["default"], "1h");
    assert_eq!(schema["properties"]["backend"]["additionalProperties"]["required"], serde_json::json!(["targets"]));
}

#[test]
fn no_list_may_be_empty() {
    fn walk(schema: &Value, path: &str) {
        // Without a rule there is a fault of its own: the key cannot be left out.
        if schema["type"] == "array" && path != ".rule" {
            assert_eq!(schema["minItems"], 1, "{path}");
        }
        for (key, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            walk(inner, &format!("{path}.{key}"));
        }
        let inside = [schema.get("items"), schema.get("additionalProperties")];
        inside.into_iter().flatten().for_each(|inner| walk(inner, path));
        for one in schema.get("anyOf").and_then(Value::as_array).into_iter().flatten() {
            walk(one, path);
        }
    }
    walk(&schema(), "");
}

/// The keys below a value.
fn collect(value: &toml::Value, path: &str, found: &mut BTreeSet<String>) {
    for (key, inner) in value.as_table().into_iter().flatten() {
        let path = format!("{path}.{key}");
        collect(inner, &path, found);
        found.insert(path);
    }
    for inner in value.as_array().into_iter().flatten() {
        collect(inner, path, found);
    }
}

#[test]
fn the_example_of_every_key_has_every_key() {
    let table: toml::Table = EVERY_KEY.parse().unwrap();
    let mut written = BTreeSet::new();
    for (section, value) in &table {
        written.insert(section.clone());
        let are_named = section == "listener" || section == "backend";
        for named in value.as_table().filter(|_| are_named).into_iter().flat_map(toml::Table::values) {
            collect(named, section, &mut written);
        }
        if !are_named {
            collect(value, section, &mut written);
        }
    }
    let mut known = BTreeSet::new();
    keys(&schema(), "", &mut known);
    assert!(known.len() > 50, "{known:?}");
    assert_eq!(written, known);
}

/// The path of each key that has a row on the page, with the row.
fn rows(page: &str) -> Vec<(String, &str)> {
    let mut section = String::new();
    let mut rows = Vec::new();
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("### ") {
            let title = title.trim_matches(|letter| "`[]".contains(letter)).trim_end_matches(".NAME");
            section = if title == "Top of the file" { String::new() } else { format!("{title}.") };
        }
        let row = line.strip_prefix("| `").and_then(|rest| rest.split_once('`'));
        rows.extend(row.map(|(key, rest)| (format!("{section}{key}"), rest)));
    }
    rows
}

#[test]
fn the_page_has_every_key_with_its_default_and_no_other() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/edgeproxy.md")).unwrap();
    let (_, page) = page.split_once("## Every key").unwrap();
    let (page, _) = page.split_once("\n## ").unwrap();
    let rows = rows(page);
    for (path, row) in &rows {
        if let Some(shown) = default_of(&schema(), path) {
            let cell = row.split('|').nth(1).unwrap().trim();
            let is_told = cell == format!("`{shown}`") || (shown == "[]" && cell == "none");
            assert!(is_told, "{path} has the default {shown}: {row}");
        }
    }
    let on_page: BTreeSet<_> = rows.iter().map(|(path, _)| path.clone()).collect();
    assert_eq!(on_page.len(), rows.len(), "a key twice");
    let mut known = BTreeSet::new();
    keys(&schema(), "", &mut known);
    let is_section =
        |key: &String| !key.contains('.') && known.iter().any(|other| other.starts_with(&format!("{key}.")));
    let expected: BTreeSet<_> = known.iter().filter(|key| !is_section(key)).cloned().collect();
    assert_eq!(on_page, expected);
}

/// The default as the schema has it; of a key that may be absent its description names it: "Without it: `3s`."
fn default_of<'a>(schema: &'a Value, path: &str) -> Option<String> {
    let mut at: &'a Value = schema;
    for key in path.split('.') {
        at = at.get("additionalProperties").filter(|inner| inner.is_object()).unwrap_or(at);
        at = at.get("items").unwrap_or(at);
        at = at.get("properties")?.get(key)?;
    }
    if let Some(default) = at.get("default") {
        return Some(default.as_str().map_or_else(|| default.to_string(), str::to_owned));
    }
    let (_, told) = at.get("description")?.as_str()?.split_once("Without it: `")?;
    told.split_once("`.").map(|(default, _)| default.to_owned())
}

#[test]
fn defaults_of_keys_that_may_be_absent_are_known_too() {
    let of = |path| default_of(&schema(), path);
    assert_eq!(of("backend.connect_timeout").as_deref(), Some("3s"));
    assert_eq!(of("listener.arrival").as_deref(), Some("direct"));
    assert_eq!(of("backend.balance").as_deref(), Some("in_order"));
    assert_eq!(of("timeouts.idle").as_deref(), Some("1h"));
    assert_eq!(of("rule.alpn"), None);
}
