//! What this machine says of names: `/etc/hosts` and `/etc/resolv.conf`, read again when they change.
//!
//! Search lists are applied to names of the configuration only, so that what a client asks for means one host everywhere;
//! single labels go to the servers as they are, too, and systemd-resolved's stub asks the local network for them (LLMNR,
//! mDNS).

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::copied;
use super::name::HostName;
use super::resolv_conf::{self, ResolvConf};

/// The files are looked at no more often, so that a name in the cache costs no call of the kernel.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// hosts(5).
pub(super) const HOSTS: &str = "/etc/hosts";
/// resolv.conf(5).
pub(super) const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Where the files are.
#[derive(Debug, Clone)]
pub struct SystemFiles {
    /// hosts(5).
    pub hosts: SystemFile,
    /// resolv.conf(5).
    pub resolv_conf: SystemFile,
}

impl Default for SystemFiles {
    fn default() -> Self {
        Self { hosts: SystemFile::At(HOSTS.into()), resolv_conf: SystemFile::At(RESOLV_CONF.into()) }
    }
}

/// Where one of them is.
#[derive(Debug, Clone)]
pub enum SystemFile {
    /// At its path.
    At(PathBuf),
    /// In memory, to which another process copies it.
    Copied(Arc<File>),
}

impl<P: AsRef<Path> + ?Sized> From<&P> for SystemFile {
    fn from(path: &P) -> Self {
        Self::At(path.as_ref().to_owned())
    }
}

/// What changes when a file does.
#[derive(Debug, PartialEq, Eq)]
enum Version {
    At(Stamp),
    Copied([u8; copied::HEAD]),
}

impl SystemFile {
    fn version(&self) -> io::Result<Version> {
        match self {
            Self::At(path) => stamp(path).map(Version::At),
            Self::Copied(memory) => copied::stamp(memory).map(Version::Copied),
        }
    }

