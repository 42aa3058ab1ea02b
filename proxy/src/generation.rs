//! A configuration in force, with what is known and counted for as long as it is. Connections keep the one they began under.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use tokio::time::Instant;

use crate::admission::{Bounds, Occupancy};
use crate::config::model::{
    Backend, BackendId, Config, Ejection, HeaderFraming, HeaderPolicy, HealthCheck, Listener, ListenerId, Target,
    Transport,
};
use crate::hop::{Loaded, Ring, Rings};
use crate::listening::Endpoint;
use crate::names::Names;
use crate::operation::counters::WorkerCounters;
use crate::operation::sparing::SparingByReason;
use crate::operation::state::{self, TargetCondition, TransportCondition};
use crate::route::forbidden::Own;
use crate::route::{asks_clients, order};
use crate::suspicion::Suspicion;
use crate::tcp::allowance::Bound;
use crate::transparent::local_addresses::LocalAddresses;
use crate::upstream::condition::{Condition, Standing};
use crate::upstream::extent::Extent;
use crate::upstream::health::{self, Check};

/// What all workers share of a configuration.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) config: Config,
    /// By backend, then by target.
    candidates: Vec<Vec<Candidate>>,
    /// One more for each client, by backend.
    turns: Vec<AtomicU64>,
    /// How many are at each listener.
    occupancies: Vec<Occupancy>,
    /// The same, of UDP flows.
    flows: Vec<Occupancy>,
    /// Bytes a second of all flows of a listener, whether they are bounded or not: from clients, to clients.
    rates: Vec<[Arc<Bound>; 2]>,
    /// Whether clients of a listener are heard before they are led on.
    hears: Vec<bool>,
    own: Own,
    /// Keys that are shared with other hops.
    pub(crate) rings: Rings,
    /// Addresses that may lead back here, though the file does not say so.
    pub(crate) suspicion: Suspicion,
}

/// What is known of one target.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) condition: Arc<Condition>,
    /// What it is known by in the consistent order of `source_hash`.
    pub(crate) key: u64,
}

/// What a condition is taken over by: backend, target, and all that it goes by.
type Lineage<'a> = (&'a str, u64, Option<Ejection>, Option<HealthCheck>);

