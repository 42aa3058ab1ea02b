//! The JSON Schema of the file: made from the types as written, for editors and for the examination of a file's shape.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::file::ConfigFile;

/// The JSON Schema (2020-12) of the configuration file, without references.
#[must_use]
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<ConfigFile>().to_value();
    strip_null(&mut schema);
    if let Value::Object(root) = &mut schema {
        root.insert("title".to_owned(), "edgeproxy".into());
    }
    schema
}

/// TOML has no null: a key that may be left out is left out.
fn strip_null(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            strip_null_of(map);
            map.values_mut().for_each(strip_null);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_null),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn strip_null_of(map: &mut Map<String, Value>) {
    if map.get("default").is_some_and(Value::is_null) {
        map.remove("default");
    }
    if let Some(Value::Array(types)) = map.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            map.insert("type".to_owned(), only);
        }
    }
    let Some(Value::Array(alternatives)) = map.get_mut("anyOf") else { return };
    alternatives.retain(|alternative| alternative.get("type").map_or(true, |name| name != "null"));
    if alternatives.len() > 1 {
        return;
    }
    // What stands beside the alternatives (the description of the key) is nearer to the key than what the type says.
    if let Some(Value::Object(only)) = alternatives.pop() {
        map.remove("anyOf");
        for (key, value) in only {
            map.entry(key).or_insert(value);
        }
    }
}
