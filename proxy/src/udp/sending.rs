//! Sending many datagrams of one flow with few calls: neighbours of equal size go down the kernel's stack as one (UDP_SEGMENT).

use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use crate::kernel::{send, Route};

use super::absence::Absence;

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
    /// Nobody is at the receiver's address, as was said of this or an earlier datagram.
    pub(crate) absence: Option<Absence>,
    /// Datagrams lost by another error.
    pub(crate) failed: u64,
}

impl Sent {
    pub(crate) fn add(&mut self, other: Self) {
        self.datagrams += other.datagrams;
        self.bytes += other.bytes;
        self.crowded_out += other.crowded_out;
        self.too_large += other.too_large;
        self.absence = other.absence.or(self.absence);
        self.failed += other.failed;
    }
}

/// Datagrams of one flow that lie side by side: all of the size `segment`, but the last, which may be smaller. Bytes that are
/// none are one datagram too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Joined<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) segment: usize,
}

impl<'a> Joined<'a> {
    /// One datagram.
    pub(crate) fn one(datagram: &'a [u8]) -> Self {
        Self { bytes: datagram, segment: datagram.len() }
    }

    /// Each by itself.
    pub(crate) fn datagrams(self) -> impl Iterator<Item = &'a [u8]> {
        let empty = self.bytes.is_empty().then_some(self.bytes);
        empty.into_iter().chain(self.bytes.chunks(self.segment.max(1)))
    }

    /// How many they are.
    pub(crate) fn count(self) -> usize {
        self.bytes.len().div_ceil(self.segment.max(1)).max(1)
    }
}

/// What may leave as one message: datagrams of one size, but the last, which may be smaller.
#[derive(Debug, Default)]
struct Run<'a> {
    joined: Vec<Joined<'a>>,
    segment: usize,
    datagrams: usize,
    bytes: usize,
    /// The last one is smaller, or empty: nothing can follow it.
    is_closed: bool,
}

impl<'a> Run<'a> {
    fn takes(&self, joined: Joined<'_>, prefix: usize) -> bool {
        let (first, count) = (joined.bytes.len().min(joined.segment), joined.count());
        let bytes = self.bytes + joined.bytes.len() + (self.datagrams + count) * prefix;
        let is_room = self.datagrams + count <= MAX_SEGMENTS && bytes <= MAX_MESSAGE;
        if self.joined.is_empty() {
            return is_room;
        }
        // A last one may be smaller; one that others follow must be of the size of all.
        let fits = first == self.segment || count == 1 && first < self.segment;
        !self.is_closed && fits && !joined.bytes.is_empty() && is_room
    }

    fn push(&mut self, joined: Joined<'a>) {
        if self.joined.is_empty() {
            self.segment = joined.segment.min(joined.bytes.len());
        }
        self.datagrams += joined.count();
        self.bytes += joined.bytes.len();
        self.is_closed = self.segment == 0 || joined.bytes.len() % self.segment != 0;
        self.joined.push(joined);
    }

    fn clear(&mut self) {
        *self = Self { joined: std::mem::take(&mut self.joined), ..Self::default() };
        self.joined.clear();
    }

    fn each(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        self.joined.iter().flat_map(|joined| joined.datagrams())
    }

    fn sent(&self) -> Sent {
        Sent { datagrams: self.datagrams as u64, bytes: self.bytes as u64, ..Sent::default() }
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
pub(crate) fn send_all<'a>(way: &Way<'_>, joined: impl Iterator<Item = Joined<'a>>) -> Sent {
    let mut sent = Sent::default();
    let mut run = Run::default();
    for joined in joined {
        if !run.takes(joined, way.prefix.len()) {
            sent.add(flush(way, &run));
            run.clear();
        }
        if run.takes(joined, way.prefix.len()) {
            run.push(joined);
            continue;
        }
        // With a header before each, they are more than one message holds.
        for datagram in joined.datagrams().map(Joined::one) {
            if !run.takes(datagram, way.prefix.len()) {
                sent.add(flush(way, &run));
                run.clear();
            }
            run.push(datagram);
        }
    }
    sent.add(flush(way, &run));
    sent
}

fn flush(way: &Way<'_>, run: &Run<'_>) -> Sent {
    let mut absence = None;
    if run.datagrams > 1 {
        let segment = u16::try_from(way.prefix.len() + run.segment).ok();
        let pieces = pieces(way.prefix, run);
        // An error of an earlier datagram is told once, and nothing was sent then.
        for _ in 0..2 {
            match send(way.socket, &pieces, Route { segment, ..way.route }) {
                Ok(_) => return Sent { absence, ..run.sent() },
                Err(error) => match (error.raw_os_error(), Absence::told_by(&error)) {
                    (_, Some(told)) => absence = Some(told),
                    (Some(libc::EAGAIN | libc::ENOBUFS), None) => {
                        return Sent { crowded_out: run.datagrams as u64, absence, ..Sent::default() };
                    }
                    // A device without checksum offload, segments larger than the MTU: one by one.
                    _ => break,
                },
            }
        }
    }
    let mut sent = Sent { absence, ..Sent::default() };
    for datagram in run.each() {
        sent.add(send_one(way, datagram));
    }
    sent
}

fn send_one(way: &Way<'_>, datagram: &[u8]) -> Sent {
    let pieces = [IoSlice::new(way.prefix), IoSlice::new(datagram)];
    let pieces = if way.prefix.is_empty() { pieces.get(1..).unwrap_or_default() } else { pieces.as_slice() };
    let (mut absence, mut is_too_large) = (None, false);
    // As above.
    for _ in 0..3 {
        let error = match send(way.socket, pieces, way.route) {
            Ok(_) => return Sent { datagrams: 1, bytes: datagram.len() as u64, absence, ..Sent::default() },
            Err(error) => error,
        };
        match (error.raw_os_error(), Absence::told_by(&error)) {
            (_, Some(told)) => absence = Some(told),
            // Of a connected socket, that may be what ICMP said of an earlier one. It is told once.
            (Some(libc::EMSGSIZE), None) if !is_too_large => is_too_large = true,
            (Some(libc::EMSGSIZE), None) => return Sent { too_large: 1, absence, ..Sent::default() },
            (Some(libc::EAGAIN | libc::ENOBUFS), None) => return Sent { crowded_out: 1, absence, ..Sent::default() },
            _ => break,
        }
    }
    Sent { failed: 1, absence, ..Sent::default() }
}

fn pieces<'a>(prefix: &'a [u8], run: &Run<'a>) -> Vec<IoSlice<'a>> {
    if prefix.is_empty() {
        return run.joined.iter().map(|joined| IoSlice::new(joined.bytes)).collect();
    }
    run.each().flat_map(|datagram| [IoSlice::new(prefix), IoSlice::new(datagram)]).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};
    use std::os::fd::AsFd;
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::*;

