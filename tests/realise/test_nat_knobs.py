"""Each knob of NAT by the kernel: sockets of nodes on both sides are one witness, conntrack is the other."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from lab import wait_until
from lab.realise.lab import Lab
from lab.realise.node import Node

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

TOPOLOGY = """
#           nas, pi -- home -- plain --+
# one, busy, beside -- lan2 -- random -+-- internet -- server, other
#              many -- lan3 -- pooled -+
#           lone -- lan4 -- scattered -+
networks:
  internet: {prefixes: [198.51.100.0/24, "2001:db8:1::/64"]}
  home: {prefixes: [192.168.1.0/24]}
  lan2: {prefixes: [192.168.2.0/24]}
  lan3: {prefixes: [192.168.3.0/24]}
  lan4: {prefixes: [192.168.4.0/24]}
nodes:
  server: {links: {internet: [198.51.100.10, 198.51.100.11]}}
  other: {links: {internet: 198.51.100.20}}
  plain:
    role: router
    links: {internet: 198.51.100.1, home: 192.168.1.1}
    nat: {outside: internet, hairpin: forwards, forwards: [{tcp: 443, to: "nas:8443"}]}
  random:
    role: router
    links: {internet: 198.51.100.2, lan2: 192.168.2.1}
    nat:
      outside: internet
      preset: symmetric
      ports: {range: 20000-29999}
      sessions: 5
      icmp_errors: drop
      unsolicited_tcp: reject
  pooled:
    role: router
    links: {internet: [198.51.100.3, 198.51.100.4], lan3: 192.168.3.1}
    nat:
      outside: internet
      ports: {range: 20000-29999}
      pool: [198.51.100.3, 198.51.100.4]
      timers: {udp: 8s, udp_dns: 5s, tcp_established: 600s, tcp_transitory: 20s, icmp: 7s}
  scattered:
    role: router
    links: {internet: [198.51.100.5, 198.51.100.6, 198.51.100.7], lan4: 192.168.4.1}
    nat: {outside: internet, preset: symmetric, pool: [198.51.100.6, 198.51.100.7], pooling: arbitrary}
  nas: {links: {home: 192.168.1.10}}
  pi: {links: {home: 192.168.1.20}}
  one: {links: {lan2: auto}}
  busy: {links: {lan2: auto}}
  beside: {links: {lan2: auto}}
  many: {count: 8, links: {lan3: auto}}
  lone: {links: {lan4: auto}}
"""
SERVER, SERVER_AGAIN, OTHER = "198.51.100.10", "198.51.100.11", "198.51.100.20"
PLAIN, RANDOM = "198.51.100.1", "198.51.100.2"


@pytest.fixture(scope="module")
def lab(module_up: Callable[..., Lab]) -> Lab:
    return module_up(TOPOLOGY)


def mapped(lab: Lab, client: socket.socket, to: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """The outside endpoints that the servers at `to` see a client's socket under."""
    seen = []
    for address, port in to:
        with lab["other" if address == OTHER else "server"].udp(port, address) as server:
            client.sendto(b"who am I?", (address, port))
            seen.append(server.recvfrom(100)[1])
    return [(str(address), port) for address, port in seen]


def flows(router: Node, protocol: str, *words: str) -> list[str]:
    """The lines of conntrack for flows of a protocol that hold all words."""
    listed = router.run(["conntrack", "-L", "-p", protocol], check=True).stdout
    return [line for line in listed.splitlines() if all(word in line.split() for word in words)]


def seconds_left(line: str) -> int:
    """The third word of a flow: name and number of the protocol come before."""
    return int(line.split()[2])


def arrives(receiver: socket.socket, payload: bytes, *, within: float = 0.3) -> bool:
    receiver.settimeout(within)
    try:
        return receiver.recv(100) == payload
    except TimeoutError:
        return False


EVERYWHERE = [(SERVER, 7000), (SERVER, 7001), (SERVER_AGAIN, 7000), (OTHER, 7000)]


def test_an_endpoint_keeps_its_own_port_for_all_peers(lab: Lab) -> None:
    with lab["pi"].udp(40001) as client:
        assert mapped(lab, client, EVERYWHERE) == [(PLAIN, 40001)] * 4


def test_an_endpoint_has_another_random_port_for_every_peer(lab: Lab) -> None:
    lab["random"].run(["conntrack", "-F"], check=True)
    with lab["one"].udp(40002) as client:
        seen = mapped(lab, client, EVERYWHERE)
    assert {address for address, _ in seen} == {RANDOM}
    assert len({port for _, port in seen}) >= 3  # two alike by chance: 1 in 1600; three: 1 in ten million
    assert all(20000 <= port <= 29999 for _, port in seen)


def test_an_endpoint_out_of_the_range_gets_one_port_in_it_for_all_peers(lab: Lab) -> None:
    with lab["many-1"].udp(40003) as outside_it, lab["many-1"].udp(20003) as in_it:
        (first, *others) = mapped(lab, outside_it, EVERYWHERE)
        assert others == [first] * 3
        assert 20000 <= first[1] <= 29999
        assert {port for _, port in mapped(lab, in_it, EVERYWHERE)} == {20003}


