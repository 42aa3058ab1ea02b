"""Tries an action for real in a child process, in the namespaces that a lab would get, and tells how far it came.

The child is forked, so it has one thread whatever its parent has. It has a deadline; when it ends, or is killed at the
deadline, the kernel frees all that it made. Nothing is created in the namespaces of the caller. One effect can outlive
a trial: the kernel may load a module that the action asks for, as `lab up` would have it do.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, NoReturn

from lab import syscalls


class Stage(StrEnum):
    """The last step that a trial began."""

    START = "start of the child"
    USER_NAMESPACE = "user namespace"
    ID_MAP = "id map"
    MOUNT_NAMESPACE = "mount namespace"
    NETWORK_NAMESPACE = "network namespace"
    UTS_NAMESPACE = "UTS namespace"
    IPC_NAMESPACE = "IPC namespace"
    PID_NAMESPACE = "PID namespace"
    PRIVATE_MOUNTS = "private mounts"
    ACTION = "action"


class End(StrEnum):
    """How a trial ended."""

    DONE = "done"
    REFUSED = "refused"  # the kernel or a program said no
    DIED = "died"
    NO_ANSWER = "no answer"


class Outcome(NamedTuple):
    """What a trial told."""

    end: End
    stage: Stage
    errno: int = 0  # 0 if no system call was refused
    text: str = ""  # done: what the action returned; refused: the step or the message; else what is known

    @property
    def ok(self) -> bool:
        return self.end is End.DONE

    @property
    def tried(self) -> bool:
        """Whether the action itself began."""
        return self.stage is Stage.ACTION

    def __str__(self) -> str:
        reason = os.strerror(self.errno) if self.errno else ""
        return ": ".join(part for part in (self.text, reason) if part) or self.end.value


class Refusal(Exception):  # noqa: N818 - an answer, not an error
    """An action's own word for what was refused: the step, and the errno if there was one."""

    def __init__(self, step: str, errno: int = 0) -> None:
        super().__init__(step)
        self.step = step
        self.errno = errno


class Ended(NamedTuple):
    """How a program ended."""

    status: int
    complaint: str  # standard error


def run_program(argv: list[str], given: str = "") -> Ended:
    """Runs a program within a trial, with `given` on its standard input; raises Refusal if it does not end in time."""
    import subprocess

    try:
        result = subprocess.run(
            argv,
            input=given,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROGRAM_TIMEOUT,
            check=False,
            preexec_fn=_die_with_parent,  # safe: a trial has one thread
        )
    except subprocess.TimeoutExpired as expired:
        raise Refusal(f"{' '.join(argv[:2])} did not end within {_PROGRAM_TIMEOUT} s") from expired
    return Ended(result.returncode, result.stderr)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Names the part of an action that an OSError comes from."""
    try:
        yield
    except OSError as error:
        raise Refusal(name, error.errno or 0) from error


Action = Callable[[], str]

_NAMESPACES = (
    (Stage.MOUNT_NAMESPACE, syscalls.CLONE_NEWNS),
    (Stage.NETWORK_NAMESPACE, syscalls.CLONE_NEWNET),
    (Stage.UTS_NAMESPACE, syscalls.CLONE_NEWUTS),
    (Stage.IPC_NAMESPACE, syscalls.CLONE_NEWIPC),
    (Stage.PID_NAMESPACE, syscalls.CLONE_NEWPID),
)
_PROGRAM_TIMEOUT = 8.0  # seconds; within the time that an examination has, and enough for a busy machine
_ANSWER_LIMIT = 65536  # bytes; also what a pipe holds, so that a child never blocks in its last write


class Trial:
    """A running trial; `outcome` must be called once, `stop` at least once."""

    def __init__(self, pid: int, answers: int) -> None:
        self._pid = pid
        self._answers = answers
        self._stopped = False

    def outcome(self, deadline: float) -> Outcome:
        """Waits for the child to end, until `deadline` (of `time.monotonic`)."""
        received = b""
        poll = select.poll()
        poll.register(self._answers, select.POLLIN)
        ended = False
        while not ended and poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            data = os.read(self._answers, _ANSWER_LIMIT)
            received += data
            ended = not data
        status = self.stop()
        return _decode(received, ended=ended, status=status)

    def stop(self) -> int:
        """Kills what is left of the trial and returns the child's wait status."""
        if self._stopped:
            return 0
        self._stopped = True
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)
        os.close(self._answers)
        return os.waitpid(self._pid, 0)[1]


