//! The same against a server that others wrote.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use edgeproxy::names::{Fault, NameError};

use crate::fixture::{ask, local, names, pass, settings, Folder};
use crate::liar::Liar;

/// A dnsmasq in the foreground; it ends with the value.
struct Dnsmasq {
    child: Child,
    says: BufReader<ChildStderr>,
    address: SocketAddr,
    hosts: PathBuf,
    _folder: Folder,
}

impl Dnsmasq {
    /// With these further arguments, at a port that is free.
    fn start(name: &str, hosts: &str, arguments: &[&str]) -> Self {
        for attempt in 0..20 {
            if let Some(server) = Self::try_start(&format!("{name}-{attempt}"), hosts, arguments) {
                return server;
            }
        }
        panic!("dnsmasq does not start");
    }

    /// Somebody may take the port between its choice and its use.
    fn try_start(name: &str, hosts: &str, arguments: &[&str]) -> Option<Self> {
        let folder = Folder::new(name);
        let path = folder.path().join("hosts");
        fs::write(&path, hosts).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new("dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--log-facility=-",
            "--no-resolv",
            "--no-hosts",
        ]);
        command.args(["--bind-interfaces", "--listen-address=127.0.0.1", "--local-ttl=5", "--user=", "--pid-file="]);
        command.arg(format!("--port={}", address.port())).arg(format!("--addn-hosts={}", path.display()));
        let mut child = command.args(arguments).stderr(Stdio::piped()).spawn().expect("dnsmasq is installed");
        let says = BufReader::new(child.stderr.take().unwrap());
        let mut server = Self { child, says, address, hosts: path, _folder: folder };
        server.has_read_hosts().then_some(server)
    }

    /// Reads what it says until it has read its hosts; false when it ended instead.
    fn has_read_hosts(&mut self) -> bool {
        let path = self.hosts.display().to_string();
        let mut line = String::new();
        while self.says.read_line(&mut line).unwrap() > 0 {
            if line.contains(&path) {
                return true;
            }
            line.clear();
        }
        false
    }

    /// Other hosts from here on.
    fn change(&mut self, hosts: &str) {
        fs::write(&self.hosts, hosts).unwrap();
        let id = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGHUP).unwrap();
        assert!(self.has_read_hosts());
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn hosts_aliases_denials_and_flips_are_as_the_server_has_them() {
    let hosts = "192.0.2.1 nas.test\n2001:db8::1 nas.test\n192.0.2.3 four.test\n";
    let mut server = Dnsmasq::start("story", hosts, &["--local=/test/", "--cname=www.test,inner.test,nas.test"]);
    local(async {
        let names = names(&settings(&[server.address]));
        assert_eq!(ask(&names, "NAS.test").await.unwrap(), ["2001:db8::1", "192.0.2.1"]);
        assert_eq!(ask(&names, "www.test").await.unwrap(), ["2001:db8::1", "192.0.2.1"]);
        assert_eq!(ask(&names, "four.test").await.unwrap(), ["192.0.2.3"]);
        assert_eq!(ask(&names, "gone.test").await, Err(NameError::NoSuchName));
        server.change("192.0.2.2 nas.test\n192.0.2.4 gone.test\n");
        assert_eq!(ask(&names, "nas.test").await.unwrap(), ["2001:db8::1", "192.0.2.1"], "for its TTL");
        pass(Duration::from_secs(5)).await;
        assert_eq!(ask(&names, "nas.test").await.unwrap(), ["192.0.2.2"]);
        assert_eq!(ask(&names, "gone.test").await.unwrap(), ["192.0.2.4"]);
    });
}

#[test]
fn more_addresses_than_a_datagram_holds_come_over_tcp() {
    let hosts: String = (1..=60).map(|last| format!("192.0.2.{last} big.test\n")).collect();
    let server = Dnsmasq::start("big", &hosts, &["--local=/test/"]);
    local(async {
        let found = ask(&names(&settings(&[server.address])), "big.test").await.unwrap();
        assert_eq!(found.len(), 16, "as many as are ever used");
    });
}

#[test]
fn without_a_server_behind_it_refuses_and_stale_addresses_outlive_its_end() {
    let server = Dnsmasq::start("end", "192.0.2.1 nas.test\n", &[]);
    local(async {
        let names = names(&settings(&[server.address]));
        assert_eq!(ask(&names, "other.example").await, Err(NameError::Unanswered(Fault::Refused(5))));
        assert_eq!(ask(&names, "nas.test").await.unwrap(), ["192.0.2.1"]);
        drop(server);
        pass(Duration::from_secs(60)).await;
        assert_eq!(ask(&names, "nas.test").await.unwrap(), ["192.0.2.1"]);
        assert_eq!(ask(&names, "new.test").await, Err(NameError::Unanswered(Fault::Unreachable)));
    });
}

#[test]
fn a_failure_of_the_server_behind_it_comes_through() {
    local(async {
        let failing = Liar::start(|asked| vec![asked.code(2, 60)]).await;
        let behind = format!("--server=127.0.0.1#{}", failing.address.port());
        let server = Dnsmasq::start("behind", "192.0.2.1 nas.test\n", &[&behind]);
        let found = ask(&names(&settings(&[server.address])), "other.example").await;
        assert_eq!(found, Err(NameError::Unanswered(Fault::Failure)));
        assert!(!failing.heard().is_empty());
    });
}
