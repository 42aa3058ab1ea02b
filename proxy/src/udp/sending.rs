//! Sending many datagrams of one flow with few calls: neighbours of equal size go down the kernel's stack as one (UDP_SEGMENT).

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;

use crate::kernel::{send, Route};

/// Datagrams that the kernel cuts from one message at most (`UDP_MAX_SEGMENTS`, linux/udp.h; 128 in newer ones).
const MAX_SEGMENTS: usize = 64;

/// Bytes of one message at most: the largest IPv4 packet less its headers.
const MAX_MESSAGE: usize = 65_507;

/// What became of datagrams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Datagrams that the kernel took.
    pub(crate) datagrams: u64,
    /// Their bytes, without prefixes.
    pub(crate) bytes: u64,
    /// Datagrams that it did not take: the socket's buffer was full.
    pub(crate) crowded_out: u64,
    /// Datagrams that are larger than the path lets pass.
    pub(crate) too_large: u64,
    /// The receiver has no socket there: ICMP said so of this or an earlier datagram.
    pub(crate) is_refused: bool,
    /// Datagrams lost by another error.
    pub(crate) failed: u64,
}

impl Sent {
    pub(crate) fn add(&mut self, other: Self) {
        self.datagrams += other.datagrams;
        self.bytes += other.bytes;
        self.crowded_out += other.crowded_out;
        self.too_large += other.too_large;
        self.is_refused |= other.is_refused;
        self.failed += other.failed;
    }
}

/// Datagrams that may leave as one message: all of one size, but the last, which may be smaller.
#[derive(Debug, Default)]
struct Run<'a> {
    datagrams: Vec<&'a [u8]>,
    bytes: usize,
}

impl<'a> Run<'a> {
    fn takes(&self, datagram: &[u8], prefix: usize) -> bool {
        let (Some(first), Some(last)) = (self.datagrams.first(), self.datagrams.last()) else { return true };
        let is_unbroken = last.len() == first.len() && datagram.len() <= first.len() && !datagram.is_empty();
        is_unbroken && self.datagrams.len() < MAX_SEGMENTS && self.bytes + prefix + datagram.len() <= MAX_MESSAGE
    }

    fn push(&mut self, datagram: &'a [u8], prefix: usize) {
        self.datagrams.push(datagram);
        self.bytes += prefix + datagram.len();
    }
}

/// The way of one flow in one direction.
#[derive(Debug)]
pub(crate) struct Way<'a> {
    pub(crate) socket: BorrowedFd<'a>,
    pub(crate) route: Route,
    /// Bytes before each datagram (a PROXY header); empty: none.
    pub(crate) prefix: &'a [u8],
}

/// Sends datagrams, in order.
pub(crate) fn send_all<'a>(way: &Way<'_>, datagrams: impl Iterator<Item = &'a [u8]>) -> Sent {
    let mut sent = Sent::default();
    let mut run = Run::default();
    for datagram in datagrams {
        if !run.takes(datagram, way.prefix.len()) {
            sent.add(flush(way, &run));
            run = Run::default();
        }
        run.push(datagram, way.prefix.len());
    }
    sent.add(flush(way, &run));
    sent
}

fn flush(way: &Way<'_>, run: &Run<'_>) -> Sent {
    let Some(first) = run.datagrams.first() else { return Sent::default() };
    if run.datagrams.len() > 1 {
        let segment = u16::try_from(way.prefix.len() + first.len()).ok();
        let pieces = pieces(way.prefix, &run.datagrams);
        match send(way.socket, &pieces, Route { segment, ..way.route }) {
            Ok(_) => return taken(&run.datagrams),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Sent { crowded_out: run.datagrams.len() as u64, ..Sent::default() };
            }
            // A device without checksum offload, segments larger than the MTU, an error of an earlier datagram: one by one.
            Err(_) => {}
        }
    }
    let mut sent = Sent::default();
    for datagram in &run.datagrams {
        sent.add(send_one(way, datagram));
    }
    sent
}

