"""`edgeproxy top` on a terminal: one screen, whatever there is to show and however large it is."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from lab.realise.asking import wait_until
from tests.proxy.conftest import Start
from tests.proxy.running import DEADLINE, Proxy, edgeproxy

ONE = """
[listener.in]
tcp = ["HERE:8000"]
[[rule]]
to = "out"
[backend.out]
targets = ["HERE:9000"]
"""
MANY = ONE + "".join(
    f'[listener.another-listener-of-many-{port}]\ntcp = ["HERE:{port}"]\n' for port in range(8001, 8060)
)


class Screen:
    """What a terminal has been told, the last whole screen of it."""

    def __init__(self, terminal: int) -> None:
        self.terminal = terminal
        self._heard = b""

    def hear(self) -> list[str]:
        with suppress(BlockingIOError):
            self._heard += os.read(self.terminal, 1 << 20)
        whole = self._heard.split(b"\x1b[J")[:-1]
        if not whole:
            return []
        assert whole[-1].startswith(b"\x1b[H"), "from the first row on"
        return whole[-1].removeprefix(b"\x1b[H").decode().replace("\x1b[K", "").replace("\r", "").split("\n")

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@contextmanager
def watching(proxy: Proxy, rows: int, columns: int) -> Iterator[Screen]:
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    screen = Screen(ours)
    screen.resize(rows, columns)
    command = [edgeproxy(), "top", "--socket", str(proxy.folder / "admin")]
    try:
        with subprocess.Popen(command, stdout=theirs) as process:
            try:
                yield screen
                assert process.poll() is None
            finally:
                process.kill()
    finally:
        os.close(theirs)
        os.close(ours)


def until_shown(screen: Screen, *texts: str) -> list[str]:
    wait_until(lambda: all(text in "\n".join(screen.hear()) for text in texts), DEADLINE, f"{texts} on the screen")
    return screen.hear()


@pytest.mark.parametrize(("rows", "columns"), [(24, 80), (40, 140)])
def test_one_screen_has_a_part_of_everything(start: Start, rows: int, columns: int) -> None:
    proxy = start(MANY)
    with watching(proxy, rows, columns) as screen:
        lines = until_shown(screen, "LISTENER", "BACKEND", "RULE", "more; --once shows all")
        assert lines[0].startswith("edgeproxy ")
        assert len(lines) <= rows
        assert max(map(len, lines)) <= columns
        screen.resize(100, 200)
        lines = until_shown(screen, "another-listener-of-many-8001", "another-listener-of-many-8059")
        assert "more;" not in "\n".join(lines)


def test_little_is_shown_whole(start: Start) -> None:
    proxy = start(ONE)
    with watching(proxy, 24, 80) as screen:
        lines = until_shown(screen, "LISTENER", "RULE")
        assert "CLOSE REASON" not in "\n".join(lines), "nothing has ended"
        assert [line.split()[0] for line in lines if line.startswith(("in ", "out "))] == ["in", "out"]


def test_without_a_terminal_all_is_shown_once(start: Start) -> None:
    shown = start(MANY).ask("top")
    assert all(f"another-listener-of-many-{port}" in shown for port in range(8001, 8060))
