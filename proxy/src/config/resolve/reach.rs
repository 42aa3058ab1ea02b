//! Which rules lead to which backend, at once or by fallbacks, and whether the backend can serve what they bring.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::rules::Draft;
use crate::config::findings::Findings;
use crate::config::model::{
    Action, Arrival, Backend, BackendId, Host, Listener, NamePart, Target, TargetPolicy, TargetPort, Transport,
};
use crate::config::shape::below;

pub(super) fn examine(
    drafts: &[Draft],
    listeners: &[Listener],
    backends: &[Backend],
    policy: &TargetPolicy,
    findings: &mut Findings<'_>,
) {
    // With faults among rules and listeners it is not known who leads where.
    let is_known = drafts.iter().all(|draft| draft.is_sound) && findings.is_sound("listener");
    let led = leading(drafts, backends);
    for (backend, rules) in backends.iter().zip(&led) {
        let path = below("backend", &backend.name);
        examine_localhost(&path, backend, policy, findings);
        for draft in rules {
            examine_captures(&path, backend, draft, findings);
        }
        let comes = |transport| rules.iter().any(|draft| draft.takes(transport, listeners));
        for transport in [Transport::Tcp, Transport::Udp] {
            if comes(transport) {
                examine_loop(&path, backend, transport, listeners, policy, findings);
            }
        }
        if !is_known {
            continue;
        }
        if rules.is_empty() {
            findings.note(&path, "no rule leads here", "lead one here, or take it out");
            continue;
        }
        if backend.health.is_some() && !comes(Transport::Tcp) {
            let found = "checks are TCP connects, and no rule brings TCP here";
            findings.fault(format!("{path}.health"), found, "take them out, or write eject instead");
        }
        if backend.send_proxy.is_some() && !comes(Transport::Tcp) {
            let found = "it is for TCP, and no rule brings TCP here";
            findings.note(format!("{path}.send_proxy"), found, "for datagrams it is send_proxy_udp");
        }
        if backend.send_proxy_udp.is_some() && !comes(Transport::Udp) {
            let found = "it is for UDP, and no rule brings UDP here";
            findings.note(format!("{path}.send_proxy_udp"), found, "for connections it is send_proxy");
        }
    }
    if is_known {
        for (id, listener) in listeners.iter().enumerate() {
            if !drafts.iter().any(|draft| draft.holds_at(id)) {
                let path = below("listener", &listener.name);
                findings.note(path, "no rule holds here, so all are refused", "add one, or take the listener out");
            }
        }
    }
}

/// For each backend the rules that lead to it.
fn leading<'a>(drafts: &'a [Draft], backends: &[Backend]) -> Vec<Vec<&'a Draft>> {
    let mut led: Vec<Vec<&Draft>> = vec![Vec::new(); backends.len()];
    for draft in drafts.iter().filter(|draft| draft.is_sound) {
        let mut at = match draft.rule.action {
            Action::Forward(id) => Some(id),
            Action::Refuse => None,
        };
        let mut seen = Vec::new();
        while let Some(BackendId(id)) = at.filter(|id| !seen.contains(id)) {
            seen.push(BackendId(id));
            if let Some(rules) = led.get_mut(id) {
                rules.push(draft);
            }
            at = backends.get(id).and_then(|backend| backend.fallback);
        }
    }
    led
}

fn examine_captures(path: &str, backend: &Backend, draft: &Draft, findings: &mut Findings<'_>) {
    let groups: Vec<&str> =
        draft.rule.server_name.as_ref().map(|name| name.capture_names().flatten().collect()).unwrap_or_default();
    for (index, target) in backend.targets.iter().enumerate() {
        let Host::Name(parts) = &target.host else { continue };
        for part in parts {
            let NamePart::Capture(capture) = part else { continue };
            if groups.contains(&capture.as_str()) {
                continue;
            }
            let place = format!("{path}.targets[{index}]");
            let rule = draft.shown();
            let allowed = format!("give its server_name a group (?P<{capture}>...), or lead it to another backend");
            let found = if draft.rule.server_name.is_none() {
                format!("the rule {rule} leads here without server_name, so ${capture} stands for nothing")
            } else if groups.is_empty() {
                format!("the server_name of the rule {rule} has no group called {capture}")
            } else {
                format!("the server_name of the rule {rule} has no group called {capture}, but {}", groups.join(", "))
            };
            findings.fault(place, found, allowed);
        }
    }
}

/// A name that is loopback wherever it is looked up (RFC 6761, section 6.3), where no name may lead.
fn examine_localhost(path: &str, backend: &Backend, policy: &TargetPolicy, findings: &mut Findings<'_>) {
    let here: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    if here.iter().any(|ip| policy.allow.iter().any(|prefix| prefix.contains(ip))) {
        return;
    }
    for (index, target) in backend.targets.iter().enumerate() {
        let Host::Name(parts) = &target.host else { continue };
        let [NamePart::Literal(written)] = parts.as_slice() else { continue };
        let name = written.trim_end_matches('.').to_ascii_lowercase();
        if name == "localhost" || name.ends_with(".localhost") {
            let port = match target.port {
                TargetPort::Fixed(port) => port.to_string(),
                TargetPort::Original => "$port".to_owned(),
            };
            let found = format!("{written:?} is loopback, to which no name may lead: each client would be refused");
            let allowed = format!("write the address: \"127.0.0.1:{port}\", or \"[::1]:{port}\" beside it");
            findings.fault(format!("{path}.targets[{index}]"), found, allowed);
        }
    }
}

/// A target that is a listener of this very proxy: each client would come again and again.
fn examine_loop(
    path: &str,
    backend: &Backend,
    transport: Transport,
    listeners: &[Listener],
    policy: &TargetPolicy,
    findings: &mut Findings<'_>,
) {
    for (index, target) in backend.targets.iter().enumerate() {
        let Target { host: Host::Address(ip), port: TargetPort::Fixed(port) } = target else { continue };
        let target = SocketAddr::new(*ip, *port);
        let is_own = |listener: &&Listener| {
            let endpoints = match transport {
                Transport::Tcp => &listener.tcp,
                Transport::Udp => &listener.udp,
            };
            listener.arrival == Arrival::Direct
                && endpoints
                    .iter()
                    .any(|endpoint| arrives_at(target, *endpoint) || policy.brings_back(target, *endpoint))
        };
        if policy.allow.iter().any(|prefix| prefix.contains(ip)) {
            continue;
        }
        let place = format!("{path}.targets[{index}]");
        if let Some(listener) = listeners.iter().find(is_own).filter(|_| findings.is_sound(&place)) {
            let is_said = policy.is_own(*ip);
            let is = if is_said { "leads, by targets.own, to" } else { "is" };
            let found = format!("{target} {is} the listener {:?} of this proxy", listener.name);
            findings.fault(place, found, "lead to another port or address; targets.allow makes an exception");
        }
    }
}

fn arrives_at(target: SocketAddr, endpoint: SocketAddr) -> bool {
    let holds_loopback =
        endpoint.ip().is_unspecified() && endpoint.is_ipv4() == target.is_ipv4() && target.ip().is_loopback();
    endpoint.port() == target.port() && (endpoint.ip() == target.ip() || holds_loopback)
}
