//! Backends, each by itself, and their fallbacks.

use std::time::Duration;

use super::keys::Keys;
use super::Names;
use crate::config::file::{BackendFile, ConfigFile, DatagramField, HeaderField, HealthFile, SendProxyFile, SourceFile};
use crate::config::findings::Findings;
use crate::config::model::{
    Backend, BackendId, Balance, Ejection, HealthCheck, Host, NameBounds, NamePart, SendProxy, SendProxyUdp, Source,
    Target,
};
use crate::config::notation::{is_plain_name, NAME_RULE};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const NOT_SENT: &str = "of a header that is not sent";

pub(super) fn backends(
    file: &ConfigFile,
    names: &Names<'_>,
    keys: &mut Keys,
    findings: &mut Findings<'_>,
) -> Vec<Backend> {
    let written = names.names.iter().filter_map(|name| Some((*name, file.backend.get(*name)?)));
    let backends: Vec<_> = written.map(|(name, backend)| as_meant(name, backend, names, keys, findings)).collect();
    for id in 0..backends.len() {
        examine_circle(id, &backends, names, findings);
    }
    backends
}

fn as_meant(
    name: &str,
    file: &BackendFile,
    names: &Names<'_>,
    keys: &mut Keys,
    findings: &mut Findings<'_>,
) -> Backend {
    let path = names.path(name);
    if !is_plain_name(name) {
        findings.fault(&path, format!("{name:?} is not a name"), NAME_RULE);
    }
    let targets: Vec<_> = file.targets.iter().flatten().map(|written| written.0.clone()).collect();
    let suffixes = file.allow_suffixes.iter().flatten().map(|written| written.0 .0.clone()).collect();
    let bounds = NameBounds { suffixes, single_labels: file.allow_single_labels.unwrap_or(false) };
    examine_targets(&path, &targets, &bounds, findings);
    examine_uses(&path, file, &targets, findings);
    let fallback = file.fallback.as_ref().and_then(|to| names.find(to, &format!("{path}.fallback"), findings));
    Backend {
        name: name.to_owned(),
        targets,
        balance: file.balance.unwrap_or(Balance::InOrder),
        source: source(file.source),
        mptcp: file.mptcp,
        send_proxy: send_proxy(&path, file, findings),
        send_proxy_udp: file.send_proxy_udp,
        send_proxy_udp_id: sends_id_by_udp(&path, file, findings),
        sign_proxy: file.sign_proxy.as_ref().map(|key| {
            let place = format!("{path}.sign_proxy");
            examine_signed(&place, file, findings);
            keys.id(&key.0 .0, &place)
        }),
        health: file.health.map(|written| health(&path, written, findings)),
        eject: file.eject.map(|written| {
            at_least_a_moment(&format!("{path}.eject.duration"), written.duration.0, findings);
            Ejection { failures: written.failures, duration: written.duration.0 }
        }),
        connect_timeout: match file.connect_timeout {
            Some(written) => at_least_a_moment(&format!("{path}.connect_timeout"), written.0, findings),
            None => CONNECT_TIMEOUT,
        },
        fallback: fallback.map(BackendId),
        allow_names: bounds,
    }
}

fn source(written: Option<SourceFile>) -> Source {
    match written {
        None | Some(SourceFile::Own) => Source::Own,
        Some(SourceFile::Client) => Source::Client { or_own: false },
        Some(SourceFile::ClientOrOwn) => Source::Client { or_own: true },
    }
}

fn sends_id_by_udp(path: &str, file: &BackendFile, findings: &mut Findings<'_>) -> bool {
    let id = file.send_proxy_udp_with.iter().flatten().position(|field| *field == DatagramField::UniqueId);
    let sends_v2 = matches!(file.send_proxy_udp, Some(SendProxyUdp::Every | SendProxyUdp::First));
    if let Some(index) = id.filter(|_| !sends_v2 && findings.is_sound(&format!("{path}.send_proxy_udp"))) {
        let path = format!("{path}.send_proxy_udp_with[{index}]");
        findings.fault(path, format!("unique_id {NOT_SENT}"), "it needs send_proxy_udp = \"every\" or \"first\"");
    }
    sends_v2 && id.is_some()
}

fn send_proxy(path: &str, file: &BackendFile, findings: &mut Findings<'_>) -> Option<SendProxy> {
    let fields = file.send_proxy_with.as_deref().unwrap_or_default();
    let has = |field| fields.contains(&field);
    match file.send_proxy {
        Some(SendProxyFile::V2) => Some(SendProxy::V2 {
            hello: has(HeaderField::Hello),
            unique_id: has(HeaderField::UniqueId),
            crc32c: has(HeaderField::Crc32c),
            received: has(HeaderField::Received),
        }),
        other => {
            if findings.is_sound(&format!("{path}.send_proxy")) {
                examine_fields(path, fields, findings);
            }
            other.map(|_| SendProxy::V1)
        }
    }
}

/// Version 1 and Cloudflare's header have no room for a signature: one beside a signed one would be refused.
fn examine_signed(place: &str, file: &BackendFile, findings: &mut Findings<'_>) {
    let (by_tcp, by_udp) = (file.send_proxy.is_some(), file.send_proxy_udp.is_some());
    let found = match (file.send_proxy, file.send_proxy_udp) {
        (Some(SendProxyFile::V1), _) => "version 1 has no room for a signature",
        (_, Some(SendProxyUdp::Spp)) => "Cloudflare's header has no room for a signature",
        _ if by_tcp || by_udp => return,
        _ => "a key for a header that is not sent",
    };
    findings.fault(place, found, "it needs send_proxy = \"v2\" or send_proxy_udp = \"every\" or \"first\"");
}

