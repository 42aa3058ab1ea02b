"""A terminal of its own for a command in a node: this one in raw mode, bytes both ways, the window's size followed."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import struct
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from lab.errors import RealiseError
from lab.realise.message import Message, receive

BLOCK = 16 * 1024  # bytes
MOST_PENDING = 64 * 1024  # bytes typed ahead of a command that does not read
END_OF_INPUT = b"\x04"  # what a terminal takes for the end of its input (VEOF, termios(3))
DEFAULT_SIZE = (24, 80)  # rows, columns, where there is no terminal to ask

Start = Callable[[socket.socket, Message], list[int]]


def converse(channel: socket.socket, request: Message, start: Start) -> int:
    """Run the command to its end and return its exit code (minus the signal's number if one ended it)."""
    request["terminal"] = list(_size())
    (master,) = start(channel, request)
    os.set_blocking(master, False)
    try:
        with _raw_mode(0), _signals(master):
            code = _carry(channel, master)
            _drain(master)
    finally:
        os.close(master)
    return code


def _carry(channel: socket.socket, master: int) -> int:
    """Carry bytes between this terminal and the command's until the command ends."""
    typed = b""
    last = b"\n"  # byte typed
    is_typing, is_shown = True, True
    while True:
        watched = [channel.fileno()]
        watched += [master] if is_shown else []
        watched += [0] if is_typing and len(typed) < MOST_PENDING else []
        readable, writable, _ = select.select(watched, [master] if typed else [], [])
        if master in readable:
            is_shown = _show(master)
        if 0 in readable:
            block = os.read(0, BLOCK)
            is_typing = bool(block)
            # The first one after an unfinished line only hands that line over.
            typed += block or END_OF_INPUT * (1 if last == b"\n" else 2)
            last = block[-1:]
        if master in writable:
            typed = typed[_written(master, typed) :]
        if channel.fileno() in readable:
            received = receive(channel)
            if received is None:
                raise RealiseError("the lab has ended, and the command with it")
            if "exit" in received[0]:
                return int(received[0]["exit"])


def _show(master: int) -> bool:
    """Write what the command wrote; False once no process holds the other end of its terminal (EIO)."""
    try:
        block = os.read(master, BLOCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    while block:
        block = block[os.write(1, block) :]
    return True


def _drain(master: int) -> None:
    """What the command wrote last; the poll makes the kernel hand it over (n_tty_poll in drivers/tty/n_tty.c)."""
    while select.select([master], [], [], 0)[0] and _show(master):
        pass


def _written(master: int, typed: bytes) -> int:
    try:
        return os.write(master, typed)
    except BlockingIOError:
        return 0
    except OSError:
        return len(typed)  # nobody is left to read it


@contextmanager
def _raw_mode(descriptor: int) -> Iterator[None]:
    """Every key goes to the command, Ctrl-C too; as it was before at the end, whatever happens."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def _signals(master: int) -> Iterator[None]:
    """The window's size is followed; a signal that would end this process ends it in order, with the mode restored."""

    def resize(*_: object) -> None:
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", *_size(), 0, 0))

    def end(number: int, _: object) -> NoReturn:
        sys.exit(128 + number)

    before = {signal.SIGWINCH: signal.signal(signal.SIGWINCH, resize)}
    for number in (signal.SIGTERM, signal.SIGHUP):
        before[number] = signal.signal(number, end)
    resize()  # it may have changed since the command was asked for
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _size() -> tuple[int, int]:
    """Rows and columns of this terminal."""
    for descriptor in (1, 0):
        try:
            size = os.get_terminal_size(descriptor)
        except OSError:
            continue
        if size.lines and size.columns:
            return size.lines, size.columns
    return DEFAULT_SIZE
