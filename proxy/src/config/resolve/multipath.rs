//! Where Multipath TCP is asked for, and what it cannot go together with.

use crate::config::findings::Findings;
use crate::config::model::{Arrival, Backend, Listener, Operation, Source, Timeouts};
use crate::config::shape::below;

pub(super) fn examine(
    listeners: &[Listener],
    backends: &[Backend],
    operation: &Operation,
    timeouts: &Timeouts,
    findings: &mut Findings<'_>,
) {
    let mut wanted = Vec::new();
    for listener in listeners.iter().filter(|listener| listener.mptcp) {
        let table = below("listener", &listener.name);
        let path = format!("{table}.mptcp");
        if listener.tcp.is_empty() && findings.is_sound(&table) {
            findings.fault(&path, "it is for TCP, and the listener has none", "add tcp, or take it out");
        } else if listener.arrival == Arrival::Tproxy {
            let found = "further ways of a client come to other addresses than the one that it asked for, where no TPROXY rule \
                         brings them here";
            findings.fault(&path, found, "leave it to listeners of arrival = \"direct\"");
        }
        wanted.push(path);
    }
    for backend in backends.iter().filter(|backend| backend.mptcp) {
        let path = format!("{}.mptcp", below("backend", &backend.name));
        if backend.source != Source::Own {
            let found = "further ways begin at addresses of this host, which are not the client's";
            findings.fault(&path, found, "it needs source = \"own\"; send_proxy tells the backend who the client is");
        }
        wanted.push(path);
    }
    let Some(first) = wanted.first() else { return };
    if operation.fixed_ports {
        let found = "the kernel does not hold sockets of MPTCP to ports (landlock knows those of TCP only)";
        findings.fault(first, found, "take it out, or operation.fixed_ports");
    }
    if timeouts.user_timeout.is_some() {
        let found = "connections by MPTCP have no such time, as the kernel has no TCP_USER_TIMEOUT for them";
        findings.note("timeouts.user_timeout", found, "keepalive, idle and half_closed hold for them too");
    }
}