def test_only_the_very_peer_may_answer(lab: Lab) -> None:
    with lab["pi"].udp(40004) as client, lab["server"].udp(7100, SERVER) as peer:
        client.sendto(b"hello", (SERVER, 7100))
        assert peer.recvfrom(100)[1] == (PLAIN, 40004)
        for node, port, address in (("server", 7101, SERVER), ("server", 7100, SERVER_AGAIN), ("other", 7100, OTHER)):
            with lab[node].udp(port, address) as stranger:
                stranger.sendto(b"me too", (PLAIN, 40004))
        peer.sendto(b"answer", (PLAIN, 40004))
        assert arrives(client, b"answer", within=30)
        assert not arrives(client, b"me too", within=0.2)


def test_a_peer_that_was_too_early_does_not_move_the_mapping(lab: Lab) -> None:
    """As in hole punching: were the early packet taken for the router, the mapping would clash with it and move."""
    with lab["pi"].udp(40005) as client, lab["server"].udp(7200, SERVER) as peer:
        peer.sendto(b"early", (PLAIN, 40005))
        client.sendto(b"here I am", (SERVER, 7200))
        assert peer.recvfrom(100) == (b"here I am", (PLAIN, 40005))
        peer.sendto(b"late", (PLAIN, 40005))
        assert arrives(client, b"late", within=30)


def test_two_hosts_with_one_source_port_share_it_for_two_peers_but_not_for_one(lab: Lab) -> None:
    with lab["nas"].udp(40006) as nas, lab["pi"].udp(40006) as pi, lab["server"].udp(7300, SERVER) as server:
        nas.sendto(b"nas", (SERVER, 7300))
        pi.sendto(b"pi", (SERVER, 7300))
        peers = {payload: (str(address), port) for payload, (address, port) in (server.recvfrom(100) for _ in range(2))}
        assert {address for address, _ in peers.values()} == {PLAIN}
        assert peers[b"nas"][1] == 40006
        assert peers[b"pi"][1] != 40006
        for payload, peer in peers.items():
            server.sendto(payload, peer)
        assert arrives(nas, b"nas", within=30)
        assert arrives(pi, b"pi", within=30)
    with lab["nas"].udp(40007) as nas, lab["pi"].udp(40007) as pi:
        assert mapped(lab, nas, [(SERVER, 7301)]) == [(PLAIN, 40007)]
        assert mapped(lab, pi, [(OTHER, 7301)]) == [(PLAIN, 40007)]


def test_a_routers_own_packets_stay_as_they_are(lab: Lab) -> None:
    with lab["random"].udp(41000, RANDOM) as client, lab["scattered"].udp(41001) as other:
        assert mapped(lab, client, [(SERVER, 7400)]) == [(RANDOM, 41000)]
        assert mapped(lab, other, [(SERVER, 7400)]) == [("198.51.100.5", 41001)]


def test_a_paired_pool_gives_a_host_one_address_and_hosts_all_of_them(lab: Lab) -> None:
    addresses = {}
    for name in (f"many-{number}" for number in range(1, 9)):
        with ExitStack() as stack:
            clients = [stack.enter_context(lab[name].udp()) for _ in range(3)]
            seen = {
                endpoint[0] for client in clients for endpoint in mapped(lab, client, [(SERVER, 7500), (OTHER, 7500)])
            }
        assert len(seen) == 1
        addresses[name] = seen.pop()
    assert set(addresses.values()) == {"198.51.100.3", "198.51.100.4"}


def test_an_arbitrary_pool_gives_a_host_all_addresses(lab: Lab) -> None:
    seen = set()
    for _ in range(40):  # all alike by chance: 1 in 500 thousand million
        with lab["lone"].udp() as client:
            seen |= {address for address, _ in mapped(lab, client, [(SERVER, 7600)])}
    assert seen == {"198.51.100.6", "198.51.100.7"}


@pytest.mark.parametrize(("port", "longest"), [(7700, 8), (53, 5)])
def test_a_mapping_is_forgotten_after_its_time_and_its_peer_locked_out(lab: Lab, port: int, longest: int) -> None:
    router = lab["pooled"]
    with lab["many-2"].udp(20007) as client, lab["server"].udp(port, SERVER) as server:
        left: list[int] = []
        endpoint = ("", 0)

        def is_seen() -> bool:
            """On a busy machine the mapping may have ended before anybody looks."""
            nonlocal endpoint
            client.sendto(b"hello", (SERVER, port))
            payload, endpoint = server.recvfrom(100)
            server.sendto(payload, endpoint)  # an answer: Linux by itself would keep such a flow for two minutes
            if arrives(client, b"hello", within=2):
                left.extend(seconds_left(flow) for flow in flows(router, "udp", "sport=20007", f"dport={port}"))
            return bool(left)

        wait_until(is_seen, 30, "the mapping is seen")
        assert len(left) == 1
        assert left[0] <= longest
        wait_until(lambda: not flows(router, "udp", "sport=20007", f"dport={port}"), 60, "the mapping has ended")
        server.sendto(b"too late", endpoint)
        assert not arrives(client, b"too late")


