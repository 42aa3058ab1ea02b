//! The rule keeper: a small process beside the proxy that alone may change rules. It installs them, puts back what others
//! remove (network managers flush what they do not know), and removes them when the proxy's end of the channel closes,
//! however the proxy died.
//!
//! It is the same binary with an internal command, started before the proxy gives up its capabilities; the channel is its
//! standard input, one line of JSON for each message both ways.

use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use caps::{CapSet, Capability};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use serde::{Deserialize, Serialize};

use super::kernel_rules::{self, Missing};
use super::needs::Needs;
use super::netlink::{group, Heard, News, Requests};
use super::rules::RuleSet;
use super::sharing::{Lock, Presence};
use crate::config::model::{Config, TransparentRules};

/// All is looked at so often even without news: routes end silently when `lo` goes down.
const LOOK: Duration = Duration::from_secs(60);
/// nftables tells of each change of any table, and looking costs a process: at most one look in this time.
const NFTABLES_LOOK: Duration = Duration::from_secs(1);
/// A line of the proxy is far shorter.
const LONGEST_LINE: usize = 4096;

/// What the proxy wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// Where its transparent backends may be.
    pub needs: Needs,
    /// The mark of packets that come back.
    pub mark: NonZeroU32,
    /// The routing table.
    pub table: NonZeroU32,
}

impl Want {
    /// What a configuration wants on a host of these addresses: nothing where it leaves the rules to others.
    pub(crate) fn of(config: &Config, is_local: impl Fn(IpAddr) -> bool) -> Self {
        let TransparentRules { manage_rules, mark, table } = config.transparent;
        let needs = if manage_rules { Needs::of(config, is_local) } else { Needs::default() };
        Self { needs, mark, table }
    }
}

/// A line of the proxy.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    /// What the answer to it bears, so that none is taken for another's: a keeper may be slow, and two proxies talk to it
    /// during an upgrade.
    pub(crate) number: u64,
    pub(crate) want: Want,
}

/// A line of the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Said {
    /// The number of what it answers, if anything.
    pub(crate) answers: Option<u64>,
    pub(crate) report: Report,
}

/// What the keeper says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// All that is wanted is there.
    Installed,
    /// Somebody had removed these; they are there again.
    Restored(Vec<String>),
    /// Something is not there and could not be put; it is tried again. As an answer: what was wanted before stays.
    Failed(String),
    /// All that is wanted is there, and something that no longer is could not be taken away.
    Left(String),
}

/// The internal command: serves the channel until it closes. Standard input must be a stream socket.
///
/// # Errors
/// When it cannot hear of changes or of the proxy; the rules are removed all the same.
pub fn keep_rules() -> io::Result<()> {
    // The whole group gets these at a Ctrl-C or a `systemctl stop`; the proxy's end is what counts, and it drains first.
    SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]).thread_block()?;
    keep_one_capability()?;
    let channel = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut keeper = Keeper::new(channel)?;
    let served = keeper.serve();
    let removed = keeper.kept.take().map_or(Ok(()), |kept| remove(kept, None, &mut keeper.requests));
    served.and(removed)
}

/// Nothing but CAP_NET_ADMIN, which nft inherits: it is executed, so an ordinary user's must be ambient (capabilities(7)).
fn keep_one_capability() -> io::Result<()> {
    let only = [Capability::CAP_NET_ADMIN].into_iter().collect();
    prctl::set_no_new_privs()?;
    if let Ok(bounding) = caps::read(None, CapSet::Bounding) {
        for capability in bounding.difference(&only) {
            // It takes CAP_SETPCAP; without it, what is not permitted cannot come back either.
            let _ = caps::drop(None, CapSet::Bounding, *capability);
        }
    }
    for set in [CapSet::Inheritable, CapSet::Effective, CapSet::Permitted, CapSet::Ambient] {
        // Without the capability at all the first change says so, better than this could.
        let _ = caps::set(None, set, &only);
    }
    Ok(())
}

/// What is kept for whom.
struct Kept {
    want: Want,
    presence: Presence,
    set: RuleSet,
    /// nftables' table as it was shown when it was put.
    listing: Option<String>,
}

impl Kept {
    fn announce(want: Want) -> io::Result<Self> {
        let Want { needs, mark, table } = want;
        let presence = Presence::announce(mark, table, needs)?;
        Ok(Self { want, presence, set: RuleSet::new(needs, mark, table), listing: None })
    }
}

struct Keeper {
    channel: UnixStream,
    heard: Vec<u8>,
    requests: Requests,
    routing: News,
    /// `None` without the capability or without nftables; whatever is then wanted of them says so.
    nftables: Option<News>,
    kept: Option<Kept>,
    looked: Instant,
    nftables_changed: bool,
    /// The proxy was told so last.
    is_amiss: bool,
}

