//! The running NAT: packets from the queues to the table, its fates back as verdicts; signals and questions in between.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::answers::Answers;
use crate::kernel::{give_up_privileges, Inbox, Queues, RawSocket};
use crate::netlink::{self, Message, Queued};
use crate::packet::{self, Packet};
use crate::report;
use crate::reset;
use crate::rewrite;
use crate::rules::{ADMITTED_MARK, ARRIVING_QUEUE, HAIRPIN_MARK, HAIRPIN_SOURCE_QUEUE, OUTBOUND_QUEUE};
use crate::settings::{Settings, TcpUnsolicited};
use crate::table::{Fate, Mark, Passage, Table};

const QUEUES: [u16; 3] = [OUTBOUND_QUEUE, ARRIVING_QUEUE, HAIRPIN_SOURCE_QUEUE];
/// Answers of the kernel to the requests that bind one queue.
const ANSWERS_PER_QUEUE: u32 = 2;
/// Packets that may wait in a queue; further ones are dropped, as by a router whose buffer is full.
const LONGEST_QUEUE: u32 = 2048;
/// Bytes of verdicts sent at once. With a longest packet more it still fits the socket's send buffer of 208 KiB.
const BATCH_BYTES: usize = 64 * 1024;

/// Why a NAT cannot run, or cannot go on.
#[derive(Debug)]
pub(crate) enum ServeError {
    /// The outside interface is not there.
    NoInterface { name: String },
    /// The host or the rights lack something.
    Host { what: String, cause: io::Error },
    /// It ran, and failed.
    Failed { what: &'static str, cause: io::Error },
}

/// Translates until SIGTERM or SIGINT; calls `ready` once all queues are bound and privileges given up.
pub(crate) fn until_signal(
    settings: Settings,
    seed: u64,
    socket: Option<&Path>,
    ready: impl FnOnce() -> io::Result<()>,
) -> Result<(), ServeError> {
    let host = |what: &str| {
        let what = what.to_owned();
        move |cause| ServeError::Host { what, cause }
    };
    let outside = if_nametoindex(settings.interface.as_str())
        .map_err(|_| ServeError::NoInterface { name: settings.interface.clone() })?;
    let own = addresses_of(&settings.interface).map_err(|errno| host("addresses of the interface")(errno.into()))?;
    let asked_at = |path: &Path| Answers::listen(path).map_err(host(&path.display().to_string()));
    let mut answers = socket.map(asked_at).transpose()?;
    let signals = signals().map_err(|errno| host("signalfd")(errno.into()))?;
    let resets = match settings.tcp_unsolicited {
        TcpUnsolicited::Reset => Some(RawSocket::open().map_err(host("a raw socket, for resets"))?),
        TcpUnsolicited::Drop | TcpUnsolicited::Pass => None,
    };
    let queues = Queues::open().map_err(host("netlink socket for packet queues"))?;
    let mut nat = Nat {
        table: Table::new(settings, seed).with_own(own),
        outside,
        queues,
        resets,
        start: Instant::now(),
        verdicts: Vec::new(),
    };
    let mut inbox = Inbox::new();
    nat.bind(&mut inbox)?;
    give_up_privileges().map_err(host("giving up privileges"))?;
    ready().map_err(|cause| ServeError::Failed { what: "stdout", cause })?;
    loop {
        let woken = Woken::wait(&nat.queues, &signals, answers.as_ref())
            .map_err(|errno| ServeError::Failed { what: "poll", cause: errno.into() })?;
        if woken.by_packets {
            nat.carry(&mut inbox, |_| Ok(()))?;
        }
        // Whoever asks after a signal is answered after it too, though poll may have seen the question alone.
        if woken.by_signal || woken.by_question {
            match signals.read_signal() {
                Ok(Some(info)) if info.ssi_signo == libc::SIGHUP.unsigned_abs() => nat.table.flush(),
                Ok(Some(_)) => return Ok(()),
                Ok(None) | Err(_) => {}
            }
        }
        if let Some(answers) = &mut answers {
            if woken.by_question {
                answers.begin(|| report::json_line(&mut nat.table, nat.start.elapsed()));
            }
            if woken.by_reader {
                answers.go_on();
            }
        }
    }
}

struct Nat {
    table: Table,
    /// Index of the outside interface.
    outside: u32,
    queues: Queues,
    resets: Option<RawSocket>,
    start: Instant,
    verdicts: Vec<u8>,
}

/// The kernel's answer to a request.
struct Answer {
    sequence: u32,
    error: i32,
}

impl Nat {
    /// Binds the queues. Packets can come from the first before the last is bound, and get their verdicts.
    fn bind(&mut self, inbox: &mut Inbox) -> Result<(), ServeError> {
        let mut sequence = 1;
        for queue in QUEUES {
            let sent = self.queues.send(&netlink::bind(queue, LONGEST_QUEUE, sequence));
            sent.map_err(|cause| ServeError::Host { what: format!("packet queue {queue}"), cause })?;
            let mut last = 0;
            while last < sequence + ANSWERS_PER_QUEUE - 1 {
                self.carry(inbox, |answer| {
                    last = answer.sequence;
                    bound(queue, answer.error)
                })?;
            }
            sequence += ANSWERS_PER_QUEUE;
        }
        Ok(())
    }

