"""Filters as tcpdump understands them, given to the kernel: what does not match never leaves it (socket(7))."""

from __future__ import annotations

import ctypes
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Sequence

from lab.capture.pcapng import ETHERNET
from lab.errors import HostError, UsageError

Run = Callable[[Sequence[str]], subprocess.CompletedProcess[str]]

_ATTACH_FILTER = 26  # SO_ATTACH_FILTER
_LINK_TYPES = {ETHERNET: "EN10MB"}
_OTHER = "RAW"


def compiled(expression: str, link_type: int, run: Run) -> bytes:
    """The program of an expression as an array of sock_filter.

    Args:
        expression: as pcap-filter(7) has it.
        link_type: what the frames begin with.
        run: runs a program where the expression's names are to be looked up.

    Raises:
        UsageError: the expression is wrong; the text is tcpdump's.
        HostError: there is no tcpdump.
    """
    if shutil.which("tcpdump") is None:
        raise HostError("a filter needs tcpdump, which is not installed; mend it with: sudo apt-get install tcpdump")
    done = run(["tcpdump", "-y", _LINK_TYPES.get(link_type, _OTHER), "-ddd", "--", expression])
    if done.returncode:
        said = done.stderr.strip().removeprefix("tcpdump: ")
        raise UsageError(f"filter {expression!r}: {said}; `man pcap-filter` has the language")
    try:
        count, *lines = done.stdout.split("\n")
        return b"".join(struct.pack("=HBBI", *map(int, line.split())) for line in lines[: int(count)])
    except (ValueError, struct.error) as error:
        raise HostError(f"tcpdump did not print a filter program but {done.stdout[:200]!r}") from error


def attach(made: socket.socket, program: bytes) -> None:
    """Let an unbound packet socket see only what the program lets through.

    Raises:
        OSError: as the kernel answers.
    """
    memory = ctypes.create_string_buffer(program, len(program))
    made.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("@HP", len(program) // 8, ctypes.addressof(memory)))
