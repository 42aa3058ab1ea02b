//! Files of keys: each is read once, whoever names it.

use std::path::Path;

use super::super::model::{KeyFile, KeyId};

/// All that were named so far.
#[derive(Default)]
pub(super) struct Keys(pub(super) Vec<KeyFile>);

impl Keys {
    /// The index of a file.
    pub(super) fn id(&mut self, path: &Path, place: &str) -> KeyId {
        let known = self.0.iter().position(|file| file.path == path);
        KeyId(known.unwrap_or_else(|| {
            self.0.push(KeyFile { path: path.to_owned(), place: place.to_owned() });
            self.0.len() - 1
        }))
    }
}
