//! What is right, and yet lets others do more than is usually meant: each is a note.

use std::net::SocketAddr;
use std::path::Path;

use crate::config::crowded::is_crowded;
use crate::config::findings::Findings;
use crate::config::model::{HeaderPolicy, HeaderTrust, Listener, Operation};
use crate::config::shape::below;

pub(super) fn examine(listeners: &[Listener], operation: &Operation, findings: &mut Findings<'_>) {
    for listener in listeners {
        let path = below("listener", &listener.name);
        for (index, trust) in listener.proxy_header.iter().enumerate() {
            examine_trust(&format!("{path}.proxy_header[{index}]"), *trust, findings);
        }
    }
    if let Some(metrics) = operation.metrics.filter(|address| !address.ip().is_loopback()) {
        examine_metrics(metrics, findings);
    }
    let log = operation.access_log.as_deref().filter(|path| *path != Path::new("-") && is_crowded(path));
    if let Some(folder) = log.and_then(|path| path.parent()) {
        let found = format!(
            "right in {}, where others keep their files: of these the proxy may write this one alone, so after it was moved \
             away (logrotate) it cannot be made anew",
            folder.display()
        );
        findings.note(
            "operation.access_log",
            found,
            "give it a folder of its own, as in \"/var/log/edgeproxy/access.log\"",
        );
    }
}

fn examine_trust(path: &str, trust: HeaderTrust, findings: &mut Findings<'_>) {
    let is_believed = match trust.policy {
        HeaderPolicy::Require | HeaderPolicy::Optional => true,
        HeaderPolicy::Never => false,
    };
    if is_believed && trust.from.prefix_len() == 0 {
        let found =
            format!("from = \"{}\" lets anybody name any client: in logs, rules, limits and at backends", trust.from);
        findings.note(path, found, "name the proxies that are before this one");
    }
}

fn examine_metrics(metrics: SocketAddr, findings: &mut Findings<'_>) {
    let found = format!("{metrics} answers whoever reaches it: there is no password");
    findings.note("operation.metrics", found, "take a loopback address, or one that only the mesh reaches");
}