impl Generation {
    /// A configuration that comes into force after another one: what is known of the same targets and of those who are at
    /// the same listeners goes on, and what those listeners have let pass. [`Self::come_into_force`] is due when it does so.
    pub(crate) fn after(
        previous: Option<&Self>,
        config: Config,
        keys: Loaded,
        locals: &LocalAddresses,
        now: Instant,
    ) -> Self {
        let rings = Rings::after(previous.map(|before| &before.rings), &config, keys);
        let known: Vec<(Lineage<'_>, &Arc<Condition>)> = previous.into_iter().flat_map(Self::conditions).collect();
        let candidate = |backend: &Backend, target: &Target| {
            let key = order::key(target);
            let lineage = (backend.name.as_str(), key, backend.eject, backend.health);
            let before = known.iter().find(|(of, _)| *of == lineage).map(|(_, condition)| Arc::clone(condition));
            let condition = before
                .unwrap_or_else(|| Condition::of(Extent::of(target), backend.eject, backend.health, now.into_std()));
            Candidate { condition, key }
        };
        let of_backend = |backend: &Backend| backend.targets.iter().map(|target| candidate(backend, target)).collect();
        let candidates = config.backends.iter().map(of_backend).collect();
        let occupancy = |of: fn(&Self) -> &[Occupancy]| {
            move |listener: &Listener| {
                let before = previous.and_then(|before| before.listener_named(&listener.name));
                before.and_then(|id| of(previous?).get(id.0)).map(Arc::clone).unwrap_or_default()
            }
        };
        let occupancies = config.listeners.iter().map(occupancy(|before| &before.occupancies)).collect();
        let flows = config.listeners.iter().map(occupancy(|before| &before.flows)).collect();
        let rates_of = |listener: &Listener| {
            let before = previous.and_then(|before| before.rates(before.listener_named(&listener.name)?));
            let new = || {
                let bound = Bound::default();
                bound.set(listener.rate.map(NonZeroU32::get), now);
                Arc::new(bound)
            };
            before.unwrap_or_else(|| [(); 2].map(|()| new()))
        };
        let rates = config.listeners.iter().map(rates_of).collect();
        let turns = config.backends.iter().map(|_| AtomicU64::new(0)).collect();
        let hears = |at| asks_clients(&config.rules, ListenerId(at), Transport::Tcp);
        let hears = (0..config.listeners.len()).map(hears).collect();
        let locals = locals.clone();
        let own = Own::new(&config, move |address| locals.is_local(address));
        Self {
            config,
            candidates,
            turns,
            occupancies,
            flows,
            rates,
            hears,
            own,
            rings,
            suspicion: Suspicion::default(),
        }
    }

    fn conditions(&self) -> impl Iterator<Item = (Lineage<'_>, &Arc<Condition>)> {
        self.config.backends.iter().zip(&self.candidates).flat_map(|(backend, candidates)| {
            candidates.iter().map(|candidate| {
                ((backend.name.as_str(), candidate.key, backend.eject, backend.health), &candidate.condition)
            })
        })
    }

    fn listener_named(&self, name: &str) -> Option<ListenerId> {
        self.config.listeners.iter().position(|listener| listener.name == name).map(ListenerId)
    }

    /// The targets of a backend, in the order of the file.
    pub(crate) fn candidates(&self, backend: BackendId) -> &[Candidate] {
        self.candidates.get(backend.0).map_or(&[], Vec::as_slice)
    }

    /// The number of the next client of a backend.
    pub(crate) fn turn(&self, backend: BackendId) -> u64 {
        self.turns.get(backend.0).map_or(0, |turn| turn.fetch_add(1, Ordering::Relaxed))
    }

    /// Who is at a listener, and how many may be.
    pub(crate) fn bounds(&self, id: ListenerId) -> Option<(&Occupancy, Bounds)> {
        let listener = self.config.listeners.get(id.0)?;
        let limits = &self.config.limits;
        let (total, source, prefixes) = (limits.connections, limits.connections_per_source, limits.source);
        let bounds = Bounds { total, listener: listener.connections, source, prefixes };
        Some((self.occupancies.get(id.0)?, bounds))
    }

    /// The same, of UDP flows.
    pub(crate) fn flow_bounds(&self, id: ListenerId) -> Option<(&Occupancy, Bounds)> {
        let listener = self.config.listeners.get(id.0)?;
        let limits = &self.config.limits;
        let (total, source, prefixes) = (limits.udp_flows, limits.udp_flows_per_source, limits.source);
        Some((self.flows.get(id.0)?, Bounds { total, listener: listener.udp_flows, source, prefixes }))
    }

    /// The bounds that all flows of a listener share: from clients, to clients.
    pub(crate) fn rates(&self, id: ListenerId) -> Option<[Arc<Bound>; 2]> {
        self.rates.get(id.0).cloned()
    }

    /// Comes into force: what it shares with the configuration before, of which connections go on, is bound by its rates, and
    /// signs with its keys.
    pub(crate) fn come_into_force(&self, now: Instant) {
        self.rings.come_into_force();
        for (listener, rates) in self.config.listeners.iter().zip(&self.rates) {
            rates.iter().for_each(|bound| bound.set(listener.rate.map(NonZeroU32::get), now));
        }
    }

    /// The active checks of all candidates.
    pub(crate) fn checks(&self) -> Vec<Check> {
        let backends = self.config.backends.iter().zip(&self.candidates);
        let checks = backends.flat_map(|(backend, candidates)| {
            let conditions: Vec<_> = candidates.iter().map(|candidate| Arc::clone(&candidate.condition)).collect();
            let ring = self.signs_for(backend);
            health::checks(backend, &conditions).into_iter().map(move |check| check.signed_with(ring))
        });
        checks.collect()
    }

    /// How all candidates stand, for those who ask; also for each transport by which clients come.
    pub(crate) fn conditions_now(&self, now: Instant) -> Vec<TargetCondition> {
        let now = now.into_std();
        let listeners = &self.config.listeners;
        let tcp = listeners.iter().any(|listener| !listener.tcp.is_empty()).then_some(Transport::Tcp);
        let udp = listeners.iter().any(|listener| !listener.udp.is_empty()).then_some(Transport::Udp);
        let by_transport = |condition: &Condition| {
            let of =
                |transport| TransportCondition { transport, condition: told(condition.standing_by(transport, now)) };
            tcp.into_iter().chain(udp).map(of).collect()
        };
        let of_backend = |(backend, candidates): (&Backend, &Vec<Candidate>)| -> Vec<TargetCondition> {
            let of_target = |(target, candidate): (&Target, &Candidate)| TargetCondition {
                backend: backend.name.clone(),
                target: target.to_string(),
                resting: candidate.condition.resting(now),
                condition: told(candidate.condition.standing(now)),
                by_transport: by_transport(&candidate.condition),
            };
            backend.targets.iter().zip(candidates).map(of_target).collect()
        };
        self.config.backends.iter().zip(&self.candidates).flat_map(of_backend).collect()
    }

    /// Whether clients that connect at a listener are heard before they are led on.
    pub(crate) fn hears(&self, id: ListenerId) -> bool {
        self.hears.get(id.0).copied().unwrap_or(false)
    }

    /// Where this proxy listens.
    pub(crate) fn own(&self) -> &Own {
        &self.own
    }

    /// The listener to which an endpoint belongs.
    pub(crate) fn listener_at(&self, endpoint: Endpoint) -> Option<ListenerId> {
        let has = |listener: &Listener| {
            let own = match endpoint.transport {
                Transport::Tcp => &listener.tcp,
                Transport::Udp => &listener.udp,
            };
            own.iter().any(|address| Endpoint::of(listener, endpoint.transport, *address) == endpoint)
        };
        self.config.listeners.iter().position(has).map(ListenerId)
    }

    /// All endpoints, each once, in the order of the file: those of TCP first.
    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        let listeners = &self.config.listeners;
        let of = |transport, listener: &Listener, addresses: &[std::net::SocketAddr]| -> Vec<_> {
            addresses.iter().map(|address| Endpoint::of(listener, transport, *address)).collect()
        };
        let tcp = listeners.iter().flat_map(|listener| of(Transport::Tcp, listener, &listener.tcp));
        let udp = listeners.iter().flat_map(|listener| of(Transport::Udp, listener, &listener.udp));
        tcp.chain(udp).collect()
    }
}

