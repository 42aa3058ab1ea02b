//! One conversation of an inside endpoint with one far endpoint: its TCP state and how long it lives without packets.

use std::net::SocketAddrV4;
use std::time::Duration;

use crate::packet::{Protocol, Signal, TcpFlags};
use crate::settings::{Refresh, Timers};

const DNS: u16 = 53;

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Outbound,
    Inbound,
}

/// A session is known by its outside endpoint and its far one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionKey {
    pub(crate) protocol: Protocol,
    pub(crate) outside: SocketAddrV4,
    pub(crate) remote: SocketAddrV4,
}

/// Whose a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The inside endpoint it is translated for.
    Inside(SocketAddrV4),
    /// The router itself: never translated, but its port is not given to others.
    Router,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) owner: Owner,
    /// When it ends, since the table's start.
    pub(crate) deadline: Duration,
    /// When the table looks at it next; never after the deadline.
    pub(crate) looked_at: Duration,
    /// Whether the inside has sent to the far end, which is what filters ask.
    pub(crate) has_sent: bool,
    /// The inside endpoint that the far end is, of a hairpinned session.
    pub(crate) hairpin: Option<SocketAddrV4>,
    tcp: TcpState,
}

impl Session {
    pub(crate) fn new(owner: Owner) -> Self {
        Self {
            owner,
            deadline: Duration::ZERO,
            looked_at: Duration::MAX,
            has_sent: false,
            hairpin: None,
            tcp: TcpState::default(),
        }
    }

    /// Takes a packet into account; the new deadline, or None if it changes nothing.
    pub(crate) fn observe(
        &mut self,
        now: Duration,
        direction: Direction,
        signal: Signal,
        remote: SocketAddrV4,
        timers: &Timers,
        refresh: Refresh,
    ) -> Option<Duration> {
        let lifetime = match signal {
            Signal::Segment(flags) => {
                self.tcp.observe(direction, flags);
                if self.tcp.is_established() {
                    timers.tcp_established
                } else {
                    timers.tcp_transitory
                }
            }
            _ if direction == Direction::Inbound && refresh == Refresh::Outbound => return None,
            Signal::Datagram if remote.port() == DNS => timers.udp_dns.unwrap_or(timers.udp),
            Signal::Datagram => timers.udp,
            Signal::Query | Signal::Answer => timers.icmp,
        };
        self.deadline = now.saturating_add(lifetime);
        Some(self.deadline)
    }

    /// Its state in one word, for people.
    pub(crate) fn state(&self, protocol: Protocol) -> &'static str {
        match protocol {
            Protocol::Tcp if self.tcp.is_established() => "established",
            Protocol::Tcp => "transitory",
            Protocol::Udp | Protocol::Icmp => "active",
        }
    }
}

/// What a NAT knows of a connection (RFC 5382 section 5, RFC 6146 section 3.5.2.2): established once both sides have
/// spoken and one of them goes on after its SYN; transitory before, after both FINs, and after a reset, which the next
/// segment of a connection that lives on takes back.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct TcpState {
    spoke_out: bool,
    spoke_in: bool,
    went_on: bool,
    fin_out: bool,
    fin_in: bool,
    reset: bool,
}

impl TcpState {
    fn observe(&mut self, direction: Direction, flags: TcpFlags) {
        if flags.rst {
            self.reset = true;
            return;
        }
        if flags.is_opening() && !self.is_established() && self.went_on {
            *self = Self::default(); // the same ports again, for a new connection
        }
        self.reset = false;
        let (spoke, fin) = match direction {
            Direction::Outbound => (&mut self.spoke_out, &mut self.fin_out),
            Direction::Inbound => (&mut self.spoke_in, &mut self.fin_in),
        };
        *spoke = true;
        *fin |= flags.fin;
        self.went_on |= self.spoke_out && self.spoke_in && !flags.syn;
    }

    fn is_established(self) -> bool {
        self.went_on && !self.reset && !(self.fin_out && self.fin_in)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Inbound, Outbound};

    fn flags(letters: &str) -> TcpFlags {
        let has = |letter| letters.contains(letter);
        TcpFlags { syn: has('S'), ack: has('A'), fin: has('F'), rst: has('R') }
    }

    fn is_established_after(packets: &[(Direction, &str)]) -> bool {
        let mut state = TcpState::default();
        for (direction, letters) in packets {
            state.observe(*direction, flags(letters));
        }
        state.is_established()
    }

    const HANDSHAKE: [(Direction, &str); 3] = [(Outbound, "S"), (Inbound, "SA"), (Outbound, "A")];

    fn then(more: &[(Direction, &'static str)]) -> bool {
        is_established_after(&[&HANDSHAKE, more].concat())
    }

    #[test]
    fn a_handshake_establishes_and_nothing_less() {
        for length in 0..HANDSHAKE.len() {
            assert!(!is_established_after(&HANDSHAKE[..length]));
        }
        assert!(is_established_after(&HANDSHAKE));
        assert!(is_established_after(&[(Inbound, "S"), (Outbound, "SA"), (Inbound, "A")]));
    }

    #[test]
    fn a_simultaneous_open_establishes() {
        let both = [(Outbound, "S"), (Inbound, "S"), (Outbound, "SA"), (Inbound, "SA")];
        assert!(!is_established_after(&both));
        assert!(is_established_after(&[&both[..], &[(Outbound, "A")]].concat()));
    }

    #[test]
    fn one_fin_is_half_a_close_and_two_are_one() {
        assert!(then(&[(Outbound, "FA")]));
        assert!(then(&[(Outbound, "FA"), (Inbound, "A"), (Inbound, "A")]));
        assert!(!then(&[(Outbound, "FA"), (Inbound, "FA")]));
    }

    #[test]
    fn a_reset_ends_unless_the_connection_goes_on() {
        assert!(!then(&[(Inbound, "R")]));
        assert!(then(&[(Inbound, "R"), (Outbound, "A")]));
    }

    #[test]
    fn the_same_ports_can_open_again() {
        let closed = [(Outbound, "FA"), (Inbound, "FA"), (Outbound, "A")];
        assert!(!then(&[&closed[..], &[(Outbound, "S")]].concat()));
        assert!(then(&[&closed[..], &HANDSHAKE].concat()));
    }

    #[test]
    fn a_connection_met_halfway_is_established_by_its_answer() {
        assert!(!is_established_after(&[(Outbound, "A")]));
        assert!(is_established_after(&[(Outbound, "A"), (Inbound, "A")]));
    }
}
