//! The relay between real sockets: nothing lost, ends passed on, silence ended.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream as Blocking};
use std::thread;
use std::time::Duration;

use tokio::net::TcpStream;

use super::allowance::Allowance;
use super::direction::Direction;
use super::last_words::{last_words, Longest};
use super::relay::{relay, End, Patience, RelayEnd};
use super::scratch::Scratch;

pub(super) const LONG: Patience = Patience {
    idle: Duration::from_secs(60),
    half_closed: Duration::from_secs(60),
    rest: Duration::from_secs(60),
    since: None,
};

/// What the relay said, and the bytes it counted upwards and downwards.
type Outcome = (RelayEnd, u64, u64);

struct Bench {
    client: Blocking,
    backend: Blocking,
    relay: thread::JoinHandle<Outcome>,
}

/// A client and a backend with a relay between them on a thread of its own.
fn bench(leftover: &'static [u8], patience: Patience, rate: Option<u32>) -> Bench {
    let (client, near_client) = pair();
    let (near_backend, backend) = pair();
    let relay = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut client = adopt(near_client);
            let mut backend = adopt(near_backend);
            let scratch = Scratch::new();
            let mut up = Direction::beginning_with(
                leftover.to_vec(),
                0,
                Allowance::of(rate, std::sync::Arc::default()),
                &scratch,
            );
            let mut down =
                Direction::beginning_with(Vec::new(), 0, Allowance::of(rate, std::sync::Arc::default()), &scratch);
            let end = relay(&mut client, &mut backend, &mut up, &mut down, &scratch, patience, |_, _| ()).await;
            if !matches!(end, RelayEnd::Closed { .. }) {
                for stream in [&client, &backend] {
                    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).expect("linger");
                }
            }
            up.abandon(&scratch);
            down.abandon(&scratch);
            assert_eq!(scratch.kept(), 0, "all that was kept is accounted for");
            (end, up.bytes(), down.bytes())
        })
    });
    Bench { client, backend, relay }
}

pub(super) fn pair() -> (Blocking, Blocking) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let one = Blocking::connect(listener.local_addr().expect("its address")).expect("a connection");
    let (other, _) = listener.accept().expect("its other end");
    for stream in [&one, &other] {
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        stream.set_write_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    }
    (one, other)
}

pub(super) fn adopt(stream: Blocking) -> TcpStream {
    stream.set_nonblocking(true).expect("non-blocking");
    TcpStream::from_std(stream).expect("registered")
}

/// Bytes that no shift, loss or repetition leaves as they are.
pub(super) fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

pub(super) fn drain(mut stream: &Blocking) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("all that comes, and its end");
    all
}

#[test]
fn what_was_read_before_goes_first() {
    let Bench { mut client, mut backend, relay } = bench(b"hello ", LONG, None);
    client.write_all(b"world").expect("sent");
    client.shutdown(Shutdown::Write).expect("ended");
    assert_eq!(drain(&backend), b"hello world");
    backend.write_all(b"bye").expect("sent");
    drop(backend);
    assert_eq!(drain(&client), b"bye");
    let (end, up, down) = relay.join().expect("the relay");
    assert!(matches!(end, RelayEnd::Closed { first: End::Client }), "{end:?}");
    assert_eq!((up, down), (11, 3));
}

#[test]
fn a_download_goes_on_after_the_client_has_ended_its_side() {
    let Bench { client, mut backend, relay } = bench(b"", LONG, None);
    client.shutdown(Shutdown::Write).expect("ended");
    assert_eq!(drain(&backend), b"");
    let sent = pattern(30_000_000, 1);
    let writer = {
        let sent = sent.clone();
        thread::spawn(move || {
            backend.write_all(&sent).expect("sent");
            drop(backend);
        })
    };
    assert!(drain(&client) == sent, "every byte, in order");
    writer.join().expect("the writer");
    assert!(matches!(relay.join().expect("the relay").0, RelayEnd::Closed { first: End::Client }));
}

