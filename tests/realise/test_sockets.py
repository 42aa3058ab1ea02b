"""Sockets of a node in the test's own process: every kind, and asyncio on both ends at once."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Callable

import pytest

from lab.errors import UsageError
from lab.realise.lab import Lab

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

TOPOLOGY = """
#   phone -- lan -- nas
networks:
  lan: {prefixes: [192.0.2.0/24, "2001:db8::/64"]}
  other: {prefixes: [198.51.100.0/24]}
nodes:
  phone: {links: {lan: 192.0.2.1}}
  nas: {links: {other: 198.51.100.2, lan: 192.0.2.2}}
"""
IP_TRANSPARENT = 19  # linux/in.h


@pytest.fixture(scope="module")
def lab(module_up: Callable[..., Lab]) -> Lab:
    return module_up(TOPOLOGY)


@pytest.mark.parametrize("address", ["192.0.2.2", "2001:db8::2"])
def test_a_connection_begins_and_ends_in_the_nodes(lab: Lab, address: str) -> None:
    with lab["nas"].listen(8080, address) as server, lab["phone"].connect((address, 8080)) as client:
        accepted, peer = server.accept()
        with accepted:
            client.sendall(b"hello")
            assert accepted.recv(10) == b"hello"
        assert peer[:2] == client.getsockname()[:2]
        assert peer[0] == lab["phone"].address(version=6 if ":" in address else 4)
        assert client.getpeername()[:2] == (address, 8080)


@pytest.mark.parametrize("address", ["192.0.2.2", "2001:db8::2"])
def test_listening_on_all_addresses_serves_both_ip_versions(lab: Lab, address: str) -> None:
    with lab["nas"].listen() as server:
        port = server.getsockname()[1]
        assert lab["nas"].is_bound(port)
        lab["phone"].connect((address, port)).close()


def test_a_socket_of_a_node_is_unknown_to_the_host(lab: Lab) -> None:
    with lab["nas"].listen() as server, socket.socket() as outside:
        assert outside.connect_ex(("127.0.0.1", server.getsockname()[1])) == errno.ECONNREFUSED


def test_a_client_can_listen_and_a_server_connect_back(lab: Lab) -> None:
    with lab["phone"].listen(2121) as server, lab["nas"].connect(("phone", 2121)) as client:
        accepted, peer = server.accept()
        accepted.close()
        assert peer[1] == client.getsockname()[1]


def test_a_nodes_name_stands_for_its_address_on_a_shared_network(lab: Lab) -> None:
    """nas has another address, declared first."""
    with lab["nas"].listen(8081), lab["phone"].connect(("nas", 8081)) as client:
        assert client.getpeername() == ("192.0.2.2", 8081)


def test_a_name_that_is_no_node_is_not_looked_up_as_one(lab: Lab) -> None:
    with pytest.raises(UsageError, match=r"no node 'ans' in lab .*; it has nas, phone"):
        lab["ans"]


@pytest.mark.parametrize(("server", "client"), [("192.0.2.2", "192.0.2.1"), ("2001:db8::2", "2001:db8::1")])
def test_datagrams_go_both_ways(lab: Lab, server: str, client: str) -> None:
    with lab["nas"].udp(5353, server) as far, lab["phone"].udp(0, client) as near:
        near.sendto(b"question", (server, 5353))
        payload, peer = far.recvfrom(100)
        assert (payload, peer[0]) == (b"question", client)
        far.sendto(b"answer", peer)
        assert near.recvfrom(100)[0] == b"answer"


def test_a_port_below_1024_can_be_had(lab: Lab) -> None:
    with lab["nas"].listen(443) as server:
        assert server.getsockname()[1] == 443
    with lab["nas"].udp(53) as server:
        assert server.getsockname()[1] == 53


def test_a_packet_socket_sees_and_sends_whole_frames(lab: Lab) -> None:
    frame = bytes.fromhex("ffffffffffff0200000000aa88b5") + b"a frame of our own" * 3
    with lab["nas"].packet("lan") as far, lab["phone"].packet("lan") as near:
        assert near.send(frame) == len(frame)
        while far.recv(2000) != frame:
            pass


def test_a_foreign_address_can_be_bound_where_the_socket_is_transparent(lab: Lab) -> None:
    options = [(socket.IPPROTO_IP, IP_TRANSPARENT, 1)]
    with lab["nas"].socket(options=options, bind=("203.0.113.7", 0)) as made:
        assert made.getsockname()[0] == "203.0.113.7"
        assert made.getsockopt(socket.IPPROTO_IP, IP_TRANSPARENT) == 1
    with pytest.raises(OSError, match="Cannot assign"):
        lab["nas"].socket(bind=("203.0.113.7", 0))


def test_an_option_with_text_is_set(lab: Lab) -> None:
    with lab["nas"].socket(options=[(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, "other")]) as made:
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0") == b"other"


def test_the_source_of_a_connection_can_be_chosen(lab: Lab) -> None:
    with lab["nas"].listen(8082), lab["phone"].connect(("192.0.2.2", 8082), source=("192.0.2.1", 45678)) as client:
        assert client.getsockname() == ("192.0.2.1", 45678)


def test_a_ping_socket_works_without_privilege(lab: Lab) -> None:
    echo = bytes([8, 0, 0, 0, 0, 0, 0, 1])  # RFC 792
    with lab["phone"].socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as pinging:
        pinging.settimeout(30)
        pinging.sendto(echo, ("192.0.2.2", 0))
        answer, peer = pinging.recvfrom(100)
    assert (answer[0], peer[0]) == (0, "192.0.2.2")


def test_a_refused_connection_is_the_kernels_error(lab: Lab) -> None:
    with pytest.raises(ConnectionRefusedError):
        lab["phone"].connect(("192.0.2.2", 9))
    with pytest.raises(OSError, match="unreachable"):
        lab["phone"].connect(("203.0.113.1", 9))


def test_a_port_that_is_taken_is_the_kernels_error(lab: Lab) -> None:
    with lab["nas"].listen(8083), pytest.raises(OSError, match="in use") as caught:
        lab["nas"].listen(8083)
    assert caught.value.errno == errno.EADDRINUSE


def test_one_asyncio_test_holds_the_client_and_the_server(lab: Lab) -> None:
    async def talk() -> bytes:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write((await reader.readline()).upper())
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(echo, sock=lab["nas"].listen(8084))
        async with server:
            reader, writer = await lab["phone"].open_connection(("nas", 8084))
            writer.write(b"hello\n")
            answer = await asyncio.wait_for(reader.readline(), 30)
            writer.close()
            await writer.wait_closed()
        return answer

    assert asyncio.run(talk()) == b"HELLO\n"


def test_sockets_can_be_asked_for_by_many_threads(lab: Lab) -> None:
    found: list[tuple[str, str]] = []

    def ask(node: str) -> None:
        for _ in range(50):
            with lab[node].socket(bind=("", 0), options=[(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, "lan")]) as made:
                made.connect_ex((lab[node].address("lan"), 9))
                found.append((node, made.getsockname()[0]))

    threads = [threading.Thread(target=ask, args=(node,)) for node in ("nas", "phone") for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(found) == 400


def test_a_port_is_bound_while_it_is_and_no_longer(lab: Lab) -> None:
    nas = lab["nas"]
    with nas.listen(8085, "192.0.2.2"):
        nas.wait_bound(8085)
        assert nas.is_bound(8085, address="192.0.2.2")
        assert not nas.is_bound(8085, address="198.51.100.2")
        assert not nas.is_bound(8085, "udp")
        assert not lab["phone"].is_bound(8085)
    assert not nas.is_bound(8085)
    with nas.udp(8085, "2001:db8::2"):
        assert nas.is_bound(8085, "udp")
        assert nas.is_bound(8085, "udp", "2001:db8::2")


def test_waiting_for_a_port_ends_with_what_was_waited_for(lab: Lab) -> None:
    with pytest.raises(TimeoutError, match=r"waited 0.05 s until tcp 8086 is open in nas, in vain"):
        lab["nas"].wait_bound(8086, timeout=0.05)


def test_addresses_are_those_of_the_network_asked_for(lab: Lab) -> None:
    assert lab["nas"].address() == "198.51.100.2"
    assert lab["nas"].address("lan") == "192.0.2.2"
    assert lab["nas"].address("lan", 6) == "2001:db8::2"
    assert [str(each) for each in lab["nas"].addresses()] == ["198.51.100.2/24", "192.0.2.2/24", "2001:db8::2/64"]
    with pytest.raises(UsageError, match="phone is not attached to 'other'; it is to lan"):
        lab["phone"].address("other")
    with pytest.raises(UsageError, match="nas has no IPv6 address on other"):
        lab["nas"].address("other", 6)
