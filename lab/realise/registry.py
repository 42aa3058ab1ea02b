"""Which labs run: each has a socket whose name the kernel forgets with it, so there is nothing to keep or to sweep.

The name lies in the abstract namespace (unix(7)) as ``homelab-lab/USER/LAB``; who binds it first has the lab's name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import socket
import struct
from pathlib import Path

from lab.errors import UsageError

_PREFIX = "homelab-lab"
_NAME = re.compile(r"[a-z0-9-]+")  # what the topology language allows
SO_PEERPIDFD = 77  # asm-generic/socket.h; since Linux 6.5
_ENDED = (errno.ESRCH, errno.EINVAL, errno.ENODATA)  # what it says of a process that has been collected, by version
_PATIENCE = 5.0  # seconds until a socket that accepts nobody is given up


def claim(name: str) -> socket.socket:
    """The socket of a new lab, bound to its name; it becomes the lab's door.

    Raises:
        UsageError: a lab of this user has that name.
    """
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        door.bind(_address(name))
    except OSError as error:
        door.close()
        if error.errno != errno.EADDRINUSE:
            raise
        raise UsageError(
            f"a lab named {name!r} is already up: `lab down {name}` ends it, `lab up --name OTHER` makes another"
        ) from error
    return door


def knock(name: str, patience: float = _PATIENCE) -> socket.socket:
    """A connection to the supervisor of a running lab of this user.

    Raises:
        UsageError: no such lab runs.
    """
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # Whoever took the name may not be listening to anybody; a supervisor is, but for the second that it builds.
    # A timeout of the kernel's, for a non-blocking connect(2) to a socket with a full queue fails at once (unix(7)).
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(patience), int(patience % 1 * 1e6)))
    try:
        channel.connect(_address(name))
    except BlockingIOError as error:
        channel.close()
        raise UsageError(f"lab {name!r} does not answer; `lab ps` shows it, and `lab down {name}` ends it") from error
    except ConnectionRefusedError as error:
        channel.close()
        from difflib import get_close_matches

        running = names()
        near = get_close_matches(name, running, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ";"
        raise UsageError(
            f"no lab named {name!r} is up{hint} running: {', '.join(running) or 'none'}. `lab up TOPOLOGY` starts one"
        ) from error
    except BaseException:
        channel.close()
        raise
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 0))
    # Anyone may bind an abstract name; only this user (or root) may be believed to be its lab.
    if _credentials(channel)[1] not in (os.geteuid(), 0):
        channel.close()
        raise UsageError(f"another user has taken the name of lab {name!r}; choose one with `lab up --name OTHER`")
    return channel


def names() -> list[str]:
    """The names of this user's labs, sorted."""
    mine = f"@{_PREFIX}/{_user()}/"
    # Whatever others have bound stands there too, in any bytes.
    lines = Path("/proc/net/unix").read_text(errors="replace").splitlines()
    found = {line.rpartition(mine)[2] for line in lines if f" {mine}" in line}
    return sorted(name for name in found if _NAME.fullmatch(name))


def supervisor_of(channel: socket.socket) -> int:
    """The process id of the supervisor at the other end of a connection."""
    return _credentials(channel)[0]


def open_supervisor(name: str, channel: socket.socket) -> int | None:
    """A descriptor (pidfd_open(2)) of the supervisor at the other end of a connection to a lab; None if it has ended.

    Never of another process, though a number may be another's as soon as its process has ended.
    """
    try:
        supervisor = channel.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
    except OSError as error:
        if error.errno in _ENDED:
            return None
        if error.errno != errno.ENOPROTOOPT:
            raise
    else:
        if not await_end(supervisor, 0):
            return supervisor
        os.close(supervisor)
        return None
    return _open_by_number(name, channel)


def _open_by_number(name: str, channel: socket.socket) -> int | None:
    """As `open_supervisor`, where the kernel knows a number only: it is right if the connection still stands after."""
    number = supervisor_of(channel)
    try:
        supervisor = os.pidfd_open(number)
    except ProcessLookupError:
        return None
    if not _is_over(channel):
        return supervisor
    with contextlib.suppress(UsageError), knock(name) as another:  # perhaps it has but hung up on us
        if supervisor_of(another) == number and not _is_over(another):
            return supervisor
    os.close(supervisor)
    return None


def _is_over(channel: socket.socket) -> bool:
    """Whether nobody is at the other end any more. A supervisor is gone only after all who could hold that end."""
    poll = select.poll()
    poll.register(channel, 0)  # POLLHUP is told unasked
    return bool(poll.poll(0))


def await_end(pid_descriptor: int, seconds: float) -> bool:
    """Wait for a supervisor (a descriptor, as of `open_supervisor`) to end, and with it every process of its lab."""
    poll = select.poll()
    poll.register(pid_descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _address(name: str) -> str:
    return f"\0{_PREFIX}/{_user()}/{name}"


def _user() -> int:
    """This user as the surrounding user namespace knows it: root of `unshare -r` is not the host's root."""
    own = os.geteuid()
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        inside, outside, count = map(int, line.split())
        if inside <= own < inside + count:
            return outside + own - inside
    return own


def _credentials(channel: socket.socket) -> tuple[int, int]:
    packed = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
    pid, user, _ = struct.unpack("iII", packed)
    return pid, user
