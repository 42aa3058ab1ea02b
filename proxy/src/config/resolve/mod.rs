//! From the file as written to the configuration as meant: references become indexes, defaults are filled in, and what no
//! single value shows is found wrong here.

mod backends;
mod bounds;
mod exposed;
mod keys;
mod listeners;
mod multipath;
mod reach;
mod rules;
mod shadow;
mod targets;

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};

use super::file::ConfigFile;
use super::findings::Findings;
use super::model::Config;
use super::nearest::nearest;
use super::shape::below;

/// What the file means; with faults in `findings` it is a draft of no use.
pub(crate) fn resolve(file: &ConfigFile, cores: NonZeroUsize, findings: &mut Findings<'_>) -> Config {
    let limits = bounds::limits(&file.limits, findings);
    let timeouts = bounds::timeouts(&file.timeouts, findings);
    let listener_names = Names::of("listener", file.listener.iter().flat_map(BTreeMap::keys), findings);
    let backend_names = Names::of("backend", file.backend.keys(), findings);

    let mut keys = keys::Keys::default();
    let listeners = listeners::listeners(file, &listener_names, &limits, &mut keys, findings);
    let backends = backends::backends(file, &backend_names, &mut keys, findings);
    let drafts = rules::rules(file, &listener_names, &backend_names, findings);
    rules::examine(&drafts, &listeners, &timeouts, findings);
    shadow::examine(&drafts, listeners.len(), findings);
    let targets = targets::targets(&file.targets, findings);
    reach::examine(&drafts, &listeners, &backends, &targets, findings);

    let operation = bounds::operation(&file.operation, &listeners, findings);
    exposed::examine(&listeners, &operation, findings);
    multipath::examine(&listeners, &backends, &operation, &timeouts, findings);
    Config {
        workers: file.workers.map_or(cores, size),
        listeners,
        rules: drafts.into_iter().map(|draft| draft.rule).collect(),
        backends,
        resolver: bounds::resolver(&file.resolver, findings),
        limits,
        timeouts,
        targets,
        transparent: bounds::transparent(&file.transparent, findings),
        operation,
        deny: file.deny.iter().flatten().map(|written| written.0).collect(),
        key_files: keys.0,
    }
}

/// The names of one kind of thing, in the order of the file, which is that of their indexes.
struct Names<'a> {
    kind: &'static str,
    names: Vec<&'a str>,
}

impl<'a> Names<'a> {
    fn of(kind: &'static str, names: impl Iterator<Item = &'a String>, findings: &Findings<'_>) -> Self {
        let mut names: Vec<&str> = names.map(String::as_str).collect();
        names.sort_by_key(|name| findings.offset(&below(kind, name)));
        Self { kind, names }
    }

    fn path(&self, name: &str) -> String {
        below(self.kind, name)
    }

    /// The index of the thing that `path` refers to; a fault when there is none.
    fn find(&self, name: &str, path: &str, findings: &mut Findings<'_>) -> Option<usize> {
        let found = self.names.iter().position(|known| *known == name);
        // A thing that was taken out because it is no table has been told of.
        if found.is_none() && findings.is_sound(&self.path(name)) {
            let kind = self.kind;
            let meant = match nearest(name, self.names.iter().copied()) {
                Some(near) => format!("did you mean {near:?}? "),
                None => String::new(),
            };
            let known = if self.names.is_empty() {
                format!("there is none; add a [{kind}.NAME]")
            } else {
                format!("there are: {}", self.names.join(", "))
            };
            findings.fault(path, format!("no {kind} is called {name:?}"), format!("{meant}{known}"));
        }
        found
    }
}

fn size(number: NonZeroU32) -> NonZeroUsize {
    NonZeroUsize::try_from(number).unwrap_or(NonZeroUsize::MAX)
}
