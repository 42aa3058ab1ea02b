//! Active checks: each candidate that can be checked is dialled at its interval, and its condition is told.
//!
//! One task in one thread checks for all of them. It holds at most [`CHECKS_AT_ONCE`] times [`ADDRESSES_PER_CHECK`] sockets.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, Instant};

use super::condition::{Change, Condition};
use super::eyeballs::race;
use crate::config::model::{Backend, HealthCheck, Host, NamePart, SendProxy, TargetPort};
use crate::hop::Ring;
use crate::multipath;
use crate::names::{Chance, NameError, Names};
use crate::wire::{proxy_v1, proxy_v2};

/// Checks that may be under way together; the others wait for one of them to end.
pub const CHECKS_AT_ONCE: usize = 16;
/// Addresses of a name that one check dials.
pub const ADDRESSES_PER_CHECK: usize = 4;

/// A candidate to check.
#[derive(Debug, Clone)]
pub struct Check {
    /// Who.
    pub peer: Peer,
    /// At which port.
    pub port: u16,
    /// Whether it is dialled by Multipath TCP: what lies on the way may drop that alone.
    pub is_multipath: bool,
    /// Whether it expects a PROXY header.
    pub send_proxy: Option<SendProxy>,
    /// How often, and for how long.
    pub health: HealthCheck,
    /// Who is told.
    pub condition: Arc<Condition>,
    /// Who signs its header, if that is of version 2.
    pub signer: Option<Signer>,
}

/// The keys of a backend.
#[derive(Debug, Clone)]
pub struct Signer(Arc<Ring>);

impl Check {
    pub(crate) fn signed_with(self, ring: Option<&Arc<Ring>>) -> Self {
        Self { signer: ring.map(|ring| Signer(Arc::clone(ring))), ..self }
    }
}

/// Whom a check dials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// An address of the file.
    Address(IpAddr),
    /// A name of the file.
    Name(String),
}

/// What a check found.
#[derive(Debug)]
pub enum Observation {
    /// It accepts connections.
    Answers,
    /// It does not; the last failure, if there was any before the time was up.
    Fails(Option<io::Error>),
    /// Its name leads nowhere.
    NotFound(NameError),
    /// The question could not be asked, and says nothing of the candidate: no name server answers, no address may be dialled,
    /// or this machine has no socket left.
    NotAsked,
}

/// The checks of a backend, whose candidates have these conditions. A target with a port or a name that a client chooses
/// has none.
#[must_use]
pub fn checks(backend: &Backend, conditions: &[Arc<Condition>]) -> Vec<Check> {
    let Some(health) = backend.health else { return Vec::new() };
    let check = |(target, condition): (&crate::config::model::Target, &Arc<Condition>)| {
        let TargetPort::Fixed(port) = target.port else { return None };
        let (is_multipath, send_proxy, condition) = (backend.mptcp, backend.send_proxy, Arc::clone(condition));
        Some(Check { peer: peer(&target.host)?, port, is_multipath, health, send_proxy, condition, signer: None })
    };
    backend.targets.iter().zip(conditions).filter_map(check).collect()
}

fn peer(host: &Host) -> Option<Peer> {
    let parts = match host {
        Host::Address(address) => return Some(Peer::Address(*address)),
        Host::Name(parts) => parts,
    };
    let literal = |part: &NamePart| match part {
        NamePart::Literal(text) => Some(text.clone()),
        NamePart::Capture(_) => None,
    };
    parts.iter().map(literal).collect::<Option<String>>().map(Peer::Name)
}

/// Checks until it is dropped. `may_dial` is the policy on what names may lead to; `report` is told of each check.
///
/// Must be used within a [`tokio::task::LocalSet`].
pub async fn run(
    checks: Vec<Check>,
    names: Names,
    may_dial: impl Fn(SocketAddr) -> bool + 'static,
    report: impl Fn(&Check, &Observation, Option<Change>) + 'static,
) {
    let round =
        Rc::new(Round { names, permits: Semaphore::new(CHECKS_AT_ONCE), chance: Chance::default(), may_dial, report });
    let mut tasks = JoinSet::new();
    for check in checks {
        tasks.spawn_local(Rc::clone(&round).repeat(check));
    }
    while tasks.join_next().await.is_some() {}
}

