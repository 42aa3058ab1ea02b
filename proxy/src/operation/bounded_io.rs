//! Reading and writing on small sockets of the control thread, without more of tokio than the rest needs.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Appends what there is, at most 4 KiB; how many bytes. Safe to cancel: nothing is taken that is not appended.
pub(super) async fn read_some(stream: &mut (impl AsyncRead + Unpin), into: &mut Vec<u8>) -> io::Result<usize> {
    let mut chunk = [0; 4096];
    let mut chunk = ReadBuf::new(&mut chunk);
    poll_fn(|context| Pin::new(&mut *stream).poll_read(context, &mut chunk)).await?;
    into.extend_from_slice(chunk.filled());
    Ok(chunk.filled().len())
}

/// Writes all.
pub(super) async fn write_all(stream: &mut (impl AsyncWrite + Unpin), mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = poll_fn(|context| Pin::new(&mut *stream).poll_write(context, bytes)).await?;
        bytes = bytes.get(written..).filter(|_| written > 0).ok_or(io::ErrorKind::WriteZero)?;
    }
    Ok(())
}
