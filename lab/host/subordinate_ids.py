"""Whether this user may have many user ids inside its user namespace (newuidmap(1), subuid(5))."""

from __future__ import annotations

import os
import signal
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from lab import syscalls
from lab.host import programs
from lab.host.facts import HostFacts
from lab.host.finding import Feature, Finding, Status, Verdict, finding
from lab.host.trial import Outcome, Refusal, run_program

ENOUGH = 65536  # ids; what distributions give each user, and what "nobody" (65534) needs
FILES = {"newuidmap": "/etc/subuid", "newgidmap": "/etc/subgid"}
_FIRST_START = 100000  # SUB_UID_MIN of login.defs(5)


class IdRange(NamedTuple):
    """Subordinate ids of one user: `size` ids from `start`."""

    start: int
    size: int


class IdSource(NamedTuple):
    """What stands behind one of the two programs."""

    program: str  # "newuidmap" or "newgidmap"
    path: str | None
    raises: bool  # setuid root, or file capabilities
    file: str
    range: IdRange | None  # the largest of this user
    next_free: int  # the first id behind all ranges of the file


def subordinate_range(file: str, user: str, uid: int) -> IdRange | None:
    """The largest range that `file` gives `user` (by name or by number), or None."""
    ranges = [each for owner, each in _ranges(file) if owner in (user, str(uid))]
    return max(ranges, key=lambda each: each.size, default=None)


def read_sources(facts: HostFacts) -> tuple[IdSource, ...]:
    """What stands behind newuidmap and newgidmap for the user of `facts`."""
    sources = []
    for program, file in FILES.items():
        path = programs.find(program)
        ends = [each.start + each.size for _, each in _ranges(file)]
        owned = subordinate_range(file, facts.user, facts.uid)
        next_free = max([_FIRST_START, *ends])
        sources.append(IdSource(program, path, path is not None and _raises(path), file, owned, next_free))
    return tuple(sources)


def map_many(facts: HostFacts, sources: tuple[IdSource, ...]) -> str:
    """Trial: maps this user to root and its ranges behind it, by the two programs, in a user namespace of a child."""
    commands = [_map_command(source, own) for source, own in zip(sources, (facts.uid, os.getegid()), strict=True)]
    asks, asked = os.pipe()
    child = os.fork()
    if child == 0:
        _wait_in_user_namespace(asked)
    os.close(asked)
    try:
        answer = os.read(asks, 16)
        if answer != b"0":
            raise Refusal("user namespace", int(answer or b"0"))
        for program, *mapping in commands:
            _run([program, str(child), *mapping])
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return ""


def subordinate_id_finding(outcome: Outcome, facts: HostFacts, sources: tuple[IdSource, ...]) -> Finding:
    """The finding, from the trial `map_many`."""
    return finding("user ids", (Feature.CHANGE_USER,), judge_subordinate_ids(outcome, facts, sources))


def judge_subordinate_ids(outcome: Outcome, facts: HostFacts, sources: tuple[IdSource, ...]) -> Verdict:
    """Never worse than limited: with a single id all works but the services that change user."""
    if not facts.needs_user_namespace:
        return _judge_root(facts)
    if absent := [source.program for source in sources if source.path is None]:
        return Verdict(Status.LIMITED, f"only one user id: no {' and no '.join(absent)}", "sudo apt-get install uidmap")
    if short := [source for source in sources if source.range is None or source.range.size < ENOUGH]:
        return _short_ranges(short, sources, facts.user)
    if outcome.ok:
        starts = ", ".join(f"{source.file} from {source.range.start}" for source in sources if source.range)
        return Verdict(Status.OK, f"at least {ENOUGH} ({starts})")
    if weak := [source.path or "" for source in sources if not source.raises]:
        found = f"only one user id: {' and '.join(weak)} neither setuid root nor with file capabilities"
        return Verdict(Status.LIMITED, found, f"sudo chmod u+s {' '.join(weak)}")
    if outcome.text == "user namespace":
        return Verdict(Status.NOT_TRIED, "the user namespace around them is missing")
    if facts.no_new_privileges:
        found = "only one user id: no_new_privs is set on this process, so setuid programs have no effect"
        return Verdict(Status.LIMITED, found, "lab up  # from a shell outside the sandbox that set no_new_privs")
    return Verdict(Status.LIMITED, f"only one user id: {outcome}", "sudo apt-get install --reinstall uidmap")


def _judge_root(facts: HostFacts) -> Verdict:
    if facts.mapped_ids >= ENOUGH:
        return Verdict(Status.NOT_NEEDED, "root has all user ids")
    found = f"root of a user namespace with {facts.mapped_ids} user ids, {ENOUGH} are needed"
    return Verdict(Status.LIMITED, found, "exit  # leave this user namespace: lab makes its own")


def _short_ranges(short: list[IdSource], sources: tuple[IdSource, ...], user: str) -> Verdict:
    files = [source.file for source in short]
    counts = ", ".join(f"{source.file} gives {source.range.size if source.range else 'none'}" for source in short)
    start = max(source.next_free for source in sources)
    mend = f'echo "{user}:{start}:{ENOUGH}" | sudo tee -a {" ".join(files)}'
    return Verdict(Status.LIMITED, f"only one user id: {counts} to {user}, {ENOUGH} are needed", mend)


def _ranges(file: str) -> list[tuple[str, IdRange]]:
    """The entries of subuid(5); lines that are none are passed over, as newuidmap does."""
    try:
        lines = Path(file).read_text(errors="replace").splitlines()
    except OSError:
        return []
    entries = (line.strip().split(":") for line in lines)
    return [
        (fields[0], IdRange(int(fields[1]), int(fields[2])))
        for fields in entries
        if len(fields) == 3 and fields[1].isdecimal() and fields[2].isdecimal()
    ]


def _raises(path: str) -> bool:
    try:
        status = Path(path).stat()
    except OSError:
        return False
    if status.st_uid == 0 and status.st_mode & stat.S_ISUID:
        return True
    with suppress(OSError):
        return bool(os.getxattr(path, "security.capability"))
    return False


def _map_command(source: IdSource, own: int) -> list[str]:
    if source.path is None or source.range is None:
        raise Refusal(f"{source.program} or its range")
    return [source.path, "0", str(own), "1", "1", str(source.range.start), str(ENOUGH)]


def _run(command: list[str]) -> None:
    ended = run_program(command)
    if ended.status:
        raise Refusal(f"{Path(command[0]).name} failed: {ended.complaint.strip()}")


def _wait_in_user_namespace(asked: int) -> None:
    try:
        syscalls.signal_on_parent_death(signal.SIGKILL)
        syscalls.unshare(syscalls.CLONE_NEWUSER)
        os.write(asked, b"0")
        signal.pause()
    except OSError as error:
        os.write(asked, str(error.errno).encode())
    finally:
        os._exit(0)
