//! What tests of names share: settings, a runtime, and time that passes without waiting.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use edgeproxy::config::model::Resolver;
use edgeproxy::names::{NameError, Names, SystemFiles};
use tokio::task::LocalSet;

/// A server on this machine that is alive answers within it, however busy the machine is.
pub(crate) const AMPLE: Duration = Duration::from_secs(20);
/// What a test waits for a server that it knows to be silent.
pub(crate) const BRIEF: Duration = Duration::from_millis(300);
/// The same where the next one has to answer within it.
pub(crate) const ENOUGH: Duration = Duration::from_secs(2);

pub(crate) fn settings(servers: &[SocketAddr]) -> Resolver {
    Resolver {
        servers: servers.to_vec(),
        timeout: AMPLE,
        stale: Duration::from_secs(3600),
        negative: Duration::from_secs(10),
        min_ttl: Duration::ZERO,
        max_ttl: Duration::from_secs(3600),
        cache_entries: NonZeroUsize::new(100).unwrap(),
    }
}

/// Files that do not exist: names come from servers only.
pub(crate) fn no_files() -> SystemFiles {
    SystemFiles { hosts: "/nonexistent/hosts".into(), resolv_conf: "/nonexistent/resolv.conf".into() }
}

pub(crate) fn names(settings: &Resolver) -> Names {
    Names::new(settings, no_files())
}

/// A folder that is removed with the value.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("edgeproxy-names-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a test as a worker runs: in one thread, with tasks of its own. Tests let minutes pass; an hour is too long for any.
pub(crate) fn local<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = async { tokio::time::timeout(Duration::from_secs(3600), test).await.expect("the test ends in time") };
    runtime.block_on(LocalSet::new().run_until(test))
}

/// Lets the clock of the cache go forward, while no query is under way.
pub(crate) async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

pub(crate) async fn ask(names: &Names, name: &str) -> Result<Vec<String>, NameError> {
    Ok(names.addresses(name).await?.iter().map(IpAddr::to_string).collect())
}
