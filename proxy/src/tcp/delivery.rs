//! The end of a connection by Multipath TCP, whose sockets must not be closed before all has arrived: a minute after that the
//! kernel gives up what has not (`mptcp_should_close` in its net/mptcp/protocol.c). Plain TCP goes on for a reader that pauses.

use std::os::fd::AsFd;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, Instant};

use crate::kernel::unsent;

use super::relay::gone;

/// How soon, and then how often, it is looked: the kernel tells nobody.
const FIRST_LOOK: Duration = Duration::from_millis(5);
const LATER_LOOK: Duration = Duration::from_millis(250);

/// Waits until the other end has acknowledged all, and the end of it; it is gone, or has taken nothing for as long as `patience`.
pub(super) async fn all_taken(stream: &TcpStream, patience: Duration) {
    let (mut waiting, mut pause, mut last_move) = (usize::MAX, FIRST_LOOK, Instant::now());
    loop {
        let left = unsent(stream.as_fd()).unwrap_or(0);
        if left < waiting {
            last_move = Instant::now();
        }
        if left == 0 || gone(stream).is_some() || last_move.elapsed() >= patience {
            return;
        }
        waiting = left;
        sleep(pause.min(patience)).await;
        pause = (pause * 2).min(LATER_LOOK);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream as Blocking};

    use tokio::time::timeout;

    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);
    const DEADLINE: Duration = Duration::from_secs(20);

    /// An end that has said more than the other one has room for, and no more; and that other one.
    fn filled() -> (TcpStream, Blocking) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let reader = Blocking::connect(listener.local_addr().expect("bound")).expect("a connection");
        let (mut writer, _) = listener.accept().expect("accepted");
        writer.set_nonblocking(true).expect("non-blocking");
        let full = loop {
            if let Err(error) = writer.write(&[0; 1 << 16]) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
        writer.shutdown(Shutdown::Write).expect("ended");
        (TcpStream::from_std(writer).expect("registered"), reader)
    }

    #[tokio::test]
    async fn it_is_waited_for_a_reader_that_pauses_until_it_has_all() {
        let (writer, mut reader) = filled();
        let mut all = std::pin::pin!(all_taken(&writer, LONG));
        let early = timeout(Duration::from_millis(100), &mut all).await;
        assert!(early.is_err(), "the reader has not begun");
        let reading = std::thread::spawn(move || reader.read_to_end(&mut Vec::new()).map(drop));
        timeout(DEADLINE, all).await.expect("all taken");
        assert_eq!(unsent(writer.as_fd()).expect("asked"), 0);
        reading.join().expect("a thread").expect("an end in order");
    }

    #[tokio::test]
    async fn it_is_not_waited_for_one_that_is_gone_or_takes_nothing_for_long() {
        let (writer, reader) = filled();
        all_taken(&writer, Duration::from_millis(20)).await;
        assert!(unsent(writer.as_fd()).expect("asked") > 0);
        drop(reader); // with bytes unread, which is a reset
        timeout(DEADLINE, all_taken(&writer, LONG)).await.expect("gone");
    }
}
