//! Answers to those who ask for the table, written as fast as each reads, while packets go on.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// Answers on their way at once; the oldest gives way to a further one.
const MOST_ANSWERS: usize = 4;

/// The socket that is asked at, and the answers that their readers have not taken whole.
#[derive(Debug)]
pub(crate) struct Answers {
    listener: UnixListener,
    waiting: Vec<Answer>,
}

#[derive(Debug)]
struct Answer {
    stream: UnixStream,
    text: Vec<u8>,
    written: usize,
}

impl Answers {
    /// Listens at a socket that only its owner can ask. One that an ended natbox left is replaced.
    pub(crate) fn listen(path: &Path) -> io::Result<Self> {
        if matches!(UnixStream::connect(path), Err(error) if error.kind() == io::ErrorKind::ConnectionRefused) {
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, waiting: Vec::new() })
    }

    /// Readable when somebody asks.
    pub(crate) fn questions(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Writable when their readers have made room.
    pub(crate) fn readers(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.waiting.iter().map(|answer| answer.stream.as_fd())
    }

    /// Begins to answer whoever asked.
    pub(crate) fn begin(&mut self, text: impl FnOnce() -> String) {
        let Ok((stream, _)) = self.listener.accept() else { return };
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        if self.waiting.len() >= MOST_ANSWERS {
            self.waiting.remove(0);
        }
        self.waiting.push(Answer { stream, text: text().into_bytes(), written: 0 });
        self.go_on();
    }

    /// Writes what there is room for. A reader that went away is answered no further.
    pub(crate) fn go_on(&mut self) {
        self.waiting.retain_mut(|answer| matches!(answer.go_on(), Ok(false)));
    }
}

impl Answer {
    /// Whether it is written whole.
    fn go_on(&mut self) -> io::Result<bool> {
        while let Some(rest @ [_, ..]) = self.text.get(self.written..) {
            match self.stream.write(rest) {
                Ok(length) => self.written += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
