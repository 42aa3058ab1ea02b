//! Which addresses are this host's, and who is on one link, kept current by the kernel's own news: where client and backend
//! meet on one host or link, the client's address cannot be the source, for answers to it would never come by the proxy.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use crate::config::model::{Config, Source};

use super::neighbours::Links;
use super::netlink::{group, Heard, News, Requests};

/// How long the routes are not read again, at least, after they were; and how many times as long as that took. A router that
/// has a million of them loses news for as long as they change.
const REST: Duration = Duration::from_secs(1);
const REST_BY_WORK: u32 = 10;

/// How long routes may take to be read: longer than the kernel has for an answer.
const ANSWER: Duration = Duration::from_secs(70);

/// The addresses as they are; clones are the same list. Asking is a shared lock and a look-up; for neighbours a few for each
/// prefix length that routes without a gateway have.
#[derive(Debug, Clone, Default)]
pub struct LocalAddresses(Arc<RwLock<Table>>);

#[derive(Debug, Default)]
struct Table {
    /// The interfaces that have each address.
    owners: HashMap<IpAddr, HashSet<u32>>,
    links: Links,
}

/// Keeps the list current; whoever holds it runs it. It opens nothing further, so it may run in a sandbox.
#[derive(Debug)]
pub struct Watch {
    news: News,
    requests: Requests,
    addresses: LocalAddresses,
    follows_routes: bool,
    /// The routes are to be read anew, which is not before `may_read`.
    is_unclear: bool,
    may_read: Instant,
    /// Where [`Routes`] asks.
    asked: Option<UnixStream>,
}

/// Has the routes of this host followed, of which there may be a million: from when somebody asks who is whose neighbour.
#[derive(Debug)]
pub struct Routes {
    watch: UnixStream,
    are_followed: bool,
}

impl Routes {
    /// Has them read, unless they are. When this is over neighbours are known, and from then on as they come and go.
    ///
    /// # Errors
    /// When the kernel cannot be asked, or nobody keeps the list current any more.
    pub fn follow(&mut self) -> io::Result<()> {
        if !self.are_followed {
            self.watch.write_all(&[0])?;
            let mut code = [0; 4];
            self.watch.read_exact(&mut code)?;
            match i32::from_ne_bytes(code) {
                0 => self.are_followed = true,
                code => return Err(io::Error::from_raw_os_error(code)),
            }
        }
        Ok(())
    }
}

/// Whether it matters to a configuration who is whose neighbour.
#[must_use]
pub fn needs_neighbours(config: &Config) -> bool {
    config.backends.iter().any(|backend| matches!(backend.source, Source::Client { or_own: true }))
}

impl LocalAddresses {
    /// The addresses of this network namespace, and what keeps them current. Nobody has neighbours before [`Routes::follow`].
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn open() -> io::Result<(Self, Watch)> {
        // News first: what changes while the list is read is then in one or the other.
        let news = News::of_routing(group::ADDRESSES)?;
        let mut requests = Requests::open()?;
        let addresses = Self::default();
        addresses.read_addresses(&mut requests)?;
        let (follows_routes, is_unclear, may_read, asked) = (false, false, Instant::now(), None);
        Ok((addresses.clone(), Watch { news, requests, addresses, follows_routes, is_unclear, may_read, asked }))
    }

