"""Multipath TCP between two proxies of one host: upgrades, and checks."""

from __future__ import annotations

import json

from lab.realise.asking import wait_until
from tests.proxy.conftest import Start
from tests.proxy.ends import DEADLINE, connect, own, read
from tests.proxy.mptcp import counted, needs_mptcp
from tests.proxy.upgrading import echoing, upgrading

pytestmark = needs_mptcp

EDGE = """
[listener.in]
tcp = ["HERE:8443"]
[[rule]]
to = "home"
[backend.home]
targets = ["HOME:4443"]
mptcp = true
"""
HOME = """
[listener.in]
tcp = ["HERE:4443"]
mptcp = true
[[rule]]
to = "out"
[backend.out]
targets = ["HERE:9001"]
"""
CHECKED = 'send_proxy = "v2"\nhealth = {interval = "50ms", timeout = "50ms", rise = 1, fall = 1000}\n'


def test_upgrades_of_both_ends_keep_connections_and_sockets(start: Start) -> None:
    home = start(HOME)
    edge = start(EDGE.replace("HOME", home.here))
    with echoing(home.here, 9001), upgrading(home) as homes, upgrading(edge) as edges:
        with connect(edge.here, 8443) as before:

            def goes_on() -> None:
                before.sendall(b"before")
                assert read(before, 6) == b"before"

            goes_on()
            assert counted(edge, "backend", "mptcp") == counted(home, "client", "mptcp") == 1
            homes.upgrade()
            goes_on()
            edges.upgrade()
            goes_on()
            with connect(edge.here, 8443) as after:
                after.sendall(b"after")
                assert read(after, 5) == b"after"
            # Counters begin anew: these are the later processes'.
            assert counted(edge, "backend", "mptcp") == counted(home, "client", "mptcp") == 1
            homes.upgrade(HOME.replace("mptcp = true\n", ""))
            goes_on()
            with connect(edge.here, 8443) as plain:
                plain.sendall(b"plain")
                assert read(plain, 5) == b"plain"
                who = own(plain)
        assert edge.line(who)["backend_subflows"] == 0, "an upgrade makes other sockets where the file says so"
        assert counted(edge, "backend", "tcp") == 1


def test_checks_go_the_way_that_clients_go(start: Start) -> None:
    home = start(HOME + '[[listener.in.proxy_header]]\nfrom = "127.0.0.0/8"\npolicy = "require"\n')
    edge = start(EDGE.replace("HOME", home.here) + CHECKED)
    wait_until(lambda: counted(home, "client", "mptcp") >= 3, DEADLINE, "checks by MPTCP")
    assert counted(home, "client", "tcp") == 0

    def conditions() -> list[str]:
        (backend,) = json.loads(edge.ask("top", "--once", "--json"))["backends"]
        return [target["condition"] for target in backend["targets"]]

    wait_until(lambda: conditions() == ["up"], DEADLINE, "it is up")
    assert counted(edge, "backend", "mptcp") == 0, "a check is no client's connection"