    /// The receiver is at an address that no other test has: where it was, nobody else is when it has gone.
    fn pair() -> (UdpSocket, UdpSocket) {
        static GIVEN: AtomicU8 = AtomicU8::new(1);
        let (process, number) = (std::process::id().to_be_bytes(), GIVEN.fetch_add(1, Ordering::Relaxed));
        let own = Ipv4Addr::new(127, 160 + process[2] % 32, process[3], number);
        let receiver = UdpSocket::bind((own, 0)).expect("a socket");
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        sender.connect(receiver.local_addr().expect("bound")).expect("connected");
        receiver.set_nonblocking(true).expect("non-blocking");
        socket2::SockRef::from(&receiver).set_recv_buffer_size(1 << 20).expect("as much as the kernel allows");
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
            let sent = send_all(&way, datagrams.iter().map(|datagram| Joined::one(datagram)));
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
        let sent = send_all(&way, std::iter::repeat(Joined::one(&datagram)).take(70));
        assert_eq!((sent.datagrams, sent.crowded_out), (70, 0));
        assert_eq!(received(&receiver).iter().filter(|got| got.as_slice() == datagram).count(), 70);
    }

    #[test]
    fn an_absent_receiver_and_a_datagram_beyond_all_bounds_are_told_apart() {
        let (sender, receiver) = pair();
        drop(receiver);
        let way = Way { socket: sender.as_fd(), route: Route::default(), prefix: b"" };
        assert_eq!(send_all(&way, [Joined::one(b"x")].into_iter()).datagrams, 1);
        let again = send_all(&way, [Joined::one(b"x")].into_iter());
        assert_eq!((again.absence, again.datagrams), (Some(Absence::Refused), 1));
        let huge = vec![0; 65_530];
        assert_eq!(send_all(&way, [Joined::one(&huge)].into_iter()).too_large, 1);
    }

    #[test]
    fn what_arrived_joined_leaves_as_it_was_whatever_stands_beside_it() {
        let (sender, receiver) = pair();
        let bytes: Vec<u8> = (0..=252u8).cycle().take(64_000).collect();
        let of = |length: usize, segment| Joined { bytes: &bytes[..length], segment };
        // A short last one closes a message; sizes change; one is empty; one is as many as a message holds.
        let joined = [
            of(3600, 1200),
            of(2500, 1200),
            of(1200, 1200),
            of(700, 700),
            of(0, 0),
            of(50, 50),
            of(64, 1),
            of(63_900, 1065),
            of(4, 1065),
        ];
        for prefix in [b"".as_slice(), b"HEAD", &[9; 536]] {
            let way = Way { socket: sender.as_fd(), route: Route::default(), prefix };
            // Two at a time, for all of them at once are more than a socket's buffer holds.
            for (from, part) in joined.windows(2).enumerate() {
                let sent = send_all(&way, part.iter().copied());
                let datagrams: Vec<_> = part.iter().flat_map(|joined| joined.datagrams()).collect();
                let expected: Vec<_> = datagrams.iter().map(|datagram| [prefix, datagram].concat()).collect();
                assert_eq!(sent.datagrams, expected.len() as u64, "{sent:?}");
                assert_eq!(sent.bytes, part.iter().map(|joined| joined.bytes.len() as u64).sum::<u64>());
                assert!(received(&receiver) == expected, "from {from}, with {} before each", prefix.len());
            }
        }
    }

    #[test]
    fn a_message_of_many_that_is_told_of_an_old_error_is_sent_all_the_same() {
        let (sender, receiver) = pair();
        let address = receiver.local_addr().expect("bound");
        drop(receiver);
        let way = Way { socket: sender.as_fd(), route: Route::default(), prefix: b"" };
        assert_eq!(send_all(&way, [Joined::one(b"x")].into_iter()).datagrams, 1);
        let receiver = UdpSocket::bind(address).expect("the same address");
        let sent = send_all(&way, [Joined { bytes: b"abcde", segment: 2 }].into_iter());
        assert_eq!(sent, Sent { datagrams: 3, bytes: 5, absence: Some(Absence::Refused), ..Sent::default() });
        receiver.set_nonblocking(true).expect("non-blocking");
        assert_eq!(received(&receiver), [b"ab".as_slice(), b"cd", b"e"]);
    }
}
