"""The ports of this host by which datagrams leave: each flow has its own for as long as there are some."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from lab.realise.lab import Lab
from lab.realise.node import Node
from tests.proxy.ends import endpoint
from tests.proxy.running import DEADLINE, running_in
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
        assert proxy.metrics()['edgeproxy_backend_up{backend="b",target="10.0.0.9:9001"}'] == 1, "it is not to blame"
        for client in clients:
            client.sendto(b"still here", ("192.0.2.1", 8443))
            assert heard(backend)[0] == b"still here"
        late.sendto(b"again", ("192.0.2.1", 8443))
        assert heard(backend)[0] == b"again", "there are ports again"
