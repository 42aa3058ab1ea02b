"""The PROXY protocol with datagrams: who is believed, what backends and peers get, whatever sizes and batches are."""

from __future__ import annotations

import socket

import pytest

from lab.realise.asking import wait_until
from tests.proxy.conftest import Start
from tests.proxy.ends import endpoint
from tests.proxy.proxy_protocol import ENDS, ENDS6, LOCAL, TCP4, TCP6, UDP4, UDP6, Ends, v2
from tests.proxy.running import DEADLINE
from tests.proxy.udp_bench import (
    Address,
    decode,
    drops,
    heard,
    send_joined,
    silent,
    simple_header,
    udp,
    wait_drops,
)

OTHER: Ends = ("203.0.113.8", 40001), ("198.51.100.1", 443)
IN = """
[listener.in]
udp = ["HERE:8443"]
proxy_header = [{from = "127.0.0.0/8", policy = "POLICY", udp = "FRAMING"}]
[[rule]]
to = "b"
[backend.b]
targets = ["HERE:9001"]
send_proxy_udp = "every"
"""
OUT = """
[listener.in]
udp = ["HERE:8443"]
[[rule]]
to = "b"
[backend.b]
targets = ["HERE:9001"]
send_proxy_udp = "FORM"
"""


def header(ends: Ends, payload: bytes = b"") -> bytes:
    return v2(ends, family=UDP6 if ":" in ends[0][0] else UDP4) + payload


def simple(ends: Ends, payload: bytes = b"") -> bytes:
    return simple_header(*ends) + payload


# What a peer sends, and for whom each of its datagrams is (None: the peer itself; a word: why it is dropped).
FIRST, SECOND, SPP, BARE = header(ENDS, b"1"), header(OTHER, b"2"), simple(ENDS, b"s"), b"plain"
EMPTY = header(ENDS)
MATRIX: dict[tuple[str, str], list[tuple[bytes, Ends | str | None]]] = {
    ("never", "auto"): [(FIRST, None), (BARE, None), (SPP, None)],
    ("require", "every"): [(FIRST, ENDS), (SECOND, OTHER), (EMPTY, ENDS), (BARE, "header"), (SPP, "header")],
    ("require", "first"): [(FIRST, ENDS), (BARE, ENDS), (SECOND, ENDS)],
    ("require", "spp"): [(SPP, ENDS), (FIRST, "header"), (BARE, "header")],
    ("require", "auto"): [(FIRST, ENDS), (BARE, ENDS), (SECOND, OTHER), (BARE, OTHER)],
    ("optional", "every"): [(BARE, None), (FIRST, ENDS), (BARE, None)],
    ("optional", "first"): [(BARE, None), (FIRST, None), (SECOND, None)],  # what a client may have written
    ("optional", "spp"): [(SPP, ENDS), (BARE, None), (FIRST, None)],
    ("optional", "auto"): [(SPP, ENDS), (BARE, None), (SPP, ENDS)],
}


@pytest.mark.parametrize("beginning", [BARE, header(ENDS)[:20], v2(ENDS) + b"of TCP", b"PROXY UNKNOWN\r\n"])
def test_behind_a_socket_that_began_without_its_header_no_client_gives_itself_a_name(
    start: Start, beginning: bytes
) -> None:
    proxy = start(IN.replace("POLICY", "require").replace("FRAMING", "first"))
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as peer:
        for datagram in (beginning, SECOND, BARE):
            peer.sendto(datagram, (proxy.here, 8443))
        wait_drops(proxy, {"header": 3})
        assert silent(backend)


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize(("policy", "framing"), MATRIX)
def test_each_policy_and_framing_believes_what_it_says(
    start: Start, policy: str, framing: str, *, joined: bool
) -> None:
    proxy = start(IN.replace("POLICY", policy).replace("FRAMING", framing))
    sent = MATRIX[policy, framing]
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as peer:
        own: Address = peer.getsockname()[:2]
        if joined:
            _send_in_runs(peer, (proxy.here, 8443), [datagram for datagram, _ in sent])
        else:
            for datagram, _ in sent:
                peer.sendto(datagram, (proxy.here, 8443))
        expected = []
        for datagram, whose in sent:
            if whose is None:
                expected.append((own, (proxy.here, 8443), datagram))
            elif not isinstance(whose, str):
                payload = datagram
                if datagram in {FIRST, SECOND, EMPTY} and not (framing == "first" and datagram == SECOND):
                    payload = datagram[len(EMPTY) :]
                expected.append((*whose, b"s" if datagram == SPP else payload))
        found = []
        for _ in expected:
            read = decode(heard(backend)[0])
            found.append((read.source, read.destination, read.rest))
        assert sorted(found) == sorted(expected), "flows of one peer may overtake each other"
        wait_drops(proxy, {"header": dropped} if (dropped := sum(whose == "header" for _, whose in sent)) else {})
        assert silent(backend)