/// What all checks share.
struct Round<D, R> {
    names: Names,
    permits: Semaphore,
    chance: Chance,
    may_dial: D,
    report: R,
}

impl<D: Fn(SocketAddr) -> bool, R: Fn(&Check, &Observation, Option<Change>)> Round<D, R> {
    async fn repeat(self: Rc<Self>, check: Check) {
        let mut next = Instant::now() + first_pause(check.health.interval, self.chance.draw());
        loop {
            sleep_until(next).await;
            next = Instant::now() + pause(check.health.interval, self.chance.draw());
            let seen = self.observe(&check).await;
            let change = match &seen {
                Observation::Answers => check.condition.checked(true),
                Observation::Fails(_) | Observation::NotFound(_) => check.condition.checked(false),
                Observation::NotAsked => None,
            };
            (self.report)(&check, &seen, change);
        }
    }

    async fn observe(&self, check: &Check) -> Observation {
        let addresses = match &check.peer {
            Peer::Address(address) => vec![*address],
            Peer::Name(name) => match self.names.addresses_by_search(None, name).await {
                Ok(addresses) => addresses,
                Err(error) if error.is_denial() => return Observation::NotFound(error),
                Err(_) => return Observation::NotAsked,
            },
        };
        let dialled = addresses.into_iter().map(|address| SocketAddr::new(address, check.port));
        let is_file_s = matches!(check.peer, Peer::Address(_));
        let dialled: Vec<_> =
            dialled.filter(|address| is_file_s || (self.may_dial)(*address)).take(ADDRESSES_PER_CHECK).collect();
        if dialled.is_empty() {
            return Observation::NotAsked;
        }
        // Nobody closes the semaphore.
        let Ok(_permit) = self.permits.acquire().await else { return Observation::NotAsked };
        match race(&dialled, check.health.timeout, |address| knock(address, check)).await {
            Ok(_) => Observation::Answers,
            Err(lost) if lost.failures.iter().any(|(_, error)| is_this_hosts(error)) => Observation::NotAsked,
            Err(mut lost) => Observation::Fails(lost.failures.pop().map(|(_, error)| error)),
        }
    }
}

/// Connects, and says on whose behalf where that is expected: the check's own, so by version 2 LOCAL. "When a load balancing
/// proxy has to send health checks to a server, it SHOULD build a valid PROXY line which it will fill with a
/// getsockname()/getpeername() pair" (PROXY protocol, 2.1): many servers refuse UNKNOWN.
async fn knock(address: SocketAddr, check: &Check) -> io::Result<()> {
    let (send_proxy, signer) = (check.send_proxy, check.signer.as_ref());
    let socket = multipath::stream(address, check.is_multipath)?;
    let stream = TcpSocket::from_std_stream(socket.into()).connect(address).await?;
    let header = match send_proxy {
        None => return Ok(()),
        Some(SendProxy::V1) => proxy_v1::build(stream.local_addr()?, stream.peer_addr()?),
        Some(SendProxy::V2 { .. }) => match signer.and_then(|Signer(ring)| ring.signer()) {
            Some((key, stamp)) => proxy_v2::signed_local(&key, stamp),
            None => proxy_v2::LOCAL.to_vec(),
        },
    };
    // "The sender is guaranteed to always be able to emit it at once and should not even bother handling partial sends."
    stream.writable().await?;
    stream.try_write(&header).map(drop)
}

/// Whether this machine's lack is to blame, and not the candidate. EACCES is not such a lack: firewalls of IPv6 say it by
/// ICMP (RFC 4443, 3.1, "administratively prohibited").
pub(crate) fn is_this_hosts(error: &io::Error) -> bool {
    let lacks = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EADDRNOTAVAIL, libc::EPERM];
    error.raw_os_error().is_some_and(|code| lacks.contains(&code))
}