    fn read(&self, version: &Version) -> io::Result<Vec<u8>> {
        match (self, version) {
            (Self::At(path), _) => read(path),
            (Self::Copied(memory), Version::Copied(stamp)) => copied::read(memory, stamp),
            (Self::Copied(_), Version::At(_)) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

/// The addresses of each name of a hosts file.
pub(crate) type Hosts = HashMap<HostName, Vec<IpAddr>>;

/// Both files' contents.
#[derive(Debug)]
pub(crate) struct System {
    hosts: RefCell<Watched<Hosts>>,
    resolv_conf: RefCell<Watched<ResolvConf>>,
}

impl System {
    pub(crate) fn new(files: SystemFiles) -> Self {
        let read_resolv_conf = |text: &str| resolv_conf::parse(text, interface_index);
        Self {
            hosts: RefCell::new(Watched::new(files.hosts, parse_hosts)),
            resolv_conf: RefCell::new(Watched::new(files.resolv_conf, read_resolv_conf)),
        }
    }

    /// Where the files are.
    pub(crate) fn files(&self) -> SystemFiles {
        SystemFiles { hosts: self.hosts.borrow().file.clone(), resolv_conf: self.resolv_conf.borrow().file.clone() }
    }

    /// The addresses that the hosts file gives `host`.
    pub(crate) fn addresses(&self, host: &HostName, now: Instant) -> Option<Vec<IpAddr>> {
        self.hosts.borrow_mut().current(now).get(host).cloned()
    }

    /// Whom this machine asks, and for what.
    pub(super) fn resolv_conf(&self, now: Instant) -> Rc<ResolvConf> {
        self.resolv_conf.borrow_mut().current(now)
    }
}

/// A file as last read. A file that cannot be read keeps its last contents: a missing one is perhaps being replaced.
#[derive(Debug)]
struct Watched<T> {
    file: SystemFile,
    parse: fn(&str) -> T,
    looked: Option<Instant>,
    seen: Option<Version>,
    contents: Rc<T>,
}

/// Of a file at a path: device, inode, length, and the time of the last change.
pub(super) type Stamp = (u64, u64, u64, i64, i64);

impl<T> Watched<T> {
    fn new(file: SystemFile, parse: fn(&str) -> T) -> Self {
        let contents = Rc::new(parse(""));
        Self { file, parse, looked: None, seen: None, contents }
    }

    fn current(&mut self, now: Instant) -> Rc<T> {
        if !self.looked.is_some_and(|looked| now.saturating_duration_since(looked) < LOOK) {
            self.looked = Some(now);
            let Ok(version) = self.file.version() else { return Rc::clone(&self.contents) };
            if self.seen.as_ref() != Some(&version) {
                if let Ok(text) = self.file.read(&version) {
                    self.contents = Rc::new((self.parse)(&String::from_utf8_lossy(&text)));
                    self.seen = Some(version);
                }
            }
        }
        Rc::clone(&self.contents)
    }
}

pub(super) fn stamp(path: &Path) -> io::Result<Stamp> {
    let about = fs::metadata(path)?;
    Ok((about.dev(), about.ino(), about.len(), about.mtime(), about.mtime_nsec()))
}

pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(copied::LONGEST_FILE as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// hosts(5). Lines and names that cannot be read are passed over, as the C library does, and so are addresses that hold on
/// one interface only.
pub(super) fn parse_hosts(text: &str) -> Hosts {
    let mut hosts = Hosts::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else { continue };
        for host in words.filter_map(HostName::parse) {
            let addresses = hosts.entry(host).or_default();
            if !addresses.contains(&address.to_canonical()) {
                addresses.push(address.to_canonical());
            }
        }
    }
    hosts
}

fn interface_index(name: &str) -> Option<u32> {
    nix::net::if_::if_nametoindex(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> HostName {
        HostName::parse(text).unwrap()
    }

    #[test]
    fn hosts_files_give_each_name_of_a_line_its_address() {
        let text = "127.0.0.1 localhost\n\n# 192.0.2.9 no\n192.0.2.1\tNas nas.home # 192.0.2.8 no\nnonsense nas\n\
                    2001:db8::1 nas\n192.0.2.1 nas\n::ffff:192.0.2.7 mapped\nfe80::1%lo scoped\n192.0.2.2\n192.0.2.3 b\u{fc}cher ok";
        let hosts = parse_hosts(text);
        let addresses =
            |name| hosts.get(&host(name)).map(|found| found.iter().map(IpAddr::to_string).collect::<Vec<_>>());
        assert_eq!(addresses("nas").unwrap(), ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(addresses("nas.home").unwrap(), ["192.0.2.1"]);
        assert_eq!(addresses("mapped").unwrap(), ["192.0.2.7"]);
        assert_eq!(addresses("ok").unwrap(), ["192.0.2.3"]);
        assert_eq!((addresses("no"), addresses("scoped")), (None, None));
    }

    #[test]
    fn interfaces_of_this_machine_have_an_index() {
        assert_eq!((interface_index("lo"), interface_index("no-such-one")), (Some(1), None));
    }

    #[test]
    fn a_file_is_read_again_when_it_changes_and_kept_when_it_is_gone() {
        let folder = std::env::temp_dir().join(format!("edgeproxy-system-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("hosts");
        let mut watched = Watched::new(SystemFile::from(&path), parse_hosts);
        let begin = Instant::now();
        let mut last = |seconds| {
            let hosts = watched.current(begin + Duration::from_secs(seconds));
            hosts.get(&host("nas")).map(|addresses| addresses.len())
        };
        assert_eq!(last(0), None);
        fs::write(&path, "192.0.2.1 nas").unwrap();
        assert_eq!(last(0), None, "not looked at twice within a second");
        assert_eq!(last(1), Some(1));
        fs::write(&path, "192.0.2.1 nas\n192.0.2.2 nas").unwrap();
        assert_eq!(last(2), Some(2));
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(last(3), Some(2));
    }
}