    /// The same, and who is whose neighbour.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn open_with_routes() -> io::Result<(Self, Watch)> {
        let (addresses, mut watch) = Self::open()?;
        watch.follow_routes()?;
        Ok((addresses, watch))
    }

    /// Whether it is an address of this host, in any form.
    #[must_use]
    pub fn is_local(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_loopback() || self.0.read().unwrap_or_else(PoisonError::into_inner).owners.contains_key(&ip)
    }

    /// Whether the client's address cannot be the source on the way to this backend because of where the two are: the client
    /// is on this host (its own socket has that endpoint), or on the backend's (which drops packets from itself).
    #[must_use]
    pub fn same_host(&self, client: IpAddr, backend: IpAddr) -> bool {
        client.to_canonical() == backend.to_canonical() || self.is_local(client)
    }

    /// Whether the backend, on another host, answers this client straight rather than by this host: the two are neighbours.
    #[must_use]
    pub fn are_neighbours(&self, client: IpAddr, backend: IpAddr) -> bool {
        let (client, backend) = (client.to_canonical(), backend.to_canonical());
        !self.is_local(backend)
            && self.0.read().unwrap_or_else(PoisonError::into_inner).links.are_neighbours(client, backend)
    }

    /// The networks of the neighbours of a backend on another host.
    #[must_use]
    pub fn networks_around(&self, backend: IpAddr) -> Vec<IpNet> {
        let backend = backend.to_canonical();
        if self.is_local(backend) {
            return Vec::new();
        }
        self.0.read().unwrap_or_else(PoisonError::into_inner).links.around(backend)
    }

    fn read_addresses(&self, requests: &mut Requests) -> io::Result<()> {
        let mut read = Table::default();
        requests.dump_each(RouteNetlinkMessage::GetAddress(AddressMessage::default()), |message| {
            let _ = read.take(&message);
        })?;
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        table.owners = read.owners;
        table.links.take_own(read.links);
        Ok(())
    }

    fn read_routes(&self, requests: &mut Requests) -> io::Result<()> {
        let mut read = Table::default();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut routes = RouteMessage::default();
            routes.header.address_family = family;
            requests.dump_each(RouteNetlinkMessage::GetRoute(routes), |message| {
                // Whatever is not clear by itself is so by the whole.
                let _ = read.take(&message);
            })?;
        }
        self.0.write().unwrap_or_else(PoisonError::into_inner).links.take_routes(read.links);
        Ok(())
    }
}

impl Watch {
    /// The way to have routes followed later.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn routes(&mut self) -> io::Result<Routes> {
        let (watch, asked) = UnixStream::pair()?;
        watch.set_read_timeout(Some(ANSWER))?;
        self.asked = Some(asked);
        Ok(Routes { watch, are_followed: self.follows_routes })
    }

    fn follow_routes(&mut self) -> io::Result<()> {
        if !self.follows_routes {
            // News first, as with addresses.
            self.news.hear_of(group::ADDRESSES | group::ROUTES | group::LINKS)?;
            self.addresses.read_routes(&mut self.requests)?;
            self.follows_routes = true;
        }
        Ok(())
    }

    /// Does what [`Routes`] asks for; without it the list goes on as it is.
    fn answer(&mut self) {
        let Some(mut asked) = self.asked.take() else { return };
        if !matches!(asked.read(&mut [0]), Ok(1..)) {
            return; // nobody is there any more
        }
        let code = self.follow_routes().map_or_else(|error| error.raw_os_error().unwrap_or(Errno::EIO as i32), |()| 0);
        if asked.write_all(&code.to_ne_bytes()).is_ok() {
            self.asked = Some(asked);
        }
    }

    /// Follows the kernel until it cannot be heard any more, on a thread of its own: it blocks.
    #[must_use]
    pub fn run(mut self) -> io::Error {
        loop {
            if let Err(error) = self.follow() {
                return error;
            }
        }
    }

    fn follow(&mut self) -> io::Result<()> {
        let rest = self.may_read.saturating_duration_since(Instant::now()).as_millis();
        // One more than what is left, for poll() counts whole milliseconds.
        let until_read = PollTimeout::try_from(rest.saturating_add(1)).unwrap_or(PollTimeout::MAX);
        let timeout = if self.is_unclear { until_read } else { PollTimeout::NONE };
        let heard_at = [Some(self.news.as_fd()), self.asked.as_ref().map(AsFd::as_fd)];
        let mut polled: Vec<_> = heard_at.into_iter().flatten().map(|at| PollFd::new(at, PollFlags::POLLIN)).collect();
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if polled.get(1).is_some_and(|asked| asked.any().unwrap_or(false)) {
            self.answer();
        }
        match self.news.hear()? {
            Heard::Nothing => {}
            Heard::Lost => {
                self.addresses.read_addresses(&mut self.requests)?;
                self.is_unclear = self.follows_routes;
            }
            Heard::Changes(changes) => {
                let mut table = self.addresses.0.write().unwrap_or_else(PoisonError::into_inner);
                for message in &changes {
                    self.is_unclear |= !table.take(message);
                }
            }
        }
        let start = Instant::now();
        if self.is_unclear && start >= self.may_read {
            self.is_unclear = false;
            self.addresses.read_routes(&mut self.requests)?;
            let end = Instant::now();
            self.may_read = end + end.saturating_duration_since(start).saturating_mul(REST_BY_WORK).max(REST);
        }
        Ok(())
    }
}

