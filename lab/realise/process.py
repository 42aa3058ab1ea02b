"""Start a program inside a node."""

from __future__ import annotations

import errno
import os
import pwd
import resource
import select
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from lab.errors import RealiseError
from lab.realise.place import Place

STATE_FOLDER = "/run/lab"
HOME = f"{STATE_FOLDER}/home"
_STANDARD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# The soft limit that programs expect; the supervisor raises its own to hold the namespaces of large labs.
_OPEN_FILES = resource.getrlimit(resource.RLIMIT_NOFILE)


@dataclass(frozen=True, slots=True)
class Command:
    """What to run in a node and how."""

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    folder: str = ""  # working directory; the node's home if it does not exist there
    user: str = ""  # "" for root of the node
    terminal: bool = False  # the first descriptor is a terminal to control


def start(place: Place, command: Command, stdio: tuple[int, int, int]) -> int:
    """Fork a process into the node, execute the command, return its process id.

    The process leads a session and a process group of its own.

    Raises:
        RealiseError: the program does not exist there, the user is unknown or not to be had, or exec failed.
    """
    identity = _identity(command.user)
    environment = _environment(command)
    try:
        report, trouble = os.pipe2(os.O_CLOEXEC)
        try:
            pid = os.fork()
        except OSError:
            os.close(report)
            os.close(trouble)
            raise
    except OSError as error:
        raise RealiseError(f"{place.name}: cannot start {command.argv[0]!r}: {error.strerror}") from error
    if pid == 0:
        _become(place, command, environment, identity, stdio, trouble)
    os.close(trouble)
    with os.fdopen(report, "rb") as pipe:
        text = pipe.read()
    if text:
        os.waitpid(pid, 0)
        raise RealiseError(f"{place.name}: cannot run {command.argv[0]!r}: {text.decode()}")
    return pid


def wait(pid: int, seconds: float) -> int | None:
    """The exit code of a child made by `start`, and None if it had to be killed, for it took longer.

    As `subprocess` has them: minus the number of the signal that ended it.
    """
    if not _has_ended(pid, seconds):
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return None
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _has_ended(pid: int, seconds: float) -> bool:
    try:
        handle = os.pidfd_open(pid)
    except OSError:  # no descriptor left: then there is no way to wait with an end to it
        return True
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(max(0.0, seconds) * 1000))
    finally:
        os.close(handle)


def _become(
    place: Place,
    command: Command,
    environment: dict[str, str],
    identity: pwd.struct_passwd | None,
    stdio: tuple[int, int, int],
    trouble: int,
) -> None:
    """Turn this forked child into the program; never returns."""
    try:
        signal.set_wakeup_fd(-1)
        _forget_signals()
        if command.terminal:
            os.login_tty(os.dup(stdio[0]))
        else:
            os.setsid()
            for target, source in enumerate(stdio):
                os.dup2(source, target)
        resource.setrlimit(resource.RLIMIT_NOFILE, _OPEN_FILES)
        os.umask(0o022)
        place.enter()
        _enter_folder(command.folder)
        if identity is not None:
            os.initgroups(identity.pw_name, identity.pw_gid)
            os.setgid(identity.pw_gid)
            os.setuid(identity.pw_uid)
        program = _find(command.argv[0], environment["PATH"])
        # Some programs start themselves again and want to know where they are (sshd).
        os.execve(program, [program, *command.argv[1:]], environment)
    except OSError as error:
        os.write(trouble, f"{error.strerror}{f': {error.filename}' if error.filename else ''}".encode())
    except BaseException as error:  # noqa: BLE001 - a forked child must end here, whatever happened
        os.write(trouble, repr(error).encode())
    finally:
        os._exit(127)


def _forget_signals() -> None:
    """As a freshly booted machine has them, whatever the shell that started the lab ignored or blocked."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _enter_folder(folder: str) -> None:
    for candidate in (folder, HOME, "/"):
        if candidate and Path(candidate).is_dir():
            os.chdir(candidate)
            return


def _identity(user: str) -> pwd.struct_passwd | None:
    if not user:
        return None
    try:
        return pwd.getpwnam(user)
    except KeyError as error:
        raise RealiseError(f"user {user!r} does not exist on this host; name one of /etc/passwd") from error


def _environment(command: Command) -> dict[str, str]:
    own_programs = str(Path(sys.executable).parent)
    user = command.user or "root"
    home = HOME if not command.user else pwd.getpwnam(user).pw_dir
    return {
        "PATH": f"{own_programs}:{_STANDARD_PATH}",
        "HOME": home,
        "USER": user,
        "LOGNAME": user,
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
    } | dict(command.environment)


def _find(program: str, path: str) -> str:
    if "/" in program:
        return program
    for folder in path.split(":"):
        candidate = f"{folder}/{program}"
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):  # noqa: PTH113 - no Path objects in a forked child
            return candidate
    raise FileNotFoundError(errno.ENOENT, f"no such program in {path}")
