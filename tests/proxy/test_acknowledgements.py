"""Which packets are spared: a client that waits for its answer needs no acknowledgement before, and nobody else waits.

Packets are counted by the kernel of each end (`tcpi_segs_in` of TCP_INFO, tcp(7)).
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable

import pytest

from tests.proxy.conftest import Start
from tests.proxy.ends import accepted, connect, listening, read
from tests.proxy.hellos import hello
from tests.proxy.running import Proxy

PLAIN = """
[listener.in]
tcp = ["HERE:8443"]
[[rule]]
to = "server"
[backend.server]
targets = ["HERE:9001"]
"""
HEARD = PLAIN.replace("[[rule]]", '[[rule]]\nprotocols = ["tls", "http1"]')
HELLO = hello("nas.example.net")
REQUEST = b"GET / HTTP/1.1\r\nHost: nas.example.net\r\n\r\n"
ANSWER = b"answer"
# A machine with much to do may let the kernel's own time (40 ms) pass before an answer: one of so many shows the rule.
TRIES = 40
DELAYED = 0.04  # seconds until an acknowledgement that waits for company goes alone (TCP_DELACK_MIN)
SYN, SYN_ACK, DATA, ACK = 1, 1, 1, 1


def segments_in(end: socket.socket) -> int:
    """Packets that have come for it."""
    (count,) = struct.unpack_from("=I", end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232), 140)
    return int(count)


def packets(proxy: Proxy, said: bytes) -> tuple[int, int]:
    """How many came to a client, and to its backend, until the client had its answer; the fewest of all tries."""
    seen = []
    for _ in range(TRIES):
        with listening(proxy.here, 9001) as server, connect(proxy.here, 8443) as client:
            client.sendall(said)
            with accepted(server) as end:
                assert read(end, len(said)) == said
                end.sendall(ANSWER)
                assert read(client, len(ANSWER)) == ANSWER
                seen.append((segments_in(client), segments_in(end)))
    return min(client for client, _ in seen), min(end for _, end in seen)


def test_the_answer_to_a_hello_acknowledges_it_and_is_not_acknowledged_alone(start: Start) -> None:
    assert packets(start(HEARD), HELLO) == (SYN_ACK + DATA, SYN + DATA)


@pytest.mark.parametrize(
    ("config", "said"), [(PLAIN, HELLO), (PLAIN, REQUEST), (HEARD, REQUEST)], ids=["unread", "unread-http", "http"]
)
def test_what_may_be_written_in_pieces_is_acknowledged_at_once(start: Start, config: str, said: bytes) -> None:
    """A client or a server that writes its next piece when the last one has arrived (Nagle, RFC 1122 4.2.3.4)."""
    assert packets(start(config), said) == (SYN_ACK + ACK + DATA, SYN + DATA + ACK)


def quickest(attempt: Callable[[], float]) -> float:
    return min(attempt() for _ in range(TRIES))


def test_half_a_hello_is_acknowledged_at_once(start: Start) -> None:
    proxy = start(HEARD)

    def attempt() -> float:
        with connect(proxy.here, 8443) as client:
            begun = time.monotonic()
            client.sendall(HELLO[:100])
            while segments_in(client) < SYN_ACK + ACK:
                assert time.monotonic() < begun + 60
            return time.monotonic() - begun

    assert quickest(attempt) < DELAYED / 2


def test_a_reload_that_begins_or_ceases_to_hear_clients_holds_for_sockets_that_listen_already(start: Start) -> None:
    proxy = start(PLAIN)
    proxy.reload(HEARD)
    assert packets(proxy, HELLO) == (SYN_ACK + DATA, SYN + DATA)
    proxy.reload(PLAIN)
    assert packets(proxy, HELLO) == (SYN_ACK + ACK + DATA, SYN + DATA + ACK)
