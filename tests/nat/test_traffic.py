"""Traffic of all kinds through natbox, whole and unchanged but for its ends."""

from __future__ import annotations

import hashlib
import random
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab import wait_until
from lab.realise.lab import Lab
from tests.nat.conftest import EAST, OUTSIDE, SECOND_OUTSIDE, WEST, Translate

MEBIBYTE = 1 << 20
# A forward on the router leads to 8080 of alice.
FORWARD = {"protocol": "tcp", "port": 443, "to": "192.168.1.10", "to_port": 8080}

pytestmark = pytest.mark.essential


@contextmanager
def web_server(listener: socket.socket, content: bytes) -> Iterator[list[str]]:
    """Answers one request with the content; the list gets the client's address as the server sees it."""
    seen: list[str] = []

    def serve() -> None:
        connection, peer = listener.accept()
        with connection:
            seen.append(str(peer[0]).removeprefix("::ffff:"))
            connection.recv(4096)
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + content)

    listener.settimeout(60)
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield seen
    finally:
        thread.join()


def fetched_digest(lab: Lab, name: str, url: str) -> str:
    node = lab[name]
    node.run(["curl", "-sS", "--max-time", "60", "-o", "/tmp/fetched", url], check=True)
    return node.run(["sha256sum", "/tmp/fetched"], check=True).stdout.split()[0]


def test_megabytes_of_tcp_arrive_whole(lab: Lab, natbox: Translate) -> None:
    content = random.Random(1).randbytes(4 * MEBIBYTE)
    with natbox() as nat, lab["east"].listen(80) as listener, web_server(listener, content) as clients:
        assert fetched_digest(lab, "alice", f"http://{EAST}/") == hashlib.sha256(content).hexdigest()
        assert clients == [OUTSIDE]
        assert nat.table()["counters"]["dropped"] == {}


@pytest.mark.parametrize("size", [1, 1472, 1473, 9000, 60000])
def test_datagrams_of_any_size_come_whole_both_ways(lab: Lab, natbox: Translate, size: int) -> None:
    content = random.Random(size).randbytes(size)
    with natbox(), lab["east"].udp(7000) as server, lab["alice"].udp(4000) as client:
        client.sendto(content, (EAST, 7000))
        received, peer = server.recvfrom(65535)
        assert (received, peer) == (content, (OUTSIDE, 4000))
        server.sendto(content[::-1], peer)
        assert client.recvfrom(65535) == (content[::-1], (EAST, 7000))


def test_pings_of_two_hosts_are_answered(lab: Lab, natbox: Translate) -> None:
    with natbox() as nat:
        for name in ("alice", "bob"):
            for _ in range(3):  # each by itself: ping(8) does not wait for the last of several if others have come
                lab[name].run(["ping", "-n", "-c", "1", "-W", "20", "-s", "3000", EAST], check=True)
        assert {inside.split(":")[0] for inside in nat.mappings("icmp")} == {"192.168.1.10", "192.168.1.20"}


def test_the_router_itself_is_not_translated_and_answers_pings(lab: Lab, natbox: Translate) -> None:
    with (
        natbox() as nat,
        lab["east"].udp(7000) as server,
        lab["router"].udp(4000) as own,
        lab["alice"].udp(4000) as inside,
    ):
        own.sendto(b"router", (EAST, 7000))
        assert server.recvfrom(100) == (b"router", (OUTSIDE, 4000))
        inside.sendto(b"alice", (EAST, 7000))
        _, mapped = server.recvfrom(100)
        assert mapped != (OUTSIDE, 4000)
        server.sendto(b"to the router", (OUTSIDE, 4000))
        assert own.recv(100) == b"to the router"
        server.sendto(b"to alice", mapped)
        assert inside.recv(100) == b"to alice"
        lab["east"].run(["ping", "-n", "-c", "1", OUTSIDE], check=True)
        assert list(nat.mappings("udp")) == ["192.168.1.10:4000"]


def test_another_outside_address_of_the_router_is_its_own(lab: Lab, natbox: Translate) -> None:
    with natbox(), lab["east"].udp(7000) as server, lab["router"].udp(4000, SECOND_OUTSIDE) as own:
        own.sendto(b"router", (EAST, 7000))
        assert server.recvfrom(100) == (b"router", (SECOND_OUTSIDE, 4000))


def test_a_forward_leads_inside_and_keeps_the_clients_address(lab: Lab, natbox: Translate) -> None:
    with natbox(forwards=[FORWARD]), lab["alice"].listen(8080) as listener, web_server(listener, b"hello") as clients:
        assert fetched_digest(lab, "east", f"http://{OUTSIDE}:443/") == hashlib.sha256(b"hello").hexdigest()
        assert clients == [EAST]


def test_a_connection_by_a_forward_goes_on_whoever_speaks_first_after_a_flush(lab: Lab, natbox: Translate) -> None:
    with (
        natbox(forwards=[FORWARD]) as nat,
        lab["alice"].listen(8080) as listener,
        lab["east"].connect((OUTSIDE, 443)) as client,
    ):
        server, _ = listener.accept()
        with server:
            server.settimeout(30)
            nat.process.send_signal(signal.SIGHUP)
            wait_until(lambda: not nat.table()["mappings"][0]["sessions"], 30, "forgetting")
            client.sendall(b"still there?")
            assert server.recv(100) == b"still there?"


