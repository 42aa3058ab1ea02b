"""The identifier that joins the log lines of a flow at each hop: taken from a header, sent in one, and kept."""

from __future__ import annotations

import pytest

from tests.proxy.conftest import Start
from tests.proxy.ends import endpoint
from tests.proxy.proxy_protocol import ENDS, UDP4, UNIQUE_ID, tlv, v2
from tests.proxy.running import Proxy
from tests.proxy.udp_bench import Address, drops, first_flight, heard, silent, udp
from tests.proxy.upgrading import upgrading

HOP = """
[listener.in]
udp = ["HERE:8443"]
proxy_header = [{from = "127.0.0.1/32", policy = "require", udp = "FRAMING"}]
[[rule]]
CONDITION
to = "b"
[backend.b]
targets = ["HERE:9001"]
send_proxy_udp = "FORM"
send_proxy_with = ["unique_id"]
[timeouts]
udp_idle = "1h"
udp_one_way = "1h"
preface = "60s"
"""
GIVEN = [b"x", bytes(range(16)), b"\0\xff" * 64]


def hop(form: str, framing: str = "auto", condition: str = "") -> str:
    return HOP.replace("FORM", form).replace("FRAMING", framing).replace("CONDITION", condition)


def header(given: bytes | None) -> bytes:
    return v2(ENDS, b"" if given is None else tlv(UNIQUE_ID, given), family=UDP4)


def id_at(proxy: Proxy, client: Address) -> str:
    """That of the one flow of a client."""
    return str(proxy.wait_for(lambda line: line["client"] == endpoint(client), "its flow")["unique_id"])


@pytest.mark.parametrize("form", ["every", "first"])
@pytest.mark.parametrize("framing", ["every", "first", "auto"])
@pytest.mark.parametrize("given", GIVEN)
def test_the_id_of_a_header_is_in_the_line_and_in_the_next_header(
    start: Start, form: str, framing: str, given: bytes
) -> None:
    proxy = start(hop(form, framing))
    with udp(proxy.here, 9001) as backend, udp("127.0.0.1") as peer:
        second = b"" if framing == "first" else header(given)
        for sent, payload in ((header(given), b"one"), (second, b"two")):
            peer.sendto(sent + payload, (proxy.here, 8443))
            has_header = form == "every" or payload == b"one"
            assert heard(backend)[0] == (header(given) if has_header else b"") + payload
        assert id_at(proxy, ENDS[0]) == given.hex()


def test_an_id_that_comes_later_changes_nothing(start: Start) -> None:
    proxy = start(hop("every"))
    with udp(proxy.here, 9001) as backend, udp("127.0.0.1") as peer:
        for given in (b"first", b"later", None):
            peer.sendto(header(given) + b"?", (proxy.here, 8443))
            assert heard(backend)[0] == header(b"first") + b"?"
        assert id_at(proxy, ENDS[0]) == b"first".hex()


def test_each_of_the_flows_of_one_peer_has_its_own_id(start: Start) -> None:
    proxy = start(hop("every"))
    with udp(proxy.here, 9001) as backend, udp("127.0.0.1") as peer:
        for number in range(5):
            ends = ((f"203.0.113.{number}", 7), ENDS[1])
            whole = v2(ends, tlv(UNIQUE_ID, b"%d" % number), family=UDP4) + b"?"
            peer.sendto(whole, (proxy.here, 8443))
            assert heard(backend)[0] == whole
            assert id_at(proxy, ends[0]) == (b"%d" % number).hex()


@pytest.mark.parametrize("form", ["every", "first"])
def test_lines_of_edge_and_home_are_joined_by_the_id_of_the_edge(start: Start, form: str) -> None:
    home = start(hop("every", "every" if form == "every" else "first").replace("127.0.0.1/32", "127.0.0.0/8"))
    edge_text = hop(form).replace("HERE:9001", f"{home.here}:8443")
    edge = start("\n".join(line for line in edge_text.splitlines() if not line.startswith("proxy_header")))
    with udp(home.here, 9001) as backend:
        for _ in range(3):
            with udp(edge.here) as client:
                client.sendto(b"?", (edge.here, 8443))
                backend.sendto(b"!", heard(backend)[1])
                assert heard(client)[0] == b"!"
                own = client.getsockname()[:2]
                assert id_at(edge, own) == id_at(home, own)
    assert drops(edge) == drops(home) == {}


def test_without_the_key_no_id_is_sent_and_the_line_has_it_all_the_same(start: Start) -> None:
    proxy = start(hop("every").replace('send_proxy_with = ["unique_id"]', ""))
    with udp(proxy.here, 9001) as backend, udp("127.0.0.1") as peer:
        peer.sendto(header(b"given") + b"?", (proxy.here, 8443))
        assert heard(backend)[0] == header(None) + b"?"
        assert id_at(proxy, ENDS[0]) == b"given".hex()


@pytest.mark.parametrize("is_held", [False, True])
def test_an_upgrade_keeps_the_id_also_of_a_flow_that_has_no_backend_yet(start: Start, *, is_held: bool) -> None:
    proxy = start(hop("first", condition="server_name = '^.+$'" if is_held else ""))
    flight = first_flight("aioquic_v1_long")
    with udp(proxy.here, 9001) as backend, udp("127.0.0.1") as peer, upgrading(proxy) as upgrades:
        peer.sendto(header(b"given") + flight[0], (proxy.here, 8443))
        assert id_at(proxy, ENDS[0]) == b"given".hex()
        assert silent(backend) or not is_held, "half a hello has no name"
        upgrades.upgrade()
        for datagram in flight[1:]:
            peer.sendto(header(None) + datagram, (proxy.here, 8443))
        assert [heard(backend)[0] for _ in flight] == [header(b"given") + flight[0], *flight[1:]]
        assert id_at(proxy, ENDS[0]) == b"given".hex()