def test_a_mapping_lives_for_as_long_as_it_is_told(lab: Lab) -> None:
    with lab["pi"].udp(40008) as client:
        mapped(lab, client, [(SERVER, 7701)])
        (flow,) = flows(lab["plain"], "udp", "sport=40008", "dport=7701")
    assert 100 <= seconds_left(flow) <= 120


def test_tcp_has_a_timer_for_open_connections_and_one_for_the_rest(lab: Lab) -> None:
    router = lab["pooled"]
    with lab["server"].listen(7800) as server:
        with lab["many-3"].connect((SERVER, 7800), source=("", 20008)):
            server.accept()[0].close()
            wait_until(lambda: flows(router, "tcp", "sport=20008", "CLOSE_WAIT"), 30, "one end has closed")
            (flow,) = flows(router, "tcp", "sport=20008", "dport=7800")
            assert 10 <= seconds_left(flow) <= 20
        with lab["many-3"].connect((SERVER, 7800), source=("", 20009)):
            wait_until(lambda: flows(router, "tcp", "sport=20009", "ESTABLISHED"), 30, "the other end is told, too")
            (flow,) = flows(router, "tcp", "sport=20009", "ESTABLISHED")
            assert 590 <= seconds_left(flow) <= 600


def test_icmp_has_a_timer(lab: Lab) -> None:
    lab["many-4"].run(["ping", "-c", "1", "-W", "20", SERVER], check=True)
    (flow,) = flows(lab["pooled"], "icmp", f"src={lab['many-4'].address()}")
    assert seconds_left(flow) <= 7


@pytest.mark.parametrize(("inside", "passes"), [("pi", True), ("one", False)])
def test_icmp_errors_pass_or_do_not(lab: Lab, inside: str, *, passes: bool) -> None:
    lab["random"].run(["conntrack", "-F"], check=True)
    with lab[inside].udp(timeout=0.5) as client:
        client.connect((SERVER, 7900))  # where nobody listens
        if passes:  # sooner or later: kernels ration their errors
            wait_until(lambda: is_refused(client), 30, "the error has come")
        else:
            assert not is_refused(client)


def is_refused(client: socket.socket) -> bool:
    """Whether an error comes for a datagram."""
    try:
        client.send(b"anyone?")
        client.recv(100)
    except ConnectionRefusedError:
        return True
    except TimeoutError:
        pass
    return False


@pytest.mark.parametrize(("address", "answer"), [(PLAIN, TimeoutError), (RANDOM, ConnectionRefusedError)])
def test_an_unsolicited_connection_meets_silence_or_a_reset(lab: Lab, address: str, answer: type[OSError]) -> None:
    with pytest.raises(answer):
        lab["server"].connect((address, 9999), timeout=0.5 if answer is TimeoutError else 30)


def test_a_reset_for_tcp_is_one_for_ipv4(lab: Lab) -> None:
    with pytest.raises(TimeoutError):
        lab["server"].connect((lab["random"].address("internet", 6), 9999), timeout=0.5)


def test_an_unsolicited_datagram_meets_silence_beside_a_reset_for_tcp(lab: Lab) -> None:
    with lab["server"].udp(timeout=0.5) as client:
        client.connect((RANDOM, 9999))
        client.send(b"anyone?")
        with pytest.raises(TimeoutError):
            client.recv(100)


def test_a_host_has_so_many_sessions_and_no_more_while_others_have_theirs(lab: Lab) -> None:
    """Of hosts that had none before: for a tick or two the kernel counts sessions that ended (nf_conncount.c)."""
    with lab["server"].udp(7950, SERVER) as server, ExitStack() as stack:
        clients = [stack.enter_context(lab["busy"].udp()) for _ in range(8)]
        for number, client in enumerate(clients):
            client.sendto(b"%d" % number, (SERVER, 7950))
        with lab["beside"].udp() as neighbour:
            neighbour.sendto(b"other", (SERVER, 7950))
            received = {server.recv(100) for _ in range(6)}
            assert not arrives(server, b"more")
    assert received == {b"0", b"1", b"2", b"3", b"4", b"other"}
    assert len(flows(lab["random"], "udp", "dport=7950", f"src={lab['busy'].address()}")) == 5


def test_a_hairpin_of_forwards_leads_back_in_from_the_router(lab: Lab) -> None:
    with lab["nas"].listen(8443) as server, lab["pi"].connect((PLAIN, 443)) as client:
        server.settimeout(30)
        accepted, peer = server.accept()
        with accepted:
            assert re.sub("^::ffff:", "", peer[0]) == "192.168.1.1"
            accepted.sendall(b"from the nas")
            assert client.recv(100) == b"from the nas"
            assert client.getpeername() == (PLAIN, 443)


def test_a_hairpin_of_forwards_leads_nowhere_else(lab: Lab) -> None:
    with lab["nas"].udp(40009) as nas, lab["pi"].udp(40010) as pi:
        assert mapped(lab, nas, [(SERVER, 7960)]) == [(PLAIN, 40009)]
        pi.sendto(b"neighbour?", (PLAIN, 40009))
        assert not arrives(nas, b"neighbour?")