    /// Gives every waiting packet its verdict, and the kernel's answers to `answered`.
    fn carry(
        &mut self,
        inbox: &mut Inbox,
        mut answered: impl FnMut(Answer) -> Result<(), ServeError>,
    ) -> Result<(), ServeError> {
        let failed = |cause| ServeError::Failed { what: "packet queues", cause };
        let now = self.start.elapsed();
        let Self { table, outside, queues, resets, verdicts, .. } = self;
        for mut datagram in queues.receive(inbox).map_err(failed)? {
            while let Some(message) = netlink::next(&mut datagram) {
                match message {
                    Message::Packet(queued) => {
                        let passage = passage_of(&queued, *outside);
                        judge(table, resets.as_ref(), now, passage, queued, verdicts);
                    }
                    Message::Answer { sequence, error } => answered(Answer { sequence, error })?,
                    Message::Other => {}
                }
            }
            if verdicts.len() >= BATCH_BYTES {
                queues.send(verdicts).map_err(failed)?;
                verdicts.clear();
            }
        }
        if !verdicts.is_empty() {
            queues.send(verdicts).map_err(failed)?;
            verdicts.clear();
        }
        Ok(())
    }
}

fn passage_of(queued: &Queued<'_>, outside: u32) -> Passage {
    match queued.queue {
        OUTBOUND_QUEUE => Passage::Outbound,
        ARRIVING_QUEUE if queued.arrived_by == outside => Passage::Inbound,
        ARRIVING_QUEUE => Passage::Hairpin,
        _ => Passage::HairpinSource,
    }
}

fn judge(
    table: &mut Table,
    resets: Option<&RawSocket>,
    now: Duration,
    passage: Passage,
    queued: Queued<'_>,
    verdicts: &mut Vec<u8>,
) {
    let Queued { queue, id, payload, .. } = queued;
    let Ok((packet, layout)) = packet::parse(payload) else {
        // To the router itself, which knows what to do with it; never out with an inside address.
        if matches!(passage, Passage::Inbound | Passage::Hairpin) {
            netlink::accept(verdicts, queue, id, None, None);
        } else {
            table.count_unreadable();
            netlink::drop(verdicts, queue, id);
        }
        return;
    };
    match table.decide(now, passage, &packet) {
        Fate::Pass => netlink::accept(verdicts, queue, id, None, None),
        Fate::Translate { rewrite, mark } => {
            rewrite::apply(payload, &packet, &layout, &rewrite);
            let mark = match mark {
                Mark::None => None,
                Mark::Hairpin => Some(HAIRPIN_MARK),
                Mark::Admitted => Some(ADMITTED_MARK),
            };
            netlink::accept(verdicts, queue, id, Some(payload), mark);
        }
        Fate::Drop(_) => netlink::drop(verdicts, queue, id),
        Fate::Reset => {
            netlink::drop(verdicts, queue, id);
            if let (Some(socket), Packet::Flow { flow, .. }) = (resets, packet) {
                if let Some(answer) = reset::answer(payload, &layout) {
                    socket.send(&answer, flow.source);
                }
            }
        }
    }
}

fn bound(queue: u16, error: i32) -> Result<(), ServeError> {
    let what = match error {
        0 => return Ok(()),
        libc::EPERM => {
            format!("packet queue {queue} (it takes CAP_NET_ADMIN here, and no other program that has the queue)")
        }
        _ => format!("packet queue {queue}"),
    };
    Err(ServeError::Host { what, cause: io::Error::from_raw_os_error(error) })
}

/// The IPv4 addresses of an interface.
fn addresses_of(interface: &str) -> Result<Vec<Ipv4Addr>, Errno> {
    let of_interface = getifaddrs()?.filter(|found| found.interface_name == interface);
    Ok(of_interface.filter_map(|found| Some(found.address?.as_sockaddr_in()?.ip())).collect())
}

fn signals() -> Result<SignalFd, Errno> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT] {
        set.add(signal);
    }
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// What there is to do.
struct Woken {
    by_packets: bool,
    by_signal: bool,
    by_question: bool,
    by_reader: bool,
}

impl Woken {
    fn wait(queues: &Queues, signals: &SignalFd, answers: Option<&Answers>) -> Result<Self, Errno> {
        let mut watched =
            vec![PollFd::new(queues.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        if let Some(answers) = answers {
            watched.push(PollFd::new(answers.questions(), PollFlags::POLLIN));
            watched.extend(answers.readers().map(|reader| PollFd::new(reader, PollFlags::POLLOUT)));
        }
        match poll(&mut watched, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        let is_ready = |index: usize| watched.get(index).and_then(|fd| fd.any()).unwrap_or(false);
        let by_reader = (3..watched.len()).any(is_ready);
        Ok(Self { by_packets: is_ready(0), by_signal: is_ready(1), by_question: is_ready(2), by_reader })
    }
}
