//! The names of one thread: who asks for a name gets its addresses, from the nearest source that knows them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;

use super::cache::{Cache, Found, Known, Refresh};
use super::client::Client;
use super::exchange::Fault;
use super::lookup::{interleave, look_up};
use super::name::HostName;
use super::system::{System, SystemFiles};
use super::turns::{Turn, Turns};
use crate::config::model::Resolver;

/// How long who could have a stale answer waits for a fresh one (RFC 8767 section 5, "client response timer").
const STALE_WAIT: Duration = Duration::from_millis(1800);

/// Why a name has no addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is no host's name; nobody was asked.
    #[error("this is no name of a host")]
    NotAName,
    /// A server says that the name does not exist (NXDOMAIN).
    #[error("the name does not exist")]
    NoSuchName,
    /// A server says that the name exists, without addresses.
    #[error("the name has no addresses")]
    NoAddresses,
    /// No server answered; why the last one did not.
    #[error("no name server answers: {0}")]
    Unanswered(Fault),
    /// As many lookups as there may be are under way, in all or of the client, and none of them ended soon enough.
    #[error("too many names are being looked up")]
    TooManyLookups,
}

impl NameError {
    /// Its name in metrics and logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::NotAName => "not_a_name",
            Self::NoSuchName => "no_such_name",
            Self::NoAddresses => "no_addresses",
            Self::Unanswered(_) => "unanswered",
            Self::TooManyLookups => "too_many_lookups",
        }
    }

    /// Whether somebody who could know denied the name, rather than that nobody could be asked.
    #[must_use]
    pub fn is_denial(self) -> bool {
        match self {
            Self::NotAName | Self::NoSuchName | Self::NoAddresses => true,
            Self::Unanswered(_) | Self::TooManyLookups => false,
        }
    }
}

/// Names to addresses, for one thread; a clone shares everything. Must be used within a [`tokio::task::LocalSet`].
#[derive(Debug, Clone)]
pub struct Names {
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: Resolver,
    system: System,
    client: Client,
    cache: RefCell<Cache>,
    /// Lookups under way, each with what it has found so far.
    lookups: RefCell<HashMap<HostName, watch::Receiver<Option<Known>>>>,
    /// Of short names of the configuration, what each was last found as.
    completed: RefCell<HashMap<HostName, HostName>>,
    turns: Turns,
}

impl Names {
    /// Names by these settings and files.
    #[must_use]
    pub fn new(settings: &Resolver, files: SystemFiles) -> Self {
        let shared = Shared {
            settings: settings.clone(),
            system: System::new(files),
            client: Client::new(settings.timeout),
            cache: RefCell::new(Cache::new(settings)),
            lookups: RefCell::default(),
            completed: RefCell::default(),
            turns: Turns::new(),
        };
        Self { shared: Rc::new(shared) }
    }

    /// Names of the same files by other settings; nothing is known of them yet.
    #[must_use]
    pub(crate) fn anew(&self, settings: &Resolver) -> Self {
        Self::new(settings, self.shared.system.files())
    }

    /// The addresses of `name`, at least one, in the order in which they are to be tried (RFC 8305 section 4).
    ///
    /// # Errors
    /// [`NameError`] says why there are none.
    pub async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, NameError> {
        self.addresses_for(None, name).await
    }

    /// The same for a client that may have chosen the name. Of its lookups few are under way at once; further ones wait as
    /// long as for one try at one server.
    ///
    /// # Errors
    /// [`NameError`] says why there are none.
    pub async fn addresses_for(&self, asker: Option<IpAddr>, name: &str) -> Result<Vec<IpAddr>, NameError> {
        let host = HostName::parse(name).ok_or(NameError::NotAName)?;
        if let Some(addresses) = self.without_servers(&host) {
            return Ok(addresses);
        }
        let found = self.shared.cache.borrow_mut().find(&host, now());
        match found {
            Found::Fresh(known) => outcome(&known),
            Found::Nothing => settled(self.join(&host, asker).await?).await,
            Found::Stale { addresses, refresh } => {
                Ok(self.fresh_or_stale(&host, asker, addresses, refresh).await?.to_vec())
            }
        }
    }

    /// The same for a name that the configuration alone says: a short one is first looked for in the domains that this machine
    /// searches (resolv.conf(5)), where its servers are asked; one with a final dot is complete. The next is asked for only if
    /// somebody who could know denies the one before. What it was found as is kept to while its addresses hold, and when they
    /// have run out, as long as no server answers.
    ///
    /// # Errors
    /// [`NameError`] says why there are none.
    pub async fn addresses_by_search(&self, asker: Option<IpAddr>, name: &str) -> Result<Vec<IpAddr>, NameError> {
        let Some((host, domains)) = self.searched(name) else { return self.addresses_for(asker, name).await };
        let completed = self.shared.completed.borrow().get(&host).cloned();
        let completed = completed.filter(|last| *last == host || domains.contains(last));
        let Some(last) = completed else { return self.search(asker, &host, &domains).await };
        let found = self.shared.cache.borrow_mut().find(&last, now());
        match found {
            Found::Stale { addresses, refresh: Refresh::Untried } => {
                match timeout(STALE_WAIT, self.search(asker, &host, &domains)).await {
                    Ok(Ok(addresses)) => Ok(addresses),
                    Ok(Err(error)) if error.is_denial() => Err(error),
                    Ok(Err(_)) | Err(_) => {
                        // It may not have been asked for itself, and yet nobody is to wait for it again.
                        let unanswered = Known::Unanswered(Fault::Silent);
                        self.shared.cache.borrow_mut().learn(&last, unanswered, Duration::ZERO, now());
                        Ok(addresses.to_vec())
                    }
                }
            }
            Found::Fresh(Known::Addresses(_)) | Found::Stale { .. } => self.addresses_for(asker, last.as_str()).await,
            Found::Fresh(_) | Found::Nothing => self.search(asker, &host, &domains).await,
        }
    }

