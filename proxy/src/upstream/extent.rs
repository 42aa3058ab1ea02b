//! Whose failures those of a candidate are: of one host and port; of a host at all of its ports, where clients choose the port;
//! or of each place by itself ([`super::endpoints`]), where they choose the host.
//!
//! Against a host speaks that nobody answers there, for two ports or two clients at least. A port that is closed says that its
//! host lives. A firewall may drop what it does not want, and then a port scan of a host that lives looks like one of a host
//! that does not; so a host that has been heard within the length of a rest is not ejected.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::admission::SourceKey;
use crate::config::model::{Target, Transport};

use super::condition::{Change, Condition};

/// What a candidate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// One port of one host.
    Place,
    /// One host, at whichever port clients choose.
    Host,
    /// Whichever host clients choose.
    Hosts,
}

impl Extent {
    /// What a target is.
    #[must_use]
    pub fn of(target: &Target) -> Self {
        match (target.is_host_chosen_by_clients(), target.is_chosen_by_clients()) {
            (true, _) => Self::Hosts,
            (false, true) => Self::Host,
            (false, false) => Self::Place,
        }
    }
}

/// A client's try at a candidate that failed by the candidate's doing.
#[derive(Debug, Clone, Copy)]
pub struct Failed {
    /// By which transport. What one lets pass, another may not.
    pub by: Transport,
    /// Whose address the candidate saw, if it was not the proxy's.
    pub seen: Option<IpAddr>,
    /// Who wanted to get there.
    pub client: IpAddr,
    /// The endpoint that failed.
    pub to: SocketAddr,
    /// The host said that nobody is at this port.
    pub is_refusal: bool,
}

impl Condition {
    /// Counts a failure for what the candidate is.
    pub fn failed_at(&self, failed: Failed, now: Instant) -> Option<Change> {
        match self.extent {
            Extent::Place => self.failed(failed.by, failed.seen, now),
            Extent::Host if failed.is_refusal => {
                self.connected(failed.by, now);
                None
            }
            Extent::Host => self.failed_for(failed.by, failed.number(), now),
            Extent::Hosts => self.endpoints.as_ref()?.failed(failed, now),
        }
    }

    /// A client's connection to this endpoint stands.
    pub fn connected_at(&self, by: Transport, to: SocketAddr, now: Instant) {
        match self.extent {
            Extent::Place | Extent::Host => self.connected(by, now),
            Extent::Hosts => self.endpoints.iter().for_each(|endpoints| endpoints.connected(by, to, now)),
        }
    }

    /// Whether clients choose the host, so that each endpoint fails for itself.
    #[must_use]
    pub fn is_of_many_hosts(&self) -> bool {
        self.extent == Extent::Hosts
    }

    /// These endpoints in their order, of a candidate whose host clients choose: those that may be used, and those that rest.
    #[must_use]
    pub fn part(&self, by: Transport, all: Vec<SocketAddr>, now: Instant) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
        match &self.endpoints {
            Some(endpoints) => endpoints.part(by, all, now),
            None => (all, Vec::new()),
        }
    }

    /// How many endpoints rest, of a candidate whose host clients choose; of others none.
    #[must_use]
    pub fn resting(&self, now: Instant) -> usize {
        self.endpoints.as_ref().map_or(0, |endpoints| endpoints.resting(now))
    }
}

