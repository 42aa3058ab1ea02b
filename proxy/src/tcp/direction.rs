//! One direction of a relayed connection: what was read from one end and waits to be written to the other.
//!
//! Bytes pass through a scratch buffer that all connections of a worker share; only what the receiving end does not take
//! at once is kept, and while anything is kept nothing is read. So an idle connection holds no buffer at all.

use std::io;
use std::pin::Pin;
use std::task::{ready, Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::allowance::Allowance;
use super::scratch::Scratch;

/// Reads of one turn: then the other direction and other connections have theirs. A task's budget alone would let a sender
/// that is never out of bytes use all of it, each time, before the other direction is looked at.
const READS_A_TURN: usize = 4;

/// How far a direction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Bytes may still come.
    Open,
    /// The sender has ended; its last bytes have not all been taken.
    Ending,
    /// The end was passed on: every byte and then the FIN.
    Ended,
}

/// Which end broke.
#[derive(Debug)]
pub(crate) enum Broken {
    /// Reading failed: the sender is gone.
    Sender(io::Error),
    /// Writing failed: the receiver is gone.
    Receiver(io::Error),
}

/// One direction; see the module.
#[derive(Debug)]
pub(crate) struct Direction {
    kept: Option<Kept>,
    progress: Progress,
    bytes: u64,
    allowance: Allowance,
}

#[derive(Debug)]
struct Kept {
    bytes: Vec<u8>,
    written: usize,
}

impl Direction {
    /// A direction that begins with bytes which were read before (what follows a PROXY header, a hello), and of which the
    /// receiver has so many already.
    pub(crate) fn beginning_with(bytes: Vec<u8>, written: usize, allowance: Allowance, scratch: &Scratch) -> Self {
        let kept = (written < bytes.len()).then_some(Kept { bytes, written });
        scratch.keep(kept.as_ref().map_or(0, |kept| kept.bytes.len()));
        Self { kept, progress: Progress::Open, bytes: written as u64, allowance }
    }

    pub(crate) fn progress(&self) -> Progress {
        self.progress
    }

    /// Whether nothing waits here: all that was read has been taken by the receiver.
    pub(crate) fn is_clear(&self) -> bool {
        self.kept.is_none() && self.progress != Progress::Ending
    }

    /// Whether bytes wait for the receiving end, so that nothing is read of the sender.
    pub(crate) fn is_stalled(&self) -> bool {
        self.kept.is_some()
    }

    /// Bytes that the receiving end's kernel took.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Carries what can be carried now. Ready when the direction has ended or broke; `moved` tells whether a byte moved.
    /// `is_last`: the other direction has ended, and the close of the receiver, which follows at once, is its FIN.
    ///
    /// # Errors
    ///
    /// The end that broke.
    pub(crate) fn poll_carry(
        &mut self,
        context: &mut Context<'_>,
        (sender, receiver): (&mut TcpStream, &mut TcpStream),
        scratch: &Scratch,
        moved: &mut bool,
        is_last: bool,
    ) -> Poll<Result<(), Broken>> {
        for _ in 0..READS_A_TURN {
            if self.progress == Progress::Ended {
                return Poll::Ready(Ok(()));
            }
            if self.kept.is_some() {
                ready!(self.poll_write_kept(context, receiver, scratch, moved))?;
            }
            if self.progress == Progress::Ending {
                if !is_last {
                    ready!(Pin::new(&mut *receiver).poll_shutdown(context)).map_err(Broken::Receiver)?;
                }
                self.progress = Progress::Ended;
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_pass(context, sender, receiver, scratch, moved))?;
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Carries what a sender that has broken left in the kernel. Its end is not passed on: the connection ends by a reset.
    /// Ready when nothing is left, or, with `false`, when the receiver takes no more.
    pub(crate) fn poll_last_words(
        &mut self,
        context: &mut Context<'_>,
        (sender, receiver): (&mut TcpStream, &mut TcpStream),
        scratch: &Scratch,
        moved: &mut bool,
    ) -> Poll<bool> {
        for _ in 0..READS_A_TURN {
            if ready!(self.poll_write_kept(context, receiver, scratch, moved)).is_err() {
                return Poll::Ready(false);
            }
            if self.progress != Progress::Open {
                return Poll::Ready(true);
            }
            if let Err(broken) = ready!(self.poll_pass(context, sender, receiver, scratch, moved)) {
                return Poll::Ready(matches!(broken, Broken::Sender(_)));
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_write_kept(
        &mut self,
        context: &mut Context<'_>,
        receiver: &mut TcpStream,
        scratch: &Scratch,
        moved: &mut bool,
    ) -> Poll<Result<(), Broken>> {
        while let Some(kept) = &mut self.kept {
            let rest = kept.bytes.get(kept.written..).unwrap_or_default();
            let count = ready!(Pin::new(&mut *receiver).poll_write(context, rest)).map_err(Broken::Receiver)?;
            *moved = true;
            self.bytes += count as u64;
            kept.written += count;
            if kept.written >= kept.bytes.len() {
                scratch.let_go(kept.bytes.len());
                self.kept = None;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once and writes what was read; what is not taken is kept.
    fn poll_pass(
        &mut self,
        context: &mut Context<'_>,
        sender: &mut TcpStream,
        receiver: &mut TcpStream,
        scratch: &Scratch,
        moved: &mut bool,
    ) -> Poll<Result<(), Broken>> {
        let room = ready!(self.allowance.poll_room(context));
        let mut buffer = scratch.borrow();
        let limit = scratch.read_limit().min(room);
        let mut read = ReadBuf::new(buffer.get_mut(..limit).unwrap_or_default());
        ready!(Pin::new(&mut *sender).poll_read(context, &mut read)).map_err(Broken::Sender)?;
        let filled = read.filled();
        if filled.is_empty() {
            self.progress = Progress::Ending;
            return Poll::Ready(Ok(()));
        }
        *moved = true;
        if room < usize::MAX {
            self.allowance.spend(filled.len());
        }
        let mut rest = filled;
        while !rest.is_empty() {
            match Pin::new(&mut *receiver).poll_write(context, rest) {
                Poll::Ready(Ok(count)) => {
                    self.bytes += count as u64;
                    rest = rest.get(count..).unwrap_or_default();
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Broken::Receiver(error))),
                Poll::Pending => {
                    scratch.keep(rest.len());
                    self.kept = Some(Kept { bytes: rest.to_vec(), written: 0 });
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Gives back what the direction kept; for the end of a connection that was cut short.
    pub(crate) fn abandon(&mut self, scratch: &Scratch) {
        if let Some(kept) = self.kept.take() {
            scratch.let_go(kept.bytes.len());
        }
    }
}