#[test]
fn both_ways_at_once_with_slow_readers_lose_nothing() {
    let Bench { client, backend, relay } = bench(b"", LONG, None);
    let sides: Vec<_> = [(client, 3), (backend, 4)]
        .into_iter()
        .map(|(stream, seed)| {
            let sent = pattern(8_000_000, seed);
            let mut writing = stream.try_clone().expect("a handle");
            let writer = thread::spawn(move || {
                writing.write_all(&sent).expect("sent");
                writing.shutdown(Shutdown::Write).expect("ended");
            });
            let reader = thread::spawn(move || {
                let (mut all, mut some, mut stream) = (Vec::new(), vec![0; 1 << 16], stream);
                // Small reads of odd sizes, so that the relay's writes are cut wherever it may be.
                for size in (1..=some.len()).step_by(997).cycle() {
                    match stream.read(some.get_mut(..size).expect("within")).expect("read") {
                        0 => return all,
                        count => all.extend_from_slice(&some[..count]),
                    }
                }
                all
            });
            (writer, reader, seed)
        })
        .collect();
    let mut received = Vec::new();
    for (writer, reader, seed) in sides {
        writer.join().expect("the writer");
        received.push((reader.join().expect("the reader"), seed));
    }
    assert!(received[0].0 == pattern(8_000_000, 4), "the client got what the backend sent");
    assert!(received[1].0 == pattern(8_000_000, 3), "the backend got what the client sent");
    let (end, up, down) = relay.join().expect("the relay");
    assert!(matches!(end, RelayEnd::Closed { .. }), "{end:?}");
    assert_eq!((up, down), (8_000_000, 8_000_000));
}

#[test]
fn a_sender_that_closes_while_its_reader_is_stalled_loses_nothing() {
    let Bench { mut client, backend, relay } = bench(b"", LONG, None);
    let sent = pattern(5_000_000, 5);
    let writer = {
        let sent = sent.clone();
        thread::spawn(move || {
            client.write_all(&sent).expect("sent");
            client.shutdown(Shutdown::Write).expect("ended");
            drain(&client)
        })
    };
    // Nothing is read until the writer cannot go on: kernel buffers and the relay's are full.
    let mut first = [0];
    backend.peek(&mut first).expect("something is here");
    assert!(drain(&backend) == sent);
    drop(backend);
    assert_eq!(writer.join().expect("the writer"), b"");
    assert!(matches!(relay.join().expect("the relay").0, RelayEnd::Closed { first: End::Client }));
}

#[test]
fn a_reset_is_passed_on_as_a_reset() {
    for broken in [End::Client, End::Backend] {
        let Bench { mut client, mut backend, relay } = bench(b"", LONG, None);
        client.write_all(b"x").expect("sent");
        backend.read_exact(&mut [0]).expect("through");
        let (breaking, mut other) = match broken {
            End::Client => (client, backend),
            End::Backend => (backend, client),
        };
        socket2::SockRef::from(&breaking).set_linger(Some(Duration::ZERO)).expect("linger");
        drop(breaking);
        let error = other.read(&mut [0]).expect_err("a reset, not an end");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let (end, ..) = relay.join().expect("the relay");
        assert!(matches!(end, RelayEnd::Broken { end, .. } if end == broken), "{broken:?}: {end:?}");
    }
}

#[test]
fn a_reset_after_an_end_is_passed_on_as_a_reset() {
    for broken in [End::Client, End::Backend] {
        let Bench { client, backend, relay } = bench(b"", LONG, None);
        let (breaking, mut other) = match broken {
            End::Client => (client, backend),
            End::Backend => (backend, client),
        };
        breaking.shutdown(Shutdown::Write).expect("ended");
        assert_eq!(drain(&other), b"", "an end, in order");
        socket2::SockRef::from(&breaking).set_linger(Some(Duration::ZERO)).expect("linger");
        drop(breaking);
        let (end, ..) = relay.join().expect("the relay");
        assert!(matches!(end, RelayEnd::Broken { end, .. } if end == broken), "{broken:?}: {end:?}");
        let error = other.write_all(&[0]).and_then(|()| other.read(&mut [0])).expect_err("it is gone");
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
    }
}

