//! Which calls of the kernel the process may make (seccomp(2)). Three filters, of which the sternest answer counts: what is
//! unknown to the first fails with `EPERM` (a program that forgot a call goes on, and its log says so); the second says
//! `ENOSYS`; the third ends the process.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
use seccompiler::{
    apply_filter, BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use super::syscalls::{ALLOWED, ALLOWED_HERE, DEADLY, UNKNOWN};
use super::SandboxError;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Types of sockets without their flags (`SOCK_TYPE_MASK`, linux/net.h).
const SOCKET_TYPE: u64 = 0xf;
/// `PR_SET_VMA` of linux/prctl.h: glibc names its memory.
const PR_SET_VMA: u64 = 0x5356_4d41;

/// Holds from here on, for this thread and those that it starts.
pub(super) fn enter(multipath: bool) -> Result<(), SandboxError> {
    // The one that does not allow seccomp itself comes last.
    for filter in [deadly()?, unknown()?, allowed(multipath)?] {
        apply_filter(&filter)?;
    }
    Ok(())
}

fn deadly() -> Result<BpfProgram, SandboxError> {
    program(unconditional(DEADLY), SeccompAction::Allow, SeccompAction::KillProcess)
}

fn unknown() -> Result<BpfProgram, SandboxError> {
    program(unconditional(UNKNOWN), SeccompAction::Allow, SeccompAction::Errno(errno(libc::ENOSYS)))
}

fn allowed(multipath: bool) -> Result<BpfProgram, SandboxError> {
    let mut rules = unconditional(ALLOWED);
    rules.extend(unconditional(ALLOWED_HERE));
    rules.extend(conditional(multipath)?);
    program(rules, SeccompAction::Errno(errno(libc::EPERM)), SeccompAction::Allow)
}

fn program(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> Result<BpfProgram, SandboxError> {
    let here = TargetArch::try_from(std::env::consts::ARCH)?;
    Ok(SeccompFilter::new(rules, otherwise, matched, here)?.try_into()?)
}

fn unconditional(calls: &[c_long]) -> Rules {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

/// Calls that are allowed with some arguments only. A call matches when one of its rules does, a rule when all of its
/// conditions do.
fn conditional(multipath: bool) -> Result<Rules, BackendError> {
    let rule = |conditions: &[(u8, SeccompCmpArgLen, SeccompCmpOp, u64)]| {
        let conditions: Result<Vec<_>, _> = conditions
            .iter()
            .map(|(place, length, compare, value)| {
                SeccompCondition::new(*place, length.clone(), compare.clone(), *value)
            })
            .collect();
        SeccompRule::new(conditions?)
    };
    let of = |family: i32, of_type: i32| {
        [(0, Dword, Eq, number(family)), (1, Dword, MaskedEq(SOCKET_TYPE), number(of_type))]
    };
    let datagrams = |family: i32| rule(&of(family, libc::SOCK_DGRAM));
    // Streams of plain TCP, and of Multipath TCP where that is wanted: others, as SCTP and SMC, are held to no port by landlock.
    let streams = |family: i32, protocol: i32| {
        let [family, of_type] = of(family, libc::SOCK_STREAM);
        rule(&[family, of_type, (2, Dword, Eq, number(protocol))])
    };
    let mut sockets = vec![datagrams(libc::AF_INET)?, datagrams(libc::AF_INET6)?, datagrams(libc::AF_UNIX)?];
    for family in [libc::AF_INET, libc::AF_INET6] {
        // 0 is the family's usual one.
        sockets.extend([streams(family, 0)?, streams(family, libc::IPPROTO_TCP)?]);
        if multipath {
            sockets.push(streams(family, libc::IPPROTO_MPTCP)?);
        }
    }
    // Addresses and routes, and word of changes to nftables; changing them takes CAP_NET_ADMIN.
    for protocol in [libc::NETLINK_ROUTE, libc::NETLINK_NETFILTER] {
        sockets.push(rule(&[(0, Dword, Eq, number(libc::AF_NETLINK)), (2, Dword, Eq, number(protocol))])?);
    }
    let one = |place: u8, value: u64| rule(&[(place, Dword, Eq, value)]);
    let process = u64::from(std::process::id());
    let executable = number(libc::PROT_EXEC);
    // A thread of this process, in no namespaces of its own.
    let thread = number(libc::CLONE_THREAD);
    let namespaces = number(
        libc::CLONE_NEWNS
            | libc::CLONE_NEWCGROUP
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUSER
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWNET,
    );
    let rules = [
        // Streams and datagrams; no raw and no packet sockets, though CAP_NET_RAW is there. Unix streams, which lead to
        // other services of the machine, are not made; the C libraries ask for an interface's index over a Unix datagram.
        (libc::SYS_socket, sockets),
        (libc::SYS_socketpair, vec![one(0, number(libc::AF_UNIX))?]),
        (libc::SYS_mmap, vec![rule(&[(2, Qword, MaskedEq(executable), 0)])?]),
        (libc::SYS_mprotect, vec![rule(&[(2, Qword, MaskedEq(executable), 0)])?]),
        (libc::SYS_clone, vec![rule(&[(0, Qword, MaskedEq(thread | namespaces), thread)])?]),
        (libc::SYS_prctl, vec![one(0, number(libc::PR_SET_NAME))?, one(0, PR_SET_VMA)?]),
        // Signals to itself: abort.
        (libc::SYS_tgkill, vec![one(0, process)?]),
        // Limits of itself.
        (libc::SYS_prlimit64, vec![one(0, 0)?, one(0, process)?]),
        (
            libc::SYS_ioctl,
            [0x5421_u64, 0x5451, 0x541b, 0x5411, 0x5401, 0x5413, 0x8910, 0x8921, 0x8933]
                // FIONBIO, FIOCLEX, FIONREAD, TIOCOUTQ, TCGETS, TIOCGWINSZ, SIOCGIFNAME, SIOCGIFMTU, SIOCGIFINDEX.
                .into_iter()
                .map(|request| one(1, request))
                .collect::<Result<_, _>>()?,
        ),
        // musl's abort and raise.
        #[cfg(target_env = "musl")]
        (libc::SYS_tkill, Vec::new()),
    ];
    Ok(rules.into_iter().collect())
}

/// A constant of the C library as the filter compares it.
fn number(constant: i32) -> u64 {
    u64::from(constant.unsigned_abs())
}

fn errno(constant: i32) -> u32 {
    constant.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_call_is_in_two_lists_but_the_one_that_must() {
        let allowed: BTreeSet<i64> = ALLOWED.iter().chain(ALLOWED_HERE).copied().collect();
        assert_eq!(allowed.len(), ALLOWED.len() + ALLOWED_HERE.len());
        assert!(DEADLY.iter().all(|call| !allowed.contains(call)));
        assert!(UNKNOWN.iter().all(|call| allowed.contains(call)));
        assert!(conditional(true).unwrap().keys().all(|call| !allowed.contains(call)));
    }

    #[test]
    fn filters_are_made_for_this_machine() {
        for filter in [deadly().unwrap(), unknown().unwrap(), allowed(false).unwrap(), allowed(true).unwrap()] {
            // BPF_MAXINSNS of linux/bpf_common.h.
            assert!((1..4_096).contains(&filter.len()), "{}", filter.len());
        }
    }
}
