//! What tests of transparency do again and again: install rules, name clients, dial.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::num::NonZeroU32;
use std::process::Command;
use std::time::Duration;

use edgeproxy::config::model::Source;
use edgeproxy::transparent::needs::{Family, Needs};
use edgeproxy::transparent::rules::RuleSet;
use edgeproxy::transparent::socket::{connect_tcp, DialError, Manner, Rung};

use crate::namespaces::run;

pub(crate) const MUST: Source = Source::Client { or_own: false };
/// How long an answer is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn install(needs: Needs) {
    run(Command::new("sh").args(["-ec", &rules(needs).install_lines()]));
}

pub(crate) fn rules(needs: Needs) -> RuleSet {
    RuleSet::new(needs, NonZeroU32::new(0x2f7).unwrap(), NonZeroU32::new(763).unwrap())
}

pub(crate) fn client(family: Family, port: u16) -> SocketAddr {
    let ip: IpAddr = match family {
        Family::V4 => "203.0.113.7".parse().unwrap(),
        Family::V6 => "2001:db8::7".parse().unwrap(),
    };
    SocketAddr::new(ip, port)
}

pub(crate) fn dial(
    client: Option<SocketAddr>,
    source: Source,
    to: SocketAddr,
    patience: Duration,
) -> Result<(TcpStream, Rung), DialError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let connecting = tokio::time::timeout(patience, connect_tcp(client, source, to, Manner::default()));
        let (stream, rung) = connecting.await.unwrap_or_else(|late| Err(DialError::Connect(late.into())))?;
        let stream = stream.into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(patience)).unwrap();
        Ok((stream, rung))
    })
}
