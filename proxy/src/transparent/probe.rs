//! Backends dialled as clients come, from an address that nobody has: whether answers to it find back to this host. Where they
//! do not, a dial from this host's own address tells on which side of the backend they are lost.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::time::timeout;

use super::doctor::{finding, Finding, Status};
use super::host_facts::{addresses_of, HostFacts};
use super::local_addresses::LocalAddresses;
use super::socket::{connect_tcp, ClientFault, DialError, Manner};
use crate::config::model::{Config, Source, TargetPort};

/// For documentation alone (RFC 5737, RFC 3849), so that no host has them.
const NOBODY_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const NOBODY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

const MUST: Source = Source::Client { or_own: false };

/// What is to be dialled.
#[derive(Debug, Clone)]
struct Probe {
    backend: String,
    to: SocketAddr,
    patience: Duration,
}

/// What came of a dial.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    Answer,
    Refusal,
    Silence,
    /// It could not be asked in this way.
    NotAsked(ClientFault),
    /// The way to it is not there, as this host or one on it says.
    NoWay(String),
}

/// Dials each TCP target of fixed address and port whose backend sees clients; all at once.
///
/// # Errors
/// When this process cannot dial at all.
pub fn probe(config: &Config, facts: &HostFacts) -> io::Result<Vec<Finding>> {
    let probes = probes(config)?;
    let (locals, _) = LocalAddresses::open()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(async {
        let dials: Vec<_> = probes.into_iter().map(|probe| tokio::spawn(dial_both(probe))).collect();
        let mut findings = Vec::with_capacity(dials.len());
        for dialled in dials {
            // It fails only with this process.
            let Ok((probe, as_client, as_host)) = dialled.await else { continue };
            let are_rules_here = facts.missing.is_empty() && facts.nftables_there != Some(false);
            let is_here = locals.is_local(probe.to.ip());
            findings.push(told(&probe, as_client, as_host.as_ref(), are_rules_here, is_here));
        }
        findings
    }))
}

fn probes(config: &Config) -> io::Result<Vec<Probe>> {
    let mut probes = Vec::new();
    for backend in config.backends.iter().filter(|backend| matches!(backend.source, Source::Client { .. })) {
        for target in &backend.targets {
            let TargetPort::Fixed(port) = target.port else { continue };
            for ip in addresses_of(&target.host, &config.resolver)?.unwrap_or_default() {
                let (backend, patience) = (backend.name.clone(), backend.connect_timeout);
                probes.push(Probe { backend, to: SocketAddr::new(ip, port), patience });
            }
        }
    }
    Ok(probes)
}

/// As a client, and where nobody answers also as this host.
async fn dial_both(probe: Probe) -> (Probe, Said, Option<Said>) {
    let client = SocketAddr::new(nobody(probe.to.ip()), 0);
    let as_client = dial(Some(client), MUST, &probe).await;
    let as_host = if as_client == Said::Silence { Some(dial(None, Source::Own, &probe).await) } else { None };
    (probe, as_client, as_host)
}

async fn dial(client: Option<SocketAddr>, source: Source, probe: &Probe) -> Said {
    let Ok(dialled) = timeout(probe.patience, connect_tcp(client, source, probe.to, Manner::default())).await else {
        return Said::Silence;
    };
    match dialled {
        Ok(_) => Said::Answer,
        Err(DialError::Client(fault)) => Said::NotAsked(fault),
        Err(DialError::Connect(error)) if error.kind() == ErrorKind::ConnectionRefused => Said::Refusal,
        Err(DialError::Connect(error)) if error.kind() == ErrorKind::TimedOut => Said::Silence,
        Err(DialError::Connect(error) | DialError::Socket(error)) => Said::NoWay(error.to_string()),
    }
}

/// The documentation's address of the family.
fn nobody(to: IpAddr) -> IpAddr {
    if to.to_canonical().is_ipv4() {
        NOBODY_V4.into()
    } else {
        NOBODY_V6.into()
    }
}

fn told(probe: &Probe, as_client: Said, as_host: Option<&Said>, are_rules_here: bool, is_here: bool) -> Finding {
    let Probe { backend, to, patience } = probe;
    let client = nobody(to.ip());
    let (status, found) = match as_client {
        Said::Answer => (Status::Ok, format!("{to} answers {client}")),
        Said::Refusal => {
            (Status::Note, format!("{to} refuses {client}: answers find back here, but nobody listens there"))
        }
        Said::NotAsked(fault) => (Status::NotTried, fault.to_string()),
        Said::NoWay(said) => (Status::Missing, format!("{to} cannot be reached: {said}")),
        Said::Silence => {
            let does_answer_host = matches!(as_host, Some(Said::Answer | Said::Refusal));
            let where_lost = if !does_answer_host {
                "nor does it this host: it is down, or a firewall is on the way to it".to_owned()
            } else if !are_rules_here {
                "but it does this host: the kernel's rules are not here (with manage_rules = true, ask while edgeproxy runs)"
                    .to_owned()
            } else if is_here {
                "but it does this host, and the rules are here: a firewall of this host drops such packets, or the service \
                 takes nobody from elsewhere"
                    .to_owned()
            } else {
                let sport = to.port();
                format!(
                    "but it does this host, and the rules are here: a firewall there drops such packets, or its way to clients \
                     does not lead by this host (there: ip rule add ipproto tcp sport {sport} lookup 100; ip route add \
                     default via THIS-HOST table 100)"
                )
            };
            (Status::Missing, format!("{to} does not answer {client} within {patience:?}, {where_lost}"))
        }
    };
    finding(format!("probe of {backend}"), status, found, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told_of(as_client: Said, as_host: Option<&Said>, are_rules_here: bool, is_here: bool) -> (Status, String) {
        let to = "192.168.1.10:8080".parse().unwrap();
        let probe = Probe { backend: "nas".to_owned(), to, patience: Duration::from_secs(5) };
        let found = told(&probe, as_client, as_host, are_rules_here, is_here);
        assert_eq!(found.name, "probe of nas");
        (found.status, found.found)
    }

    #[test]
    fn silence_is_told_by_where_the_answers_are_lost() {
        let of = |as_host, are_rules_here, is_here| {
            let (status, found) = told_of(Said::Silence, Some(as_host), are_rules_here, is_here);
            assert_eq!(status, Status::Missing);
            assert!(found.starts_with("192.168.1.10:8080 does not answer 192.0.2.1 within 5s, "), "{found}");
            found
        };
        assert!(of(&Said::Silence, true, false).contains("it is down"));
        assert!(of(&Said::Answer, false, false).contains("rules are not here"));
        assert!(of(&Said::Answer, true, true).contains("a firewall of this host"));
        assert!(of(&Said::Refusal, true, false).contains("its way to clients"));
    }

    #[test]
    fn what_is_not_silence_is_told_as_it_is() {
        assert_eq!(
            told_of(Said::Answer, None, true, false),
            (Status::Ok, "192.168.1.10:8080 answers 192.0.2.1".to_owned())
        );
        assert_eq!(told_of(Said::Refusal, None, true, false).0, Status::Note);
        assert_eq!(told_of(Said::NotAsked(ClientFault::NotPermitted), None, true, false).0, Status::NotTried);
        assert_eq!(told_of(Said::NoWay("no route".to_owned()), None, true, false).0, Status::Missing);
    }
}
