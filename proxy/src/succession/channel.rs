//! The Unix stream between the two processes: lines, and the descriptors that come with them. It blocks, within a patience.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sendmsg, sockopt, ControlMessage, MsgFlags};
use serde::de::DeserializeOwned;
use serde::Serialize;

use super::message::{read, write, LONGEST_LINE};
use crate::kernel::descriptors::{receive, MOST_DESCRIPTORS};

/// Bytes that are taken at once.
const CHUNK: usize = 16 << 10;

/// See the module.
#[derive(Debug)]
pub(crate) struct Channel {
    stream: UnixStream,
    heard: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

impl Channel {
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        Ok(Self { stream, heard: Vec::new(), descriptors: VecDeque::new() })
    }

    /// How long the other end may be silent, or not read.
    pub(crate) fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(patience))?;
        self.stream.set_write_timeout(Some(patience))
    }

    /// The process at the other end.
    pub(crate) fn peer(&self) -> io::Result<i32> {
        Ok(getsockopt(&self.stream, sockopt::PeerCredentials)?.pid())
    }

    /// Says one thing, with descriptors: copies, which this process has as well.
    pub(crate) fn send(&mut self, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let line = write(message).map_err(invalid)?;
        if descriptors.len() > MOST_DESCRIPTORS {
            return Err(invalid("too many descriptors for one message"));
        }
        let mut sent = 0;
        if !descriptors.is_empty() {
            let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
            let rights = [ControlMessage::ScmRights(&numbers)];
            let parts = [IoSlice::new(&line)];
            // They go with the first byte, however many bytes there was room for.
            sent = sendmsg::<()>(self.stream.as_raw_fd(), &parts, &rights, MsgFlags::MSG_NOSIGNAL, None)?;
        }
        self.stream.write_all(line.get(sent..).unwrap_or_default())
    }

    /// Hears one thing. Its descriptors are for [`Self::take`].
    pub(crate) fn receive<M: DeserializeOwned>(&mut self) -> io::Result<M> {
        let mut looked = 0;
        loop {
            let rest = self.heard.get(looked..).unwrap_or_default();
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=looked + end).collect();
                return read(&line).map_err(invalid);
            }
            looked = self.heard.len();
            if looked > LONGEST_LINE {
                return Err(invalid("a message has no end"));
            }
            if self.read_on()? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other process has gone"));
            }
        }
    }

    /// The descriptors of what was heard last.
    pub(crate) fn take(&mut self, count: usize) -> io::Result<Vec<OwnedFd>> {
        if count > self.descriptors.len() {
            return Err(invalid("descriptors are missing"));
        }
        Ok(self.descriptors.drain(..count).collect())
    }

    /// Waits until the other end is closed; nothing more may come.
    pub(crate) fn await_end(&mut self) -> io::Result<()> {
        if !self.heard.is_empty() || self.read_on()? != 0 {
            return Err(invalid("something was said after the end"));
        }
        Ok(())
    }

    fn read_on(&mut self) -> io::Result<usize> {
        let mut chunk = [0; CHUNK];
        loop {
            match receive(self.stream.as_fd(), &mut chunk) {
                Ok((count, descriptors)) => {
                    self.heard.extend_from_slice(chunk.get(..count).unwrap_or_default());
                    self.descriptors.extend(descriptors);
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
                Err(error) => return Err(error),
            }
        }
    }
}

fn invalid(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::thread;

    use super::super::message::{Answer, Bequeathed};
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn pair() -> (Channel, Channel) {
        let (one, other) = UnixStream::pair().unwrap();
        let both = (Channel::new(one).unwrap(), Channel::new(other).unwrap());
        both.0.set_patience(SOON).unwrap();
        both.1.set_patience(SOON).unwrap();
        both
    }

    /// Something to read, for whoever has it.
    fn file(text: &str) -> UnixStream {
        let (mut writing, reading) = UnixStream::pair().unwrap();
        writing.write_all(text.as_bytes()).unwrap();
        reading
    }

    fn text(descriptor: OwnedFd) -> String {
        let mut text = String::new();
        UnixStream::from(descriptor).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn descriptors_arrive_with_their_messages_in_order() {
        let (mut old, mut new) = pair();
        let (files, filling) = ([file("a"), file("b"), file("c")], "x".repeat(3 * CHUNK));
        let sending = thread::spawn(move || {
            old.send(&Bequeathed::Keeper { heard: Vec::new() }, &[files[0].as_fd()]).unwrap();
            old.send(&Bequeathed::Error(filling), &[files[1].as_fd(), files[2].as_fd()]).unwrap();
            old.send(&Bequeathed::Over, &[]).unwrap();
        });
        assert!(matches!(new.receive().unwrap(), Bequeathed::Keeper { .. }));
        assert_eq!(new.take(1).unwrap().into_iter().map(text).collect::<Vec<_>>(), ["a"]);
        assert!(matches!(new.receive().unwrap(), Bequeathed::Error(_)));
        assert_eq!(new.take(2).unwrap().into_iter().map(text).collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(new.receive::<Bequeathed>().unwrap(), Bequeathed::Over);
        new.await_end().unwrap();
        sending.join().unwrap();
    }

    #[test]
    fn what_is_missing_cut_or_too_much_is_an_error() {
        let (mut old, mut new) = pair();
        old.send(&Answer::Serving, &[]).unwrap();
        assert_eq!(new.receive::<Answer>().unwrap(), Answer::Serving);
        assert_eq!(new.take(1).unwrap_err().kind(), io::ErrorKind::InvalidData);
        old.stream.write_all(b"\"serv").unwrap();
        drop(old);
        assert_eq!(new.receive::<Answer>().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);

        let (mut old, mut new) = pair();
        let writing = thread::spawn(move || old.stream.write_all(&vec![b'['; 2 * LONGEST_LINE]));
        assert_eq!(new.receive::<Answer>().unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(new);
        writing.join().unwrap().unwrap_err();
    }

    #[test]
    fn silence_ends_the_patience() {
        let (_old, mut new) = pair();
        new.set_patience(Duration::from_millis(1)).unwrap();
        assert_eq!(new.receive::<Answer>().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