impl Keeper {
    fn new(channel: UnixStream) -> io::Result<Self> {
        channel.set_nonblocking(true)?;
        Ok(Self {
            channel,
            heard: Vec::new(),
            requests: Requests::open()?,
            routing: News::of_routing(group::RULES | group::ROUTES)?,
            nftables: News::of_nftables().ok(),
            kept: None,
            looked: Instant::now(),
            nftables_changed: false,
            is_amiss: false,
        })
    }

    /// Until the channel closes.
    fn serve(&mut self) -> io::Result<()> {
        loop {
            self.wait()?;
            if !self.hear_proxy()? {
                return Ok(());
            }
            let routing_changed = self.hear_routing()?;
            self.nftables_changed |= self.drain_nftables()?;
            let nftables_due = self.nftables_changed && self.looked.elapsed() >= NFTABLES_LOOK;
            if routing_changed || nftables_due || self.looked.elapsed() >= LOOK {
                self.look();
            }
        }
    }

    fn wait(&self) -> io::Result<()> {
        let longest = if self.nftables_changed { NFTABLES_LOOK } else { LOOK };
        let rest = longest.saturating_sub(self.looked.elapsed()).as_millis();
        // One more than what is left, for poll() counts whole milliseconds.
        let timeout = PollTimeout::try_from(rest.saturating_add(1)).unwrap_or(PollTimeout::MAX);
        let sockets =
            [self.channel.as_fd(), self.routing.as_fd()].into_iter().chain(self.nftables.iter().map(AsFd::as_fd));
        let mut waited_for: Vec<PollFd<'_>> = sockets.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match poll(&mut waited_for, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether the proxy is still there.
    fn hear_proxy(&mut self) -> io::Result<bool> {
        let mut bytes = [0; LONGEST_LINE];
        loop {
            match self.channel.read(&mut bytes) {
                Ok(0) => return Ok(false),
                Ok(count) => self.heard.extend_from_slice(bytes.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The proxy ended while something was on its way to it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
                Err(error) => return Err(error),
            }
            if self.heard.len() > LONGEST_LINE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line of the proxy has no end"));
            }
        }
        while let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.heard.drain(..=end).collect();
            let (answers, report) = match serde_json::from_slice(&line) {
                Ok(Told { number, want }) => {
                    let installed = self.install(want);
                    (
                        Some(number),
                        installed.map_or_else(|error| Report::Failed(error.to_string()), |()| Report::Installed),
                    )
                }
                Err(error) => (None, Report::Failed(format!("a line of the proxy is not understood: {error}"))),
            };
            self.say(answers, report);
        }
        Ok(true)
    }

    /// The new before the old goes, so that connections which need both lose no packet. Where the new cannot be had, the old
    /// stays.
    fn install(&mut self, want: Want) -> io::Result<()> {
        let lock = Lock::take(want.mark, want.table)?;
        if self.kept.as_ref().is_some_and(|kept| kept.want == want) {
            return self.put().map(drop);
        }
        let old = self.kept.replace(Kept::announce(want)?);
        let put = self.put();
        drop(lock);
        match put {
            Ok(_) => {
                if let Err(error) = old.map_or(Ok(()), |old| self.leave(old)) {
                    self.say(None, Report::Left(error.to_string()));
                }
                Ok(())
            }
            Err(error) => {
                let Err(more) = self.go_back_to(old) else { return Err(error) };
                Err(io::Error::new(error.kind(), format!("{error}; nor can all be put back as it was: {more}")))
            }
        }
    }

    /// Takes away what only the former want needed.
    fn leave(&mut self, old: Kept) -> io::Result<()> {
        let Some(new) = &mut self.kept else { return Ok(()) };
        let (set, mark, table) = (new.set.clone(), new.want.mark, new.want.table);
        if (old.want.mark, old.want.table) != (mark, table) {
            return remove(old, Some(&set), &mut self.requests);
        }
        drop(old); // or it would count as another keeper
        new.listing = None; // nftables' table is still that of both
        let _lock = Lock::take(mark, table)?;
        self.put()?;
        let Some(kept) = &self.kept else { return Ok(()) };
        kernel_rules::take_all_but(&mut self.requests, &kept.set, mark, table)
    }

    /// Takes away what was put of a want that cannot be had, and keeps the former one again.
    fn go_back_to(&mut self, old: Option<Kept>) -> io::Result<()> {
        let Some(refused) = std::mem::replace(&mut self.kept, old) else { return Ok(()) };
        let stays = self.kept.as_ref().map(|kept| (kept.set.clone(), kept.want));
        let removed = remove(refused, stays.as_ref().map(|(set, _)| set), &mut self.requests);
        let Some((_, Want { mark, table, .. })) = stays else { return removed };
        let _lock = Lock::take(mark, table)?;
        self.put().and(removed)
    }

