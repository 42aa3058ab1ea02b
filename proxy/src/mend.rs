//! What to do about the kernel's refusals: a clause to end a line with, which begins with "; ".

use std::io;
use std::path::Path;

use crate::config::crowded::is_crowded;

/// Of what any call may meet with; empty where the kernel's word does not say what would help.
fn of_any_call(cause: &io::Error) -> &'static str {
    match cause.raw_os_error() {
        Some(libc::EMFILE) => {
            "; raise the limit of descriptors (`LimitNOFILE=` of systemd, `ulimit -Hn`), or lower workers"
        }
        Some(libc::ENFILE) => "; the whole host is out of descriptors: raise sysctl fs.file-max",
        Some(libc::ENOMEM | libc::ENOBUFS) => {
            "; the host, or the unit (`MemoryMax=` of systemd), is out of memory: lower workers and [limits], or raise it"
        }
        Some(libc::EAGAIN) => {
            "; no further thread or process is allowed: raise `TasksMax=` or `LimitNPROC=` of systemd, or lower workers"
        }
        Some(libc::EAFNOSUPPORT) => {
            "; this kernel has no such sockets, or the unit's `RestrictAddressFamilies=` keeps them out: it takes AF_INET \
             AF_INET6 AF_UNIX AF_NETLINK"
        }
        _ => "",
    }
}

/// Of a file or an endpoint that the configuration names.
pub(crate) fn of_what_is_named(cause: &io::Error) -> &'static str {
    match cause.raw_os_error() {
        Some(libc::ENOENT) => {
            "; its folder must be there before the start (`RuntimeDirectory=` and `LogsDirectory=` of systemd)"
        }
        Some(libc::EACCES | libc::EPERM) => "; the user of this process must be allowed to write in its folder",
        Some(libc::EROFS) => {
            "; it is on what may only be read: name a folder below /run or /var/log that the unit makes \
             (`RuntimeDirectory=`, `LogsDirectory=`)"
        }
        Some(libc::EISDIR) => "; this is a folder: name a file in it",
        Some(libc::ENOTDIR) => "; something on the way there is a file and no folder: name another path",
        Some(libc::ELOOP) => "; links lead in a circle: name the file itself",
        Some(libc::ENAMETOOLONG) => "; name a shorter path",
        Some(libc::ENOSPC | libc::EDQUOT) => {
            "; the disk is full: make room (`df` and `df -i` tell), or name another one"
        }
        Some(libc::ETXTBSY | libc::ENXIO | libc::ENODEV) => "; this is no ordinary file: name another path",
        Some(libc::EADDRINUSE) => "; another program listens there: `ss -ltnp` names it",
        Some(libc::EADDRNOTAVAIL) => "; no interface has this address",
        _ => of_any_call(cause),
    }
}

/// Of a log that is to be opened anew.
pub(crate) fn of_log(path: &Path, cause: &io::Error) -> &'static str {
    match cause.raw_os_error() {
        Some(libc::EACCES) if is_crowded(path) => {
            "; where others keep their files no new one is made: give it a folder of its own, as /var/log/edgeproxy, and restart"
        }
        Some(libc::EACCES | libc::EPERM) => {
            "; the user of this process must be allowed to write it: have logrotate make none (`nocreate`), and reload"
        }
        _ => of_what_is_named(cause),
    }
}

/// Of an endpoint of a listener.
pub(crate) fn of_listener(cause: &io::Error) -> &'static str {
    match cause.raw_os_error() {
        Some(libc::EADDRINUSE) => "; another program listens there: `ss -ltunp` names it",
        Some(libc::EACCES) => "; ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE",
        Some(libc::EADDRNOTAVAIL) => "; no interface has this address",
        Some(libc::EPERM) => "; arrival by TPROXY needs CAP_NET_RAW",
        _ => of_any_call(cause),
    }
}

/// Of what any process needs of its host.
pub(crate) fn of_host(cause: &io::Error) -> &'static str {
    match cause.raw_os_error() {
        Some(libc::ENOSPC) => "; too much waits for events: raise sysctl fs.epoll.max_user_watches",
        Some(libc::ENOENT | libc::EACCES) => "; /proc and /dev must be there, and be readable by this process",
        Some(libc::EPERM | libc::ENOSYS) => {
            "; who started this keeps the call out (`SystemCallFilter=` of systemd, a container's seccomp profile): the shipped \
             edgeproxy.service allows all that it takes"
        }
        _ => match of_any_call(cause) {
            "" => "; `edgeproxy doctor -c FILE` tries what this host can",
            mend => mend,
        },
    }
}

/// Of rules that the kernel does not take, in the words of whoever tried.
pub(crate) fn of_rules(said: &str) -> &'static str {
    if said.contains("Operation not permitted") {
        "; whoever starts this must give it CAP_NET_ADMIN (edgeproxy-home.conf beside the shipped unit: \
         `AmbientCapabilities=CAP_NET_ADMIN` and `CapabilityBoundingSet=CAP_NET_ADMIN`); or load the lines of \
         `edgeproxy rules` as root, and leave manage_rules off"
    } else {
        "; `edgeproxy doctor` says more"
    }
}

/// Of a file or folder that must be readable.
pub(crate) fn of_reading(cause: &io::Error) -> &'static str {
    match cause.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => "; the user of this process must be allowed to look into it",
        _ => of_any_call(cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_that_a_start_may_meet_is_told_with_what_helps() {
        let usual = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::EAGAIN, libc::EAFNOSUPPORT];
        let of_files = [
            libc::ENOENT,
            libc::EACCES,
            libc::EPERM,
            libc::EROFS,
            libc::EISDIR,
            libc::ENOTDIR,
            libc::ELOOP,
            libc::ENAMETOOLONG,
            libc::ENOSPC,
            libc::EDQUOT,
            libc::EADDRINUSE,
            libc::EADDRNOTAVAIL,
        ];
        for errno in usual {
            let cause = io::Error::from_raw_os_error(errno);
            for mend in [of_what_is_named(&cause), of_listener(&cause), of_host(&cause), of_reading(&cause)] {
                assert!(mend.starts_with("; "), "{cause}: {mend}");
            }
        }
        for errno in of_files {
            let cause = io::Error::from_raw_os_error(errno);
            assert!(of_what_is_named(&cause).starts_with("; "), "{cause}");
        }
        // Whatever else the host lacks.
        for errno in 1..134 {
            assert!(of_host(&io::Error::from_raw_os_error(errno)).starts_with("; "), "{errno}");
        }
    }
}
