//! The proxy's end of the rule keeper: start it, tell it what is wanted, hear what it did.

use std::collections::hash_map::RandomState;
use std::collections::VecDeque;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::keeper::{as_stdin, Report, Said, Told, Want};

/// The first report comes when all is installed, which takes a few runs of nft; other keepers may come first.
const ANSWER: Duration = Duration::from_secs(20);
/// A report is far shorter.
const LONGEST_LINE: usize = 16 << 10;

/// The keeper of this proxy's rules. When the last process that has this ends or drops it, the rules are removed.
#[derive(Debug)]
pub struct RuleKeeper {
    channel: UnixStream,
    heard: Vec<u8>,
    /// Reports that came while an answer was waited for.
    earlier: VecDeque<Report>,
    /// Of what was told last.
    number: u64,
}

impl RuleKeeper {
    /// Starts the keeper; `command` is this very binary with its internal command. To be called while the process still has
    /// CAP_NET_ADMIN and may execute, and before it has threads that give that up.
    ///
    /// # Errors
    /// When no process can be started.
    pub fn start(mut command: Command) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        // It outlives the proxy by design, so nobody waits for it; in a group of its own no terminal's signal reaches it.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdin(as_stdin(theirs)).stdout(Stdio::null()).spawn()?;
        Ok(Self::from_channel(ours.into(), Vec::new()))
    }

    /// The channel of a keeper that an earlier process of this proxy started (a binary upgrade hands it over), and what that
    /// one had heard of a report that was not whole.
    #[must_use]
    pub fn from_channel(channel: OwnedFd, heard: Vec<u8>) -> Self {
        // By chance, for another process may still wait for answers here, or get late ones.
        let number = RandomState::new().build_hasher().finish();
        Self { channel: channel.into(), heard, earlier: VecDeque::new(), number }
    }

    /// What [`Self::from_channel`] takes.
    #[must_use]
    pub fn heard(&self) -> &[u8] {
        &self.heard
    }

    /// Tells what is wanted from now on, and waits until it is there.
    ///
    /// # Errors
    /// As [`Self::want_within`].
    pub fn want(&mut self, want: Want) -> io::Result<Report> {
        self.want_within(want, ANSWER)
    }

    /// The same, and waits for so long.
    ///
    /// # Errors
    /// `TimedOut` when the keeper is slow: it comes to it later, and [`Self::report`] then gives its answer. All others when it
    /// is gone or does not speak as it should.
    pub fn want_within(&mut self, want: Want, patience: Duration) -> io::Result<Report> {
        let deadline = Instant::now() + patience;
        self.tell(want)?;
        self.channel.set_nonblocking(false)?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.channel.set_read_timeout(Some(left))?;
            match self.read()? {
                None => return Err(io::ErrorKind::TimedOut.into()),
                Some(Said { answers: Some(number), report }) if number == self.number => return Ok(report),
                // Of what something else was told after.
                Some(Said { answers: Some(_), .. }) => {}
                Some(Said { answers: None, report }) => self.earlier.push_back(report),
            }
        }
    }

    /// Tells what is wanted from now on; [`Self::report`] gives the answer, unless something else is told before.
    ///
    /// # Errors
    /// `TimedOut` when the keeper has not come to so much that nothing more can be told. All others when it is gone.
    pub fn tell(&mut self, want: Want) -> io::Result<()> {
        let number = self.number.wrapping_add(1);
        let mut line = serde_json::to_vec(&Told { number, want })?;
        line.push(b'\n');
        self.channel.set_nonblocking(true)?;
        // The kernel takes so short a message whole or not at all.
        if let Err(error) = self.channel.write_all(&line) {
            let has_no_room = error.kind() == io::ErrorKind::WouldBlock;
            return Err(if has_no_room { io::ErrorKind::TimedOut.into() } else { error });
        }
        self.number = number;
        Ok(())
    }

    /// The next report, if there is one; to be asked when the channel is readable.
    ///
    /// # Errors
    /// When the keeper is gone: from then on nobody puts rules back, or removes them.
    pub fn report(&mut self) -> io::Result<Option<Report>> {
        if let Some(report) = self.earlier.pop_front() {
            return Ok(Some(report));
        }
        self.channel.set_nonblocking(true)?;
        while let Some(Said { answers, report }) = self.read()? {
            if answers.map_or(true, |number| number == self.number) {
                return Ok(Some(report));
            }
        }
        Ok(None)
    }

    /// Ends the keeper, unless another process has the channel too; the rules are removed when this returns.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn finish(mut self) -> io::Result<()> {
        self.channel.shutdown(Shutdown::Write)?;
        self.channel.set_nonblocking(false)?;
        self.channel.set_read_timeout(Some(ANSWER))?;
        let mut bytes = [0; 1024];
        loop {
            match self.channel.read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn read(&mut self) -> io::Result<Option<Said>> {
        loop {
            if let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            if self.heard.len() > LONGEST_LINE {
                self.heard.clear();
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a report has no end"));
            }
            let mut bytes = [0; 1024];
            match self.channel.read(&mut bytes) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the rule keeper is gone")),
                Ok(count) => self.heard.extend_from_slice(bytes.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for RuleKeeper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}
