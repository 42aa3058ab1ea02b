"""Signed PROXY headers with datagrams: before each, or before the first; across reloads and upgrades."""

from __future__ import annotations

import socket

import pytest

from lab.realise.asking import wait_until
from tests.proxy import proxy_protocol as pp
from tests.proxy.conftest import Keys, Start
from tests.proxy.running import DEADLINE, Proxy
from tests.proxy.udp_bench import decode, heard, silent, udp, wait_drops
from tests.proxy.upgrading import upgrading

ONE, TWO, THREE = bytes(range(32)), bytes(range(32, 64)), bytes(range(64, 128))
HOME = """
[listener.in]
udp = ["HERE:8443"]
proxy_header = [{from = "127.0.0.0/8", policy = "POLICY", udp = "FRAMING", key = "KEY"}]
[[rule]]
to = "b"
[backend.b]
targets = ["HERE:9001"]
send_proxy_udp = "every"
"""
EDGE = """
[listener.in]
udp = ["HERE:8443"]
[[rule]]
to = "home"
[backend.home]
targets = ["HOME"]
send_proxy_udp = "FRAMING"
send_proxy_udp_with = ["unique_id"]
sign_proxy = "KEY"
"""


def home(start: Start, key: str, policy: str, framing: str) -> Proxy:
    return start(HOME.replace("POLICY", policy).replace("FRAMING", framing).replace("KEY", key))


def signed(key: bytes, payload: bytes, ends: pp.Ends = pp.ENDS, age: float = 0.0) -> bytes:
    return pp.signed(key, ends, family=pp.UDP6 if ":" in ends[0][0] else pp.UDP4, age=age) + payload


def outcome(proxy: Proxy, word: str) -> int:
    return int(proxy.metrics()[f'edgeproxy_proxy_headers_received_total{{outcome="{word}"}}'])


REFUSED = {
    "unsigned": pp.v2(family=pp.UDP4) + b"x",
    "wrongly_signed": signed(THREE, b"x"),
    "signed_stale": signed(ONE, b"x", age=3600.0),
    "missing": b"plain",
    "broken": signed(ONE, b"")[:60],
}


@pytest.mark.parametrize("policy", ["require", "optional"])
@pytest.mark.parametrize("framing", ["every", "first"])
def test_only_a_signed_header_names_a_client_and_who_sends_others_spoils_nothing(
    start: Start, keys: Keys, policy: str, framing: str
) -> None:
    proxy = home(start, keys(ONE, TWO), policy, framing)
    refused = {word: datagram for word, datagram in REFUSED.items() if policy == "require" or word != "missing"}
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as peer:
        for datagram in refused.values():
            peer.sendto(datagram, (proxy.here, 8443))
        wait_drops(proxy, {"header": len(refused)})
        assert silent(backend)
        assert {word: outcome(proxy, word) for word in refused} == dict.fromkeys(refused, 1)
        for number, (key, ends) in enumerate([(ONE, pp.ENDS), (TWO, pp.ENDS6)]):
            with udp(proxy.here) as other:
                sender = peer if number == 0 else other
                sender.sendto(signed(key, b"payload", ends), (proxy.here, 8443))
                found = decode(heard(backend)[0])
        assert (found.source, found.destination, found.rest) == (*pp.ENDS6, b"payload")


def test_before_each_datagram_a_header_may_come_again(start: Start, keys: Keys) -> None:
    proxy = home(start, keys(ONE), "require", "every")
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as peer:
        header = signed(ONE, b"")
        for number in range(5):
            peer.sendto(header + b"%d" % number, (proxy.here, 8443))
            assert decode(heard(backend)[0]).rest == b"%d" % number
        peer.sendto(b"bare", (proxy.here, 8443))
        wait_drops(proxy, {"header": 1})


def test_before_the_first_datagram_a_header_counts_once_and_what_follows_is_payload(start: Start, keys: Keys) -> None:
    proxy = home(start, keys(ONE), "require", "first")
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as peer, udp(proxy.here) as thief:
        first, forged = signed(ONE, b"1"), pp.v2((("203.0.113.9", 1), pp.ENDS[1]), family=pp.UDP4)
        for datagram, payload in ((first, b"1"), (b"2", b"2"), (forged, forged)):
            peer.sendto(datagram, (proxy.here, 8443))
            found = decode(heard(backend)[0])
            assert (found.source, found.rest) == (pp.ENDS[0], payload)
        thief.sendto(first, (proxy.here, 8443))
        wait_drops(proxy, {"header": 1})
        assert outcome(proxy, "signed_replayed") == 1
        assert silent(backend)


@pytest.mark.essential
@pytest.mark.parametrize("framing", ["every", "first"])
def test_a_home_believes_the_clients_of_its_edge(start: Start, keys: Keys, framing: str) -> None:
    key = keys(ONE)
    inner = home(start, key, "require", framing)
    edge = start(EDGE.replace("KEY", key).replace("FRAMING", framing).replace("HOME", f"{inner.here}:8443"))
    with udp(inner.here, 9001) as backend, udp(edge.here) as client, udp(edge.here) as other:
        for number in range(3):
            for end in (client, other):
                end.sendto(b"%d" % number, (edge.here, 8443))
                datagram, proxy = heard(backend)
                found = decode(datagram)
                assert (found.source, found.rest) == (end.getsockname(), b"%d" % number)
                backend.sendto(b"answer %d" % number, proxy)
                assert heard(end)[0] == b"answer %d" % number
    assert outcome(inner, "unsigned") == outcome(inner, "wrongly_signed") == outcome(inner, "signed_replayed") == 0


def header_of(edge: Proxy, client: socket.socket, backend: socket.socket) -> bytes:
    """The header before the datagram that a client sends now."""
    client.sendto(b"payload", (edge.here, 8443))
    return heard(backend)[0].removesuffix(b"payload")


def signed_at(header: bytes) -> int:
    """Milliseconds since 1970."""
    return int.from_bytes(header[-56:-48])


def test_a_flow_signs_anew_with_new_keys_and_in_a_new_process(start: Start, keys: Keys) -> None:
    key = keys(ONE)
    config = EDGE.replace("KEY", key).replace("FRAMING", "every").replace("HOME", "HERE:9001")
    edge = start(config)
    with udp(edge.here, 9001) as backend, udp(edge.here) as client, upgrading(edge) as upgrades:
        first = header_of(edge, client, backend)
        assert pp.is_signed(first, ONE)
        keys(TWO, ONE, at=key)
        edge.reload(config)
        anew: list[bytes] = []

        def is_signed_anew(than: bytes, by: bytes) -> bool:
            anew[:] = [header_of(edge, client, backend)]
            return signed_at(anew[0]) > signed_at(than) and pp.is_signed(anew[0], by)

        wait_until(lambda: is_signed_anew(first, TWO), DEADLINE, "another signature, by the new key")
        (second,) = anew
        assert second[:-56] == first[:-56], "it is the header of the same flow"
        assert signed_at(second) - signed_at(first) >= 5_000
        upgrades.upgrade()
        third = header_of(edge, client, backend)
        assert third[:-56] == second[:-56]
        wait_until(lambda: is_signed_anew(third, TWO), DEADLINE, "another signature, by another process")


def test_a_signature_takes_of_the_payload_what_doctor_reckons_with(start: Start, keys: Keys) -> None:
    edge = start(EDGE.replace("KEY", keys(ONE)).replace("FRAMING", "every").replace("HOME", "HERE:9001"))
    with udp(edge.here, 9001) as backend, udp(edge.here) as client:
        assert len(header_of(edge, client, backend)) == 16 + 12 + 19 + 60
