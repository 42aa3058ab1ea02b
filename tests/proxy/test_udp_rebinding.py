"""A QUIC client whose address or port changes keeps its connection: known by the id that its server chose."""

from __future__ import annotations

import pytest

from lab.realise.asking import wait_until
from tests.proxy.conftest import Start
from tests.proxy.running import DEADLINE
from tests.proxy.udp_bench import (
    drops,
    first_flight,
    flows,
    heard,
    long_header,
    short_header,
    silent,
    udp,
    wait_drops,
)
from tests.proxy.upgrading import upgrading

TEXT = """
[listener.in]
udp = ["HERE:8443"]
[[rule]]
protocols = ["quic"]
to = "b"
[backend.b]
targets = ["HERE:9001"]
"""


@pytest.mark.parametrize("size", [4, 8, 20])
@pytest.mark.parametrize("workers", [1, 4])
def test_new_endpoints_of_a_client_keep_its_flow_whichever_worker_they_meet(
    start: Start, workers: int, size: int
) -> None:
    proxy = start(f"workers = {workers}\n" + TEXT)
    chosen = bytes(range(1, size + 1))
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as client:
        client.sendto(first_flight("aioquic_v1")[0], (proxy.here, 8443))
        _, sender = heard(backend)
        backend.sendto(long_header(b"client's", chosen, b"hello"), sender)
        heard(client)
        client.sendto(short_header(chosen, b"data"), (proxy.here, 8443))
        assert heard(backend) == (short_header(chosen, b"data"), sender)
        # With four workers and as many endpoints, most of them are another worker's.
        for number in range(12):
            with udp(proxy.here) as moved:
                for turn in range(3):
                    data = short_header(chosen, f"{number} {turn}".encode())
                    moved.sendto(data, (proxy.here, 8443))
                    assert heard(backend) == (data, sender), "the backend sees the flow that it knows"
                    backend.sendto(b"\x40answer", sender)
                    answer, came_from = heard(moved)
                    assert (answer, came_from) == (b"\x40answer", (proxy.here, 8443))
        assert silent(client), "answers go to the last endpoint only"
        # And back.
        client.sendto(short_header(chosen, b"home"), (proxy.here, 8443))
        assert heard(backend) == (short_header(chosen, b"home"), sender)
        backend.sendto(b"\x40welcome", sender)
        assert heard(client)[0] == b"\x40welcome"
        wait_until(lambda: flows(proxy) == 1, DEADLINE, "there is one flow")
    assert drops(proxy) == {}


def test_what_follows_from_a_new_endpoint_belongs_to_the_flow_also_without_its_id(start: Start) -> None:
    proxy = start("workers = 4\n" + TEXT)
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as client:
        client.sendto(first_flight("aioquic_v1")[0], (proxy.here, 8443))
        _, sender = heard(backend)
        backend.sendto(long_header(b"client's", b"serverid", b"hello"), sender)
        heard(client)
        for _ in range(8):
            with udp(proxy.here) as moved:
                moved.sendto(short_header(b"serverid", b"data"), (proxy.here, 8443))
                assert heard(backend)[1] == sender
                moved.sendto(short_header(b"otherone", b"data"), (proxy.here, 8443))
                assert heard(backend) == (short_header(b"otherone", b"data"), sender)


@pytest.mark.parametrize("workers", [1, 4])
def test_a_client_that_has_moved_or_moves_is_known_after_an_upgrade_too(start: Start, workers: int) -> None:
    proxy = start(f"workers = {workers}\n" + TEXT)
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as client, upgrading(proxy) as upgrades:
        client.sendto(first_flight("aioquic_v1")[0], (proxy.here, 8443))
        _, sender = heard(backend)
        backend.sendto(long_header(b"client's", b"serverid", b"hello"), sender)
        heard(client)
        for _ in range(4):
            with udp(proxy.here) as moved:
                moved.sendto(short_header(b"serverid", b"before"), (proxy.here, 8443))
                assert heard(backend)[1] == sender
                upgrades.upgrade()
                # Without the id: what is known is the endpoint, by whichever worker.
                moved.sendto(short_header(b"otherone", b"after"), (proxy.here, 8443))
                assert heard(backend) == (short_header(b"otherone", b"after"), sender)
                backend.sendto(b"\x40answer", sender)
                assert heard(moved)[0] == b"\x40answer"
        wait_until(lambda: flows(proxy) == 1, DEADLINE, "there is one flow")
    assert len(proxy.lines()) == 1


def test_a_client_that_moves_while_its_handshake_lasts_is_known_too(start: Start) -> None:
    proxy = start("workers = 4\n" + TEXT)
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as client:
        client.sendto(first_flight("aioquic_v1")[0], (proxy.here, 8443))
        _, sender = heard(backend)
        backend.sendto(long_header(b"client's", b"retryone", b"again"), sender)
        backend.sendto(long_header(b"client's", b"serverid", b"hello"), sender)
        heard(client)
        heard(client)
        for chosen in (b"retryone", b"serverid"):
            with udp(proxy.here) as moved:
                moved.sendto(long_header(chosen, b"client's", b"finished"), (proxy.here, 8443))
                assert heard(backend) == (long_header(chosen, b"client's", b"finished"), sender)


def test_an_unknown_id_or_a_known_one_of_another_address_leads_nowhere(start: Start) -> None:
    proxy = start(TEXT.replace('["HERE:8443"]', '["HERE:8443", "HERE:8444"]'))
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as client, udp(proxy.here) as other:
        client.sendto(first_flight("aioquic_v1")[0], (proxy.here, 8443))
        backend.sendto(long_header(b"client's", b"serverid", b"hello"), heard(backend)[1])
        heard(client)
        other.sendto(short_header(b"serveriD", b"data"), (proxy.here, 8443))
        other.sendto(short_header(b"serverid", b"data"), (proxy.here, 8444))
        wait_drops(proxy, {"refused": 2})
        assert silent(backend)


def test_a_denied_endpoint_does_not_take_a_flow_over(start: Start) -> None:
    proxy = start('deny = ["127.0.0.1/32"]\n' + TEXT)
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as client, udp("127.0.0.1") as denied:
        client.sendto(first_flight("aioquic_v1")[0], (proxy.here, 8443))
        _, sender = heard(backend)
        backend.sendto(long_header(b"client's", b"serverid", b"hello"), sender)
        heard(client)
        denied.sendto(short_header(b"serverid", b"data"), (proxy.here, 8443))
        wait_drops(proxy, {"denied": 1})
        backend.sendto(b"\x40answer", sender)
        assert heard(client)[0] == b"\x40answer"


def test_an_id_is_forgotten_with_its_flow(start: Start) -> None:
    proxy = start(TEXT + '[timeouts]\nudp_idle = "150ms"\n')
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as client, udp(proxy.here) as moved:
        client.sendto(first_flight("aioquic_v1")[0], (proxy.here, 8443))
        backend.sendto(long_header(b"client's", b"serverid", b"hello"), heard(backend)[1])
        heard(client)
        wait_until(lambda: flows(proxy) == 0, DEADLINE, "the end of the flow")
        moved.sendto(short_header(b"serverid", b"data"), (proxy.here, 8443))
        wait_drops(proxy, {"refused": 1})
        assert silent(backend)