fn send_one(way: &Way<'_>, datagram: &[u8]) -> Sent {
    let datagrams = [datagram];
    let pieces = pieces(way.prefix, &datagrams);
    let mut is_refused = false;
    // An error of an earlier datagram is told once, and this datagram was not sent then.
    for _ in 0..2 {
        let error = match send(way.socket, &pieces, way.route) {
            Ok(_) => return Sent { is_refused, ..taken(&datagrams) },
            Err(error) => error,
        };
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED) => is_refused = true,
            Some(libc::EHOSTUNREACH | libc::ENETUNREACH) => {}
            Some(libc::EMSGSIZE) => return Sent { too_large: 1, is_refused, ..Sent::default() },
            Some(libc::EAGAIN | libc::ENOBUFS) => return Sent { crowded_out: 1, is_refused, ..Sent::default() },
            _ => break,
        }
    }
    Sent { failed: 1, is_refused, ..Sent::default() }
}

fn pieces<'a>(prefix: &'a [u8], datagrams: &[&'a [u8]]) -> Vec<IoSlice<'a>> {
    let mut pieces = Vec::with_capacity(datagrams.len() * 2);
    for datagram in datagrams {
        if !prefix.is_empty() {
            pieces.push(IoSlice::new(prefix));
        }
        pieces.push(IoSlice::new(datagram));
    }
    pieces
}

fn taken(datagrams: &[&[u8]]) -> Sent {
    let bytes = datagrams.iter().map(|datagram| datagram.len() as u64).sum();
    Sent { datagrams: datagrams.len() as u64, bytes, ..Sent::default() }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    fn pair() -> (UdpSocket, UdpSocket) {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        sender.connect(receiver.local_addr().expect("bound")).expect("connected");
        receiver.set_nonblocking(true).expect("non-blocking");
        (sender, receiver)
    }

    fn received(receiver: &UdpSocket) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; 65_536];
        std::iter::from_fn(|| receiver.recv(&mut buffer).ok().map(|count| buffer[..count].to_vec())).collect()
    }

    #[test]
    fn datagrams_of_any_sizes_arrive_as_they_were_in_order() {
        let (sender, receiver) = pair();
        let sizes = [1200u64, 1200, 1200, 30, 1200, 0, 0, 5, 5, 5, 9, 8, 7, 2000, 2000, 1];
        let datagrams: Vec<Vec<u8>> = sizes
            .iter()
            .zip(0u8..)
            .map(|(size, index)| (0..*size).map(|at| (at % 251) as u8 ^ index).collect())
            .collect();
        for prefix in [b"".as_slice(), b"PREFIX"] {
            let way = Way { socket: sender.as_fd(), route: Route::default(), prefix };
            let sent = send_all(&way, datagrams.iter().map(Vec::as_slice));
            let expected: Vec<_> = datagrams.iter().map(|datagram| [prefix, datagram].concat()).collect();
            assert!(received(&receiver) == expected, "with prefix {prefix:?}");
            let bytes = sizes.iter().sum::<u64>();
            assert_eq!(sent, Sent { datagrams: sizes.len() as u64, bytes, ..Sent::default() });
        }
    }

    #[test]
    fn more_than_one_message_can_hold_is_several() {
        let (sender, receiver) = pair();
        let datagram = [7; 1400];
        let way = Way { socket: sender.as_fd(), route: Route::default(), prefix: b"" };
        let sent = send_all(&way, std::iter::repeat(datagram.as_slice()).take(70));
        assert_eq!((sent.datagrams, sent.crowded_out), (70, 0));
        assert_eq!(received(&receiver).iter().filter(|got| got.as_slice() == datagram).count(), 70);
    }

    #[test]
    fn an_absent_receiver_and_a_datagram_beyond_all_bounds_are_told_apart() {
        let (sender, receiver) = pair();
        drop(receiver);
        let way = Way { socket: sender.as_fd(), route: Route::default(), prefix: b"" };
        assert_eq!(send_all(&way, [b"x".as_slice()].into_iter()).datagrams, 1);
        let again = send_all(&way, [b"x".as_slice()].into_iter());
        assert!(again.is_refused, "{again:?}");
        assert_eq!(again.datagrams, 1);
        let huge = vec![0; 65_530];
        assert_eq!(send_all(&way, [huge.as_slice()].into_iter()).too_large, 1);
    }
}
