//! Folders in which many programs keep their files: what is allowed for one of these would be allowed for all.

use std::path::Path;

const CROWDED: [&str; 10] = ["", "/", "/etc", "/run", "/home", "/root", "/tmp", "/var", "/var/log", "/usr"];

/// Whether a file stands right in such a folder. Pure: links are not looked at.
pub(crate) fn is_crowded(file: &Path) -> bool {
    file.parent().map_or(true, |parent| CROWDED.iter().any(|crowded| parent == Path::new(crowded)))
}
