"""Ports of this host by which datagrams leave: one for each flow; where there are no more, one for several backends."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from lab.realise.node import Node
from tests.proxy.ends import endpoint
from tests.proxy.running import DEADLINE, edgeproxy, running_in
from tests.proxy.udp_bench import drops, flow_ended, heard
from tests.realise.conftest import Up

TOPOLOGY = """
networks:
  outside: {prefixes: [192.0.2.0/24]}
  inside: {prefixes: [10.0.0.0/24]}
nodes:
  client: {links: {outside: [192.0.2.7]}}
  home: {links: {outside: [192.0.2.1], inside: [10.0.0.1]}}
  service: {links: {inside: [10.0.0.9]}}
"""
TEXT = """
workers = 1
[listener.one]
udp = ["192.0.2.1:8443"]
[[rule]]
to = "b"
[backend.b]
targets = ["10.0.0.9:9001"]
eject = {failures = 1, duration = "1h"}
"""
TWO_BACKENDS = """
workers = 1
[listener.in]
udp = ["192.0.2.1:8443"]
[listener.other]
udp = ["192.0.2.1:8444"]
[[rule]]
listeners = ["in"]
to = "a"
[[rule]]
to = "b"
[backend.a]
targets = ["10.0.0.9:9001"]
[backend.b]
targets = ["10.0.0.9:9002"]
[timeouts]
udp_idle = "1h"
udp_one_way = "1h"
"""


@pytest.fixture(scope="module")
def lab(module_up: Up) -> Lab:
    return module_up(TOPOLOGY)


@contextmanager
def two_ports(node: Node) -> Iterator[None]:
    """The node has two ports for all sockets that ask for none (ip_local_port_range, ip(7))."""
    path = "/proc/sys/net/ipv4/ip_local_port_range"
    before = node.read(path).decode().strip()
    node.run(["sh", "-c", f"echo 20000 20001 > {path}"], check=True)
    try:
        yield
    finally:
        node.run(["sh", "-c", f"echo {before} > {path}"], check=True)


def test_a_flow_for_which_this_host_has_no_port_meets_an_error_that_is_not_the_backends(lab: Lab, folder: Path) -> None:
    text = TEXT + '[timeouts]\nudp_idle = "1h"\nudp_one_way = "1h"\n'
    with ExitStack() as stack:
        proxy = stack.enter_context(running_in(lab["home"], text, "127.0.0.1", folder))
        backend = stack.enter_context(lab["service"].udp(9001, "10.0.0.9", timeout=DEADLINE))
        *clients, late = [stack.enter_context(lab["client"].udp(0, "192.0.2.7", timeout=DEADLINE)) for _ in range(3)]
        with two_ports(lab["home"]):
            for client in clients:
                client.sendto(b"?", ("192.0.2.1", 8443))
                backend.sendto(b"!", heard(backend)[1])
                assert heard(client)[0] == b"!"
            late.sendto(b"?", ("192.0.2.1", 8443))
            proxy.line(endpoint(late.getsockname()))
        line = flow_ended(proxy, late, "io_error")
        assert line["close_detail"] == "address_not_available"
        assert drops(proxy) == {"no_upstream": 1}
        assert proxy.metrics()['edgeproxy_backend_up{backend="b",target="10.0.0.9:9001",transport="udp"}'] == 1, (
            "it is not to blame"
        )
        for client in clients:
            client.sendto(b"still here", ("192.0.2.1", 8443))
            assert heard(backend)[0] == b"still here"
        late.sendto(b"again", ("192.0.2.1", 8443))
        assert heard(backend)[0] == b"again", "there are ports again"


def test_where_no_port_is_left_one_leads_to_several_backends_and_each_flow_has_its_own_answers(
    lab: Lab, folder: Path
) -> None:
    home, ports = lab["home"], {20000, 20001}
    with ExitStack() as stack:
        proxy = stack.enter_context(running_in(home, TWO_BACKENDS, "127.0.0.1", folder))
        service = lab["service"]
        backends = [stack.enter_context(service.udp(port, "10.0.0.9", timeout=DEADLINE)) for port in (9001, 9002)]
        clients = [stack.enter_context(lab["client"].udp(0, "192.0.2.7", timeout=DEADLINE)) for _ in range(6)]
        stack.enter_context(two_ports(home))
        flows = [(client, 8443 + place // 2, backends[place // 2]) for place, client in enumerate(clients[:4])]
        found = {}
        for client, at, backend in flows:
            client.sendto(b"first", ("192.0.2.1", at))
            asked, found[client] = heard(backend)
            assert asked == b"first"
        for backend in backends:
            assert {found[client] for client, _, to in flows if to is backend} == {("10.0.0.1", port) for port in ports}

        def each_has_its_own() -> None:
            for number, (client, at, backend) in enumerate(flows):
                client.sendto(b"%d?" % number, ("192.0.2.1", at))
                assert heard(backend) == (b"%d?" % number, found[client])
            for number, (client, _, backend) in reversed(list(enumerate(flows))):
                backend.sendto(b"%d!" % number, found[client])
                assert heard(client)[0] == b"%d!" % number

        def is_refused(client: socket.socket, at: int) -> None:
            client.sendto(b"late", ("192.0.2.1", at))
            assert proxy.line(endpoint(client.getsockname()))["close_detail"] == "address_not_available"

        each_has_its_own()
        is_refused(clients[4], 8444)
        with (folder / "stderr.2").open("w") as stderr:
            command = [edgeproxy(), "run", "-c", str(proxy.config), "--take-over"]
            stack.enter_context(home.start(command, stderr=stderr))
        wait_until(lambda: "edgeproxy: ready" in (folder / "stderr.2").read_text(), DEADLINE, "the upgrade")
        is_refused(clients[5], 8444)
        each_has_its_own()


def test_where_no_port_is_left_backends_are_spread_over_the_ports(lab: Lab, folder: Path) -> None:
    names = range(6)
    listeners = "".join(f'[listener.n{name}]\nudp = ["192.0.2.1:{8443 + name}"]\n' for name in names)
    rules = "".join(f'[[rule]]\nlisteners = ["n{name}"]\nto = "n{name}"\n' for name in names)
    backends = "".join(f'[backend.n{name}]\ntargets = ["10.0.0.9:{9001 + name}"]\n' for name in names)
    text = f'workers = 1\n{listeners}{rules}{backends}[timeouts]\nudp_idle = "1h"\nudp_one_way = "1h"\n'
    with ExitStack() as stack:
        stack.enter_context(running_in(lab["home"], text, "127.0.0.1", folder))
        client = stack.enter_context(lab["client"].udp(0, "192.0.2.7", timeout=DEADLINE))
        stack.enter_context(two_ports(lab["home"]))
        led: Counter[int] = Counter()
        for name in names:
            backend = stack.enter_context(lab["service"].udp(9001 + name, "10.0.0.9", timeout=DEADLINE))
            client.sendto(b"%d" % name, ("192.0.2.1", 8443 + name))
            said, (_, port) = heard(backend)
            assert said == b"%d" % name
            led[port] += 1
        assert led == {20000: 3, 20001: 3}
