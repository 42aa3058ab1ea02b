"""Two proxies that lead to each other: a connection that comes back is known by its identifier, and refused."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from lab.realise.asking import wait_until
from tests.proxy import proxy_protocol as pp
from tests.proxy.conftest import Start
from tests.proxy.ends import accepted, connect, listening, own, read, refused
from tests.proxy.running import DEADLINE, Proxy, own_address

CONFIG = """
[listener.in]
tcp = ["HERE:8443"]
proxy_header = [{from = "127.0.0.0/8", policy = "optional"}]
[[rule]]
protocols = ["ssh"]
to = "other"
[backend.other]
targets = ["OTHER:$port"]
send_proxy = "v2"
send_proxy_with = ["unique_id"]
"""
# Two listeners of an edge: a TLS terminator, which the test is, leads from the one to the other.
TWICE = CONFIG.replace(
    "[[rule]]",
    """[listener.plain]
tcp = ["HERE:8080"]
proxy_header = [{from = "127.0.0.0/8", policy = "optional"}]
[[rule]]""",
).replace("OTHER:$port", "OTHER:8443")
SAID = b"SSH-2.0-x\r\n"


def closes(proxy: Proxy, unique_id: str) -> list[str]:
    return [line["close"] for line in proxy.lines() if line["unique_id"] == unique_id]


@pytest.mark.parametrize("given", [b"", b"of a proxy before"], ids=["own", "given"])
def test_a_connection_that_comes_back_by_another_proxy_is_refused(start: Start, given: bytes) -> None:
    here, there = own_address(), own_address()
    one, other = start(CONFIG.replace("OTHER", there), here), start(CONFIG.replace("OTHER", here), there)
    said = (pp.v2(((("203.0.113.7", 40000), (here, 8443))), pp.tlv(pp.UNIQUE_ID, given)) if given else b"") + SAID
    who = refused(here, 8443, said, "127.0.0.2")
    unique_id = one.line(who)["unique_id"]
    assert unique_id == given.hex() or not given
    wait_until(lambda: len(closes(one, unique_id)) == 2, DEADLINE, "both lines")
    assert sorted(closes(one, unique_id)) == ["backend_reset", "self_loop"]
    wait_until(lambda: closes(other, unique_id) == ["backend_reset"], DEADLINE, "the other's line")
    assert (len(one.lines()), len(other.lines())) == (2, 1), "nobody went round again"


def test_an_identifier_is_free_again_when_its_connection_has_ended_and_a_peer_may_give_the_same_to_many(
    start: Start,
) -> None:
    there = own_address()
    proxy = start(CONFIG.replace("OTHER", there))
    said = pp.v2(tlvs=pp.tlv(pp.UNIQUE_ID, b"same"), ends=(("203.0.113.7", 40000), (proxy.here, 8443))) + SAID
    with listening(there, 8443) as server:
        with ExitStack() as stack:
            names = []
            for number in range(2):
                client = stack.enter_context(connect(proxy.here, 8443, "127.0.0.2"))
                client.sendall(said)
                with accepted(server) as end:
                    read(end, len(SAID))
                    if number == 0:
                        proxy.ended(refused(proxy.here, 8443, said, "127.0.0.3"), "self_loop")
                names.append(own(client))
        assert [proxy.line(name)["header_out"] for name in names] == ["v2", "v2"]
        with connect(proxy.here, 8443, "127.0.0.3") as third:
            third.sendall(said)
            with accepted(server) as end:
                assert pp.decode(read(end, 16 + 12 + 3 + len(b"same") + len(SAID))).rest == SAID


def test_another_listener_leads_on_what_comes_back_once(start: Start) -> None:
    there = own_address()
    proxy = start(TWICE.replace("OTHER", there))
    with listening(there, 8443) as server, connect(proxy.here, 8443, "127.0.0.2") as client:
        client.sendall(SAID)
        with accepted(server) as end:
            unique_id = pp.decode(read(end, 16 + 12 + 3 + 16 + len(SAID))).tlvs[pp.UNIQUE_ID]
            said = pp.v2(tlvs=pp.tlv(pp.UNIQUE_ID, unique_id), ends=(("203.0.113.7", 40000), (proxy.here, 443))) + SAID
            proxy.ended(refused(proxy.here, 8443, said, there), "self_loop")
            with connect(proxy.here, 8080, there) as again:
                again.sendall(said)
                with accepted(server) as second:
                    assert pp.decode(read(second, 16 + 12 + 3 + 16 + len(SAID))).tlvs[pp.UNIQUE_ID] == unique_id
                    proxy.ended(refused(proxy.here, 8080, said, there), "self_loop")
