//! All wires of the process and the loop that serves them in fair turns: waits for a frame, a departure or the master.

use std::collections::BTreeMap;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{clock_gettime, ClockId as Clock};

use crate::agenda::{Agenda, Key};
use crate::direction::Way;
use crate::tap::{Tap, TapError};
use crate::wire::{Bench, Impairments, Readings, Wire};

/// Events taken from the kernel at once.
const EVENTS: usize = 64;
const NS_PER_SECOND: u64 = 1_000_000_000;
const TIMER: u64 = u64::MAX;
const MASTER: u64 = u64::MAX - 1;

/// A wire, or what is left of one whose device went away.
#[derive(Debug)]
enum State {
    Carrying(Box<Wire>),
    Ended { name: String, why: String, readings: Box<Readings> },
}

/// What is told of a wire.
#[derive(Debug, serde::Serialize)]
pub(crate) struct WireReading {
    #[serde(flatten)]
    pub(crate) readings: Readings,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ended: Option<String>,
}

/// Why carrying was interrupted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Interruption {
    /// The master can be read, or written if an answer waits.
    Master { is_hung_up: bool },
    /// A wire has ended.
    WireEnded,
}

/// The wires by a number that is given once.
#[derive(Debug)]
pub(crate) struct Exchange {
    epoll: Epoll,
    timer: TimerFd,
    /// What the timer is set to.
    alarm_ns: Option<u64>,
    agenda: Agenda,
    wires: BTreeMap<u64, State>,
    next_number: u64,
    /// A wire has ended since carrying was last interrupted.
    has_ended: bool,
    /// Directions that have had their turn; kept for its memory.
    served: Vec<Key>,
    bench: Bench,
}

impl State {
    fn name(&self) -> &str {
        match self {
            Self::Carrying(wire) => &wire.name,
            Self::Ended { name, .. } => name,
        }
    }
}

