//! The process that reads `/etc/hosts` and `/etc/resolv.conf` for a proxy in its sandbox. Most programs replace these files by
//! others of the same name; a rule of landlock goes by the file and not by the name, and to let the proxy read all of `/etc`
//! would be too much. So a small process beside it, which hears nobody, copies them into memory that both have.
//!
//! It is the same binary with an internal command, and ends when the proxy's end of the channel closes. The channel is its
//! standard input.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use super::copied;
use super::system::{self, Stamp, SystemFile, SystemFiles, HOSTS, LOOK, RESOLV_CONF};
use crate::commands::say;
use crate::sandbox::{enter, readable, Allowed, Ports};
use crate::succession::channel::Channel;

/// The two files, in the order in which their copies are sent.
const FILES: [&str; 2] = [HOSTS, RESOLV_CONF];

/// The proxy's end.
#[derive(Debug)]
pub(crate) struct Reader(UnixStream);

impl Reader {
    /// Starts it; `command` is this very binary with its internal command. To be called before the sandbox is entered.
    ///
    /// # Errors
    ///
    /// No memory, or no process can be had.
    pub(crate) fn start(mut command: Command) -> io::Result<(Self, SystemFiles)> {
        let (ours, theirs) = UnixStream::pair()?;
        let [hosts, resolv_conf] = FILES.map(Copied::begin);
        let (hosts, resolv_conf) = (hosts?, resolv_conf?);
        // In a group of its own no terminal's signal reaches it; nobody waits for it.
        command.process_group(0).stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).spawn()?;
        Channel::new(ours.try_clone()?)?.send(&(), &[hosts.memory.as_fd(), resolv_conf.memory.as_fd()])?;
        ours.set_nonblocking(true)?;
        let copy = |file: Copied| SystemFile::Copied(Arc::new(file.memory));
        Ok((Self(ours), SystemFiles { hosts: copy(hosts), resolv_conf: copy(resolv_conf) }))
    }

    /// Whether it has ended: from then on the copies stay as they are.
    pub(crate) fn has_ended(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0))
    }
}

/// The internal command: copies whatever changes, until the channel closes.
///
/// # Errors
///
/// The channel is none, or the process cannot give up what it must not have.
pub(crate) fn read_names() -> io::Result<()> {
    let mut channel = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut sent = Channel::new(channel.try_clone()?)?;
    sent.receive::<()>()?;
    let copies = FILES.iter().zip(sent.take(FILES.len())?).map(|(path, memory)| Copied::new(path, memory.into()));
    let mut copies: Vec<_> = copies.collect();
    enter(&allowed()).map_err(io::Error::other)?;
    let timeout = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::MAX);
    loop {
        copies.iter_mut().filter_map(Copied::refresh).for_each(|fault| say(&format!("edgeproxy: {fault}")));
        match poll(&mut [PollFd::new(channel.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) if channel.read(&mut [0])? == 0 => return Ok(()),
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Where such files are, and what they are links to: `/run/systemd/resolve` and the like.
fn allowed() -> Allowed {
    let folders = ["/etc", "/run"].map(PathBuf::from);
    Allowed {
        read: folders.into_iter().chain(FILES.map(|path| readable(Path::new(path)))).collect(),
        write: Vec::new(),
        remove: Vec::new(),
        ports: Ports::Only { bind: Some(Vec::new()), connect: Some(Vec::new()) },
        multipath: false,
        capabilities: Vec::new(),
        user: None,
    }
}

/// A file, and the memory that has its text.
struct Copied {
    path: &'static Path,
    memory: File,
    seen: Option<Stamp>,
    /// Looks one after the other at which it was there and could not be read.
    failures: u32,
}

/// A file may be in the middle of a change at one look, and not at two.
const TOLD_AT: u32 = 2;

impl Copied {
    fn new(path: &'static str, memory: File) -> Self {
        Self { path: Path::new(path), memory, seen: None, failures: 0 }
    }

    /// With memory of its own, and the file as it is now.
    fn begin(path: &'static str) -> io::Result<Self> {
        let mut copied = Self::new(path, copied::memory()?);
        let _ = copied.refresh(); // one failure is not told
        Ok(copied)
    }

    /// Copies it if it has changed. One that cannot be read is perhaps being replaced: its copy stays, and what is wrong is to be
    /// told, once. A file that is not there is the same as its last copy.
    fn refresh(&mut self) -> Option<String> {
        match self.copy() {
            Ok(()) => self.failures = 0,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                let path = self.path.display();
                return (self.failures == TOLD_AT).then(|| {
                    format!(
                        "{path} cannot be read any more, and is taken as it was: {error}; a link may lead into /etc and /run, \
                         and where it led at the start"
                    )
                });
            }
        }
        None
    }

    fn copy(&mut self) -> io::Result<()> {
        let seen = Some(system::stamp(self.path)?);
        if seen != self.seen {
            copied::write(&self.memory, &system::read(self.path)?)?;
            self.seen = seen;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_keeps_its_copy_and_is_told_once_each_time() {
        let path = std::env::temp_dir().join(format!("edgeproxy-{}-copied", std::process::id()));
        let mut copied = Copied::new(Box::leak(path.display().to_string().into_boxed_str()), copied::memory().unwrap());
        let text = |copied: &Copied| copied::read(&copied.memory, &copied::stamp(&copied.memory).unwrap()).unwrap();
        for round in [&b"first"[..], b"second"] {
            fs::write(&path, round).unwrap();
            assert_eq!((copied.refresh(), text(&copied).as_slice()), (None, round));
            fs::remove_file(&path).unwrap();
            assert_eq!((copied.refresh(), copied.refresh(), copied.refresh()), (None, None, None), "it is not there");
            fs::create_dir(&path).unwrap(); // there, and cannot be read
            assert_eq!(copied.refresh(), None, "perhaps it is being replaced");
            let told = copied.refresh().unwrap();
            assert!(told.starts_with(&path.display().to_string()) && told.contains("/run"), "{told}");
            assert_eq!((copied.refresh(), text(&copied).as_slice()), (None, round));
            fs::remove_dir(&path).unwrap();
        }
    }
}
