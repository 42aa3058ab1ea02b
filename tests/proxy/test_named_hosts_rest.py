"""A host that clients name and at which nobody answers rests: its endpoint, under any name, and nothing beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from tests.proxy.conftest import Start
from tests.proxy.ends import connect, deaf, listening, own
from tests.proxy.running import DEADLINE, Proxy, own_address
from tests.proxy.test_names import name_server, request

pytestmark = pytest.mark.skipif(
    shutil.which("dnsmasq", path="/usr/sbin:/usr/bin:/sbin") is None, reason="needs dnsmasq"
)
CONFIG = r"""
[listener.in]
tcp = ["HERE:8443"]
[[rule]]
server_name = '^(?P<host>.+)\.example\.net$'
to = "chosen"
[backend.chosen]
targets = ["$host.lan:9001"]
allow_suffixes = [".lan"]
eject = {failures = 2, duration = "1h"}
connect_timeout = "500ms"
fallback = "spare"
[backend.spare]
targets = ["HERE:9005"]
[resolver]
servers = ["HERE:5353"]
timeout = "5s"
[targets]
allow = ["127.0.0.0/8"]
"""


def led(proxy: Proxy, host: str) -> str:
    """The address and port to which a client of this name is led."""
    with connect(proxy.here, 8443) as client:
        client.sendall(request(f"{host}.example.net"))
        who = own(client)
        line = proxy.wait_for(lambda line: line["peer"] == who and line["target"], f"a target of {who}")
        return str(line["target"])


def resting(proxy: Proxy) -> float:
    return proxy.metrics()['edgeproxy_backend_ejected_endpoints{backend="chosen",target="$host.lan:9001"}']


def test_a_dead_host_that_clients_name_rests_for_all_its_names_and_is_tried_when_nobody_else_answers(
    start: Start, tmp_path: Path
) -> None:
    dead, other = own_address(), own_address()
    proxy = start(CONFIG)
    spare, nas = f"{proxy.here}:9005", f"{dead}:9001"
    tmp_path.chmod(0o755)
    with name_server(tmp_path, proxy.here) as names:
        names.has(nas=dead, alias=dead, desk=other, both=f"{dead},{other}")
        with listening(proxy.here, 9005), listening(other, 9001):
            with deaf(dead, 9001):
                assert [led(proxy, "nas") for _ in range(2)] == [spare] * 2
                wait_until(lambda: resting(proxy) == 1, DEADLINE, "the rest is told")
            with listening(dead, 9001):
                assert led(proxy, "nas") == spare, "it rests, though it would answer"
                assert led(proxy, "alias") == spare, "by whatever name"
                assert led(proxy, "desk") == led(proxy, "both") == f"{other}:9001", "and nobody else"
                proxy.reload(f"{CONFIG}[timeouts]\nidle = '30m'\n")
                assert led(proxy, "nas") == spare, "a reload keeps what is known"
        with listening(dead, 9001):
            assert led(proxy, "nas") == nas, "nobody else is there"
            with listening(proxy.here, 9005):
                assert led(proxy, "nas") == nas, "it has answered"
            wait_until(lambda: resting(proxy) == 0, DEADLINE, "the end of the rest is told")


def test_a_dead_host_that_clients_name_rests_for_a_while_only(start: Start, tmp_path: Path) -> None:
    dead = own_address()
    proxy = start(CONFIG.replace('duration = "1h"', 'duration = "1s"'))
    tmp_path.chmod(0o755)
    with name_server(tmp_path, proxy.here) as names, listening(proxy.here, 9005):
        names.has(nas=dead)
        with deaf(dead, 9001):
            assert [led(proxy, "nas") for _ in range(2)] == [f"{proxy.here}:9005"] * 2
        with listening(dead, 9001):
            wait_until(lambda: led(proxy, "nas") == f"{dead}:9001", DEADLINE, "the end of the rest")


def test_a_closed_port_of_a_host_that_clients_name_lets_nothing_rest(start: Start, tmp_path: Path) -> None:
    home = own_address()
    proxy = start(CONFIG.replace("failures = 2", "failures = 1"))
    tmp_path.chmod(0o755)
    with name_server(tmp_path, proxy.here) as names, listening(proxy.here, 9005):
        names.has(nas=home)
        assert [led(proxy, "nas") for _ in range(3)] == [f"{proxy.here}:9005"] * 3
        with listening(home, 9001):
            assert led(proxy, "nas") == f"{home}:9001"
