//! The asking side of the admin socket, for the small commands.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::admin::{Request, Response};

/// How long an answer may take; longer than the proxy gives itself for an order.
const PATIENCE: Duration = Duration::from_secs(90);
/// Bytes of an answer: a page of a thousand connections has 600,000.
const LONGEST_ANSWER: u64 = 16 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there, or this user may not connect.
    #[error("{path}: {fault}; is edgeproxy running, and is this its operation.admin_socket?")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// The kernel's word.
        fault: io::Error,
    },
    /// The connection broke.
    #[error("no answer: {0}")]
    Broken(#[from] io::Error),
    /// It took too long.
    #[error("no answer in time; what was asked for may still be done")]
    Late,
    /// What came is no answer of this program.
    #[error("the answer cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// The proxy did not do it.
    #[error("{0}")]
    Refused(String),
    /// It answered something else.
    #[error("the answer is to another question")]
    Unexpected,
}

/// A connection to the admin socket.
#[derive(Debug)]
pub struct Asker(BufReader<UnixStream>);

impl Asker {
    /// Connects.
    pub fn connect(path: &Path) -> Result<Self, AskError> {
        Self::connect_with(path, PATIENCE)
    }

    fn connect_with(path: &Path, patience: Duration) -> Result<Self, AskError> {
        let stream =
            UnixStream::connect(path).map_err(|fault| AskError::Unreachable { path: path.to_owned(), fault })?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Asks one thing.
    pub fn ask(&mut self, request: &Request) -> Result<Response, AskError> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.0.get_mut().write_all(&line)?;
        line.clear();
        match self.0.by_ref().take(LONGEST_ANSWER).read_until(b'\n', &mut line) {
            Ok(0) => return Err(AskError::Broken(ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(AskError::Late),
            Err(error) => return Err(error.into()),
        }
        let response = serde_json::from_slice(&line)?;
        if let Response::Error(why) = response {
            return Err(AskError::Refused(why));
        }
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::super::scratch::Scratch;
    use super::*;

    #[test]
    fn who_is_not_answered_in_time_hears_that_it_may_still_be_done() {
        let scratch = Scratch::new();
        let path = scratch.path("admin.sock");
        let _deaf = UnixListener::bind(&path).unwrap();
        let mut asker = Asker::connect_with(&path, Duration::from_millis(20)).unwrap();
        let error = asker.ask(&Request::Reload {}).unwrap_err();
        assert!(matches!(error, AskError::Late), "{error}");
    }
}
