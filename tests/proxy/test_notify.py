"""What the service manager hears (sd_notify(3)), as the shipped unit with `Type=notify` and `ExecReload` has it."""

from __future__ import annotations

import os
import signal
import socket
import time
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


def test_it_hears_of_the_start_of_each_reload_and_of_the_end(manager: socket.socket, start: Start) -> None:
    proxy = start(CONFIG)
    assert heard(manager)["READY"] == "1"
    assert proxy.connections() == [], "it serves by then"
    for text, word in ((CONFIG, "reloaded"), ("nonsense", "not reloaded")):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        proxy.write(text)
        proxy.send_signal(signal.SIGHUP)
        reloading = heard(manager)
        assert reloading["RELOADING"] == "1"
        assert before <= int(reloading["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert heard(manager)["READY"] == "1", "also after a refusal: the old configuration is in force"
        assert f"edgeproxy: {word}" in proxy.said
    proxy.send_signal(signal.SIGTERM)
    assert heard(manager)["STOPPING"] == "1"


def test_the_units_lines_are_what_the_program_takes(start: Start) -> None:
    """`ExecReload` with the very words of the unit: a faulty file stops it before the proxy hears of it."""
    proxy = start(CONFIG)
    lines = [line.partition("=") for line in UNIT.read_text().splitlines() if "=" in line]
    values = [value for key, _, value in lines if key in {"ExecStart", "ExecReload"}]
    assert len(values) == 3
    checks = [value.split() for value in values if " check " in value]
    assert len(checks) == 1
    for words in checks:
        own = [word.replace("/etc/edgeproxy/edgeproxy.toml", str(proxy.config)) for word in words[1:]]
        for text, status in ((CONFIG, 0), ("nonsense", 2)):
            proxy.write(text)
            assert os.spawnv(os.P_WAIT, edgeproxy(), [edgeproxy(), *own]) == status
