"""`lab down`: end labs, and say what ended in how long."""

from __future__ import annotations

import os
import signal
import socket
import time

from lab.cli.parser import Parser
from lab.cli.running_lab import chosen
from lab.errors import ExitCode, RealiseError
from lab.realise import registry
from lab.realise.asking import ask

TIME_TO_ANSWER = 2.0  # seconds; a lab that is still being built answers nobody
TIME_TO_END = 30.0  # seconds for the kernel to end every process of a lab


def run(words: list[str]) -> int:
    """End the named labs, the chosen one, or all."""
    parser = Parser(
        "down",
        "End running labs: every process, namespace, link and file of theirs. Nothing is left to clean up.",
        notes="Without a name: $HOMELAB_LAB, else the only lab that is running.",
        example="lab down homelab",
    )
    parser.add_argument("names", metavar="NAME", nargs="*", help="a running lab")
    parser.add_argument("--all", action="store_true", help="every lab of this user")
    options = parser.parse_args(words)
    if options.all and options.names:
        parser.error("either names or --all")
    if options.all:
        names = registry.names()
        if not names:
            print("no lab is running")
    else:
        names = list(dict.fromkeys(options.names)) or [chosen(None)]
    doors = [(name, registry.knock(name)) for name in names]
    for name, door in doors:
        began = time.monotonic()
        with door:
            _end(name, door)
        print(f"{name} ended in {(time.monotonic() - began) * 1000:.0f} ms")
    return ExitCode.OK


def _end(name: str, door: socket.socket) -> None:
    process = registry.open_supervisor(name, door)
    if process is None:
        return
    try:
        door.settimeout(TIME_TO_ANSWER)
        try:
            ask(door, {"ask": "down"})
        except TimeoutError:
            signal.pidfd_send_signal(process, signal.SIGKILL)
        except (OSError, RealiseError):
            pass  # it is ending by itself
        if not registry.await_end(process, TIME_TO_END):
            raise RealiseError(
                f"lab {name} did not end within {TIME_TO_END:g} s; "
                f"its supervisor is process {registry.supervisor_of(door)}"
            )
    finally:
        os.close(process)
