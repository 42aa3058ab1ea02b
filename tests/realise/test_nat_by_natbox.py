"""NAT that the topology gives to natbox: what each preset and knob promises, by sockets of nodes on both sides."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lab import wait_until
from lab.plan.nat.natbox import configuration, is_natbox, queue_rules
from lab.realise.lab import Lab
from lab.topology.load import load_topology

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

TOPOLOGY = """
#   nas, pi -- home -- full (full_cone) ----+
#   one, two -- lan2 -- carrier (cgnat) ----+-- internet -- server, other
#   lone -- lan3 -- odd (address_dependent) +
networks:
  internet: {prefixes: [198.51.100.0/24]}
  home: {prefixes: [192.168.1.0/24]}
  lan2: {prefixes: [192.168.2.0/24]}
  lan3: {prefixes: [192.168.3.0/24]}
nodes:
  server: {links: {internet: [198.51.100.10, 198.51.100.11]}}
  other: {links: {internet: 198.51.100.20}}
  full:
    role: router
    links: {internet: 198.51.100.1, home: 192.168.1.1}
    nat: {outside: internet, preset: full_cone, hairpin: external_source, forwards: [{tcp: 443, to: "nas:8443"}]}
  carrier:
    role: router
    links: {internet: 198.51.100.2, lan2: 192.168.2.1}
    nat: {outside: internet, preset: cgnat, sessions: 5}
  odd:
    role: router
    links: {internet: 198.51.100.3, lan3: 192.168.3.1}
    nat:
      outside: internet
      mapping: address_dependent
      filtering: address_dependent
      ports: {range: 30000-30999, allocation: sequential, parity: true}
      timers: {udp: 10s}
      unsolicited_tcp: reject
  nas: {links: {home: 192.168.1.10}}
  pi: {links: {home: 192.168.1.20}}
  one: {links: {lan2: auto}}
  two: {links: {lan2: auto}}
  lone: {links: {lan3: auto}}
"""
SERVER, SERVER_AGAIN, OTHER = "198.51.100.10", "198.51.100.11", "198.51.100.20"
FULL, CARRIER, ODD = "198.51.100.1", "198.51.100.2", "198.51.100.3"
EVERYWHERE = [(SERVER, 7000), (SERVER, 7001), (SERVER_AGAIN, 7000), (OTHER, 7000)]


@pytest.fixture(scope="module")
def lab(module_up: Callable[..., Lab]) -> Lab:
    return module_up(TOPOLOGY, services=False)


def mapped(lab: Lab, client: socket.socket, to: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """The outside endpoints that the servers at `to` see a client's socket under."""
    seen = []
    for address, port in to:
        with lab["other" if address == OTHER else "server"].udp(port, address) as server:
            client.sendto(b"who am I?", (address, port))
            seen.append(server.recvfrom(100)[1])
    return [(str(address), port) for address, port in seen]


def arrives(receiver: socket.socket, payload: bytes, *, within: float) -> bool:
    receiver.settimeout(within)
    try:
        return receiver.recv(100) == payload
    except TimeoutError:
        return False


def table(lab: Lab, router: str) -> dict[str, Any]:
    printed = lab[router].run(["natbox", "table", "/run/lab/services/nat/natbox.sock"], check=True)
    found: dict[str, Any] = json.loads(printed.stdout)
    return found


def test_natbox_runs_as_part_of_the_network_in_a_lab_without_services(lab: Lab) -> None:
    states = {(each["node"], each["service"]): each["state"] for each in lab.services()}
    assert states == {("full", "nat"): "ready", ("carrier", "nat"): "ready", ("odd", "nat"): "ready"}


def test_the_rules_of_the_plan_are_those_that_natbox_prints(lab: Lab) -> None:
    topologies = Path(__file__).parents[1] / "topology" / "valid" / "nat.yaml", Path(str(lab.facts["file"]))
    nodes = [node for file in topologies for node in load_topology(file).nodes if is_natbox(node)]
    assert len(nodes) >= 8
    for node in nodes:
        assert node.nat is not None
        lab["full"].run(["tee", "/run/c.json"], input=json.dumps(configuration(node.nat)), check=True)
        assert lab["full"].run(["natbox", "rules", "/run/c.json"], check=True).stdout == queue_rules(node.nat)


def test_a_full_cone_keeps_a_port_for_all_peers_and_lets_anyone_in(lab: Lab) -> None:
    with lab["pi"].udp(40001) as client, lab["other"].udp(7100) as stranger:
        assert mapped(lab, client, EVERYWHERE) == [(FULL, 40001)] * 4
        stranger.sendto(b"never asked", (FULL, 40001))
        assert arrives(client, b"never asked", within=30)