impl Failed {
    /// Failures at one port for one client have one number: a filter may be in the way. So have those of one client whose address
    /// the host saw: it may be banned.
    fn number(self) -> u64 {
        let whose = SourceKey::of(self.seen.unwrap_or(self.client)).number();
        let port = if self.seen.is_some() { 0 } else { u64::from(self.to.port()) };
        (whose ^ port << 48).clamp(1, u64::MAX - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::config::model::Ejection;
    use crate::config::model::Transport::{Tcp, Udp};
    use crate::upstream::condition::Standing;

    const REST: Duration = Duration::from_secs(30);

    fn of(extent: Extent, failures: u32, now: Instant) -> Arc<Condition> {
        let failures = NonZeroU32::new(failures).expect("not zero");
        Condition::of(extent, Some(Ejection { failures, duration: REST }), None, now)
    }

    fn unseen(client: &str, port: u16) -> Failed {
        let to = ([192, 0, 2, 1], port).into();
        Failed { by: Tcp, seen: None, client: client.parse().expect("an address"), to, is_refusal: false }
    }

    fn seen(client: &str, port: u16) -> Failed {
        let failed = unseen(client, port);
        Failed { seen: Some(failed.client), ..failed }
    }

    /// Whether any of these failures in a row ejects.
    fn is_ejected(condition: &Condition, failed: &[Failed], now: Instant) -> bool {
        failed.iter().any(|failed| condition.failed_at(*failed, now).is_some())
    }

    const ONE: &str = "203.0.113.1";
    const OTHER: &str = "2001:db8::1";

    #[test]
    fn a_host_is_ejected_for_two_ports_or_two_clients_that_nobody_answers_and_not_for_one_at_one() {
        let now = Instant::now();
        for (second, is_enough) in
            [(unseen(ONE, 80), false), (unseen(ONE, 81), true), (unseen(OTHER, 80), true), (unseen(OTHER, 81), true)]
        {
            let condition = of(Extent::Host, 2, now);
            assert_eq!(is_ejected(&condition, &[unseen(ONE, 80), second, second], now), is_enough, "{second:?}");
            assert_eq!(condition.standing(now) == Standing::Ejected, is_enough);
        }
        let patient = of(Extent::Host, 3, now);
        assert!(!is_ejected(&patient, &[unseen(ONE, 80), unseen(ONE, 81)], now), "as many as the file says");
        assert!(is_ejected(&patient, &[unseen(ONE, 80)], now));
    }

    #[test]
    fn whom_a_host_sees_may_be_banned_there_at_all_ports() {
        let now = Instant::now();
        let condition = of(Extent::Host, 1, now);
        assert!(!is_ejected(&condition, &[80, 81, 82].map(|port| seen(ONE, port)), now));
        assert!(is_ejected(&condition, &[seen(OTHER, 80)], now));
    }

    #[test]
    fn a_closed_port_says_that_its_host_lives() {
        let now = Instant::now();
        let condition = of(Extent::Host, 2, now);
        let refusals = [80, 81, 82].map(|port| Failed { is_refusal: true, ..unseen(ONE, port) });
        assert!(!is_ejected(&condition, &refusals, now));
        let condition = of(Extent::Host, 2, now);
        let row = [unseen(ONE, 80), refusals[0], unseen(ONE, 81), refusals[1], unseen(OTHER, 82)];
        assert!(!is_ejected(&condition, &row, now + 2 * REST));
    }

    #[test]
    fn a_host_that_was_heard_is_not_ejected_within_the_length_of_a_rest() {
        let begun = Instant::now();
        let condition = of(Extent::Host, 2, begun);
        let scan: Vec<_> = (1..100).map(|port| unseen(ONE, port)).collect();
        condition.connected(Tcp, begun);
        assert!(!is_ejected(&condition, &scan, begun + REST * 7 / 8));
        condition.connected(Tcp, begun + REST);
        assert!(!is_ejected(&condition, &scan, begun + REST + REST * 7 / 8));
        assert!(is_ejected(&condition, &scan[..1], begun + 2 * REST), "the next one finds it silent for long enough");
    }

    #[test]
    fn one_place_is_ejected_for_refusals_too_and_the_whole_of_hosts_that_clients_choose_never() {
        let now = Instant::now();
        let refused = Failed { is_refusal: true, ..unseen(ONE, 80) };
        let place = of(Extent::Place, 2, now);
        place.connected(Tcp, now);
        assert!(is_ejected(&place, &[refused; 2], now));
        let hosts = of(Extent::Hosts, 1, now);
        assert!(is_ejected(&hosts, &[unseen(ONE, 80), unseen(OTHER, 81), refused], now), "one of them");
        assert_eq!(hosts.standing(now), Standing::Usable);
    }

    #[test]
    fn neither_transport_speaks_for_the_other() {
        let now = Instant::now();
        for extent in [Extent::Place, Extent::Host] {
            for (fails, other) in [(Tcp, Udp), (Udp, Tcp)] {
                let condition = of(extent, 2, now);
                let by = |by, port| Failed { by, ..unseen(ONE, port) };
                assert_eq!(condition.failed_at(by(fails, 80), now), None);
                assert_eq!(condition.failed_at(by(other, 81), now), None, "of no row with the first");
                condition.connected_at(other, unseen(ONE, 80).to, now);
                if extent == Extent::Host {
                    condition.failed_at(Failed { is_refusal: true, ..by(other, 82) }, now);
                }
                assert_eq!(condition.failed_at(by(fails, 83), now), Some(Change::Ejected), "{extent:?}");
                assert_eq!([fails, other].map(|by| condition.is_usable(by, now)), [false, true]);
                assert_eq!(condition.standing(now), Standing::Ejected, "for whoever asks, it rests for some");
            }
        }
    }
}