    async fn search(
        &self,
        asker: Option<IpAddr>,
        host: &HostName,
        domains: &[HostName],
    ) -> Result<Vec<IpAddr>, NameError> {
        let mut found = Err(NameError::NoSuchName);
        for candidate in domains.iter().chain([host]) {
            found = self.addresses_for(asker, candidate.as_str()).await;
            match &found {
                Err(error) if error.is_denial() => {}
                Err(_) => break,
                Ok(_) => {
                    self.shared.completed.borrow_mut().insert(host.clone(), candidate.clone());
                    break;
                }
            }
        }
        found
    }

    /// A short name, and what is asked for before it.
    fn searched(&self, name: &str) -> Option<(HostName, Vec<HostName>)> {
        let Shared { settings, system, .. } = &*self.shared;
        if name.ends_with('.') || !settings.servers.is_empty() {
            return None;
        }
        let host = HostName::parse(name).filter(|host| self.without_servers(host).is_none())?;
        let domains = system.resolv_conf(now()).before(&host);
        (!domains.is_empty()).then_some((host, domains))
    }

    /// What needs no server: the hosts file's word, as nsswitch.conf(5) has it (`files dns`), and localhost.
    fn without_servers(&self, host: &HostName) -> Option<Vec<IpAddr>> {
        if let Some(addresses) = self.shared.system.addresses(host, now()) {
            let (v6, v4): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv6);
            return Some(interleave(&v6, &v4).to_vec());
        }
        host.is_localhost().then(|| vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()])
    }

    /// Addresses that have run out, unless a server says better in time; an error only if a server denies the name.
    async fn fresh_or_stale(
        &self,
        host: &HostName,
        asker: Option<IpAddr>,
        stale: Rc<[IpAddr]>,
        refresh: Refresh,
    ) -> Result<Rc<[IpAddr]>, NameError> {
        if refresh == Refresh::Resting {
            return Ok(stale);
        }
        if refresh == Refresh::Failing {
            if self.under_way(host).is_none() {
                self.shared.turns.take_now(asker).map(|turn| self.begin(host, turn));
            }
            return Ok(stale);
        }
        let fresh = async { settled(self.join(host, asker).await?).await };
        match timeout(STALE_WAIT, fresh).await {
            Ok(Ok(addresses)) => Ok(addresses.into()),
            Ok(Err(error)) if error.is_denial() => Err(error),
            Ok(Err(_)) | Err(_) => Ok(stale),
        }
    }

    /// The lookup of `host` that is under way, or a new one.
    async fn join(&self, host: &HostName, asker: Option<IpAddr>) -> Result<watch::Receiver<Option<Known>>, NameError> {
        if let Some(lookup) = self.under_way(host) {
            return Ok(lookup);
        }
        let turn = self.shared.turns.take(asker, self.shared.settings.timeout).await;
        let turn = turn.ok_or(NameError::TooManyLookups)?;
        // Others may have asked while it waited for its turn.
        if let Some(lookup) = self.under_way(host) {
            return Ok(lookup);
        }
        if let Found::Fresh(known) = self.shared.cache.borrow_mut().find(host, now()) {
            return Ok(watch::channel(Some(known)).1);
        }
        Ok(self.begin(host, turn))
    }

    fn under_way(&self, host: &HostName) -> Option<watch::Receiver<Option<Known>>> {
        self.shared.lookups.borrow().get(host).cloned()
    }

    /// A new lookup. It runs on when nobody waits for it: others may come.
    fn begin(&self, host: &HostName, turn: Turn) -> watch::Receiver<Option<Known>> {
        let (progress, lookup) = watch::channel(None);
        self.shared.lookups.borrow_mut().insert(host.clone(), lookup.clone());
        tokio::task::spawn_local(Rc::clone(&self.shared).look_up(host.clone(), progress, turn));
        lookup
    }
}

impl Shared {
    async fn look_up(self: Rc<Self>, host: HostName, progress: watch::Sender<Option<Known>>, turn: Turn) {
        let listed;
        let servers = if self.settings.servers.is_empty() {
            listed = self.system.resolv_conf(now());
            listed.servers.as_slice()
        } else {
            &self.settings.servers
        };
        let early = |known| drop(progress.send_replace(Some(known)));
        let (known, ttl) = look_up(&self.client, servers, &host, early).await;
        self.cache.borrow_mut().learn(&host, known.clone(), ttl, now());
        self.lookups.borrow_mut().remove(&host);
        drop(turn);
        progress.send_replace(Some(known));
    }
}

/// What a lookup finds.
async fn settled(mut lookup: watch::Receiver<Option<Known>>) -> Result<Vec<IpAddr>, NameError> {
    let known = match lookup.wait_for(Option::is_some).await {
        Ok(known) => known.clone(),
        // Its sender went with the thread that ran it.
        Err(_) => None,
    };
    outcome(&known.unwrap_or(Known::Unanswered(Fault::Unreachable)))
}

fn outcome(known: &Known) -> Result<Vec<IpAddr>, NameError> {
    match known {
        Known::Addresses(addresses) => Ok(addresses.to_vec()),
        Known::NoAddresses => Err(NameError::NoAddresses),
        Known::NoSuchName => Err(NameError::NoSuchName),
        Known::Unanswered(fault) => Err(NameError::Unanswered(*fault)),
    }
}

/// The runtime's clock, which tests can stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
