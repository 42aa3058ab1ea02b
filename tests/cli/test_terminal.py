"""`lab exec` and `lab shell` on a terminal: size, raw mode, what is typed, and all restored at the end."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

ONE = "nodes: {a: {}}\n"


@dataclass
class Terminal:
    """A terminal with a `lab` process in it, seen from the side of the person."""

    master: int
    slave: int
    process: subprocess.Popen[bytes]
    first_mode: list[Any]  # before the process was there
    shown: bytes = b""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def read_until(self, pattern: str, seconds: float = 60) -> re.Match[bytes]:
        """Wait until what is shown from here on matches; what comes after it stays for the next time."""
        deadline = time.monotonic() + seconds
        while (match := re.search(pattern.encode(), self.shown)) is None:
            assert select.select([self.master], [], [], max(0, deadline - time.monotonic()))[0], self.shown
            self.shown += os.read(self.master, 4096)
        self.shown = self.shown[match.end() :]
        return match

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)  # as the kernel would to the foreground job

    def mode(self) -> list[Any]:
        return termios.tcgetattr(self.slave)


@pytest.fixture(scope="module")
def running(module_up: Any) -> str:
    name: str = module_up(ONE)
    return name


@pytest.fixture
def terminal(lab: Any, running: str) -> Iterator[Any]:
    opened: list[Terminal] = []

    def start(*words: str, stdin: int | None = None) -> Terminal:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 31, 97, 0, 0))
        env = lab.environment(HOMELAB_LAB=running, TERM="xterm-256color")
        streams = {"stdin": slave if stdin is None else stdin, "stdout": slave, "stderr": slave}
        first_mode = termios.tcgetattr(slave)
        process = subprocess.Popen(lab.argv(*words), env=env, start_new_session=True, **streams)  # type: ignore[call-overload]
        opened.append(Terminal(master, slave, process, first_mode))
        return opened[-1]

    yield start
    for each in opened:
        each.process.kill()
        each.process.wait()
        os.close(each.master)
        os.close(each.slave)


@pytest.mark.essential
def test_the_command_gets_a_terminal_of_this_size_and_kind(terminal: Any) -> None:
    shown = terminal("exec", "a", "--", "sh", "-c", "stty size; echo $TERM; tty <&1 >/dev/null && echo is-one")
    shown.read_until(r"31 97\r\nxterm-256color\r\n")
    assert shown.process.wait(60) == 0


def test_the_size_is_followed(terminal: Any) -> None:
    script = (
        "import os, signal\n"
        "signal.signal(signal.SIGWINCH, lambda *_: os.write(1, repr(os.get_terminal_size()).encode()))\n"
        "print('set', flush=True)\n"
        "while True: signal.pause()\n"
    )
    shown = terminal("exec", "a", "--", "python3", "-c", script)
    shown.read_until("set")
    shown.resize(12, 34)
    shown.read_until(r"\(columns=34, lines=12\)")


@pytest.mark.essential
def test_keys_go_to_the_command_unechoed_by_us_and_the_mode_is_restored(terminal: Any) -> None:
    script = 'stty -echo; echo set; IFS= read -r x; echo "<$x>"; exit 6'
    shown = terminal("exec", "a", "--", "sh", "-c", script)
    shown.read_until("set\r\n")
    assert not shown.mode()[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
    shown.type("secret\n")
    shown.read_until(r"^<secret>\r\n")
    assert shown.process.wait(60) == 6
    assert shown.mode() == shown.first_mode


@pytest.mark.essential
def test_ctrl_c_reaches_the_command_and_not_us(terminal: Any) -> None:
    shown = terminal(
        "exec",
        "a",
        "--",
        "python3",
        "-c",
        "import signal,sys; signal.signal(2, lambda *_: sys.exit(9)); print('set', flush=True); signal.pause()",
    )
    shown.read_until("set")
    shown.type("\x03")
    assert shown.process.wait(60) == 9


def test_the_mode_is_restored_when_we_are_ended(terminal: Any) -> None:
    shown = terminal("exec", "a", "--", "sh", "-c", "echo set; exec sleep 60")
    shown.read_until("set")
    assert shown.mode() != shown.first_mode
    shown.process.send_signal(signal.SIGTERM)
    assert shown.process.wait(60) == 143
    assert shown.mode() == shown.first_mode


def test_the_mode_is_restored_when_the_lab_ends(lab: Any, terminal: Any, up: Any) -> None:
    name = up(ONE)
    shown = terminal("exec", "--lab", name, "a", "--", "sh", "-c", "echo set; exec sleep 60")
    shown.read_until("set")
    lab("down", name, code=0)
    assert shown.process.wait(60) == 1
    assert shown.mode() == shown.first_mode
    shown.read_until("lab: error: the lab has ended")


def test_the_last_words_are_shown_whole(terminal: Any) -> None:
    shown = terminal("exec", "a", "--", "sh", "-c", "seq 20000")
    shown.read_until(r"\n20000\r\n")
    assert shown.process.wait(60) == 0


def test_much_typed_ahead_arrives(terminal: Any) -> None:
    shown = terminal("exec", "a", "--", "sh", "-c", "stty raw -echo; echo set; head -c 30000 | cksum")
    shown.read_until("set")
    typed = "0123456789" * 3000
    for at in range(0, len(typed), 1000):
        shown.type(typed[at : at + 1000])
    expected = subprocess.run(["cksum"], input=typed.encode(), capture_output=True, check=True).stdout.split()[0]
    shown.read_until(expected.decode())


def test_t_gives_a_terminal_without_one_and_the_end_of_input_arrives(lab: Any, running: str) -> None:
    words = ["exec", "--lab", running, "-t", "a", "--", "sh", "-c", "stty size; tty -s && cat; echo end"]
    result = lab(*words, input="one\ntwo", code=0)
    assert "24 80\n" in result.stdout  # after the echo of what was typed
    assert result.stdout.splitlines()[-1].endswith("end")
    assert "two" in result.stdout


def test_capital_t_gives_none(terminal: Any) -> None:
    shown = terminal(
        "exec", "-T", "a", "--", "sh", "-c", "test -t 0 && ps -o tty= -p $$; cat /proc/$$/stat | cut -d' ' -f 7"
    )
    shown.read_until(r"\?\r\n0\r\n")


@pytest.mark.essential
def test_a_shell_shows_its_node_and_takes_commands(terminal: Any) -> None:
    shown = terminal("shell", "a")
    shown.read_until(r"a\x1b\[0m:\S+[#$] ")
    shown.type("hostname; tty -s && echo interactive\n")
    shown.read_until(r"[\r\n]a\r\ninteractive\r\n")
    shown.type("sh -c 'echo star''ted; exec sleep 60'\n")
    shown.read_until("started\r\n")
    shown.type("\x03")
    shown.read_until(r"[#$] ")
    shown.type("exit 4\n")
    assert shown.process.wait(60) == 4