def begin(action: Action, *, namespaces: bool, user_namespace: bool) -> Trial:
    """Starts `action` in a child.

    With `namespaces` it runs as PID 1 of fresh mount, network, UTS, IPC and PID namespaces with private mounts; with
    `user_namespace` a user namespace that maps the caller to root is made around those first.
    """
    answers, writer = os.pipe()
    uid, gid = os.geteuid(), os.getegid()
    pid = os.fork()
    if pid == 0:
        _child(writer, action, namespaces=namespaces, ids=(uid, gid) if user_namespace else None)
    with suppress(PermissionError, ProcessLookupError):
        os.setpgid(pid, pid)
    os.close(writer)
    return Trial(pid, answers)


def map_to_root(uid: int, gid: int) -> None:
    """Maps the single ids that an unprivileged process may map (user_namespaces(7)); raises OSError."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


def _child(writer: int, action: Action, *, namespaces: bool, ids: tuple[int, int] | None) -> NoReturn:
    try:
        os.setpgid(0, 0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        _die_with_parent()
        if namespaces:
            _enter_namespaces(writer, ids)
        _tell(writer, Stage.ACTION)
        _tell(writer, End.DONE, 0, action())
    except Refusal as refusal:
        _tell(writer, End.REFUSED, refusal.errno, refusal.step)
    except OSError as error:
        _tell(writer, End.REFUSED, error.errno or 0, "" if error.errno else str(error))
    except BaseException as error:  # noqa: BLE001 - a child must end here, whatever happened in it
        _tell(writer, End.DIED, 0, f"{type(error).__name__}: {error}")
    finally:
        os._exit(0)


def _enter_namespaces(writer: int, ids: tuple[int, int] | None) -> None:
    if ids is not None:
        _tell(writer, Stage.USER_NAMESPACE)
        syscalls.unshare(syscalls.CLONE_NEWUSER)
        _tell(writer, Stage.ID_MAP)
        map_to_root(*ids)
    outside = _own_namespaces()
    for stage, flag in _NAMESPACES:
        _tell(writer, stage)
        syscalls.unshare(flag)
    if outside & _own_namespaces():
        raise Refusal("unshare said yes but made nothing (a sandbox that pretends?)")
    first = os.fork()
    if first:
        _, status = os.waitpid(first, 0)
        if os.WIFSIGNALED(status):
            _tell(writer, End.DIED, 0, f"signal {os.WTERMSIG(status)}")
        os._exit(0)
    _die_with_parent()
    if os.getpid() != 1:
        raise Refusal("unshare said yes but made nothing (a sandbox that pretends?)")
    _tell(writer, Stage.PRIVATE_MOUNTS)
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)


def _own_namespaces() -> set[str]:
    """The four that a process is moved into at once; an action in those of the caller would change the host."""
    return {str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in ("mnt", "net", "uts", "ipc")}


def _die_with_parent() -> None:
    syscalls.signal_on_parent_death(signal.SIGKILL)


def _tell(writer: int, word: Stage | End, errno: int = 0, text: str = "") -> None:
    os.write(writer, f"{word.name}\t{errno}\t{' '.join(text.split())[:500]}\n".encode())


def _decode(received: bytes, *, ended: bool, status: int) -> Outcome:
    stage = Stage.START
    for line in received.decode(errors="replace").splitlines():
        word, errno, text = line.split("\t", 2)
        if word in Stage.__members__:
            stage = Stage[word]
        else:
            return Outcome(End[word], stage, int(errno), text)
    if not ended:
        return Outcome(End.NO_ANSWER, stage, text=f"no answer in time at the step: {stage}")
    signalled = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "no last word"
    return Outcome(End.DIED, stage, text=f"the child died ({signalled}) at the step: {stage}")