/// The first check comes anywhere within an interval, so that a thousand candidates are not dialled at the start at once.
fn first_pause(interval: Duration, draw: u64) -> Duration {
    interval.mul_f64(unit(draw))
}

/// Between nine and eleven tenths of the interval, so that checks which fell together part again.
fn pause(interval: Duration, draw: u64) -> Duration {
    interval.mul_f64(0.9 + 0.2 * unit(draw))
}

/// From 0 up to, not including, 1, in steps of 2^-32.
fn unit(draw: u64) -> f64 {
    (draw >> 32) as f64 / 4_294_967_296.0
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::config::model::{Balance, NameBounds, Source, Target};

    fn backend(health: Option<HealthCheck>, targets: Vec<Target>) -> Backend {
        Backend {
            name: "nas".into(),
            targets,
            balance: Balance::InOrder,
            source: Source::Own,
            mptcp: false,
            send_proxy: None,
            send_proxy_udp: None,
            send_proxy_udp_id: false,
            sign_proxy: None,
            health,
            eject: None,
            connect_timeout: Duration::from_secs(3),
            fallback: None,
            allow_names: NameBounds::default(),
        }
    }

    fn health() -> HealthCheck {
        let (rise, fall) = (NonZeroU32::MIN, NonZeroU32::MIN);
        HealthCheck { interval: Duration::from_secs(10), timeout: Duration::from_secs(1), rise, fall }
    }

    #[test]
    fn what_a_client_chooses_is_not_checked() {
        let literal = |text: &str| NamePart::Literal(text.into());
        let named = |parts| Host::Name(parts);
        let address = Host::Address([192, 0, 2, 1].into());
        let fixed = TargetPort::Fixed(443);
        let targets = vec![
            Target { host: address.clone(), port: fixed },
            Target { host: named(vec![literal("nas"), literal(".tailnet")]), port: fixed },
            Target { host: named(vec![NamePart::Capture("host".into()), literal(".tailnet")]), port: fixed },
            Target { host: address, port: TargetPort::Original },
        ];
        let conditions: Vec<_> =
            targets.iter().map(|_| Condition::new(None, Some(health()), std::time::Instant::now())).collect();
        let asked =
            Backend { send_proxy: Some(SendProxy::V1), mptcp: true, ..backend(Some(health()), targets.clone()) };
        let found = checks(&asked, &conditions);
        let meant = [Peer::Address([192, 0, 2, 1].into()), Peer::Name("nas.tailnet".into())];
        assert_eq!(found.iter().map(|check| check.peer.clone()).collect::<Vec<_>>(), meant);
        let is_as_asked = |check: &Check| {
            (check.port, check.is_multipath, check.health, check.send_proxy) == (443, true, health(), asked.send_proxy)
        };
        assert!(found.iter().all(is_as_asked));
        assert!(Arc::ptr_eq(&found[1].condition, &conditions[1]));
        assert!(checks(&backend(None, targets), &conditions).is_empty());
    }

    #[test]
    fn pauses_lie_around_the_interval_and_the_first_within_it() {
        let interval = Duration::from_secs(10);
        assert_eq!(first_pause(interval, 0), Duration::ZERO);
        assert!(first_pause(interval, u64::MAX) < interval);
        assert_eq!(pause(interval, 0), Duration::from_secs(9));
        assert_eq!(pause(interval, 1 << 63), interval);
        assert!(pause(interval, u64::MAX) <= Duration::from_secs(11));
    }

    #[test]
    fn lacks_of_this_machine_are_told_from_failures_of_the_candidate() {
        let is_ours = |code: &i32| is_this_hosts(&io::Error::from_raw_os_error(*code));
        assert!([libc::EMFILE, libc::EADDRNOTAVAIL].iter().all(is_ours));
        assert!(![libc::ECONNREFUSED, libc::EHOSTUNREACH, libc::ETIMEDOUT, libc::EACCES].iter().any(is_ours));
    }
}
