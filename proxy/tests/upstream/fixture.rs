//! What tests of checks share: candidates, checks under way, and time that passes without waiting.

use std::future::Future;
use std::net::{SocketAddr, TcpStream};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use edgeproxy::config::model::{HealthCheck, Resolver};
use edgeproxy::names::{Names, SystemFiles};
use edgeproxy::upstream::condition::{Change, Condition};
use edgeproxy::upstream::health::{run, Check, Observation, Peer};
use socket2::{Domain, Socket, Type};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::Instant;

/// A listener of this machine is reached within it, however busy the machine is.
pub(crate) const AMPLE: Duration = Duration::from_secs(20);

pub(crate) fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub(crate) fn health(interval: Duration, timeout: Duration, rise: u32, fall: u32) -> HealthCheck {
    let count = |number| NonZeroU32::new(number).unwrap();
    HealthCheck { interval, timeout, rise: count(rise), fall: count(fall) }
}

pub(crate) fn check_of(peer: Peer, port: u16, health: HealthCheck) -> Check {
    let condition = Condition::new(None, Some(health), Instant::now().into_std());
    Check { peer, port, is_multipath: false, health, send_proxy: None, condition, signer: None }
}

pub(crate) fn check(address: SocketAddr, health: HealthCheck) -> Check {
    check_of(Peer::Address(address.ip()), address.port(), health)
}

/// Names from a hosts file and one server.
pub(crate) fn names(hosts: &str, server: SocketAddr) -> Names {
    let settings = Resolver {
        servers: vec![server],
        timeout: AMPLE,
        stale: Duration::ZERO,
        negative: Duration::ZERO,
        min_ttl: Duration::ZERO,
        max_ttl: Duration::ZERO,
        cache_entries: NonZeroUsize::MIN,
    };
    Names::new(&settings, SystemFiles { hosts: (&hosts).into(), resolv_conf: "/nonexistent/resolv.conf".into() })
}

/// Nothing on this machine listens there.
pub(crate) fn closed() -> SocketAddr {
    "127.253.7.9:53".parse().unwrap()
}

/// What was found, in words that can be compared, when, and what changed.
pub(crate) type Report = (String, Duration, Option<Change>);

/// Checks under way.
pub(crate) struct Checking {
    reports: mpsc::UnboundedReceiver<Report>,
    task: JoinHandle<()>,
}

impl Checking {
    pub(crate) fn start(checks: Vec<Check>, names: Names, may_dial: impl Fn(SocketAddr) -> bool + 'static) -> Self {
        let (tell, reports) = mpsc::unbounded_channel();
        let begin = Instant::now();
        let report = move |_: &Check, seen: &Observation, change| {
            let _ = tell.send((words(seen), begin.elapsed(), change));
        };
        Self { reports, task: tokio::task::spawn_local(run(checks, names, may_dial, report)) }
    }

    pub(crate) fn of(checks: Vec<Check>) -> Self {
        Self::start(checks, names("/nonexistent/hosts", closed()), |_| true)
    }

    pub(crate) async fn next(&mut self) -> Report {
        tokio::time::timeout(AMPLE * 10, self.reports.recv()).await.expect("a check ends").unwrap()
    }

    /// The next change, and how many checks found what on the way to it.
    pub(crate) async fn next_change(&mut self) -> Change {
        loop {
            if let (_, _, Some(change)) = self.next().await {
                return change;
            }
        }
    }

    /// Whether a report is here, once all tasks have done what they can.
    pub(crate) async fn has_report(&mut self) -> bool {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        !self.reports.is_empty()
    }
}

impl Drop for Checking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn words(seen: &Observation) -> String {
    match seen {
        Observation::Answers => "answers".into(),
        Observation::Fails(Some(error)) => format!("fails: {:?}", error.kind()),
        Observation::Fails(None) => "fails: silent".into(),
        Observation::NotFound(error) => format!("not found: {}", error.label()),
        Observation::NotAsked => "not asked".into(),
    }
}

/// A listener whose queue is full: the kernel drops whatever comes, as a firewall would.
pub(crate) struct Full {
    pub(crate) address: SocketAddr,
    _listener: Socket,
    _queued: Vec<TcpStream>,
}

impl Full {
    pub(crate) fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut queued = Vec::new();
        for _ in 0..10 {
            let Ok(stream) = TcpStream::connect_timeout(&address, millis(1000)) else {
                return Self { address, _listener: listener, _queued: queued };
            };
            queued.push(stream);
        }
        panic!("the queue does not fill");
    }
}

/// Runs a test in one thread with tasks of its own. Tests let minutes pass; an hour is too long for any.
pub(crate) fn local<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = async { tokio::time::timeout(Duration::from_secs(3600), test).await.expect("the test ends in time") };
    runtime.block_on(LocalSet::new().run_until(test))
}

/// Lets the clock go forward, once all tasks have set their alarms.
pub(crate) async fn pass(time: Duration) {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

pub(crate) fn conditions(checks: &[Check]) -> Vec<Arc<Condition>> {
    checks.iter().map(|check| Arc::clone(&check.condition)).collect()
}
