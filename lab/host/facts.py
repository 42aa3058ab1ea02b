"""Reads the facts about this process and this kernel that explain a refusal; it judges nothing."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

_CAP_NET_ADMIN, _CAP_SYS_ADMIN = 12, 21


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What explains why a namespace or a mount is refused. None: this kernel does not have the setting."""

    uid: int
    user: str  # the user's name, or the number if it has none
    needs_user_namespace: bool
    mapped_ids: int  # user ids that exist in the user namespace of this process
    has_user_namespaces: bool  # the kernel was built with them
    max_namespaces: dict[str, int]  # user.max_*_namespaces by "user", "net", "mnt", "pid", "uts", "ipc"
    unprivileged_userns_clone: int | None  # Debian's own switch, up to Debian 10
    apparmor_restricts: int | None  # kernel.apparmor_restrict_unprivileged_userns, Ubuntu 23.10 and later
    seccomp_filtered: bool
    no_new_privileges: bool
    chrooted: bool
    container: bool
    proc_covers: tuple[str, ...]  # mounts over parts of /proc: while there are any, a user namespace gets no procfs
    ipv6_module_disabled: bool


def read_facts() -> HostFacts:
    """The facts about the calling process."""
    status = _status()
    mounted = _mount_points()
    return HostFacts(
        uid=os.geteuid(),
        user=_user_name(os.geteuid()),
        needs_user_namespace=needs_user_namespace(),
        mapped_ids=_mapped_ids(),
        has_user_namespaces=Path("/proc/self/ns/user").exists(),
        max_namespaces=_max_namespaces(),
        unprivileged_userns_clone=_number("kernel/unprivileged_userns_clone"),
        apparmor_restricts=_number("kernel/apparmor_restrict_unprivileged_userns"),
        seccomp_filtered=status.get("Seccomp") == "2",
        no_new_privileges=status.get("NoNewPrivs") == "1",
        chrooted=_chrooted(mounted),
        container=any(Path(mark).exists() for mark in ("/.dockerenv", "/run/.containerenv")),
        proc_covers=tuple(point for point in mounted if point.startswith("/proc/")),
        ipv6_module_disabled=_text("/sys/module/ipv6/parameters/disable") == "1",
    )


def needs_user_namespace() -> bool:
    """Whether a lab of this process must begin with a user namespace: it is not root, or a root without the rights."""
    if os.geteuid() != 0:
        return True
    effective = int(_status().get("CapEff", "0"), 16)
    needed = 1 << _CAP_NET_ADMIN | 1 << _CAP_SYS_ADMIN
    return effective & needed != needed


def _max_namespaces() -> dict[str, int]:
    kinds = ("user", "net", "mnt", "pid", "uts", "ipc")
    return {kind: limit for kind in kinds if (limit := _number(f"user/max_{kind}_namespaces")) is not None}


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""


def _number(sysctl: str) -> int | None:
    text = _text(f"/proc/sys/{sysctl}")
    return int(text) if text.isdecimal() else None


def _status() -> dict[str, str]:
    lines = (line.partition(":") for line in _text("/proc/self/status").splitlines())
    return {name: value.strip() for name, _, value in lines}


def _mount_points() -> tuple[str, ...]:
    lines = (line.split() for line in _text("/proc/self/mountinfo").splitlines())
    return tuple(fields[4] for fields in lines if len(fields) > 4)


def _mapped_ids() -> int:
    return sum(int(line.split()[2]) for line in _text("/proc/self/uid_map").splitlines())


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _chrooted(mounted: tuple[str, ...]) -> bool:
    """Whether the root of this process is not that of its mount namespace (as far as this process may see)."""
    if mounted and "/" not in mounted:
        return True
    try:
        return not Path("/proc/1/root").samefile("/")
    except OSError:
        return False
