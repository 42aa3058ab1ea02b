//! Listeners: endpoints spelt out, none of them twice.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::keys::Keys;
use super::{size, Names};
use crate::config::file::{ConfigFile, ListenerFile};
use crate::config::findings::Findings;
use crate::config::model::{Arrival, HeaderFraming, HeaderPolicy, HeaderTrust, Limits, Listener, Transport};
use crate::config::notation::{is_plain_name, Endpoints, Written, NAME_RULE};

/// Sockets that one listener may need; beyond it one socket with a TPROXY rule before it does the same.
const MOST_ENDPOINTS: usize = 4096;

pub(super) fn listeners(
    file: &ConfigFile,
    names: &Names<'_>,
    limits: &Limits,
    keys: &mut Keys,
    findings: &mut Findings<'_>,
) -> Vec<Listener> {
    if file.listener.is_some() && names.names.is_empty() && findings.is_sound("listener") {
        findings.fault("listener", "no listener", "add a [listener.NAME] with tcp or udp");
    }
    let mut binds = Binds::default();
    let written = names.names.iter().filter_map(|name| Some((*name, file.listener.as_ref()?.get(*name)?)));
    written.map(|(name, listener)| as_meant(name, listener, names, limits, &mut binds, keys, findings)).collect()
}

fn as_meant(
    name: &str,
    file: &ListenerFile,
    names: &Names<'_>,
    limits: &Limits,
    binds: &mut Binds,
    keys: &mut Keys,
    findings: &mut Findings<'_>,
) -> Listener {
    let path = names.path(name);
    if !is_plain_name(name) {
        findings.fault(&path, format!("{name:?} is not a name"), NAME_RULE);
    }
    if file.tcp.is_none() && file.udp.is_none() && findings.is_sound(&path) {
        findings.fault(&path, "neither tcp nor udp", "add tcp = [\"0.0.0.0:443\"] or the like");
    }
    let mut endpoints = |transport, key: &str, written: Option<&Vec<Written<Endpoints>>>| {
        let path = format!("{path}.{key}");
        let each = spelt_out(&path, written, findings);
        for (item, endpoint) in &each {
            binds.add(transport, *endpoint, &format!("{path}[{item}]"), findings);
        }
        each.into_iter().map(|(_, endpoint)| endpoint).collect()
    };
    let tcp = endpoints(Transport::Tcp, "tcp", file.tcp.as_ref());
    let udp = endpoints(Transport::Udp, "udp", file.udp.as_ref());
    Listener {
        name: name.to_owned(),
        tcp,
        udp,
        mptcp: file.mptcp,
        arrival: file.arrival.unwrap_or(Arrival::Direct),
        proxy_header: trusts(&path, file, keys, findings),
        connections: file.connections.map_or(limits.connections, size),
        udp_flows: file.udp_flows.map_or(limits.udp_flows, size),
        rate_per_flow: file.rate_per_flow.map(|written| written.0 .0),
        rate: file.rate.map(|written| written.0 .0),
    }
}

/// Each endpoint with the index of the item that names it.
fn spelt_out(
    path: &str,
    written: Option<&Vec<Written<Endpoints>>>,
    findings: &mut Findings<'_>,
) -> Vec<(usize, SocketAddr)> {
    let items = written.into_iter().flatten().enumerate();
    let all = items.flat_map(|(index, endpoints)| endpoints.0.each().map(move |endpoint| (index, endpoint)));
    let each: Vec<_> = all.take(MOST_ENDPOINTS + 1).collect();
    if each.len() > MOST_ENDPOINTS {
        findings.fault(
            path,
            format!("more than {MOST_ENDPOINTS} sockets"),
            "for so many ports write arrival = \"tproxy\" with one endpoint, and lead the ports there by a TPROXY rule",
        );
        return Vec::new();
    }
    each
}

fn trusts(path: &str, file: &ListenerFile, keys: &mut Keys, findings: &mut Findings<'_>) -> Vec<HeaderTrust> {
    let mut trusts: Vec<HeaderTrust> = Vec::new();
    for (index, written) in file.proxy_header.iter().flatten().enumerate() {
        let (Some(from), Some(policy)) = (written.from, written.policy) else { continue };
        if let Some(earlier) = trusts.iter().find(|earlier| earlier.from.contains(&from.0)) {
            findings.fault(
                format!("{path}.proxy_header[{index}]"),
                format!("{} never decides, as {} before it holds all of it", from.0, earlier.from),
                "put the narrower prefix first, or take it out",
            );
        }
        let udp = written.udp.unwrap_or_default();
        let key = written.key.as_ref().map(|key| {
            let place = format!("{path}.proxy_header[{index}].key");
            examine_key(&place, policy, udp, findings);
            keys.id(&key.0 .0, &place)
        });
        trusts.push(HeaderTrust { from: from.0, policy, udp, key });
    }
    trusts
}

fn examine_key(place: &str, policy: HeaderPolicy, udp: HeaderFraming, findings: &mut Findings<'_>) {
    match (policy, udp) {
        (HeaderPolicy::Never, _) => {
            findings.fault(
                place,
                "a key for headers that are payload",
                "it needs policy = \"require\" or \"optional\"",
            );
        }
        (HeaderPolicy::Require | HeaderPolicy::Optional, HeaderFraming::Spp | HeaderFraming::Auto) => {
            let allowed =
                "signed are headers of version 2: it needs udp = \"every\" or \"first\", as the peer sends them";
            findings.fault(place, "a key for headers that may have no room for a signature", allowed);
        }
        (HeaderPolicy::Require | HeaderPolicy::Optional, HeaderFraming::Every | HeaderFraming::First) => {}
    }
}

/// All endpoints so far, by transport, port and family.
#[derive(Default)]
struct Binds(HashMap<(Transport, u16, bool), Vec<(IpAddr, String)>>);

impl Binds {
    fn add(&mut self, transport: Transport, endpoint: SocketAddr, path: &str, findings: &mut Findings<'_>) {
        let ip = endpoint.ip();
        let taken = self.0.entry((transport, endpoint.port(), endpoint.is_ipv4())).or_default();
        let is_clash = |(other, _): &&(IpAddr, String)| *other == ip || other.is_unspecified() || ip.is_unspecified();
        // Of a range that overlaps another, the first port tells enough.
        if let Some((other, place)) = taken.iter().find(is_clash).filter(|_| findings.is_sound(path)) {
            let found = if *other == ip {
                format!("{endpoint} stands in {place} already")
            } else {
                format!("{endpoint} overlaps with {} of {place}", SocketAddr::new(*other, endpoint.port()))
            };
            findings.fault(path, found, "each endpoint belongs to one listener; take one of them out");
        }
        taken.push((ip, path.to_owned()));
    }
}