fn told(standing: Standing) -> state::Condition {
    match standing {
        Standing::Usable => state::Condition::Up,
        Standing::Ejected => state::Condition::Ejected,
        Standing::Down => state::Condition::Down,
    }
}

/// What a peer at a listener does about the PROXY protocol: the first prefix that holds it decides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeaderRule<'a> {
    pub(crate) policy: HeaderPolicy,
    /// How it frames it over UDP.
    pub(crate) framing: HeaderFraming,
    /// The keys with one of which it must be signed.
    pub(crate) ring: Option<&'a Ring>,
}

impl Generation {
    /// What a peer at a listener does. A key that is not there lets nobody in.
    pub(crate) fn header_rule(&self, listener: &Listener, peer: IpAddr) -> Option<HeaderRule<'_>> {
        let peer = peer.to_canonical();
        let Some(trust) = listener.proxy_header.iter().find(|trust| trust.from.contains(&peer)) else {
            let (policy, framing) = (HeaderPolicy::Never, HeaderFraming::default());
            return Some(HeaderRule { policy, framing, ring: None });
        };
        let ring = match trust.key {
            Some(id) => Some(&**self.rings.get(id)?),
            None => None,
        };
        Some(HeaderRule { policy: trust.policy, framing: trust.udp, ring })
    }

    /// The keys that sign what a backend gets.
    pub(crate) fn signs_for(&self, backend: &Backend) -> Option<&Arc<Ring>> {
        backend.sign_proxy.and_then(|id| self.rings.get(id))
    }

    /// The same, of one that a story names.
    pub(crate) fn ring_of(&self, backend: Option<BackendId>) -> Option<&Ring> {
        backend
            .and_then(|id| self.config.backends.get(id.0))
            .and_then(|backend| self.signs_for(backend))
            .map(|ring| &**ring)
    }
}

/// A generation as one worker has it.
#[derive(Debug)]
pub(crate) struct Epoch {
    pub(crate) generation: Arc<Generation>,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) names: Names,
    /// By listener: lines of flows, of which whoever sends datagrams makes as many as they like.
    sparing: Vec<SparingByReason>,
}

impl Epoch {
    /// A generation that comes into force.
    pub(crate) fn new(generation: Arc<Generation>, counters: Arc<WorkerCounters>, names: Names) -> Self {
        let sparing = generation.config.listeners.iter().map(|_| SparingByReason::default()).collect();
        Self { generation, counters, names, sparing }
    }

    /// The lines of a listener's flows whose client may be made up.
    pub(crate) fn sparing(&self, listener: ListenerId) -> Option<&SparingByReason> {
        self.sparing.get(listener.0)
    }

    /// What follows it; what is known of names stays while it is asked for in the same way.
    pub(crate) fn followed_by(&self, generation: Arc<Generation>, counters: Arc<WorkerCounters>) -> Self {
        let settings = &generation.config.resolver;
        let is_same = *settings == self.config().resolver;
        let names = if is_same { self.names.clone() } else { self.names.anew(settings) };
        Self::new(generation, counters, names)
    }

    pub(crate) fn config(&self) -> &Config {
        &self.generation.config
    }

    pub(crate) fn listener(&self, id: ListenerId) -> Option<&Listener> {
        self.config().listeners.get(id.0)
    }
}
