//! Keepers of the same rules on one host: each says by a socket's name that it is there and what it needs, so that the last
//! one removes the rules and no other does. Names of abstract sockets (unix(7)) belong to the network namespace, as rules do,
//! and end with their process, however it ends.

use std::fs;
use std::io::{self, Read};
use std::num::NonZeroU32;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

use super::needs::Needs;

/// Sockets of this network namespace, with their names.
const SOCKETS: &str = "/proc/self/net/unix";
/// Nobody holds the lock for longer than a few runs of nft take.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_ATTEMPTS: usize = 16;
/// Containers may share the network namespace but not the process ids.
const TWINS: usize = 16;

/// That a keeper is there.
#[derive(Debug)]
pub(crate) struct Presence {
    name: String,
    _socket: UnixListener,
}

/// Only one keeper at a time changes rules.
#[derive(Debug)]
pub(crate) struct Lock(#[allow(dead_code)] UnixListener);

impl Presence {
    pub(crate) fn announce(mark: NonZeroU32, table: NonZeroU32, needs: Needs) -> io::Result<Self> {
        let stem = format!("{}{}/{}", prefix(mark, table), needs.bits(), std::process::id());
        for twin in 0..TWINS {
            let name = format!("{stem}/{twin}");
            match bind(&name) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                bound => return Ok(Self { _socket: bound?, name }),
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    /// What the others that are there need; `None` if there are none.
    pub(crate) fn others(&self, mark: NonZeroU32, table: NonZeroU32) -> io::Result<Option<Needs>> {
        Ok(union(&fs::read_to_string(SOCKETS)?, &prefix(mark, table), Some(&self.name)))
    }
}

/// Whether any keeper is there that has something to keep.
pub(crate) fn anybody(mark: NonZeroU32, table: NonZeroU32) -> io::Result<bool> {
    Ok(union(&fs::read_to_string(SOCKETS)?, &prefix(mark, table), None).is_some_and(|needs| !needs.is_empty()))
}

impl Lock {
    /// Waits until it is free.
    pub(crate) fn take(mark: NonZeroU32, table: NonZeroU32) -> io::Result<Self> {
        let name = format!("edgeproxy-lock/{mark}/{table}");
        for _ in 0..LOCK_ATTEMPTS {
            match bind(&name) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => wait_for_end(&name)?,
                bound => return bound.map(Self),
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "another keeper of the same rules does not come to an end"))
    }
}

/// A connection that nobody accepts ends when its listener does.
fn wait_for_end(name: &str) -> io::Result<()> {
    let Ok(mut holder) = UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?) else { return Ok(()) };
    holder.set_read_timeout(Some(LOCK_WAIT))?;
    match holder.read(&mut [0]) {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn bind(name: &str) -> io::Result<UnixListener> {
    UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)
}

fn prefix(mark: NonZeroU32, table: NonZeroU32) -> String {
    format!("edgeproxy-rules/{mark}/{table}/")
}

/// The needs in all names that begin so, but for one's own. `/proc/net/unix` shows abstract names after an `@`.
fn union(sockets: &str, prefix: &str, but: Option<&str>) -> Option<Needs> {
    let names = sockets.lines().filter_map(|line| line.rsplit(' ').next()?.strip_prefix('@'));
    let others = names.filter(|name| Some(*name) != but).filter_map(|name| name.strip_prefix(prefix));
    let needs = others.filter_map(|rest| rest.split('/').next()?.parse().ok().map(Needs::from_bits));
    needs.reduce(Needs::and)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: &str = "\
Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 17 @edgeproxy-rules/7/8/1/100/0
0000000000000000: 00000002 00000000 00010000 0001 01 18 @edgeproxy-rules/7/8/4/101/0
0000000000000000: 00000002 00000000 00010000 0001 01 19 @edgeproxy-rules/7/80/16/102
0000000000000000: 00000002 00000000 00010000 0001 01 20 /run/edgeproxy-rules/7/8/32/103
0000000000000000: 00000003 00000000 00000000 0001 03 21
";

    #[test]
    fn those_of_the_same_rules_count_and_oneself_does_not() {
        assert_eq!(union(SEEN, "edgeproxy-rules/7/8/", None), Some(Needs::from_bits(5)));
        assert_eq!(union(SEEN, "edgeproxy-rules/7/8/", Some("edgeproxy-rules/7/8/1/100/0")), Some(Needs::from_bits(4)));
        assert_eq!(union(SEEN, "edgeproxy-rules/9/8/", None), None);
    }

    #[test]
    fn the_lock_is_free_again_when_its_holder_ends() {
        let (mark, table) = (NonZeroU32::MAX, NonZeroU32::new(std::process::id()).unwrap());
        let held = Lock::take(mark, table).unwrap();
        let waiter = std::thread::spawn(move || Lock::take(mark, table).is_ok());
        drop(held);
        assert!(waiter.join().unwrap());
    }
}
