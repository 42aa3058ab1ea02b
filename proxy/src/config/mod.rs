//! The configuration: as written (`file`), as meant ([`model`]), and the way from one to the other, on which every fault of
//! the file is found at once.
//!
//! ```text
//! text -> table -> [shape: keys, types, notations] -> as written -> [resolve: references, what cannot be] -> as meant
//! ```

pub(crate) mod crowded;
mod fault;
mod file;
mod findings;
pub mod fuzz;
pub mod model;
mod nearest;
mod notation;
mod resolve;
mod schema;
pub(crate) mod shape;

use std::fs::File;
use std::io::Read;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::Path;
use std::thread;

use serde::Deserialize;
use toml::de::{DeTable, Deserializer};

pub use fault::{Fault, Faults};
use findings::{Findings, Places};
use model::Config;
pub use schema::schema;

/// The longest file that is read, in bytes.
const LONGEST_FILE: usize = 4 << 20;
/// Faults of syntax that are told: past them the parser guesses.
const MOST_SYNTAX_FAULTS: usize = 10;

/// A right configuration.
#[derive(Debug, Clone)]
pub struct Checked {
    /// What it means.
    pub config: Config,
    /// What is allowed but hardly meant: backends that no rule leads to, and the like.
    pub notes: Vec<Fault>,
    /// Where in the file its values stand, for faults that only show when it is put to use.
    pub(crate) places: Places,
}

/// The configuration in a file. Without `workers` there is one for each core.
///
/// # Errors
/// Everything that is wrong with the file, or that it cannot be read.
pub fn load(path: &Path) -> Result<Config, Faults> {
    check(path).map(|checked| checked.config)
}

/// As [`load`], with notes.
///
/// # Errors
/// As [`load`].
pub fn check(path: &Path) -> Result<Checked, Faults> {
    let name = path.display().to_string();
    let text = read(path).map_err(|(found, allowed)| {
        let allowed = allowed.to_owned();
        Faults(vec![Fault { file: name.clone(), line: None, path: String::new(), found, allowed }])
    })?;
    let cores = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    examine(&text, &name, cores).map_err(Faults)
}

/// What the text of a file means. Pure: without `workers` there is one; [`load`] knows how many cores there are.
///
/// # Errors
/// Everything that is wrong, in the order of the lines.
pub fn parse(text: &str, file_name: &str) -> Result<Config, Vec<Fault>> {
    examine(text, file_name, NonZeroUsize::MIN).map(|checked| checked.config)
}

fn examine(text: &str, file_name: &str, cores: NonZeroUsize) -> Result<Checked, Vec<Fault>> {
    let mut findings = Findings::new(file_name, text);
    let config = from_text(text, cores, &mut findings);
    let places = findings.places();
    let Findings { mut faults, mut notes, .. } = findings;
    faults.sort();
    faults.dedup();
    notes.sort();
    match config {
        Some(config) if faults.is_empty() => Ok(Checked { config, notes, places }),
        Some(_) | None => Err(faults),
    }
}

fn from_text(text: &str, cores: NonZeroUsize, findings: &mut Findings<'_>) -> Option<Config> {
    let (mut table, errors) = DeTable::parse_recoverable(text);
    for error in errors.iter().take(MOST_SYNTAX_FAULTS) {
        let found = format!("not TOML: {}{}", error.message().replace('\n', ", "), place(text, error.span()));
        findings.fault_at(error.span().map(|span| span.start), found, "see https://toml.io for the notation");
    }
    if !errors.is_empty() {
        return None;
    }
    shape::examine(table.get_mut(), &schema(), findings);
    match file::ConfigFile::deserialize(Deserializer::from(table)) {
        Ok(written) => Some(resolve::resolve(&written, cores, findings)),
        // Whatever has the shape of the schema can be read; were it not so, this says it.
        Err(error) => {
            let found = error.message().replace('\n', ", ");
            findings.fault_at(error.span().map(|span| span.start), found, "`edgeproxy schema` prints what is allowed");
            None
        }
    }
}

/// The word at which the parser stopped, if it is one.
fn place(text: &str, span: Option<Range<usize>>) -> String {
    let word = span.and_then(|span| text.get(span)).unwrap_or_default();
    if word.is_empty() || word.len() > 40 || word.contains('\n') {
        String::new()
    } else {
        format!(" at {word:?}")
    }
}

fn read(path: &Path) -> Result<String, (String, &'static str)> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LONGEST_FILE as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| (error.to_string(), "name a configuration file that can be read"))?;
    if bytes.len() > LONGEST_FILE {
        return Err((format!("more than {LONGEST_FILE} bytes"), "name a configuration file"));
    }
    String::from_utf8(bytes).map_err(|error| {
        (format!("not UTF-8 from byte {} on", error.utf8_error().valid_up_to()), "a configuration file is UTF-8 text")
    })
}
