"""A home host that is told to end while clients come by an edge that knows another one.

client -- edge -- the first home, else the second -- a backend that echoes
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from lab.realise.node import Node
from tests.proxy.conftest import Start
from tests.proxy.ends import connect, read
from tests.proxy.running import DEADLINE, Proxy, own_address, running_in
from tests.proxy.udp_bench import drops, udp
from tests.proxy.upgrading import Flow, Heir, Load, UdpEcho, echo_by, echoing, has_ended
from tests.realise.conftest import Up

HOME = """
[listener.in]
tcp = ["HERE:8443"]
udp = ["HERE:8443"]
proxy_header = [{from = "127.0.0.0/8", policy = "require"}]
[[rule]]
transport = "tcp"
to = "echo"
[[rule]]
transport = "udp"
to = "echo_udp"
[backend.echo]
targets = ["EDGE:9001"]
[backend.echo_udp]
targets = ["EDGE:9002"]
[timeouts]
drain = "1h"
"""
EDGE = """
[listener.in]
tcp = ["HERE:8443"]
udp = ["HERE:8443"]
[[rule]]
to = "home"
[backend.home]
targets = ["FIRST:8443", "SECOND:8443"]
send_proxy = "v2"
send_proxy_udp = "every"
"""
TOPOLOGY = """
networks:
  net: {prefixes: [198.51.100.0/24, "2001:db8:1::/64"]}
nodes:
  client: {links: {net: auto}}
  edge: {links: {net: [198.51.100.1, "2001:db8:1::1"]}}
  one: {links: {net: {address: [198.51.100.11, "2001:db8:1::11"], delay: 100ms}}}
  two: {links: {net: [198.51.100.12, "2001:db8:1::12"]}}