def test_two_hosts_with_one_source_port_never_share_it(lab: Lab) -> None:
    with lab["nas"].udp(40002) as nas, lab["pi"].udp(40002) as pi:
        (first,) = mapped(lab, nas, [(SERVER, 7200)])
        (second,) = mapped(lab, pi, [(OTHER, 7200)])
        assert (first[0], second[0]) == (FULL, FULL)
        assert first[1] != second[1]


def test_what_is_sent_to_an_outside_endpoint_from_inside_comes_back_in_with_its_own(lab: Lab) -> None:
    with lab["nas"].udp(40003) as nas, lab["pi"].udp(40004) as pi:
        mapped(lab, nas, [(SERVER, 7300)])
        pi.sendto(b"neighbour", (FULL, 40003))
        nas.settimeout(30)
        assert nas.recvfrom(100) == (b"neighbour", (FULL, 40004))


@pytest.mark.parametrize("client", ["server", "pi"])
def test_a_forward_leads_inside_from_either_side(lab: Lab, client: str) -> None:
    with lab["nas"].listen(8443) as server, lab[client].connect((FULL, 443)) as connection:
        accepted, peer = server.accept()
        with accepted:
            accepted.sendall(b"from the nas")
            assert connection.recv(100) == b"from the nas"
        assert str(peer[0]).removeprefix("::ffff:") == (FULL if client == "pi" else SERVER)


def test_a_carrier_gives_each_subscriber_a_block_of_its_own(lab: Lab) -> None:
    ports = {}
    for name in ("one", "two"):
        with ExitStack() as stack:
            clients = [stack.enter_context(lab[name].udp()) for _ in range(4)]
            ports[name] = [mapped(lab, client, [(SERVER, 7400)])[0][1] for client in clients]
    blocks = {name: {(port - 1024) // 1024 for port in found} for name, found in ports.items()}
    assert all(len(block) == 1 for block in blocks.values())
    assert blocks["one"] != blocks["two"]


def test_a_carrier_gives_a_subscriber_so_many_sessions(lab: Lab) -> None:
    lab.signal_service("carrier", "nat", signal.SIGHUP)
    wait_until(lambda: not table(lab, "carrier")["mappings"], 30, "all mappings are forgotten")
    with lab["server"].udp(7500, SERVER) as server, ExitStack() as stack:
        clients = [stack.enter_context(lab["one"].udp()) for _ in range(8)]
        for number, client in enumerate(clients):
            client.sendto(b"%d" % number, (SERVER, 7500))
        with lab["two"].udp() as neighbour:
            neighbour.sendto(b"other", (SERVER, 7500))
            received = {server.recv(100) for _ in range(6)}
            server.settimeout(0.3)
            with pytest.raises(TimeoutError):
                server.recv(100)
    assert received == {b"0", b"1", b"2", b"3", b"4", b"other"}


def test_an_address_dependent_nat_has_a_mapping_and_a_filter_for_each_address(lab: Lab) -> None:
    with lab["lone"].udp(40005) as client:
        seen = mapped(lab, client, EVERYWHERE)
        assert seen[0] == seen[1]
        assert len(set(seen)) == 3
        assert all(address == ODD and 30000 <= port <= 30999 and port % 2 == 1 for address, port in seen)
        with lab["server"].udp(7999, SERVER) as same, lab["server"].udp(7999, SERVER_AGAIN) as stranger:
            stranger.sendto(b"stranger", seen[0])
            same.sendto(b"another port", seen[0])
            assert arrives(client, b"another port", within=30)
            assert not arrives(client, b"stranger", within=0.2)


def test_a_mapping_ends_after_its_time(lab: Lab) -> None:
    with lab["lone"].udp(40006) as client, lab["server"].udp(7600, SERVER) as server:
        client.sendto(b"hello", (SERVER, 7600))
        _, endpoint = server.recvfrom(100)
        server.sendto(b"in time", endpoint)
        assert arrives(client, b"in time", within=30)
        wait_until(lambda: "40006" not in json.dumps(table(lab, "odd")["mappings"]), 60, "the mapping has ended")
        server.sendto(b"too late", endpoint)
        assert not arrives(client, b"too late", within=0.3)


@pytest.mark.parametrize(("address", "answer"), [(FULL, TimeoutError), (ODD, ConnectionRefusedError)])
def test_an_unsolicited_connection_meets_silence_or_a_reset(lab: Lab, address: str, answer: type[OSError]) -> None:
    with pytest.raises(answer):
        lab["server"].connect((address, 9999), timeout=0.5 if answer is TimeoutError else 30)
