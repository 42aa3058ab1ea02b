"""Which user ids the lab's processes can have: all for root, a range lent by root, or just one (user_namespaces(7))."""

from __future__ import annotations

import os
import signal
import subprocess
from enum import StrEnum
from pathlib import Path

from lab.errors import HostError
from lab.host import programs
from lab.host.facts import HostFacts, read_facts
from lab.host.subordinate_ids import ENOUGH, FILES, IdRange, subordinate_range
from lab.syscalls import CLONE_NEWUSER, unshare


class Ids(StrEnum):
    """How many user ids a lab of this user has."""

    ALL = "all"  # of root: no user namespace at all
    RANGE = "range"  # subordinate ids through newuidmap and newgidmap
    ONE = "one"  # one id: programs that change user fail


def ids_of_this_user() -> Ids:
    """What a lab started by this process would have."""
    facts = read_facts()
    if not facts.needs_user_namespace:
        return Ids.ALL if facts.mapped_ids >= ENOUGH else Ids.ONE
    return Ids.RANGE if _ranges(facts) is not None else Ids.ONE


def is_root_of_the_host() -> bool:
    """Whether this process has the host's root and all of its users: no user namespace is around it."""
    whole = ["0", "0", "4294967295"]  # user_namespaces(7): what the initial one shows
    return os.geteuid() == 0 and Path("/proc/self/uid_map").read_text().split() == whole


def enter_user_namespace() -> None:
    """Become root of a new user namespace, with as many ids as the host lends; nothing to do for root.

    Raises:
        HostError: the host does not let this user have one.
    """
    facts = read_facts()
    if not facts.needs_user_namespace:
        return
    user, group = os.geteuid(), os.getegid()
    ranges = _ranges(facts)
    if ranges is None:
        _unshare_user()
        Path("/proc/self/setgroups").write_text("deny")
        _write_map("uid_map", user)
        _write_map("gid_map", group)
    else:
        _map_ranges(user, group, *ranges)
        os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _ranges(facts: HostFacts) -> tuple[IdRange, IdRange] | None:
    """The subordinate user and group ids of this user, if it has enough of both and the host can map them."""
    if facts.no_new_privileges and facts.uid != 0:  # newuidmap and newgidmap have no effect then
        return None
    found = [
        subordinate_range(file, facts.user, facts.uid) if programs.find(program) else None
        for program, file in FILES.items()
    ]
    match found:
        case [IdRange(size=users) as user_ids, IdRange(size=groups) as group_ids] if min(users, groups) >= ENOUGH:
            return user_ids, group_ids
        case _:
            return None


def _map_ranges(user: int, group: int, user_ids: IdRange, group_ids: IdRange) -> None:
    """Let newuidmap and newgidmap, run by a child that stays outside, map this process's ids."""
    ready, go = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        os.close(go)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        status = 1
        try:
            if os.read(ready, 1):
                status = _run_mappers(os.getppid(), user, group, user_ids, group_ids)
        finally:
            os._exit(status)
    os.close(ready)
    try:
        _unshare_user()
        os.write(go, b"!")
    finally:
        os.close(go)
        _, status = os.waitpid(child, 0)
    if status:
        raise HostError(
            "newuidmap or newgidmap refused the ranges of /etc/subuid and /etc/subgid for this user; "
            "they must be setuid root and the ranges its own: see `lab doctor`"
        )


def _run_mappers(target: int, user: int, group: int, user_ids: IdRange, group_ids: IdRange) -> int:
    for program, own, lent in (("newuidmap", user, user_ids), ("newgidmap", group, group_ids)):
        path = programs.find(program) or program
        lines = ["0", str(own), "1", "1", str(lent.start), str(lent.size)]
        if subprocess.run([path, str(target), *lines], check=False, stdin=subprocess.DEVNULL).returncode:
            return 1
    return 0


def _unshare_user() -> None:
    try:
        unshare(CLONE_NEWUSER)
    except OSError as error:
        raise HostError(f"no user namespace for this user ({error.strerror}): see `lab doctor`") from error


def _write_map(name: str, own: int) -> None:
    try:
        Path(f"/proc/self/{name}").write_text(f"0 {own} 1")
    except OSError as error:
        raise HostError(
            f"writing /proc/self/{name} was refused ({error.strerror}), as AppArmor does on Ubuntu 24.04 and later: "
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
        ) from error