/// Fields of a backend that gets no version 2 by TCP.
fn examine_fields(path: &str, fields: &[HeaderField], findings: &mut Findings<'_>) {
    let by_tcp = "it needs send_proxy = \"v2\"";
    let by_both = "it needs send_proxy = \"v2\"; for datagrams it stands in send_proxy_udp_with";
    for (index, field) in fields.iter().enumerate() {
        let (name, needs) = match field {
            HeaderField::UniqueId => ("unique_id", by_both),
            HeaderField::Hello => ("hello", by_tcp),
            HeaderField::Crc32c => ("crc32c", by_tcp),
            HeaderField::Received => ("received", by_tcp),
        };
        let path = format!("{path}.send_proxy_with[{index}]");
        findings.fault(path, format!("{name} {NOT_SENT}"), needs);
    }
}

fn health(path: &str, written: HealthFile, findings: &mut Findings<'_>) -> HealthCheck {
    let interval = at_least_a_moment(&format!("{path}.health.interval"), written.interval.0, findings);
    let timeout = at_least_a_moment(&format!("{path}.health.timeout"), written.timeout.0, findings);
    if timeout > interval {
        findings.fault(
            format!("{path}.health"),
            format!("a timeout of {timeout:?} with an interval of {interval:?}"),
            "a check ends before the next begins: timeout is not above interval",
        );
    }
    HealthCheck { interval, timeout, rise: written.rise, fall: written.fall }
}

fn at_least_a_moment(path: &str, time: Duration, findings: &mut Findings<'_>) -> Duration {
    if time.is_zero() {
        findings.fault(path, "no time at all", "it is \"1ms\" at least");
    }
    time
}

fn examine_targets(path: &str, targets: &[Target], bounds: &NameBounds, findings: &mut Findings<'_>) {
    for (index, target) in targets.iter().enumerate() {
        let place = format!("{path}.targets[{index}]");
        if targets.iter().take(index).any(|earlier| earlier == target) {
            findings.fault(&place, "a target that stands in the list already", "each candidate stands once");
        }
        let Host::Name(parts) = &target.host else { continue };
        let has_captures = parts.iter().any(|part| matches!(part, NamePart::Capture(_)));
        if !has_captures {
            continue;
        }
        if *bounds == NameBounds::default() {
            if findings.is_sound(&format!("{path}.allow_suffixes")) {
                let allowed =
                    "say what it must end in: allow_suffixes = [\".tailnet\"] or the like; or allow_single_labels = true";
                findings.fault(&place, "clients choose this name, and nothing bounds it", allowed);
            }
        } else if !can_be_single(parts, bounds) && !can_end(parts, bounds) {
            let found = match parts.last() {
                Some(NamePart::Literal(end)) => {
                    format!("the name ends in {end:?}, which allow_suffixes does not allow")
                }
                Some(NamePart::Capture(_)) | None => "the name is never one label".to_owned(),
            };
            let single = bounds.single_labels.then_some("one label");
            let allowed: Vec<_> = bounds.suffixes.iter().map(String::as_str).chain(single).collect();
            findings.fault(&place, found, format!("allowed: {}", allowed.join(", ")));
        }
    }
}

fn can_be_single(parts: &[NamePart], bounds: &NameBounds) -> bool {
    let last = parts.len().saturating_sub(1);
    let has_dot = |(index, part): (usize, &NamePart)| match part {
        // The root's dot makes no label.
        NamePart::Literal(text) if index == last => text.strip_suffix('.').unwrap_or(text).contains('.'),
        NamePart::Literal(text) => text.contains('.'),
        NamePart::Capture(_) => false,
    };
    bounds.single_labels && !parts.iter().enumerate().any(has_dot)
}

/// Whatever is captured, the name ends as it is written; a longer suffix may still be met by what is captured.
fn can_end(parts: &[NamePart], bounds: &NameBounds) -> bool {
    bounds.suffixes.iter().any(|suffix| match parts.last() {
        Some(NamePart::Literal(end)) => end.ends_with(suffix.as_str()) || suffix.ends_with(end.as_str()),
        Some(NamePart::Capture(_)) | None => true,
    })
}

/// What is said of candidates must hold of one of them at least.
fn examine_uses(path: &str, file: &BackendFile, targets: &[Target], findings: &mut Findings<'_>) {
    let is_told = targets.is_empty() || !findings.is_sound(&format!("{path}.targets"));
    if is_told {
        return;
    }
    if file.health.is_some() && targets.iter().all(Target::is_chosen_by_clients) {
        let found =
            "clients choose the name or the port of each target, and each choice is another place: none can be checked";
        findings.fault(format!("{path}.health"), found, "add a target without captures and $port, or take health out");
    }
}

/// Tells of a circle once: at its first backend.
fn examine_circle(start: usize, backends: &[Backend], names: &Names<'_>, findings: &mut Findings<'_>) {
    let mut seen = vec![start];
    let mut at = start;
    while let Some(BackendId(next)) = backends.get(at).and_then(|backend| backend.fallback) {
        if next == start {
            let name = |id: &usize| backends.get(*id).map_or("", |backend| backend.name.as_str());
            let circle: Vec<_> = seen.iter().chain([&start]).map(name).collect();
            let path = format!("{}.fallback", names.path(name(&start)));
            findings.fault(path, format!("a circle: {}", circle.join(" -> ")), "take one of these fallbacks out");
            return;
        }
        if next < start || seen.contains(&next) {
            return;
        }
        seen.push(next);
        at = next;
    }
}