impl Exchange {
    pub(crate) fn new() -> Result<Self, TapError> {
        let refused = |errno| TapError::host("epoll and timer", errno);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(refused)?;
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).map_err(refused)?;
        // Edge-triggered: an alarm is told once, and setting it anew is all that it takes.
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, TIMER);
        epoll.add(timer.as_fd(), event).map_err(refused)?;
        Ok(Self {
            epoll,
            timer,
            alarm_ns: None,
            agenda: Agenda::default(),
            wires: BTreeMap::new(),
            next_number: 0,
            has_ended: false,
            served: Vec::new(),
            bench: Bench::new(monotonic_ns),
        })
    }

    /// Has `master` watched: for reading, or for writing while an answer waits.
    pub(crate) fn watch_master(&self, master: BorrowedFd<'_>) -> Result<(), TapError> {
        self.epoll
            .add(master, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, MASTER))
            .map_err(|errno| TapError::host("epoll", errno))
    }

    /// Says whether the master is to be heard or to be answered next.
    pub(crate) fn turn_master(&self, master: BorrowedFd<'_>, has_answer: bool) -> Result<(), TapError> {
        let flags = if has_answer { EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP };
        self.epoll.modify(master, &mut EpollEvent::new(flags, MASTER)).map_err(|errno| TapError::host("epoll", errno))
    }

    /// Begins to carry. A wire of this name that has ended is replaced.
    pub(crate) fn attach(
        &mut self,
        name: &str,
        seed: u64,
        ends: (Tap, Tap),
        impairments: Impairments,
    ) -> Result<(), String> {
        let former = self.number_of(name);
        if former.is_some_and(|number| matches!(self.wires.get(&number), Some(State::Carrying(_)))) {
            return Err(format!("wire {name} is attached already; detach it first"));
        }
        let wire =
            Wire::new(name.to_owned(), seed, ends, impairments).map_err(|error| format!("wire {name}: {error}"))?;
        let number = self.next_number;
        for (tap, way) in [(&wire.a, Way::AToB), (&wire.b, Way::BToA)] {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, key(number, way));
            if let Err(errno) = self.epoll.add(tap.as_fd(), event) {
                self.unwatch(&wire);
                return Err(format!("wire {name}: epoll: {}; is one descriptor given for both ends?", errno.desc()));
            }
        }
        self.next_number += 1;
        if let Some(former) = former {
            self.wires.remove(&former);
        }
        self.wires.insert(number, State::Carrying(Box::new(wire)));
        Ok(())
    }

    /// Frames that come from now on meet what `to` makes of the present values.
    pub(crate) fn change(&mut self, name: &str, to: impl FnOnce(Impairments) -> Impairments) -> Result<(), String> {
        let number = self.number_of(name).ok_or_else(|| self.no_wire(name))?;
        match self.wires.get_mut(&number) {
            Some(State::Carrying(wire)) => {
                let values = to(wire.impairments());
                let changed = wire.change((self.bench.clock)(), values);
                // Frames may leave sooner than was noted.
                [Way::AToB, Way::BToA].into_iter().for_each(|way| self.note(key(number, way)));
                changed.map_err(|error| format!("wire {name}: {error}"))
            }
            Some(State::Ended { why, .. }) => Err(format!("wire {name} has ended: {why}; attach it anew")),
            None => Err(self.no_wire(name)),
        }
    }

    /// Forgets the wire, with the frames in it, and closes its descriptors.
    pub(crate) fn detach(&mut self, name: &str) -> Result<(), String> {
        let number = self.number_of(name).ok_or_else(|| self.no_wire(name))?;
        if let Some(State::Carrying(wire)) = self.wires.remove(&number) {
            self.unwatch(&wire);
        }
        self.forget_departures(number);
        Ok(())
    }

    /// All wires, or the one of this name.
    pub(crate) fn read(&self, only: Option<&str>) -> Result<BTreeMap<&str, WireReading>, String> {
        let read: BTreeMap<&str, WireReading> = self
            .wires
            .values()
            .filter(|state| only.map_or(true, |name| name == state.name()))
            .map(|state| (state.name(), reading(state)))
            .collect();
        match only {
            Some(name) if read.is_empty() => Err(self.no_wire(name)),
            _ => Ok(read),
        }
    }

    /// Why the first wire that has ended did so.
    pub(crate) fn first_end(&self) -> Option<&str> {
        self.wires.values().find_map(|state| match state {
            State::Carrying(_) => None,
            State::Ended { why, .. } => Some(why.as_str()),
        })
    }

    /// Carries until the master has something to say, or a wire has ended.
    pub(crate) fn carry(&mut self) -> Result<Interruption, TapError> {
        let mut events = [EpollEvent::empty(); EVENTS];
        let hang_up = EpollFlags::EPOLLHUP | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLERR;
        loop {
            self.send_due();
            let timeout = self.set_alarm()?;
            let count = match self.epoll.wait(&mut events, timeout) {
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(TapError::host("epoll", errno)),
            };
            let mut said = None;
            for event in events.iter().take(count) {
                match event.data() {
                    TIMER => self.alarm_ns = None,
                    MASTER => said = Some(event.events().intersects(hang_up)),
                    key => {
                        self.take_turn(key, event.events().contains(EpollFlags::EPOLLERR));
                        self.send_due();
                    }
                }
            }
            if let Some(is_hung_up) = said {
                return Ok(Interruption::Master { is_hung_up });
            }
            if mem::take(&mut self.has_ended) {
                return Ok(Interruption::WireEnded);
            }
        }
    }

    /// Each direction that is due has one turn, so that none keeps the others waiting.
    fn send_due(&mut self) {
        let now_ns = (self.bench.clock)();
        let mut served = mem::take(&mut self.served);
        while let Some(key) = self.agenda.take_due(now_ns) {
            served.push(key);
            let (number, way) = parts(key);
            if let Some(State::Carrying(wire)) = self.wires.get_mut(&number) {
                if let Err(error) = wire.send_due(way, &mut self.bench) {
                    self.end(number, &error);
                }
            }
        }
        served.drain(..).for_each(|key| self.note(key));
        self.served = served;
    }

    fn take_turn(&mut self, key: Key, is_broken: bool) {
        let (number, way) = parts(key);
        if let Some(State::Carrying(wire)) = self.wires.get_mut(&number) {
            if let Err(error) = wire.take_turn(way, is_broken, &mut self.bench) {
                self.end(number, &error);
            }
            self.note(key);
        }
    }

    fn note(&mut self, key: Key) {
        let (number, way) = parts(key);
        if let Some(State::Carrying(wire)) = self.wires.get(&number) {
            if let Some(due_ns) = wire.next_departure_ns(way) {
                self.agenda.note(key, due_ns);
            }
        }
    }

    /// How long to wait for events: not at all if something is due, else until the timer says so.
    fn set_alarm(&mut self) -> Result<EpollTimeout, TapError> {
        let next_ns = self.agenda.next_ns();
        if next_ns.is_some_and(|due_ns| due_ns <= (self.bench.clock)()) {
            return Ok(EpollTimeout::ZERO);
        }
        if let Some(due_ns) = next_ns.filter(|_| next_ns != self.alarm_ns) {
            let refused = |errno| TapError::host("timer", errno);
            let seconds = i64::try_from(due_ns / NS_PER_SECOND).map_err(|_| refused(Errno::EOVERFLOW))?;
            let rest = i64::try_from(due_ns % NS_PER_SECOND).map_err(|_| refused(Errno::EOVERFLOW))?;
            let moment = Expiration::OneShot(TimeSpec::new(seconds, rest));
            self.timer.set(moment, TimerSetTimeFlags::TFD_TIMER_ABSTIME).map_err(refused)?;
            self.alarm_ns = next_ns;
        }
        Ok(EpollTimeout::NONE)
    }

    fn end(&mut self, number: u64, error: &TapError) {
        self.has_ended = true;
        if let Some(State::Carrying(wire)) = self.wires.remove(&number) {
            self.unwatch(&wire);
            let (readings, why) = (Box::new(wire.readings()), error.to_string());
            self.wires.insert(number, State::Ended { name: wire.name, why, readings });
        }
        self.forget_departures(number);
    }

    /// Closing is not enough: the sender of a descriptor may still hold its own.
    fn unwatch(&self, wire: &Wire) {
        for tap in [&wire.a, &wire.b] {
            // It fails for an end that was not watched yet, which is as well.
            let _ = self.epoll.delete(tap.as_fd());
        }
    }

    fn forget_departures(&mut self, number: u64) {
        [Way::AToB, Way::BToA].into_iter().for_each(|way| self.agenda.forget(key(number, way)));
    }

    fn number_of(&self, name: &str) -> Option<u64> {
        self.wires.iter().find(|(_, state)| state.name() == name).map(|(number, _)| *number)
    }

    fn no_wire(&self, name: &str) -> String {
        let mut names: Vec<&str> = self.wires.values().map(State::name).collect();
        names.sort_unstable();
        match names.as_slice() {
            [] => format!("there is no wire {name}; none is attached"),
            names if names.len() > 10 => format!("there is no wire {name} among the {} attached", names.len()),
            names => format!("there is no wire {name}; attached are {}", names.join(", ")),
        }
    }
}

/// The event of a TAP is known by its wire and the direction that begins there.
fn key(number: u64, way: Way) -> Key {
    number * 2 + u64::from(way == Way::BToA)
}

fn parts(key: Key) -> (u64, Way) {
    (key / 2, if key % 2 == 0 { Way::AToB } else { Way::BToA })
}

fn reading(state: &State) -> WireReading {
    match state {
        State::Carrying(wire) => WireReading { readings: wire.readings(), ended: None },
        State::Ended { why, readings, .. } => {
            WireReading { readings: Readings::clone(readings), ended: Some(why.clone()) }
        }
    }
}

/// CLOCK_MONOTONIC, the clock of the timer.
fn monotonic_ns() -> u64 {
    // It cannot fail on Linux; a time of zero would hold frames back, not lose them.
    let now = clock_gettime(Clock::CLOCK_MONOTONIC).unwrap_or(TimeSpec::new(0, 0));
    u64::try_from(now.tv_sec()).unwrap_or(0) * NS_PER_SECOND + u64::try_from(now.tv_nsec()).unwrap_or(0)
}
