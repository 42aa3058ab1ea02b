"""Mapping and filtering over UDP, all nine combinations, by sockets of both sides (RFC 4787 sections 4.1 and 5)."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from lab.realise.lab import Lab
from tests.nat.conftest import EAST, OUTSIDE, SECOND_EAST, WEST, Translate

INDEPENDENT, ADDRESS, ADDRESS_AND_PORT = BEHAVIOURS = (
    "endpoint_independent",
    "address_dependent",
    "address_and_port_dependent",
)
Endpoint = tuple[str, int]
FIRST: Endpoint = (EAST, 7000)
OTHER_PORT: Endpoint = (EAST, 7001)
OTHER_ADDRESS: Endpoint = (WEST, 7000)
# What is not the first endpoint: what of it a dependence sees to be another.
DIFFERENT = {
    INDEPENDENT: [],
    ADDRESS: [OTHER_ADDRESS],
    ADDRESS_AND_PORT: [OTHER_PORT, OTHER_ADDRESS],
}

pytestmark = pytest.mark.essential


@contextmanager
def servers(lab: Lab) -> Iterator[dict[Endpoint, socket.socket]]:
    with ExitStack() as stack:
        nodes = {EAST: lab["east"], WEST: lab["west"]}
        yield {
            (address, port): stack.enter_context(nodes[address].udp(port, address))
            for address, port in (FIRST, OTHER_PORT, OTHER_ADDRESS)
        }


@pytest.mark.parametrize(("mapping", "filtering"), list(itertools.product(BEHAVIOURS, BEHAVIOURS)))
def test_each_combination(lab: Lab, natbox: Translate, mapping: str, filtering: str) -> None:
    with natbox(mapping=mapping, filtering=filtering), servers(lab) as outside, lab["alice"].udp(4000) as inside:
        inside.sendto(b"first", FIRST)
        _, mapped = outside[FIRST].recvfrom(100)
        assert mapped == (OUTSIDE, 4000)
        # Filtering before mapping: nothing has been sent to the others yet. What may come in is sent last, so that
        # its arrival shows that what came before it was refused, not late.
        senders = sorted((OTHER_PORT, OTHER_ADDRESS, FIRST), key=lambda sender: sender not in DIFFERENT[filtering])
        for sender in senders:
            outside[sender].sendto(repr(sender).encode(), mapped)
        heard = [inside.recv(100).decode() for _ in range(3 - len(DIFFERENT[filtering]))]
        assert heard == [repr(sender) for sender in senders if sender not in DIFFERENT[filtering]]
    with natbox(mapping=mapping, filtering=filtering), servers(lab) as outside, lab["alice"].udp(4000) as inside:
        mapped_by = {}
        for receiver in (FIRST, OTHER_PORT, OTHER_ADDRESS):
            inside.sendto(b"?", receiver)
            mapped_by[receiver] = outside[receiver].recvfrom(100)[1]
        differing = [receiver for receiver in mapped_by if mapped_by[receiver] != mapped_by[FIRST]]
        assert differing == DIFFERENT[mapping]
        # The same again: a mapping once made is kept.
        for receiver, mapped in mapped_by.items():
            inside.sendto(b"?", receiver)
            assert outside[receiver].recvfrom(100)[1] == mapped


def test_two_hosts_with_one_source_port_have_ports_of_their_own(lab: Lab, natbox: Translate) -> None:
    with natbox() as nat, lab["east"].udp(7000) as server, ExitStack() as stack:
        insides = [stack.enter_context(lab[name].udp(51820)) for name in ("alice", "bob")]
        peers = []
        for inside in insides:
            inside.sendto(b"?", FIRST)
            peers.append(server.recvfrom(100)[1])
        assert len(set(peers)) == 2
        for inside, peer in zip(insides, peers, strict=True):
            server.sendto(repr(peer).encode(), peer)
            assert inside.recvfrom(100) == (repr(peer).encode(), FIRST)
        seen = {f"{address}:{port}" for address, port in peers}
        assert set(nat.mappings("udp").values()) == seen


def test_a_reply_to_what_a_filter_let_in_leaves_by_the_endpoint_it_came_to(lab: Lab, natbox: Translate) -> None:
    with (
        natbox(mapping=ADDRESS_AND_PORT, filtering=INDEPENDENT),
        servers(lab) as outside,
        lab["alice"].udp(4000) as inside,
    ):
        inside.sendto(b"?", FIRST)
        mapped = outside[FIRST].recvfrom(100)[1]
        outside[OTHER_ADDRESS].sendto(b"hello", mapped)
        assert inside.recvfrom(100) == (b"hello", OTHER_ADDRESS)
        inside.sendto(b"hello yourself", OTHER_ADDRESS)
        assert outside[OTHER_ADDRESS].recvfrom(100) == (b"hello yourself", mapped)


def test_the_second_address_of_a_server_is_another_address(lab: Lab, natbox: Translate) -> None:
    with natbox(mapping=ADDRESS), lab["alice"].udp(4000) as inside, lab["east"].udp(7000) as server:
        peers = []
        for address in (EAST, SECOND_EAST):
            inside.sendto(b"?", (address, 7000))
            peers.append(server.recvfrom(100)[1])
        assert len(set(peers)) == 2