    /// Puts what is missing; what that was. The lock is the caller's.
    fn put(&mut self) -> io::Result<Vec<String>> {
        // What is heard from here on happened after the look, but for our own changes.
        self.forget_nftables_news()?;
        self.looked = Instant::now();
        let Some(kept) = &mut self.kept else { return Ok(Vec::new()) };
        let (mark, table) = (kept.want.mark, kept.want.table);
        let others = kept.presence.others(mark, table)?.unwrap_or_default();
        let set = RuleSet::new(kept.want.needs.and(others), mark, table);
        let missing = kernel_rules::missing(&mut self.requests, &set)?;
        kernel_rules::put(&mut self.requests, &missing)?;
        let mut put: Vec<String> = missing.iter().map(name).collect();
        if let Some(text) = &set.nftables {
            let there = kernel_rules::list_nftables(&set.nftables_name)?;
            if there.is_none() || there != kept.listing {
                kernel_rules::load_nftables(text)?;
                put.push(format!("table inet {}", set.nftables_name));
                self.forget_nftables_news()?;
                let listing = kernel_rules::list_nftables(&set.nftables_name)?;
                if let Some(kept) = &mut self.kept {
                    kept.listing = listing;
                }
            }
        }
        if let Some(kept) = &mut self.kept {
            kept.set = set;
        }
        Ok(put)
    }

    fn forget_nftables_news(&mut self) -> io::Result<()> {
        self.drain_nftables()?;
        self.nftables_changed = false;
        Ok(())
    }

    /// Puts back what somebody removed, and says so.
    fn look(&mut self) {
        // Also when nothing can be done, or it would be tried without end.
        self.looked = Instant::now();
        self.nftables_changed = false;
        let Some(kept) = &self.kept else { return };
        let looked = Lock::take(kept.want.mark, kept.want.table).and_then(|_lock| self.put());
        match looked {
            Ok(put) if put.is_empty() && self.is_amiss => self.say(None, Report::Installed),
            Ok(put) if put.is_empty() => {}
            Ok(put) => self.say(None, Report::Restored(put)),
            Err(error) => self.say(None, Report::Failed(error.to_string())),
        }
    }

    /// Whether rules or routes were removed. Those that appear need no look, ours among them.
    fn hear_routing(&mut self) -> io::Result<bool> {
        let mut removed = false;
        loop {
            match self.routing.hear()? {
                Heard::Nothing => return Ok(removed),
                Heard::Lost => removed = true,
                Heard::Changes(changes) => removed |= changes.iter().any(is_removal),
            }
        }
    }

    /// Whether there was any news of nftables.
    fn drain_nftables(&mut self) -> io::Result<bool> {
        let Some(news) = &mut self.nftables else { return Ok(false) };
        let mut any = false;
        while !matches!(news.hear()?, Heard::Nothing) {
            any = true;
        }
        Ok(any)
    }

    /// The proxy may be gone, or not listen: neither is a reason to end.
    fn say(&mut self, answers: Option<u64>, report: Report) {
        self.is_amiss = matches!(report, Report::Failed(_));
        if let Ok(mut line) = serde_json::to_vec(&Said { answers, report }) {
            line.push(b'\n');
            let _ = self.channel.write_all(&line);
        }
    }
}

/// Removes what no other keeper needs, and not what is kept beside it.
fn remove(kept: Kept, beside: Option<&RuleSet>, requests: &mut Requests) -> io::Result<()> {
    let Kept { want: Want { mark, table, .. }, presence, .. } = kept;
    // Without the lock all the same: whoever does not give it back must not keep rules in the kernel.
    let _lock = Lock::take(mark, table);
    let others = presence.others(mark, table)?.unwrap_or_default();
    drop(presence);
    let mut keep = RuleSet::new(others, mark, table);
    if let Some(beside) = beside {
        keep.add(beside);
    }
    kernel_rules::take_all_but(requests, &keep, mark, table)
}

fn is_removal(change: &RouteNetlinkMessage) -> bool {
    matches!(change, RouteNetlinkMessage::DelRule(_) | RouteNetlinkMessage::DelRoute(_))
}

fn name(missing: &Missing) -> String {
    match missing {
        Missing::Rule(rule) => format!("rule {rule}"),
        Missing::Route(route) => format!("route {route}"),
    }
}

/// An end of the channel as the standard input of a child.
pub(crate) fn as_stdin(channel: UnixStream) -> std::process::Stdio {
    OwnedFd::from(channel).into()
}
