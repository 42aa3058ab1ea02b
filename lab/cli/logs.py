"""`lab logs`: what the services of a node wrote, and what they go on writing."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
from dataclasses import dataclass
from typing import BinaryIO

from lab.cli.parser import Parser
from lab.cli.running_lab import connect, require_node
from lab.cli.style import Style
from lab.errors import ExitCode, UsageError
from lab.realise.asking import ask
from lab.realise.message import Message

PAUSE = 0.1  # seconds between two looks while following
BLOCK = 64 * 1024  # bytes read at once

_COLOURS = ("cyan", "yellow", "green", "blue")


def run(words: list[str]) -> int:
    """Show logs, and follow them if asked to."""
    parser = Parser(
        "logs",
        "Show what the services of a node wrote to their standard output and error.",
        notes="With several services each line begins with the name of its service.\n"
        "-f ends with Ctrl-C or with the lab.",
        example="lab logs -f -n 20 nas web",
    )
    parser.add_argument("node", metavar="NODE")
    parser.add_argument("service", metavar="SERVICE", nargs="?", help="default: all of the node")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what is written from here on")
    parser.add_argument("-n", "--lines", metavar="LINES", type=int, help="only the last so many of each service")
    parser.add_lab()
    options = parser.parse_args(words)
    if options.lines is not None and options.lines < 0:
        parser.error("--lines: not less than 0")
    with connect(options.lab) as channel:
        lab = ask(channel, {"ask": "inspect"})[0]
        services = _services(lab, options.node, options.service)
        logs = [_open(channel, options.node, service, several=len(services) > 1) for service in services]
        style = Style(sys.stdout)
        for number, log in enumerate(logs):
            log.colour = _COLOURS[number % len(_COLOURS)]
            if options.lines is not None:
                log.skip_to_last(options.lines)
            log.show(style)
        if options.follow:
            _follow(channel, logs, style)
        for log in logs:
            log.end(style)
    return ExitCode.OK


@dataclass(slots=True)
class Log:
    """The log of one service and how much of it has been shown."""

    file: BinaryIO
    label: str  # "" if it is the only one
    colour: str = ""
    rest: bytes = b""  # of a line that has not ended; only if there is a label

    def skip_to_last(self, lines: int) -> None:
        """Begin so many lines before the end."""
        start = self.file.tell()
        size = at = self.file.seek(0, os.SEEK_END)
        if lines == 0:
            return
        tail = b""
        while at > start and tail.count(b"\n", 0, -1) < lines:
            step = min(BLOCK, at - start)
            at -= step
            self.file.seek(at)
            tail = self.file.read(step) + tail
        kept = b"".join(tail.splitlines(keepends=True)[-lines:])
        self.file.seek(size - len(kept))

    def show(self, style: Style) -> None:
        """Write what has come since the last time."""
        with contextlib.suppress(OSError):  # at its end there is no data to seek
            self.file.seek(self.file.tell(), os.SEEK_DATA)  # the beginning of a log that grew too long is a hole
        while block := self.file.read(BLOCK):
            if not self.label:
                sys.stdout.buffer.write(block)
                continue
            *lines, self.rest = (self.rest + block).split(b"\n")
            for line in lines:
                self._write(line, style)
        sys.stdout.flush()

    def end(self, style: Style) -> None:
        """Write the last line, if it has no end, and close."""
        if self.rest:
            self._write(self.rest, style)
        self.file.close()

    def _write(self, line: bytes, style: Style) -> None:
        sys.stdout.buffer.write(style.paint(self.label, self.colour).encode() + b" | " + line + b"\n")


def _services(lab: Message, node: str, service: str | None) -> list[str]:
    known = [found["name"] for found in require_node(lab, node)["services"]]
    running = [state["service"] for state in lab["states"] if state["node"] == node]
    if service is None:
        if not running:
            raise UsageError(f"node {node!r} runs no services")
        return running
    if service not in running:
        why = "was not started (`lab up --no-services`)" if service in known else "does not exist"
        raise UsageError(f"service {service!r} of node {node!r} {why}; running: {', '.join(running) or 'none'}")
    return [service]


def _open(channel: socket.socket, node: str, service: str, *, several: bool) -> Log:
    _, (descriptor,) = ask(channel, {"ask": "log", "service": f"{node}/{service}"})
    return Log(os.fdopen(descriptor, "rb", buffering=0), service if several else "")


def _follow(channel: socket.socket, logs: list[Log], style: Style) -> None:
    """Show what comes, until the lab ends: its side of the connection closes then."""
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    while not poll.poll(PAUSE * 1000):
        for log in logs:
            log.show(style)
    for log in logs:
        log.show(style)
