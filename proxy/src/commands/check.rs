//! `edgeproxy check`: all that is wrong with a configuration, or one line that says what it has.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::{print, say, WRONG_INPUT};
use crate::config::{self, Checked, Faults};
use crate::hop::{self, KeyFault};

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) config: PathBuf,
    pub(crate) json: bool,
}

pub(crate) fn run(check: &Check) -> ExitCode {
    let file = check.config.display().to_string();
    match config::check(&check.config).and_then(with_keys) {
        Ok(checked) => {
            if check.json {
                return print(&format!("{}\n", right_as_json(&file, &checked)));
            }
            for note in &checked.notes {
                say(&format!("note: {note}"));
            }
            print(&format!("{file}: {}\n", summary(&checked)))
        }
        Err(faults) => {
            if check.json {
                print(&format!("{}\n", wrong_as_json(&file, &faults)));
            } else {
                say(&faults.to_string());
            }
            ExitCode::from(WRONG_INPUT)
        }
    }
}

/// What a start or a reload would find wrong with files of keys is told too; what only the proxy's own process can see is noted.
fn with_keys(mut checked: Checked) -> Result<Checked, Faults> {
    let (notes, faults): (Vec<_>, Vec<_>) =
        hop::faults(&checked.config).into_iter().partition(|fault| fault.is_of_asker);
    let placed = |KeyFault { place, found, allowed, .. }: KeyFault| checked.places.fault(&place, found, allowed);
    let faults: Vec<_> = faults.into_iter().map(placed).collect();
    let notes: Vec<_> = notes.into_iter().map(placed).collect();
    checked.notes.extend(notes);
    if faults.is_empty() {
        Ok(checked)
    } else {
        Err(Faults(faults))
    }
}

fn summary(checked: &Checked) -> String {
    let config = &checked.config;
    let counts =
        [(config.listeners.len(), "listener"), (config.rules.len(), "rule"), (config.backends.len(), "backend")];
    counts.map(|(count, what)| format!("{count} {what}{}", if count == 1 { "" } else { "s" })).join(", ")
}

fn right_as_json(file: &str, checked: &Checked) -> serde_json::Value {
    let config = &checked.config;
    json!({
        "file": file,
        "right": true,
        "listeners": config.listeners.len(),
        "rules": config.rules.len(),
        "backends": config.backends.len(),
        "notes": checked.notes,
        "faults": [],
    })
}

fn wrong_as_json(file: &str, faults: &Faults) -> serde_json::Value {
    json!({"file": file, "right": false, "notes": [], "faults": faults.0})
}
