//! What stays allowed in the sandbox, and what a configuration needs of it.

use std::fs;
use std::path::{Path, PathBuf};

use caps::Capability;

use crate::config::crowded::is_crowded;
use crate::config::model::{Config, Host, Source, TargetPort};
use crate::multipath;

/// What stays allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// Files, and directories with all that is in them, that may be read; those that are not there are passed over.
    pub read: Vec<PathBuf>,
    /// Directories in which files may be made and written, and files that may be written: logs.
    pub write: Vec<PathBuf>,
    /// Directories in which names may be removed: that of the admin socket.
    pub remove: Vec<PathBuf>,
    /// TCP ports.
    pub ports: Ports,
    /// Whether sockets of Multipath TCP may be made, which landlock holds to no port.
    pub multipath: bool,
    /// Capabilities that are kept, where the process has them.
    pub capabilities: Vec<Capability>,
    /// Who the process becomes; needs root.
    pub user: Option<User>,
}

/// A user and its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// `uid`.
    pub user: u32,
    /// `gid`; other groups are given up.
    pub group: u32,
}

/// TCP ports that may be used (landlock's network rules, from Linux 6.7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// All: a reload may bring other listeners and targets, unless `operation.fixed_ports` says that none does.
    Any,
    /// `None`: all, for this direction. A transparent socket is bound to whatever port the client has.
    Only {
        /// Ports to bind to.
        bind: Option<Vec<u16>>,
        /// Ports to connect to.
        connect: Option<Vec<u16>>,
    },
}

impl Ports {
    /// The first port that a configuration needs and that is not among these, and for what.
    pub(crate) fn lack(&self, config: &Config) -> Option<String> {
        let Self::Only { bind, connect } = self else { return None };
        let Self::Only { bind: binds, connect: connects } = ports_of(config) else { return None };
        let lack = |have: &Option<Vec<u16>>, need: Option<Vec<u16>>, what: &str, any: &str| match (have, need) {
            (None, _) => None,
            (Some(_), None) => Some(any.to_owned()),
            (Some(have), Some(need)) => {
                need.iter().find(|port| !have.contains(port)).map(|port| format!("port {port} {what}"))
            }
        };
        lack(bind, binds, "to listen at", "the ports of clients, for transparent connections")
            .or_else(|| lack(connect, connects, "to connect to", "the ports that clients ask for, to connect to"))
    }
}

/// The capabilities of a data plane: `IP_TRANSPARENT` needs the first (ip(7)), ports below 1024 the second.
pub const CAPABILITIES: [Capability; 2] = [Capability::CAP_NET_RAW, Capability::CAP_NET_BIND_SERVICE];

impl Allowed {
    /// What a configuration needs, and reloads of it that keep its files.
    #[must_use]
    pub fn of(config: &Config, config_file: &Path) -> Self {
        let operation = &config.operation;
        let log = operation.access_log.as_deref().filter(|path| *path != Path::new("-"));
        let directory = |path: Option<&Path>| path.and_then(Path::parent).map(Path::to_owned).into_iter().collect();
        Self {
            read: std::iter::once(config_file)
                .chain(config.key_files.iter().map(|file| file.path.as_path()))
                .map(readable)
                .collect(),
            write: log.map(writable).into_iter().collect(),
            remove: directory(operation.admin_socket.as_deref()),
            ports: if operation.fixed_ports { ports_of(config) } else { Ports::Any },
            multipath: multipath::wanted_by(config).is_some(),
            capabilities: CAPABILITIES.to_vec(),
            user: None,
        }
    }
}

/// What must be readable so that a file is, also after it was replaced by another of its name: its directory. Of `/etc` and
/// `/` that would be too much: there the file itself, and a replaced one is read at the next start only.
#[must_use]
pub fn readable(path: &Path) -> PathBuf {
    folder_or_file(fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()))
}

/// What must be writable so that a log is, also after it was moved away: its directory. Of one where others keep their files
/// the log alone, which then cannot be made anew.
fn writable(path: &Path) -> PathBuf {
    // The directory of the name, not of what it links to: there it is made anew.
    let folder = path.parent().and_then(|folder| fs::canonicalize(folder).ok());
    folder_or_file(folder.zip(path.file_name()).map_or_else(|| path.to_owned(), |(folder, name)| folder.join(name)))
}

fn folder_or_file(path: PathBuf) -> PathBuf {
    match path.parent() {
        Some(parent) if !is_crowded(&path) => parent.to_owned(),
        _ => path,
    }
}

