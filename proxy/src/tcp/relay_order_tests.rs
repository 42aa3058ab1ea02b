//! Ends in order, however late they are read: that the kernel knows no peer any more is no break by itself.

use std::io::Write;
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::allowance::Allowance;
use super::direction::Direction;
use super::relay::{relay, End, Patience, RelayEnd};
use super::relay_tests::{adopt, drain, pair, pattern, LONG};
use super::scratch::Scratch;

/// More than the small buffers of the reader's side hold, and no more than the sender's side does.
const BYTES: usize = 200_000;
const SMALL: usize = 16 * 1024;

/// A relay that may be begun again and again.
struct Relay {
    client: TcpStream,
    backend: TcpStream,
    up: Direction,
    down: Direction,
    scratch: Scratch,
}

impl Relay {
    async fn run(&mut self, patience: Patience) -> RelayEnd {
        let Self { client, backend, up, down, scratch } = self;
        relay(client, backend, up, down, scratch, patience, |_, _| ()).await
    }

    fn sender(&self, first: End) -> (&TcpStream, &Direction) {
        match first {
            End::Client => (&self.backend, &self.down),
            End::Backend => (&self.client, &self.up),
        }
    }
}

#[tokio::test]
async fn who_ended_first_and_reads_late_gets_all_that_the_other_said_before_its_own_end() {
    for first in [End::Client, End::Backend] {
        let ((client, near_client), (near_backend, backend)) = (pair(), pair());
        let (ending, mut sending, near_ending, near_sending) = match first {
            End::Client => (client, backend, &near_client, &near_backend),
            End::Backend => (backend, client, &near_backend, &near_client),
        };
        socket2::SockRef::from(&ending).set_recv_buffer_size(SMALL).expect("a buffer");
        socket2::SockRef::from(near_ending).set_send_buffer_size(SMALL).expect("a buffer");
        socket2::SockRef::from(near_sending).set_recv_buffer_size(BYTES).expect("a buffer");
        let scratch = Scratch::new();
        let way = || Direction::beginning_with(Vec::new(), 0, Allowance::of(None, std::sync::Arc::default()), &scratch);
        let (up, down) = (way(), way());
        let mut relay = Relay { client: adopt(near_client), backend: adopt(near_backend), up, down, scratch };
        let quick = Patience { rest: Duration::from_millis(100), ..LONG };
        let again = |patience| Patience { since: Some(Instant::now()), ..patience };

        ending.shutdown(Shutdown::Write).expect("ended");
        let end = relay.run(quick).await;
        assert!(matches!(end, RelayEnd::Quiet { .. }), "{end:?}");
        assert_eq!(drain(&sending), b"", "the end was passed on");

        let sent = pattern(BYTES, 8);
        sending.write_all(&sent).expect("sent");
        sending.shutdown(Shutdown::Write).expect("ended");
        let end = relay.run(again(quick)).await;
        assert!(matches!(end, RelayEnd::Quiet { .. }), "{end:?}");
        let begun = Instant::now();
        while relay.sender(first).0.peer_addr().is_ok() && begun.elapsed() < Duration::from_secs(60) {
            thread::yield_now();
        }
        assert!(relay.sender(first).0.peer_addr().is_err(), "the kernel has the other end, too");
        assert!(relay.sender(first).1.is_stalled(), "and the reader has not got all");

        let reader = thread::spawn(move || drain(&ending));
        let end = relay.run(again(LONG)).await;
        assert!(matches!(end, RelayEnd::Closed { first: told } if told == first), "{first:?}: {end:?}");
        drop(relay);
        assert!(reader.join().expect("the reader") == sent, "every byte, and an end");
    }
}
