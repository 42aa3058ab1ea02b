//! What the examination of one file has found so far, and where in the file everything stands.

use std::collections::BTreeMap;
use std::fmt::Display;

use super::fault::Fault;

/// The lines of the values of one file.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    file: String,
    lines: BTreeMap<String, usize>,
}

impl Places {
    /// A fault of a value; of the file as a whole where it has no such value.
    pub(crate) fn fault(&self, path: &str, found: impl Into<String>, allowed: impl Into<String>) -> Fault {
        let line = self.lines.get(path).copied();
        Fault { file: self.file.clone(), line, path: path.to_owned(), found: found.into(), allowed: allowed.into() }
    }
}

/// Faults and notes of one file.
#[derive(Debug)]
pub(crate) struct Findings<'a> {
    file: &'a str,
    /// Offsets at which lines begin; the first is 0.
    line_starts: Vec<usize>,
    places: BTreeMap<String, usize>,
    /// What makes the file wrong.
    pub(crate) faults: Vec<Fault>,
    /// What is allowed but hardly meant.
    pub(crate) notes: Vec<Fault>,
}

impl<'a> Findings<'a> {
    pub(crate) fn new(file: &'a str, text: &str) -> Self {
        let after_newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(index, _)| index + 1);
        let line_starts = std::iter::once(0).chain(after_newlines).collect();
        Self { file, line_starts, places: BTreeMap::new(), faults: Vec::new(), notes: Vec::new() }
    }

    /// The value at `path` stands at this offset.
    pub(crate) fn note_place(&mut self, path: &str, offset: usize) {
        self.places.insert(path.to_owned(), offset);
    }

    /// Where the value stands: of its own, or of the nearest table around it.
    pub(crate) fn offset(&self, path: &str) -> Option<usize> {
        let mut path = path;
        loop {
            if let Some(offset) = self.places.get(path) {
                return Some(*offset);
            }
            let (outer, _) = path.rsplit_once(['.', '['])?;
            path = outer;
        }
    }

    pub(crate) fn line(&self, path: &str) -> Option<usize> {
        self.offset(path).map(|offset| self.line_at(offset))
    }

    pub(crate) fn fault(&mut self, path: impl Display, found: impl Into<String>, allowed: impl Into<String>) {
        let fault = self.finding(path, found, allowed);
        self.faults.push(fault);
    }

    pub(crate) fn note(&mut self, path: impl Display, found: impl Into<String>, allowed: impl Into<String>) {
        let note = self.finding(path, found, allowed);
        self.notes.push(note);
    }

    /// A fault of the text itself, where there are no keys yet.
    pub(crate) fn fault_at(&mut self, offset: Option<usize>, found: impl Into<String>, allowed: impl Into<String>) {
        let mut fault = self.finding("", found, allowed);
        fault.line = offset.map(|offset| self.line_at(offset));
        self.faults.push(fault);
    }

    /// Whether nothing at `path` or inside it is at fault: what is built upon a faulty value would only tell of it again.
    pub(crate) fn is_sound(&self, path: &str) -> bool {
        let is_inside = |fault: &Fault| {
            let rest = fault.path.strip_prefix(path);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        !self.faults.iter().any(is_inside)
    }

    fn finding(&self, path: impl Display, found: impl Into<String>, allowed: impl Into<String>) -> Fault {
        let path = path.to_string();
        Fault { file: self.file.to_owned(), line: self.line(&path), path, found: found.into(), allowed: allowed.into() }
    }

    pub(crate) fn places(&self) -> Places {
        let lines = self.places.iter().map(|(path, offset)| (path.clone(), self.line_at(*offset))).collect();
        Places { file: self.file.to_owned(), lines }
    }

    fn line_at(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_the_key_or_of_the_table_around_it() {
        let mut findings = Findings::new("f", "a\nb\n\nc");
        findings.note_place("rule[0]", 0);
        findings.note_place("rule[0].to", 2);
        findings.note_place("rule[1]", 5);
        for (path, line) in
            [("rule[0].to", Some(2)), ("rule[0].from[3]", Some(1)), ("rule[1].to", Some(4)), ("other", None)]
        {
            assert_eq!(findings.line(path), line, "{path}");
        }
    }

    #[test]
    fn a_fault_makes_what_is_around_it_unsound_and_nothing_else() {
        let mut findings = Findings::new("f", "");
        findings.fault("rule[1].ports[0]", "x", "y");
        for (path, sound) in
            [("rule[1]", false), ("rule[1].ports", false), ("rule[1].to", true), ("rule[11]", true), ("rule[0]", true)]
        {
            assert_eq!(findings.is_sound(path), sound, "{path}");
        }
    }
}