def _send_in_runs(peer: socket.socket, to: Address, datagrams: list[bytes]) -> None:
    """Neighbours of one size by one call."""
    run: list[bytes] = []
    for datagram in datagrams:
        if run and len(run[0]) != len(datagram):
            send_joined(peer, to, run)
            run = []
        run.append(datagram)
    send_joined(peer, to, run)


@pytest.mark.parametrize("framing", ["every", "spp", "first"])
def test_payloads_of_one_client_that_arrive_together_leave_together(start: Start, framing: str) -> None:
    text = IN.replace("POLICY", "require").replace("FRAMING", framing)
    proxy = start("workers = 1\n" + text.replace('send_proxy_udp = "every"\n', ""))
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as peer:
        backend.setsockopt(socket.IPPROTO_UDP, 104, 1)  # UDP_GRO (udp(7))
        wrap = simple if framing == "spp" else header
        peer.sendto(wrap(ENDS, b"first"), (proxy.here, 8443))
        assert heard(backend)[0] == b"first"
        flight = [bytes([number]) * 1000 for number in range(10)]
        wrapped = flight if framing == "first" else [wrap(ENDS, payload) for payload in flight]
        if framing != "first":
            wrapped[5:5] = [wrap(OTHER, b"o" * 1000)]
        send_joined(peer, (proxy.here, 8443), wrapped)
        expected = [flight] if framing == "first" else [flight[:5], [b"o" * 1000], flight[5:]]
        for run in expected:
            assert backend.recv(1 << 16) == b"".join(run), "of each run one message"
    assert drops(proxy) == {}


def test_clients_on_one_socket_of_a_peer_have_flows_and_answers_of_their_own(start: Start) -> None:
    proxy = start(IN.replace("POLICY", "require").replace("FRAMING", "spp"))
    third: Ends = (ENDS[0], ("198.51.100.1", 444))  # the same client, at another port
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as peer:
        flows = {}
        for ends in (ENDS, OTHER, third, ENDS6):
            peer.sendto(simple(ends, b"?"), (proxy.here, 8443))
            asked, sender = heard(backend)
            read = decode(asked)
            assert (read.source, read.destination) == ends
            flows[ends] = sender
        assert len(set(flows.values())) == 4
        for ends, sender in flows.items():
            backend.sendto(f"to {ends}".encode(), sender)
            answer, came_from = heard(peer)
            assert answer == simple(ends, f"to {ends}".encode()), "Cloudflare wants its header back"
            assert came_from == (proxy.here, 8443)


@pytest.mark.parametrize("is_answered", [False, True])
def test_no_client_names_itself_after_its_flow_has_ended_while_its_peers_session_goes_on(
    start: Start, *, is_answered: bool
) -> None:
    # An answered flow ends by its own time: the other would end it before a busy backend has answered.
    one_way = "10m" if is_answered else "150ms"
    timeouts = f'[timeouts]\nudp_one_way = "{one_way}"\nudp_idle = "150ms"\n'
    proxy = start(IN.replace("POLICY", "require").replace("FRAMING", "first") + timeouts)
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as peer:
        for sent, payload in ((FIRST, b"1"), (SECOND, SECOND), (BARE, BARE)):
            peer.sendto(sent, (proxy.here, 8443))
            asked, sender = heard(backend)
            read = decode(asked)
            assert (read.source, read.destination, read.rest) == (*ENDS, payload)
            if is_answered:
                backend.sendto(b"!", sender)
                assert heard(peer)[0] == b"!"
            wait_until(lambda: proxy.connections() == [], DEADLINE, "the flow's end")
    ended = [endpoint(ENDS[0])] * 3
    wait_until(lambda: [line["client"] for line in proxy.lines()] == ended, DEADLINE, "the flows' lines")


def test_answers_to_a_peer_with_headers_of_version_2_are_bare(start: Start) -> None:
    proxy = start(IN.replace("POLICY", "require").replace("FRAMING", "every"))
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as peer:
        peer.sendto(header(ENDS6, b"?"), (proxy.here, 8443))
        asked, sender = heard(backend)
        assert (decode(asked).source, decode(asked).destination, decode(asked).rest) == (*ENDS6, b"?")
        backend.sendto(b"!", sender)
        assert heard(peer)[0] == b"!"