/// The ports of a configuration, as narrow as they can be.
fn ports_of(config: &Config) -> Ports {
    let transparent = config.backends.iter().any(|backend| matches!(backend.source, Source::Client { .. }));
    let listeners = config.listeners.iter().flat_map(|listener| &listener.tcp).chain(&config.operation.metrics);
    let bind = (!transparent).then(|| sorted(listeners.map(std::net::SocketAddr::port)));
    let named = config.backends.iter().flat_map(|backend| &backend.targets).any(|t| matches!(t.host, Host::Name(_)));
    let servers = config.resolver.servers.iter().map(std::net::SocketAddr::port);
    let dns = named.then_some(53).into_iter().chain(servers);
    let targets = config.backends.iter().flat_map(|backend| &backend.targets).map(|target| match target.port {
        TargetPort::Fixed(port) => Some(port),
        TargetPort::Original => None,
    });
    let connect = targets.collect::<Option<Vec<u16>>>().map(|targets| sorted(targets.into_iter().chain(dns)));
    Ports::Only { bind, connect }
}

fn sorted(ports: impl Iterator<Item = u16>) -> Vec<u16> {
    let mut ports: Vec<u16> = ports.collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU32, NonZeroUsize};
    use std::time::Duration;

    use super::*;
    use crate::config::model::NameBounds;
    use crate::config::model::{
        Backend, Balance, KeyFile, Limits, Listener, NamePart, Operation, Resolver, Target, TargetPolicy, Timeouts,
        TransparentRules,
    };
    use crate::operation::scratch::Scratch;

    const SECOND: Duration = Duration::from_secs(1);

    fn target(host: Host, port: TargetPort) -> Target {
        Target { host, port }
    }

    fn config(source: Source, targets: Vec<Target>) -> Config {
        let one = NonZeroUsize::MIN;
        let listener = Listener {
            name: "web".to_owned(),
            tcp: vec!["192.0.2.1:443".parse().unwrap(), "192.0.2.1:80".parse().unwrap()],
            udp: vec!["192.0.2.1:444".parse().unwrap()],
            mptcp: false,
            arrival: crate::config::model::Arrival::Direct,
            proxy_header: Vec::new(),
            connections: one,
            udp_flows: one,
            rate_per_flow: None,
            rate: None,
        };
        let backend = Backend {
            name: "home".to_owned(),
            targets,
            balance: Balance::InOrder,
            source,
            mptcp: false,
            send_proxy: None,
            send_proxy_udp: None,
            send_proxy_udp_id: false,
            sign_proxy: None,
            health: None,
            eject: None,
            connect_timeout: SECOND,
            fallback: None,
            allow_names: NameBounds::default(),
        };
        let resolver = Resolver {
            servers: vec!["192.0.2.53:5353".parse().unwrap()],
            timeout: SECOND,
            stale: SECOND,
            negative: SECOND,
            min_ttl: SECOND,
            max_ttl: SECOND,
            cache_entries: one,
        };
        let limits = Limits {
            connections: one,
            connections_per_source: one,
            undecided_per_source: one,
            udp_flows: one,
            udp_flows_per_source: one,
            source: crate::config::model::SourcePrefixes::default(),
            preface_bytes: one,
        };
        let timeouts = Timeouts {
            header: SECOND,
            preface: SECOND,
            silence: SECOND,
            idle: SECOND,
            half_closed: SECOND,
            udp_one_way: SECOND,
            udp_idle: SECOND,
            drain: SECOND,
            drain_delay: SECOND,
            handed_over: SECOND,
            keepalive: SECOND,
            user_timeout: None,
        };
        Config {
            workers: one,
            listeners: vec![listener],
            rules: Vec::new(),
            backends: vec![backend],
            resolver,
            limits,
            timeouts,
            targets: TargetPolicy::default(),
            transparent: TransparentRules { manage_rules: false, mark: NonZeroU32::MIN, table: NonZeroU32::MIN },
            operation: Operation {
                admin_socket: Some("/run/edgeproxy/admin.sock".into()),
                metrics: Some("127.0.0.1:9100".parse().unwrap()),
                access_log: Some("/var/log/edgeproxy/access.log".into()),
                fixed_ports: false,
            },
            deny: Vec::new(),
            key_files: Vec::new(),
        }
    }

    fn fixed(port: u16) -> Target {
        target(Host::Address("192.0.2.9".parse().unwrap()), TargetPort::Fixed(port))
    }

    #[test]
    fn ports_are_those_of_listeners_metrics_targets_and_resolvers() {
        let only =
            |bind: &[u16], connect: &[u16]| Ports::Only { bind: Some(bind.to_vec()), connect: Some(connect.to_vec()) };
        assert_eq!(ports_of(&config(Source::Own, vec![fixed(8443)])), only(&[80, 443, 9100], &[5353, 8443]));
        let named = target(Host::Name(vec![NamePart::Literal("nas".to_owned())]), TargetPort::Fixed(22));
        assert_eq!(ports_of(&config(Source::Own, vec![named])), only(&[80, 443, 9100], &[22, 53, 5353]));
    }

    #[test]
    fn a_direction_is_free_when_its_ports_are_the_clients_choice() {
        let original = target(Host::Address("192.0.2.9".parse().unwrap()), TargetPort::Original);
        let ports = ports_of(&config(Source::Client { or_own: true }, vec![fixed(1), original]));
        assert_eq!(ports, Ports::Only { bind: None, connect: None });
    }

    #[test]
    fn ports_are_held_where_the_configuration_says_so_and_a_further_one_is_named() {
        let mut fixed_ports = config(Source::Own, vec![fixed(8443)]);
        let path = Path::new("/opt/edgeproxy/edge.toml");
        assert_eq!(Allowed::of(&fixed_ports, path).ports, Ports::Any);
        fixed_ports.operation.fixed_ports = true;
        let ports = Allowed::of(&fixed_ports, path).ports;
        assert_eq!(ports, ports_of(&fixed_ports));
        assert_eq!((ports.lack(&fixed_ports), Ports::Any.lack(&fixed_ports)), (None, None));
        let original = target(Host::Address("192.0.2.9".parse().unwrap()), TargetPort::Original);
        for (other, said) in [
            (config(Source::Own, vec![fixed(8443), fixed(22)]), "port 22 to connect to"),
            (config(Source::Own, vec![original]), "the ports that clients ask for, to connect to"),
            (
                config(Source::Client { or_own: true }, vec![fixed(8443)]),
                "the ports of clients, for transparent connections",
            ),
        ] {
            assert_eq!(ports.lack(&other).as_deref(), Some(said));
        }
        let mut listening = fixed_ports;
        listening.listeners[0].tcp.push("192.0.2.1:81".parse().unwrap());
        assert_eq!(ports.lack(&listening).as_deref(), Some("port 81 to listen at"));
        listening.listeners[0].tcp.clear();
        assert_eq!(ports.lack(&listening), None, "fewer are allowed");
    }

    #[test]
    fn the_paths_are_those_of_the_configuration() {
        let allowed = Allowed::of(&config(Source::Own, vec![fixed(1)]), Path::new("/opt/edgeproxy/edge.toml"));
        assert_eq!(allowed.read, [PathBuf::from("/opt/edgeproxy")]);
        assert_eq!(allowed.write, [PathBuf::from("/var/log/edgeproxy")]);
        assert_eq!(allowed.remove, [PathBuf::from("/run/edgeproxy")]);
        let mut signing = config(Source::Own, vec![fixed(1)]);
        let key_file = |path: &str| KeyFile { path: path.into(), place: String::new() };
        signing.key_files = ["/run/credentials/edgeproxy.service/hop.key", "/etc/hop.key"].map(key_file).to_vec();
        let allowed = Allowed::of(&signing, Path::new("/opt/edgeproxy/edge.toml"));
        let read = ["/opt/edgeproxy", "/run/credentials/edgeproxy.service", "/etc/hop.key"].map(PathBuf::from);
        assert_eq!(allowed.read, read, "files of keys, which a reload reads again");
        let mut quiet = config(Source::Own, vec![fixed(1)]);
        quiet.operation = Operation { access_log: Some("-".into()), ..Operation::default() };
        let allowed = Allowed::of(&quiet, Path::new("/opt/edgeproxy/edge.toml"));
        assert_eq!((allowed.write.len(), allowed.remove.len()), (0, 0));
    }

    #[test]
    fn a_directory_is_writable_for_its_log_unless_others_keep_theirs_there() {
        let scratch = Scratch::new();
        assert_eq!(writable(&scratch.path("access.log")), fs::canonicalize(scratch.path("")).unwrap());
        for crowded in ["/var/log/edge.log", "/tmp/edge.log", "/edge.log"] {
            assert_eq!(writable(Path::new(crowded)), PathBuf::from(crowded));
        }
    }

    #[test]
    fn a_directory_is_readable_for_its_file_unless_others_keep_theirs_there() {
        assert_eq!(readable(Path::new("/etc/edge.toml")), PathBuf::from("/etc/edge.toml"));
        let scratch = Scratch::new();
        let (real, link) = (scratch.path("resolve/stub.conf"), scratch.path("resolv.conf"));
        fs::create_dir(scratch.path("resolve")).unwrap();
        fs::write(&real, "").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(readable(&link), fs::canonicalize(scratch.path("resolve")).unwrap());
    }
}
