"""What a running proxy could still do if it were taken over."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from tests.proxy.conftest import Start
from tests.proxy.ends import accepted, connect, listening, own, read
from tests.proxy.running import DEADLINE, Proxy

NET_BIND_SERVICE, NET_RAW = 1 << 10, 1 << 13  # linux/capability.h
FILTERED = "2"  # SECCOMP_MODE_FILTER, proc(5)
CONFIG = """
workers = 3
[listener.in]
tcp = ["HERE:8443"]
udp = ["HERE:8443"]
[[rule]]
to = "out"
[backend.out]
targets = ["HERE:9001"]
"""


@pytest.mark.essential
def test_every_thread_is_filtered_and_has_two_capabilities_at_most(start: Start) -> None:
    proxy = start(CONFIG)
    threads = sorted(Path(f"/proc/{proxy.pid}/task").iterdir())
    assert len(threads) >= 5, "three workers, the control thread, the log"
    kept = NET_BIND_SERVICE | NET_RAW if os.geteuid() == 0 else 0
    for thread in threads:
        lines = (thread / "status").read_text().splitlines()
        status = {key: value.strip() for key, value in (line.split(":", 1) for line in lines)}
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == kept
        assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", FILTERED)
        if os.geteuid() == 0:
            assert int(status["CapBnd"], 16) == kept


FIXED = (
    CONFIG
    + """
[operation]
admin_socket = "FOLDER/admin"
metrics = "HERE:9464"
access_log = "FOLDER/log"
fixed_ports = true
"""
)


@pytest.mark.parametrize(
    ("old", "new", "lack"),
    [
        ('tcp = ["HERE:8443"]', 'tcp = ["HERE:8443", "HERE:8444"]', "port 8444 to listen at"),
        ("HERE:9001", "HERE:9002", "port 9002 to connect to"),
        ("HERE:9001", "HERE:$port", "the ports that clients ask for"),
    ],
)
def test_with_fixed_ports_a_reload_that_takes_others_is_refused_with_what_to_do(
    start: Start, old: str, new: str, lack: str
) -> None:
    proxy = start(FIXED)
    with listening(proxy.here, 9001) as server:
        is_served(proxy, server)
        proxy.write(FIXED.replace(old, new))
        proxy.send_signal(signal.SIGHUP)
        wait_until(lambda: "not reloaded" in proxy.said, DEADLINE, "the refusal")
        (line,) = [line for line in proxy.said.splitlines() if "not reloaded" in line]
        place = proxy.config.read_text().splitlines().index("fixed_ports = true") + 1
        assert f"{proxy.config}:{place}: operation.fixed_ports: " in line
        assert lack in line
        assert "restart" in line
        is_served(proxy, server)
        proxy.reload(FIXED.replace("[[rule]]", "[[rule]]\nname = 'another'"))
        is_served(proxy, server)
    assert proxy.lines()[-1]["rule"] == "another"


def test_without_fixed_ports_a_reload_brings_others(start: Start) -> None:
    proxy = start(CONFIG)
    proxy.reload(CONFIG.replace("HERE:9001", "HERE:9002").replace("8443", "8444"))
    with listening(proxy.here, 9002) as server:
        is_served(proxy, server, 8444)


def is_served(proxy: Proxy, server: socket.socket, port: int = 8443) -> None:
    with connect(proxy.here, port) as client:
        with accepted(server) as backend:
            client.sendall(b"there")
            assert read(backend, 5) == b"there"
            backend.sendall(b"back")
            assert read(client, 4) == b"back"
        who = own(client)
    proxy.line(who)
