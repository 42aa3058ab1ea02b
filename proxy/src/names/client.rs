//! Which server is asked when: in order, the next when one fails, and those that were silent last.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::chance::Chance;
use super::exchange::{exchange, Fault};
use super::message::{Answer, Family, Query};
use super::name::HostName;

/// Times that a silent server is asked: a datagram may be lost (`attempts` of resolv.conf(5) has the same default).
const ROUNDS: usize = 2;
/// A server that was silent is asked after all others for so long: one dead server shall not delay each new name.
const SILENT_REST: Duration = Duration::from_secs(30);

/// Asks servers.
#[derive(Debug)]
pub(crate) struct Client {
    limit: Duration,
    chance: Chance,
    /// When each server was last silent.
    silent: RefCell<HashMap<SocketAddr, Instant>>,
}

impl Client {
    /// A client that gives each server `limit` for one try.
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, chance: Chance::default(), silent: RefCell::default() }
    }

    /// The first answer of `servers`, or why the last one gave none. Takes at most twice `limit` for each server and each
    /// transport.
    pub(crate) async fn ask(&self, servers: &[SocketAddr], host: &HostName, family: Family) -> Result<Answer, Fault> {
        let mut asked = in_order(servers, &self.silent.borrow(), now());
        let mut last = Fault::Unreachable;
        for _ in 0..ROUNDS {
            let mut silent = Vec::new();
            for server in asked {
                match self.ask_one(server, host, family).await {
                    Ok(answer) => return Ok(answer),
                    Err(fault) => {
                        last = fault;
                        if fault == Fault::Silent {
                            silent.push(server);
                        }
                    }
                }
            }
            asked = silent;
        }
        Err(last)
    }

    async fn ask_one(&self, server: SocketAddr, host: &HostName, family: Family) -> Result<Answer, Fault> {
        let [high, low, ..] = self.chance.draw().to_be_bytes();
        let query = Query::new(host, family, u16::from_be_bytes([high, low]), || self.chance.draw());
        let outcome = exchange(server, &query, self.limit).await;
        let mut silent = self.silent.borrow_mut();
        if outcome == Err(Fault::Silent) {
            let now = now();
            silent.retain(|_, since| is_resting(*since, now));
            silent.insert(server, now);
        } else {
            silent.remove(&server);
        }
        outcome
    }
}

/// The runtime's clock, which tests can stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn is_resting(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < SILENT_REST
}

/// `servers` in their order, those that rest after the others.
fn in_order(servers: &[SocketAddr], silent: &HashMap<SocketAddr, Instant>, now: Instant) -> Vec<SocketAddr> {
    let rests = |server: &SocketAddr| silent.get(server).is_some_and(|since| is_resting(*since, now));
    let (resting, awake): (Vec<_>, Vec<_>) = servers.iter().copied().partition(rests);
    [awake, resting].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_were_silent_come_last_for_a_while() {
        let [a, b, c] = [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let begin = Instant::now();
        let silent = HashMap::from([(a, begin)]);
        let order = |seconds| in_order(&[a, b, c], &silent, begin + Duration::from_secs(seconds));
        assert_eq!(order(0), [b, c, a]);
        assert_eq!(order(29), [b, c, a]);
        assert_eq!(order(30), [a, b, c]);
    }
}