"""
AT_HOME = """
[listener.in]
tcp = ["0.0.0.0:8443", "[::]:8443"]
proxy_header = [{from = "198.51.100.0/24", policy = "require"}, {from = "2001:db8:1::/64", policy = "require"}]
[[rule]]
to = "echo"
[backend.echo]
targets = ["HERE:9001"]
[timeouts]
drain = "1h"
"""
FAR = """
[listener.in]
tcp = ["0.0.0.0:8443"]
[[rule]]
to = "home"
[backend.home]
targets = ["ONE:8443", "TWO:8443"]
send_proxy = "v2"
"""


def has_lines(proxy: Proxy, count: int) -> bool:
    return len(proxy.lines()) == count


@pytest.mark.essential
def test_every_new_connection_goes_to_the_other_home_and_none_is_lost(start: Start) -> None:
    """The closed port is the announcement: whoever it refuses is taken to the next candidate at once."""
    here = own_address()
    first, second = (start(HOME.replace("EDGE", here)) for _ in range(2))
    edge = start(EDGE.replace("FIRST", first.here).replace("SECOND", second.here), here=here)
    with echoing(here, 9001), connect(here, 8443) as kept:
        kept.sendall(b"before")
        assert read(kept, 6) == b"before"
        with Load(here, 8443) as load:
            load.wait(50)
            first.send_signal(signal.SIGTERM)
            wait_until(lambda: second.lines() != [], DEADLINE, "the first who is taken to the other")
            load.wait(200)
            kept.sendall(b"behind")
            assert read(kept, 6) == b"behind", "who is connected stays"
            assert not has_ended(first.pid)
        assert load.faults == []
        wait_until(lambda: len(edge.lines()) == load.served, DEADLINE, "a line of each, but of the one that stays")
        lines = edge.lines()
        assert {line["close"] for line in lines} == {"client_closed"}
        # Each client once, at one of the two: who was refused by one was never there.
        targets = [line["target"] for line in lines]
        for home in (first, second):
            count = targets.count(f"{home.here}:8443")
            assert count > 0
            wait_until(partial(has_lines, home, count), DEADLINE, "their lines at home")


class LabLoad(Load):
    """The same, by nodes of a lab."""

    def __init__(self, lab: Lab, threads: int) -> None:
        super().__init__("198.51.100.1", 8443, threads)
        self._lab = lab

    def _connect(self) -> socket.socket:
        return self._lab["client"].connect(self._to, DEADLINE)


@contextmanager
def echoing_in(lab: Lab, node: str) -> Iterator[None]:
    with echo_by(lab[node].listen(9001, "127.0.0.1")):
        yield


def is_greeting(node: Node) -> bool:
    """Whether the kernel waits for the third segment of a handshake there (SYN_RECV, include/net/tcp_states.h)."""
    rows = [line.split() for line in node.run(["cat", "/proc/net/tcp", "/proc/net/tcp6"]).stdout.splitlines()]
    return any(row[1].endswith(f":{8443:04X}") and row[3] == "03" for row in rows if len(row) > 3)


@pytest.mark.essential
@pytest.mark.parametrize(
    ("one", "two"), [("198.51.100.11", "198.51.100.12"), ("[2001:db8:1::11]", "[2001:db8:1::12]")], ids=["ipv4", "ipv6"]
)
def test_a_handshake_that_is_under_way_ends_well(module_up: Up, folder: Path, one: str, two: str) -> None:
    """By a way of 200 ms there and back: a listener that is closed would reset those whose handshake is not over."""
    lab = module_up(TOPOLOGY)
    folders = [folder / node for node in ("edge", "one", "two")]
    for made in folders:
        made.mkdir()
    far = FAR.replace("ONE", one).replace("TWO", two)
    with (
        echoing_in(lab, "one"),
        echoing_in(lab, "two"),
        running_in(lab["one"], AT_HOME, "127.0.0.1", folders[1]) as first,
        running_in(lab["two"], AT_HOME, "127.0.0.1", folders[2]) as second,
        running_in(lab["edge"], far, "127.0.0.1", folders[0]),
        LabLoad(lab, 16) as load,
    ):
        load.wait(50)
        wait_until(lambda: is_greeting(lab["one"]), DEADLINE, "a handshake")
        first.send_signal(signal.SIGTERM)
        wait_until(lambda: second.lines() != [], DEADLINE, "the first who is taken to the other")
        assert first.wait(DEADLINE) == 0
        load.wait(50)
    assert load.faults == []


def test_a_flow_of_datagrams_that_is_there_goes_on_and_a_new_one_waits_for_the_end(start: Start) -> None:
    """The port of datagrams stays open for those who are there, so nobody tells the edge that others are not taken."""
    here = own_address()
    first, second = (start(HOME.replace("EDGE", here)) for _ in range(2))
    start(EDGE.replace("FIRST", first.here).replace("SECOND", second.here), here=here)
    kept, late = Flow(here, 8443), udp(here)
    late.settimeout(0.1)
    with UdpEcho(here, 9002), late:
        kept.ask()
        first.send_signal(signal.SIGTERM)

        def is_dropped() -> bool:
            kept.ask()
            with udp(here) as other:  # until then it may begin a flow
                other.sendto(b"new", (here, 8443))
            return drops(first).get("draining", 0) > 0

        wait_until(is_dropped, DEADLINE, "the drain")
        first.send_signal(signal.SIGTERM)  # and the end

        def is_answered() -> bool:
            late.sendto(b"new", (here, 8443))
            try:
                return late.recv(99).endswith(b" new")
            except TimeoutError:
                return False

        wait_until(is_answered, DEADLINE, "the other home's answer")
    kept.close()
    assert 'edgeproxy_opened_total{listener="in",transport="udp"} 0' not in second.scrape()


def messages(heir: Heir) -> list[dict[str, Any]]:
    """What is offered."""
    return [message for message in heir.hear_until("offer_ends") if isinstance(message, dict)]


def test_a_newer_process_that_has_the_sockets_is_reached_all_the_same(module_up: Up, folder: Path) -> None:
    """What is done to a socket is done to its copies. The one before is told to end before it hears that it may."""
    lab = module_up(TOPOLOGY)
    with running_in(lab["two"], AT_HOME, "127.0.0.1", folder) as proxy, closing(Heir(proxy)) as heir:
        offered = [message["sockets"] for message in messages(heir) if "sockets" in message]
        heir.say({"taken": {"endpoints": [each["endpoint"] for each in offered], "admin_socket": False}})
        assert heir.hear_until("over") == []
        proxy.send_signal(signal.SIGTERM)
        assert proxy.wait(DEADLINE) == 0
        for address in ("198.51.100.12", "2001:db8:1::12"):
            lab["client"].connect((address, 8443), DEADLINE).close()
