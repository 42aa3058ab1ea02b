"""Whether a lab can mount its own procfs, sysfs and tmpfs."""

from __future__ import annotations

import errno
from pathlib import Path

from lab import syscalls
from lab.host.facts import HostFacts
from lab.host.finding import Feature, Finding, Status, Verdict, finding
from lab.host.namespaces import CONTAINER_LINE
from lab.host.trial import Outcome

LABS = (Feature.LABS,)
_FLAGS = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
_COVERS_SHOWN = 3
_TMPFS_PLACE = "/tmp"  # noqa: S108 - the mount point, in a mount namespace of its own
_READ_ONLY = "read-only"


def mount_proc() -> str:
    """Trial: mounts the procfs of the fresh PID namespace."""
    syscalls.mount("proc", "/proc", "proc", _FLAGS)
    return ""


def mount_sysfs() -> str:
    """Trial: mounts the sysfs of the fresh network namespace; read-only where the outer one is, as in containers."""
    try:
        syscalls.mount("sysfs", "/sys", "sysfs", _FLAGS)
    except PermissionError:
        syscalls.mount("sysfs", "/sys", "sysfs", _FLAGS | syscalls.MS_RDONLY)
        return _READ_ONLY
    return ""


def mount_tmpfs() -> str:
    """Trial: mounts a tmpfs and writes a file in it."""
    syscalls.mount("tmpfs", _TMPFS_PLACE, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV)
    (Path(_TMPFS_PLACE) / "trial").write_bytes(b"x")
    return ""


def filesystem_findings(proc: Outcome, sysfs: Outcome, tmpfs: Outcome, facts: HostFacts) -> list[Finding]:
    """One finding for each file system."""
    return [
        finding("procfs", LABS, judge_proc(proc, facts), required=True),
        finding("sysfs", LABS, judge_sysfs(sysfs)),
        finding("tmpfs", LABS, judge_tmpfs(tmpfs), required=True),
    ]


def judge_proc(outcome: Outcome, facts: HostFacts) -> Verdict:
    """The kernel gives a user namespace a procfs only where it sees a whole one already (mount_too_revealing())."""
    if outcome.ok:
        return Verdict(Status.OK, "mounted in a fresh PID namespace")
    if outcome.errno in (errno.EPERM, errno.EACCES) and facts.proc_covers:
        covers = sorted(facts.proc_covers)
        shown = ", ".join(covers[:_COVERS_SHOWN]) + (", ..." if len(covers) > _COVERS_SHOWN else "")
        mend = CONTAINER_LINE if facts.container else f"sudo umount {' '.join(covers)}"
        return Verdict(Status.MISSING, f"refused, because parts of /proc are covered by mounts: {shown}", mend)
    return Verdict(Status.MISSING, f"mount failed: {outcome}", CONTAINER_LINE)


def judge_sysfs(outcome: Outcome) -> Verdict:
    """A lab lives without its own sysfs; programs in its nodes then see the host's interfaces in /sys/class/net."""
    if outcome.ok:
        return Verdict(Status.OK, ", ".join(filter(None, ("mounted in a fresh network namespace", outcome.text))))
    return Verdict(
        Status.LIMITED, f"mount failed: {outcome}; /sys/class/net in nodes shows the host's interfaces", CONTAINER_LINE
    )


def judge_tmpfs(outcome: Outcome) -> Verdict:
    """Each node's /run and /tmp are a tmpfs."""
    if outcome.ok:
        return Verdict(Status.OK, "mounted and written to")
    return Verdict(Status.MISSING, f"mount failed: {outcome}", CONTAINER_LINE)
