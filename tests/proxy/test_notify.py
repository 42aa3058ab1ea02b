"""What the service manager hears (sd_notify(3)), as the shipped unit with `Type=notify` and `ExecReload` has it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proxy.conftest import Start
from tests.proxy.running import DEADLINE, edgeproxy

CONFIG = """
[listener.in]
tcp = ["HERE:8000"]
[[rule]]
to = "out"
[backend.out]
targets = ["HERE:9000"]
"""
UNIT = Path(__file__).parents[2] / "proxy/examples/edgeproxy.service"


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The manager's socket, in the file system or by an abstract name (containers have those)."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@edgeproxy-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        listening.settimeout(DEADLINE)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield listening


def heard(manager: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in manager.recv(999).decode().splitlines())


@pytest.mark.parametrize("way", ["signal", "command"])
def test_it_hears_of_the_start_of_each_reload_and_of_the_end(manager: socket.socket, start: Start, way: str) -> None:
    proxy = start(CONFIG)
    assert heard(manager)["READY"] == "1"
    assert proxy.connections() == [], "it serves by then"
    for text, word, status in ((CONFIG, "reloaded", 0), ("nonsense", "not reloaded", 1)):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        proxy.write(text)
        if way == "signal":
            proxy.send_signal(signal.SIGHUP)
        else:
            proxy.ask("reload", status=status)
            manager.setblocking(False)  # both are there when the command has ended: systemd hears them before its end
        reloading = heard(manager)
        assert reloading["RELOADING"] == "1"
        assert before <= int(reloading["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert heard(manager)["READY"] == "1", "also after a refusal: the old configuration is in force"
        assert f"edgeproxy: {word}" in proxy.said
        manager.settimeout(DEADLINE)
    proxy.send_signal(signal.SIGTERM)
    assert heard(manager)["STOPPING"] == "1"


def test_the_units_lines_are_what_the_program_takes(start: Start) -> None:
    """`ExecReload` with the very words of the unit, of which the socket is that of the shipped files."""
    proxy = start(CONFIG)
    lines = [line.partition("=") for line in UNIT.read_text().splitlines() if "=" in line]
    (words,) = [value.split() for key, _, value in lines if key == "ExecReload"]
    assert words == ["/usr/local/bin/edgeproxy", "reload"]
    for example in ("edge.toml", "home.toml"):
        named = tomllib.loads(UNIT.with_name(example).read_text())["operation"]["admin_socket"]
        assert (
            named
            in subprocess.run([edgeproxy(), "reload", "--help"], capture_output=True, text=True, check=True).stdout
        )
    for text, status in ((CONFIG, 0), ("nonsense", 1)):
        proxy.write(text)
        proxy.ask(*words[1:], status=status)