def test_several_outside_addresses_are_all_used(lab: Lab, natbox: Translate) -> None:
    outside = {"interface": "internet", "addresses": [OUTSIDE, SECOND_OUTSIDE]}
    for pooling, count in (("paired", 1), ("arbitrary", 2)):
        with natbox(outside=outside, pooling=pooling), lab["east"].udp(7000) as server:
            seen = set()
            for _ in range(4):
                with lab["alice"].udp() as client:
                    client.sendto(b"?", (EAST, 7000))
                    _, peer = server.recvfrom(100)
                    server.sendto(b"!", peer)
                    assert client.recv(100) == b"!"
                    seen.add(peer[0])
            assert len(seen) == count, pooling


def test_simultaneous_open_of_tcp(lab: Lab, natbox: Translate) -> None:
    """West's first SYN meets no mapping and silence; alice's then meets west's open socket (RFC 5382 REQ-2)."""
    west = lab["west"].socket(bind=("", 6000))
    alice = lab["alice"].socket(bind=("", 5000))
    with natbox(), west, alice:
        west.setblocking(False)
        assert west.connect_ex((OUTSIDE, 5000)) != 0
        alice.settimeout(30)
        alice.connect((WEST, 6000))
        west.settimeout(30)
        alice.sendall(b"both opened")
        assert west.recv(100) == b"both opened"


@pytest.mark.parametrize(
    ("unsolicited", "port", "error"), [("drop", 5001, TimeoutError), ("reset", 5002, ConnectionRefusedError)]
)
def test_a_refused_connection_meets_silence_or_a_reset(
    lab: Lab, natbox: Translate, unsolicited: str, port: int, error: type[OSError]
) -> None:
    with (
        natbox(tcp_unsolicited=unsolicited),
        lab["east"].listen(7000),
        lab["alice"].connect((EAST, 7000), source=("", port)),
        pytest.raises(error),
    ):
        lab["west"].connect((OUTSIDE, port), timeout=0.4 if error is TimeoutError else 30)


def test_hairpin_of_the_external_source(lab: Lab, natbox: Translate) -> None:
    content = random.Random(2).randbytes(MEBIBYTE)
    with natbox(hairpin="external_source", forwards=[FORWARD]):
        with lab["alice"].listen(8080) as listener, web_server(listener, content) as clients:
            assert fetched_digest(lab, "bob", f"http://{OUTSIDE}:443/") == hashlib.sha256(content).hexdigest()
        assert clients == [OUTSIDE]


def test_hairpin_between_mappings(lab: Lab, natbox: Translate) -> None:
    with (
        natbox(hairpin="external_source", filtering="endpoint_independent"),
        lab["east"].udp(7000) as server,
        lab["alice"].udp(4000) as alice,
        lab["bob"].udp(4000) as bob,
    ):
        mapped = []
        for client in (alice, bob):
            client.sendto(b"?", (EAST, 7000))
            mapped.append(server.recvfrom(100)[1])
        bob.sendto(b"to alice", mapped[0])
        assert alice.recvfrom(100) == (b"to alice", mapped[1])
        alice.sendto(b"to bob", mapped[1])
        assert bob.recvfrom(100) == (b"to bob", mapped[0])


def test_hairpin_of_the_internal_source(lab: Lab, natbox: Translate) -> None:
    forward = {"protocol": "udp", "port": 5353, "to": "192.168.1.10"}
    with (
        natbox(hairpin="internal_source", forwards=[forward]),
        lab["alice"].udp(5353) as alice,
        lab["bob"].udp() as bob,
    ):
        bob.sendto(b"?", (OUTSIDE, 5353))
        _, peer = alice.recvfrom(100)
        assert peer == ("192.168.1.20", bob.getsockname()[1])


def test_without_hairpin_the_router_itself_answers(lab: Lab, natbox: Translate) -> None:
    with (
        natbox(hairpin="none", forwards=[FORWARD]),
        lab["alice"].listen(8080),
        pytest.raises(ConnectionRefusedError),
    ):
        lab["bob"].connect((OUTSIDE, 443), timeout=30)


def test_hairpins_cause_no_redirects(lab: Lab, natbox: Translate) -> None:
    forward = {"protocol": "udp", "port": 5353, "to": "192.168.1.10"}
    with (
        natbox(hairpin="external_source", forwards=[forward]),
        lab["bob"].packet("home") as wire,
        lab["alice"].udp(5353) as alice,
        lab["bob"].udp() as bob,
    ):
        bob.sendto(b"?", (OUTSIDE, 5353))
        _, peer = alice.recvfrom(100)
        alice.sendto(b"last", peer)
        assert bob.recv(100) == b"last"
        frame = b""
        while b"last" not in frame:
            frame = wire.recv(2000)
            is_icmp = frame[12:14] == b"\x08\x00" and frame[23] == 1
            assert not is_icmp, frame.hex()
