//! The buffer that all connections of a worker read into, and the account of what they keep beside it.

use std::cell::{Cell, RefCell, RefMut};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{ready, Poll};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

/// One read takes at most so much: 256 KiB passes bulk at the speed of the kernel's own copying (measured: 16 KiB, as
/// others use, halves it), and stays in a second-level cache.
pub(crate) const SCRATCH_BYTES: usize = 256 * 1024;

/// What connections of one worker may keep for receivers that do not take it. Beyond it each read is small, so that ten
/// thousand stalled receivers hold tens of megabytes, not gigabytes.
pub(crate) const KEPT_BUDGET: usize = 32 * 1024 * 1024;

/// What connections may keep, first bytes of undecided ones included, before further undecided ones are refused.
pub(crate) const PREFACE_BUDGET: usize = 64 * 1024 * 1024;

/// One read, once the budget is spent.
const SMALL_READ: usize = 4 * 1024;

/// The shared buffer of one worker.
#[derive(Debug)]
pub(crate) struct Scratch {
    buffer: RefCell<Box<[u8]>>,
    kept: Cell<usize>,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self { buffer: RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice()), kept: Cell::new(0) }
    }

    /// The buffer, for as long as one poll of one direction.
    pub(crate) fn borrow(&self) -> RefMut<'_, Box<[u8]>> {
        self.buffer.borrow_mut()
    }

    /// Reads once what a client says, at most `room` bytes, and gives it to `take`; how much it was.
    pub(crate) async fn read(
        &self,
        stream: &mut TcpStream,
        room: usize,
        mut take: impl FnMut(&[u8]),
    ) -> io::Result<usize> {
        poll_fn(|context| {
            let mut buffer = self.borrow();
            let room = room.min(SCRATCH_BYTES);
            let mut read = ReadBuf::new(buffer.get_mut(..room).unwrap_or_default());
            // Unlike a try after `readable`, this knows that a short read has taken all there was.
            ready!(Pin::new(&mut *stream).poll_read(context, &mut read))?;
            take(read.filled());
            Poll::Ready(Ok(read.filled().len()))
        })
        .await
    }

    /// How much one read may take now.
    pub(crate) fn read_limit(&self) -> usize {
        if self.kept.get() < KEPT_BUDGET {
            SCRATCH_BYTES
        } else {
            SMALL_READ
        }
    }

    /// Bytes that connections keep.
    pub(crate) fn kept(&self) -> usize {
        self.kept.get()
    }

    pub(crate) fn keep(&self, bytes: usize) {
        self.kept.set(self.kept.get() + bytes);
    }

    pub(crate) fn let_go(&self, bytes: usize) {
        self.kept.set(self.kept.get().saturating_sub(bytes));
    }
}