def test_headers_that_name_nobody_are_for_the_peer_itself_and_broken_ones_are_dropped(start: Start) -> None:
    proxy = start(IN.replace("POLICY", "require").replace("FRAMING", "every"))
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as peer:
        own = peer.getsockname()[:2]
        for nobody in (v2(None, command=LOCAL), v2(ENDS, command=LOCAL, family=UDP4)):
            peer.sendto(nobody + b"x", (proxy.here, 8443))
            read = decode(heard(backend)[0])
            assert (read.source, read.rest) == (own, b"x")
        whole = header(ENDS)
        for cut in range(len(whole)):
            peer.sendto(whole[:cut], (proxy.here, 8443))
        for of_a_connection in (v2(ENDS, family=TCP4), v2(ENDS6, family=TCP6)):
            peer.sendto(of_a_connection + b"x", (proxy.here, 8443))
        wait_drops(proxy, {"header": len(whole) + 2})
        assert silent(backend)


def test_the_deny_list_holds_for_clients_that_peers_name_also_in_their_later_datagrams(start: Start) -> None:
    text = 'deny = ["203.0.113.7/32"]\n' + IN.replace("POLICY", "optional").replace("FRAMING", "first")
    proxy = start(text)
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as peer:
        for datagram in (header(ENDS, b"first"), b"second", b"third"):
            peer.sendto(datagram, (proxy.here, 8443))
        wait_drops(proxy, {"denied": 3})
        assert silent(backend)


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("form", ["every", "first", "spp"])
def test_a_backend_gets_the_header_that_it_wants_with_each_size(start: Start, form: str, *, joined: bool) -> None:
    proxy = start(OUT.replace("FORM", form))
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as client:
        backend.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        own = client.getsockname()[:2]
        flight = [bytes([number]) * 1200 for number in range(10)] + [b""]
        for is_first in (True, False):
            if joined:
                send_joined(client, (proxy.here, 8443), flight[:-1])
                client.sendto(flight[-1], (proxy.here, 8443))
            else:
                for datagram in flight:
                    client.sendto(datagram, (proxy.here, 8443))
            found = [heard(backend)[0] for _ in flight]
            if form == "spp":
                assert found == [simple_header(own, (proxy.here, 8443)) + datagram for datagram in flight]
                continue
            headed = len(flight) if form == "every" else int(is_first)
            read = [decode(datagram) for datagram in found[:headed]]
            assert all((each.source, each.destination) == (own, (proxy.here, 8443)) for each in read)
            assert [each.rest for each in read] + found[headed:] == flight
    assert drops(proxy) == {}


def test_a_datagram_that_is_too_long_with_its_header_is_told_and_the_next_one_goes(start: Start) -> None:
    for form in ("every", "first", "spp"):
        proxy = start(OUT.replace("FORM", form))
        with udp(proxy.here, 9001) as backend, udp(proxy.here) as client:
            client.sendto(bytes(65507), (proxy.here, 8443))
            wait_drops(proxy, {"too_long": 1})
            client.sendto(b"short", (proxy.here, 8443))
            datagram, _ = heard(backend)
            expected = simple_header(client.getsockname()[:2], (proxy.here, 8443))
            read = datagram.removeprefix(expected) if form == "spp" else decode(datagram).rest
            assert read == b"short", "and it has the header, though it is not the first"


def test_the_log_tells_peer_and_client_of_a_flow(start: Start) -> None:
    text = IN.replace("POLICY", "require").replace("FRAMING", "every") + '[timeouts]\nudp_one_way = "150ms"\n'
    proxy = start(text)
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as peer:
        peer.sendto(header(ENDS, b"?"), (proxy.here, 8443))
        heard(backend)
        line = proxy.line(endpoint(peer.getsockname()[:2]))
        assert (line["client"], line["original_dst"]) == (endpoint(ENDS[0]), endpoint(ENDS[1]))
        assert (line["header_in"], line["header_out"], line["close"]) == ("v2", "v2", "one_way_timeout")


def test_a_header_with_nothing_behind_it_is_an_empty_datagram_of_its_client(start: Start) -> None:
    proxy = start(IN.replace("POLICY", "require").replace("FRAMING", "every"))
    with udp(proxy.here, 9001) as backend, udp("127.0.0.1") as peer:
        peer.sendto(header(ENDS), (proxy.here, 8443))
        datagram, proxied = heard(backend)
        assert datagram == header(ENDS)
        backend.sendto(b"", proxied)
        assert heard(peer)[0] == b""
