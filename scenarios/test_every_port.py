"""Every port of an edge leads home, over TCP and UDP, and a service there sees who came, and which port was asked for.

The nine ports are those of the edges that this project grew from: web, ssh, terminals, and what people put beside them.
"""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest

from lab import Lab
from scenarios.access_lines import endpoint, joined

pytestmark = [pytest.mark.topology("homelab", scope="module"), pytest.mark.essential]

PORTS = (80, 443, 2022, 2122, 2222, 4000, 4443, 5678, 8080)
OTHERS = 8000  # where home.toml leads what it does not know
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
UNKNOWN = b"\xf5 a datagram of no known protocol"


@pytest.mark.parametrize("port", PORTS)
def test_a_name_leads_home_from_each_tcp_port(lab: Lab, port: int) -> None:
    name = f"port{port}.pi.example.net"
    asked = ["curl", "-sS", "-w", "%{local_ip} %{local_port}", "-H", f"Host: {name}:{port}"]
    answer = lab["stranger"].run([*asked, f"http://{lab['vps-a'].address()}:{port}/"], check=True).stdout
    page, _, local = answer.partition("\n")
    client = endpoint(*local.split())
    assert page.startswith(f"pi served {name} to {lab['stranger'].address()}")
    found = joined(lab, "pi", server_name=name)
    assert (found.edge["client"], found.home["client"]) == (client, client)
    assert found.home["original_dst"] == endpoint(lab["vps-a"].address(), port)


@pytest.mark.parametrize("version", [4, 6])
def test_datagrams_lead_home_from_each_udp_port_and_back(lab: Lab, version: int) -> None:
    edge = lab["vps-b"].address(version=version)
    with ExitStack() as stack:
        server = stack.enter_context(lab["nas"].udp(OTHERS, LOOPBACK[version], timeout=20))
        for port in PORTS:
            client = stack.enter_context(lab["stranger"].udp(0, lab["stranger"].address(version=version), timeout=20))
            client.connect((edge, port))
            own = client.getsockname()[:2]
            client.send(UNKNOWN)
            datagram, seen = server.recvfrom(2048)
            assert (datagram, seen[:2]) == (UNKNOWN, own)
            server.sendto(b"answer %d" % port, seen)
            assert client.recv(2048) == b"answer %d" % port  # a connected socket hears none but whom it asked
            assert _asked_for(lab, endpoint(*own)) == endpoint(edge, port)


def _asked_for(lab: Lab, client: str) -> str:
    """What the home proxy tells of the client's flow, whose line is written long after its last datagram."""
    told = lab["nas"].run(["edgeproxy", "connections"], check=True).stdout
    (flow,) = (flow for flow in map(json.loads, told.splitlines()) if flow["client"] == client)
    return str(flow["original_dst"])
