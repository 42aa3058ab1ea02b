//! What is wrong with a configuration: all of it at once, each with its place, what was found, and what is allowed.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fault {
    /// The file, as it was named.
    pub file: String,
    /// The line, counted from 1; `None` when it is the file as a whole.
    pub line: Option<usize>,
    /// The key, as in `rule[2].to`; list items are counted from 0. Empty for the file as a whole.
    pub path: String,
    /// What was found.
    pub found: String,
    /// What is allowed, or how to mend it.
    pub allowed: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:", self.file)?;
        if let Some(line) = self.line {
            write!(out, "{line}:")?;
        }
        if !self.path.is_empty() {
            write!(out, " {}:", self.path)?;
        }
        write!(out, " {}; {}", self.found, self.allowed)
    }
}

/// All that is wrong with a file, in the order of its lines; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            let before = if index == 0 { "" } else { "\n" };
            write!(out, "{before}{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