#[test]
fn silence_ends_a_relay_by_the_timer_of_its_state() {
    let short = Duration::from_millis(80);
    let idle = Patience { idle: short, ..LONG };
    let Bench { client, backend, relay } = bench(b"", idle, None);
    assert!(matches!(relay.join().expect("the relay").0, RelayEnd::Idle));
    drop((client, backend));

    let half_closed = Patience { half_closed: short, ..LONG };
    let Bench { client, backend, relay } = bench(b"", half_closed, None);
    backend.shutdown(Shutdown::Write).expect("ended");
    assert!(matches!(relay.join().expect("the relay").0, RelayEnd::HalfClosed));
    drop(client);
}

#[test]
fn bytes_that_move_put_the_idle_timer_off() {
    let idle = Patience { idle: Duration::from_secs(6), ..LONG };
    let Bench { mut client, mut backend, relay } = bench(b"", idle, None);
    let begin = std::time::Instant::now();
    while begin.elapsed() < Duration::from_secs(7) {
        client.write_all(b"x").expect("still open");
        backend.read_exact(&mut [0]).expect("through");
        thread::yield_now();
    }
    client.shutdown(Shutdown::Write).expect("ended");
    drop(backend);
    assert!(matches!(relay.join().expect("the relay").0, RelayEnd::Closed { .. }));
}

#[test]
fn an_end_after_a_long_silence_leaves_the_other_side_its_own_time() {
    let half_closed = Patience { half_closed: Duration::from_secs(5), ..LONG };
    let Bench { client, mut backend, relay } = bench(b"", half_closed, None);
    thread::sleep(Duration::from_millis(5100)); // the silence itself is what is tested
    client.shutdown(Shutdown::Write).expect("ended");
    assert_eq!(drain(&backend), b"");
    backend.write_all(b"bye").expect("still open");
    drop(backend);
    assert_eq!(drain(&client), b"bye");
    assert!(matches!(relay.join().expect("the relay").0, RelayEnd::Closed { first: End::Client }));
}

#[test]
fn quiet_is_told_once_nothing_has_moved_for_a_while() {
    let Bench { mut client, mut backend, relay } = bench(b"", Patience { rest: Duration::from_secs(5), ..LONG }, None);
    let begin = std::time::Instant::now();
    let mut last = begin;
    while begin.elapsed() < Duration::from_secs(6) {
        last = std::time::Instant::now();
        client.write_all(b"x").expect("still open");
        backend.read_exact(&mut [0]).expect("through");
    }
    let (end, ..) = relay.join().expect("the relay");
    assert!(matches!(end, RelayEnd::Quiet { .. }), "{end:?}");
    assert!(last.elapsed() >= Duration::from_secs(5), "after {:?}", last.elapsed());
}

#[test]
fn a_rate_bounds_both_directions() {
    let Bench { mut client, backend, relay } = bench(b"", LONG, Some(1_000_000));
    let begin = std::time::Instant::now();
    let writer = thread::spawn(move || {
        client.write_all(&pattern(500_000, 6)).expect("sent");
        client.shutdown(Shutdown::Write).expect("ended");
        drain(&client)
    });
    assert_eq!(drain(&backend).len(), 500_000);
    let seconds = begin.elapsed().as_secs_f64();
    assert!(seconds > 0.4, "half a second's worth took {seconds} s");
    drop(backend);
    writer.join().expect("the writer");
    relay.join().expect("the relay");
}

#[test]
fn a_rate_does_not_cut_bulk_into_small_pieces() {
    const BYTES: usize = 5_000_000;
    let Bench { mut client, mut backend, relay } = bench(b"", LONG, Some(10_000_000));
    let writer = thread::spawn(move || {
        client.write_all(&pattern(BYTES, 7)).expect("sent");
        client.shutdown(Shutdown::Write).expect("ended");
        drain(&client)
    });
    let (mut buffer, mut received, mut reads) = (vec![0; 1 << 20], 0, 0);
    while received < BYTES {
        received += backend.read(&mut buffer).expect("what comes");
        reads += 1;
    }
    // Two milliseconds' worth each, 20 kB, and no segment after another of a few bytes.
    assert!(reads <= 1_000, "{reads} pieces");
    drop(backend);
    writer.join().expect("the writer");
    relay.join().expect("the relay");
}

