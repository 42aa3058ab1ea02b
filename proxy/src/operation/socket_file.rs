//! The file of the admin socket: its owner's only, never one that is in use.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net as std_net;
use std::path::{Path, PathBuf};

/// What to do with a socket of the same path at which somebody answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Predecessor {
    /// Another proxy is in use there: an error.
    Respect,
    /// This process takes over from it.
    Replace,
}

/// The admin socket as the control thread has it. Its name goes with it, at whatever end, unless it is another process's.
#[derive(Debug)]
pub(crate) struct AdminSocket {
    pub(crate) path: PathBuf,
    pub(crate) listener: std_net::UnixListener,
    is_own: bool,
}

impl AdminSocket {
    /// One that this process has made.
    pub(crate) fn made(path: PathBuf, listener: std_net::UnixListener) -> Self {
        Self { path, listener, is_own: true }
    }

    /// That of a running process, whose name stays when this one goes; until [`Self::own`].
    pub(crate) fn lent(path: PathBuf, listener: std_net::UnixListener) -> Self {
        Self { path, listener, is_own: false }
    }

    /// The other process has left it to this one.
    pub(crate) fn own(&mut self) {
        self.is_own = true;
    }

    /// Leaves it to another process.
    pub(crate) fn leave(mut self) {
        self.is_own = false;
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if self.is_own {
            // Somebody else may have taken it away.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// That nobody answers there. It may wait for somebody who does not.
///
/// # Errors
///
/// Somebody does.
pub(crate) fn respect(path: &Path) -> io::Result<()> {
    match std_net::UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process answers there: end it, name another path, or take over from it with `--take-over`",
        )),
        Err(_) => Ok(()),
    }
}

/// Listens at a path for its owner only, before the sandbox is entered. A socket that an ended process left is replaced.
/// The socket gets its name when its mode is set: at no moment may others connect. Its folder is made, as systemd's
/// `RuntimeDirectory=` makes it: /run is empty after each boot.
pub fn listen(path: &Path, predecessor: Predecessor) -> io::Result<std_net::UnixListener> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
        fs::DirBuilder::new().mode(0o755).create(folder)?;
    }
    if predecessor == Predecessor::Respect {
        respect(path)?;
    }
    if fs::symlink_metadata(path).is_ok_and(|found| !std::os::unix::fs::FileTypeExt::is_socket(&found.file_type())) {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file that is not a socket: move it away, or name another path",
        ));
    }
    let mut unready = path.as_os_str().to_owned();
    unready.push(format!(".{}", std::process::id()));
    let unready = PathBuf::from(unready);
    let listener = std_net::UnixListener::bind(&unready)?;
    let named =
        fs::set_permissions(&unready, fs::Permissions::from_mode(0o600)).and_then(|()| fs::rename(&unready, path));
    if named.is_err() {
        let _ = fs::remove_file(&unready); // the first fault is the one to tell
    }
    named?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use super::*;

    #[test]
    fn the_socket_is_its_owners_and_takes_no_place_in_use() {
        let scratch = Scratch::new();
        let path = scratch.path("admin.sock");
        let first = listen(&path, Predecessor::Respect).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(listen(&path, Predecessor::Respect).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        first.accept().unwrap(); // the look whether somebody answers
        let second = listen(&path, Predecessor::Replace).unwrap();
        let _asking = std_net::UnixStream::connect(&path).unwrap();
        second.accept().unwrap();
        assert_eq!(first.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock, "the name is the second's");
        drop(second);
        listen(&path, Predecessor::Respect).unwrap(); // what an ended process left
        let file = scratch.path("notes");
        fs::write(&file, "dear").unwrap();
        assert_eq!(listen(&file, Predecessor::Replace).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(file).unwrap(), "dear");
    }

    #[test]
    fn its_name_goes_with_it_unless_another_process_has_it() {
        let scratch = Scratch::new();
        let path = scratch.path("admin.sock");
        let made = || listen(&path, Predecessor::Replace).unwrap();
        drop(AdminSocket::made(path.clone(), made()));
        assert!(!path.exists());
        drop(AdminSocket::lent(path.clone(), made()));
        assert!(path.exists());
        AdminSocket::made(path.clone(), made()).leave();
        assert!(path.exists());
        let mut lent = AdminSocket::lent(path.clone(), made());
        lent.own();
        drop(lent);
        assert!(!path.exists());
    }

    #[test]
    fn its_folder_is_made_but_no_folder_above() {
        let scratch = Scratch::new();
        let path = scratch.path("edgeproxy").join("admin.sock");
        let listener = listen(&path, Predecessor::Respect).unwrap();
        assert!(path.exists());
        drop(listener);
        let deep = scratch.path("mistyped").join("edgeproxy").join("admin.sock");
        assert_eq!(listen(&deep, Predecessor::Respect).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
