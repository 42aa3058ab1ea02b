"""Whether the namespaces that a lab lives in can be made here, and if not, for which of the many reasons."""

from __future__ import annotations

import errno
import socket

from lab.host.facts import HostFacts
from lab.host.finding import Feature, Finding, Status, Verdict, finding
from lab.host.trial import End, Outcome, Stage

LABS = (Feature.LABS,)
CONTAINER_LINE = (
    "docker run --cap-add SYS_ADMIN --cap-add NET_ADMIN --security-opt seccomp=unconfined"
    " --security-opt apparmor=unconfined --security-opt systempaths=unconfined --device /dev/net/tun IMAGE"
)
APPARMOR_LINE = "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
_KERNEL_LINE = "sudo apt-get install linux-image-generic  # Debian: linux-image-amd64"
_PROC_LINE = "mount | grep -w /proc  # must be procfs"
_DENIED = (errno.EPERM, errno.EACCES)
_KIND = {
    Stage.MOUNT_NAMESPACE: "mnt",
    Stage.NETWORK_NAMESPACE: "net",
    Stage.UTS_NAMESPACE: "uts",
    Stage.IPC_NAMESPACE: "ipc",
    Stage.PID_NAMESPACE: "pid",
}


def live_in_them() -> str:
    """Trial: takes a hostname in the fresh namespaces."""
    socket.sethostname("lab-trial")
    return ""


def namespace_findings(outcome: Outcome, facts: HostFacts) -> list[Finding]:
    """Findings about the user namespace and about the others, from the trial `live_in_them`."""
    user = judge_user_namespace(outcome, facts)
    others = judge_namespaces(outcome, facts)
    if user.status is Status.MISSING:
        others = Verdict(Status.NOT_TRIED, "the user namespace around them is missing")
    return [
        finding("user namespaces", LABS, user, required=True),
        finding("namespaces", LABS, others, required=True),
    ]


def judge_user_namespace(outcome: Outcome, facts: HostFacts) -> Verdict:
    """Whether this user gets a user namespace in which it may act as root."""
    if not facts.needs_user_namespace:
        return Verdict(Status.NOT_NEEDED, "this process may make the other namespaces itself")
    if outcome.stage is Stage.USER_NAMESPACE:
        return _no_user_namespace(outcome, facts)
    if outcome.stage is Stage.START:
        return Verdict(Status.MISSING, str(outcome), "lab doctor  # the child of the trial never started: try again")
    if outcome.errno in _DENIED and outcome.stage is not Stage.ACTION:
        return _no_rights_inside(outcome, facts)
    if outcome.stage is Stage.ID_MAP:
        return Verdict(Status.MISSING, f"the {outcome.stage} failed: {outcome}", _PROC_LINE)
    return Verdict(Status.OK, f"{facts.user} (uid {facts.uid}) becomes root of its own user namespace")


def judge_namespaces(outcome: Outcome, facts: HostFacts) -> Verdict:
    """Whether mount, network, UTS, IPC and PID namespaces can be made and used."""
    if outcome.ok:
        return Verdict(Status.OK, "mount, network, UTS, IPC and PID namespaces")
    kind = _KIND.get(outcome.stage)
    limit = facts.max_namespaces.get(kind) if kind else None
    found = f"the {outcome.stage} failed: {outcome}"
    if kind and outcome.errno == errno.ENOSPC:
        setting = f"user.max_{kind}_namespaces"
        return Verdict(Status.MISSING, f"{found}; {setting} is {limit}", f"sudo sysctl -w {setting}=65536")
    if kind and outcome.errno == errno.EINVAL:
        return Verdict(Status.MISSING, f"{found}: not built into this kernel", _KERNEL_LINE)
    if outcome.errno in _DENIED:
        return Verdict(Status.MISSING, found, CONTAINER_LINE)
    if outcome.end is End.NO_ANSWER:
        return Verdict(Status.MISSING, found, "uptime  # the host may be overloaded: try again when it is calm")
    return Verdict(Status.MISSING, found, "sudo dmesg | tail  # what the kernel says about it")


def _no_user_namespace(outcome: Outcome, facts: HostFacts) -> Verdict:
    """The causes of a refused CLONE_NEWUSER, after user_namespaces(7) and the kernel's create_user_ns()."""
    limit = facts.max_namespaces.get("user")
    if outcome.errno in (errno.ENOSPC, errno.EUSERS):
        why = f"user.max_user_namespaces is {limit}"
        if limit:
            why += ": that many exist already, or they are nested 32 deep"
        return Verdict(Status.MISSING, why, "sudo sysctl -w user.max_user_namespaces=65536")
    if outcome.errno == errno.EINVAL or not facts.has_user_namespaces:
        return Verdict(
            Status.MISSING,
            "this kernel was built without user namespaces (CONFIG_USER_NS)",
            _KERNEL_LINE,
        )
    if outcome.errno not in _DENIED:
        return Verdict(Status.MISSING, f"refused: {outcome}", "sudo dmesg | tail  # what the kernel says about it")
    if facts.unprivileged_userns_clone == 0 and facts.uid != 0:
        return Verdict(
            Status.MISSING,
            "kernel.unprivileged_userns_clone is 0",
            "sudo sysctl -w kernel.unprivileged_userns_clone=1",
        )
    if facts.chrooted:
        return Verdict(
            Status.MISSING,
            "this process lives in a chroot, where the kernel makes no user namespaces",
            "exit  # leave the chroot; or enter it with: sudo unshare -m pivot_root, systemd-nspawn or a container",
        )
    if facts.seccomp_filtered:
        return Verdict(
            Status.MISSING, "refused by a seccomp filter on this process (container or sandbox)", CONTAINER_LINE
        )
    if facts.apparmor_restricts:
        return Verdict(Status.MISSING, "refused by AppArmor (apparmor_restrict_unprivileged_userns)", APPARMOR_LINE)
    return Verdict(
        Status.MISSING,
        f"refused ({outcome}) by a security module, or uid {facts.uid} does not exist in this user namespace",
        "sudo dmesg | tail  # what the security module says; or run lab as root",
    )


def _no_rights_inside(outcome: Outcome, facts: HostFacts) -> Verdict:
    """A user namespace was made but gives no rights: Ubuntu's AppArmor profile for unprivileged user namespaces."""
    where = f"it is made, but the {outcome.stage} in it is denied"
    if facts.apparmor_restricts:
        return Verdict(
            Status.MISSING, f"{where}: AppArmor (apparmor_restrict_unprivileged_userns) takes its rights", APPARMOR_LINE
        )
    if facts.seccomp_filtered:
        return Verdict(Status.MISSING, f"{where}: a seccomp filter on this process", CONTAINER_LINE)
    return Verdict(Status.MISSING, f"{where}: a security module", "sudo dmesg | tail  # what the security module says")