impl Table {
    /// Whether it is clear what is there now.
    fn take(&mut self, message: &RouteNetlinkMessage) -> bool {
        if let RouteNetlinkMessage::NewRoute(route) = message {
            return self.links.add(route);
        } else if let RouteNetlinkMessage::DelRoute(route) = message {
            self.links.remove(route);
        } else if let RouteNetlinkMessage::NewLink(link) = message {
            self.links.see(link, false);
        } else if let RouteNetlinkMessage::DelLink(link) = message {
            self.links.see(link, true);
        } else if let RouteNetlinkMessage::NewAddress(message) = message {
            if let Some(ip) = address(message) {
                self.owners.entry(ip).or_default().insert(message.header.index);
                self.links.add_own(message.header.index, ip, message.header.prefix_len);
            }
        } else if let RouteNetlinkMessage::DelAddress(message) = message {
            let Some(ip) = address(message) else { return true };
            self.links.remove_own(message.header.index, ip, message.header.prefix_len);
            if let Some(owners) = self.owners.get_mut(&ip) {
                owners.remove(&message.header.index);
                if owners.is_empty() {
                    self.owners.remove(&ip);
                }
            }
        }
        true
    }
}

/// The host's own address: IFA_LOCAL, or IFA_ADDRESS where the two are one (of a point-to-point link that is the peer's).
fn address(message: &AddressMessage) -> Option<IpAddr> {
    let mut found = None;
    for attribute in &message.attributes {
        if let AddressAttribute::Local(ip) = attribute {
            return Some(*ip);
        }
        if let AddressAttribute::Address(ip) = attribute {
            found = Some(*ip);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(index: u32, attributes: Vec<AddressAttribute>) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.attributes = attributes;
        message
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn with(messages: &[RouteNetlinkMessage]) -> LocalAddresses {
        let addresses = LocalAddresses::default();
        assert!(messages.iter().all(|message| addresses.0.write().unwrap().take(message)));
        addresses
    }

    #[test]
    fn an_address_stays_as_long_as_one_interface_has_it() {
        let of = |index| message(index, vec![AddressAttribute::Address(ip("192.0.2.1"))]);
        let (one, two) = (RouteNetlinkMessage::NewAddress(of(1)), RouteNetlinkMessage::NewAddress(of(2)));
        let gone = RouteNetlinkMessage::DelAddress(of(1));
        assert!(with(&[one.clone(), two, gone.clone()]).is_local(ip("192.0.2.1")));
        assert!(!with(&[one, gone]).is_local(ip("192.0.2.1")));
    }

    #[test]
    fn the_far_end_of_a_point_to_point_link_is_not_local() {
        let far_and_own = vec![AddressAttribute::Address(ip("192.0.2.2")), AddressAttribute::Local(ip("192.0.2.1"))];
        let addresses = with(&[RouteNetlinkMessage::NewAddress(message(1, far_and_own))]);
        assert!(addresses.is_local(ip("192.0.2.1")) && !addresses.is_local(ip("192.0.2.2")));
    }

    #[test]
    fn where_client_and_backend_are_decides() {
        let own = message(1, vec![AddressAttribute::Address(ip("192.0.2.1"))]);
        let addresses = with(&[RouteNetlinkMessage::NewAddress(own)]);
        let cases = [
            ("203.0.113.7", "127.0.0.1", false),
            ("203.0.113.7", "192.0.2.1", false),
            ("203.0.113.7", "203.0.113.7", true),
            ("::ffff:203.0.113.7", "203.0.113.7", true),
            ("192.0.2.1", "198.51.100.1", true),
            ("::ffff:192.0.2.1", "198.51.100.1", true),
            ("127.8.8.8", "198.51.100.1", true),
            ("::ffff:127.0.0.1", "127.0.0.1", true),
            ("::1", "::1", true),
            ("2001:db8::7", "::1", false),
        ];
        for (client, backend, expected) in cases {
            assert_eq!(addresses.same_host(ip(client), ip(backend)), expected, "{client} to {backend}");
        }
    }
}