/// Relays between two ends that are as they are; what the first poll carried, and what the relay said.
fn relayed_at_once(near_client: Blocking, near_backend: Blocking, kept_elsewhere: usize) -> ((u64, u64), RelayEnd) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (mut client, mut backend) = (adopt(near_client), adopt(near_backend));
        let scratch = Scratch::new();
        scratch.keep(kept_elsewhere);
        let mut up = Direction::beginning_with(Vec::new(), 0, Allowance::of(None, std::sync::Arc::default()), &scratch);
        let mut down =
            Direction::beginning_with(Vec::new(), 0, Allowance::of(None, std::sync::Arc::default()), &scratch);
        let first = std::cell::Cell::new(None);
        let tell = |up: &Direction, down: &Direction| {
            first.set(first.get().or(Some((up.bytes(), down.bytes()))));
        };
        let patience = Patience { idle: Duration::from_millis(200), half_closed: Duration::from_millis(200), ..LONG };
        let end = relay(&mut client, &mut backend, &mut up, &mut down, &scratch, patience, tell).await;
        if let RelayEnd::Broken { end: End::Backend, .. } = &end {
            let bounds = (patience.half_closed, Longest::USUAL);
            last_words(&mut backend, &mut client, &mut down, &scratch, bounds, || false, |_| ()).await;
        }
        for stream in [&client, &backend] {
            socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).expect("linger");
        }
        (first.get().expect("something was carried"), end)
    })
}

#[test]
fn an_upload_that_never_pauses_does_not_hold_the_download_back() {
    let ((client, near_client), (near_backend, backend)) = (pair(), pair());
    for reader in [&near_client, &backend] {
        socket2::SockRef::from(reader).set_recv_buffer_size(2 << 20).expect("a buffer");
    }
    client.set_nonblocking(true).expect("non-blocking");
    let sent: usize = std::iter::from_fn(|| (&client).write(&[7; 65_536]).ok()).sum();
    assert!(sent > 512 * 1024, "more than one turn carries: {sent}");
    (&backend).write_all(b"x").expect("sent");
    let ((up, down), _) = relayed_at_once(near_client, near_backend, super::scratch::KEPT_BUDGET);
    assert!(up > 0 && down == 1, "in the first turn: {up} up, {down} down");
}

#[test]
fn what_a_backend_said_before_it_refused_more_reaches_the_client() {
    let ((mut client, near_client), (mut near_backend, mut backend)) = (pair(), pair());
    near_backend.write_all(b"half of a").expect("sent");
    backend.write_all(b"413").expect("sent");
    backend.peek(&mut [0]).expect("something is unread");
    drop(backend); // unread bytes make it a reset
    client.write_all(b" request").expect("sent");
    let (_, end) = relayed_at_once(near_client, near_backend, 0);
    assert!(matches!(end, RelayEnd::Broken { end: End::Backend, .. }), "{end:?}");
    let mut answer = [0; 3];
    client.read_exact(&mut answer).expect("the answer");
    assert_eq!(&answer, b"413");
    assert_eq!(client.read(&mut answer).expect_err("a reset").kind(), ErrorKind::ConnectionReset);
}

#[test]
fn an_end_in_order_of_both_sides_is_no_break_while_the_reader_is_stalled() {
    let ((client, near_client), (near_backend, mut backend)) = (pair(), pair());
    socket2::SockRef::from(&client).set_recv_buffer_size(4096).expect("a buffer");
    socket2::SockRef::from(&near_client).set_send_buffer_size(4096).expect("a buffer");
    socket2::SockRef::from(&near_backend).set_recv_buffer_size(1 << 20).expect("a buffer");
    client.shutdown(Shutdown::Write).expect("ended");
    backend.write_all(&pattern(300_000, 8)).expect("sent");
    backend.shutdown(Shutdown::Write).expect("ended");
    let ((up, down), end) = relayed_at_once(near_client, near_backend, 0);
    assert!(up == 0 && down < 300_000, "its reader takes no more: {down}");
    assert!(matches!(end, RelayEnd::HalfClosed), "and nobody has gone: {end:?}");
}
