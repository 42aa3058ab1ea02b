"""Flows of datagrams: whose answers are whose, what a first flight may be, how each flow ends, what a reload leaves."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack

import pytest

from lab.realise.asking import wait_until
from tests.proxy.conftest import Start
from tests.proxy.ends import endpoint
from tests.proxy.running import DEADLINE, Proxy
from tests.proxy.udp_bench import (
    drops,
    first_flight,
    flow_ended,
    flows,
    heard,
    met,
    send_joined,
    silent,
    udp,
    wait_drops,
)

PLAIN = """
[listener.in]
udp = ["HERE:8443"]
[[rule]]
to = "b"
[backend.b]
targets = ["HERE:9001"]
"""


def port_v6() -> int:
    """One that hardly any other test has at ::1, below those that the kernel gives (ip_local_port_range, ip(7))."""
    return random.SystemRandom().randrange(10_000, 20_000)


@pytest.mark.parametrize("here", ["", "::1"])
def test_two_clients_at_once_never_get_each_others_answers(start: Start, here: str) -> None:
    text = PLAIN
    if here:
        port = port_v6()
        text = PLAIN.replace("HERE:8443", f"[::1]:{port}").replace("HERE:9001", f"[::1]:{port + 10_000}")
    proxy = start(text)
    own = here or proxy.here
    listener, target = (int(line.rsplit(":", 1)[1].split('"')[0]) for line in text.splitlines() if '["' in line)
    with udp(own, target) as backend, udp(own) as one, udp(own) as other:
        for turn in range(20):
            for client in (one, other):
                client.sendto(f"{client.fileno()} {turn}".encode(), (own, listener))
            for _ in range(2):
                asked, sender = heard(backend)
                backend.sendto(b"to " + asked, sender)
        for client in (one, other):
            for turn in range(20):
                answer, sender = heard(client)
                assert answer == f"to {client.fileno()} {turn}".encode()
                assert sender == (own, listener), "answers come from where the client sent to"
        assert silent(one)
        assert silent(other)
    assert drops(proxy) == {}


def test_a_datagram_of_any_size_comes_through_both_ways(start: Start) -> None:
    proxy = start(PLAIN)
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as client:
        for size in (0, 1, 1200, 1472, 9000, 65507):
            client.sendto(bytes(size), (proxy.here, 8443))
            asked, sender = heard(backend)
            assert len(asked) == size
            backend.sendto(b"\1" * size, sender)
            assert heard(client)[0] == b"\1" * size
    assert drops(proxy) == {}


@pytest.mark.parametrize("joined", [False, True])
def test_a_first_flight_arrives_whole_and_in_order(start: Start, *, joined: bool) -> None:
    proxy = start(PLAIN)
    flight = [bytes([number]) * 1200 for number in range(12)] + [b"last"]
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as client:
        if joined:
            send_joined(client, (proxy.here, 8443), flight)
        else:
            for datagram in flight:
                client.sendto(datagram, (proxy.here, 8443))
        assert [heard(backend)[0] for _ in flight] == flight
    assert drops(proxy) == {}


def test_what_an_undecided_flow_may_keep_is_bounded_by_bytes_and_told(start: Start) -> None:
    text = PLAIN.replace('to = "b"', 'protocols = ["quic"]\nto = "b"')
    proxy = start(text + '[limits]\npreface_bytes = "4KiB"\n[timeouts]\npreface = "2s"\n')
    # The beginning of a hello, again and again: it never comes to an end.
    beginning = first_flight("aioquic_v1_long")[0]
    with udp(proxy.here) as client:
        for _ in range(20):
            client.sendto(beginning, (proxy.here, 8443))
        wait_until(lambda: sum(drops(proxy).values()) == 20, DEADLINE, "none waits any more")
        found, peer = drops(proxy), endpoint(client.getsockname()[:2])
        assert set(found) <= {"held_too_many", "refused", "no_upstream"}

        def have_ended() -> bool:
            """4 KiB are three datagrams of 1200 bytes. What the proxy hears after a flow's end begins another flow."""
            proxy.connections()  # whoever is not here any more is on the way to the log by then
            return found["refused"] <= 3 * len(proxy.lines_of(peer))

        wait_until(have_ended, DEADLINE, f"flows of three datagrams at most have ended; {found}")
        assert {line["close"] for line in proxy.lines_of(peer)} == {"no_rule"}
        assert len(proxy.lines_of(peer)) < 7, "else nothing would be bounded"


def test_half_hellos_of_many_do_not_keep_a_newcomer_out(start: Start) -> None:
    text = PLAIN.replace('to = "b"', 'protocols = ["quic"]\nto = "b"')
    limits = '[limits]\nudp_flows_per_source = 10000\n[timeouts]\npreface = "10m"\n'
    proxy = start("workers = 1\n" + text + limits)
    beginning = first_flight("aioquic_v1_long")[0]
    opened = 'edgeproxy_opened_total{listener="in",transport="udp"}'
    with ExitStack() as stack:
        for count in range(1, 401):  # together more than the 16 MiB that a worker keeps
            half = stack.enter_context(udp(proxy.here))
            half.sendto(beginning + bytes(60_000), (proxy.here, 8443))
            if count % 4 == 0:  # what the socket of a busy worker holds
                wait_until(lambda at=count: proxy.metrics()[opened] == at, DEADLINE, "flows")  # type: ignore[misc]
        backend, client = stack.enter_context(udp(proxy.here, 9001)), stack.enter_context(udp(proxy.here))
        wait_until(lambda: drops(proxy).get("flow_limit", 0) > 0, DEADLINE, "the worker keeps no more")
        client.sendto(first_flight("aioquic_v1")[0], (proxy.here, 8443))
        assert heard(backend)[0] == first_flight("aioquic_v1")[0]
    assert int(proxy.status()["RssAnon"].split()[0]) < 40_000, "kilobytes"


@pytest.mark.parametrize("flight", ["aioquic_v1_long", "chromium", "quic_go_v2"])
@pytest.mark.parametrize("apart", [False, True])
def test_a_hello_of_several_datagrams_is_led_by_its_name(start: Start, flight: str, *, apart: bool) -> None:
    text = """
[listener.in]
udp = ["HERE:8443"]
[[rule]]
server_name = '^(?P<host>[^.]+)(?:\\.[^.]+)*$'
to = "b"
[backend.b]
targets = ["HERE:9001"]
[timeouts]
preface = "10m"
"""
    proxy = start(text)
    datagrams = first_flight(flight)
    with udp(proxy.here, 9001) as backend:
        # Again and again: a wake-up that is lost now and then would be lost in one of them.
        for _ in range(8):
            with udp(proxy.here) as client:
                for at, datagram in enumerate(datagrams):
                    if apart and at:
                        wait_until(lambda: flows(proxy) >= 1, DEADLINE, "the flow")
                    client.sendto(datagram, (proxy.here, 8443))
                assert [heard(backend)[0] for _ in datagrams] == datagrams


def test_flows_end_by_their_own_silence_and_by_that_of_one_side(start: Start) -> None:
    proxy = start(PLAIN + '[timeouts]\nudp_one_way = "5s"\nudp_idle = "6s"\n')
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as lonely, udp(proxy.here) as answered:
        answered.sendto(b"is anybody there?", (proxy.here, 8443))
        backend.sendto(b"yes", heard(backend)[1])
        assert heard(answered)[0] == b"yes"
        lonely.sendto(b"is anybody there?", (proxy.here, 8443))
        heard(backend)
        line = flow_ended(proxy, lonely, "one_way_timeout")
        assert line["total_us"] >= 5_000_000
        line = flow_ended(proxy, answered, "idle_timeout")
        assert line["total_us"] >= 6_000_000
        assert (line["bytes_in"], line["bytes_out"]) == (17, 3)
    wait_until(lambda: flows(proxy) == 0, DEADLINE, "no flow is left")
    wait_until(lambda: active(proxy, "b") == 0, DEADLINE, "the backend has none")


def active(proxy: Proxy, backend: str) -> int:
    return int(proxy.metrics()[f'edgeproxy_backend_active{{backend="{backend}"}}'])


def test_an_answered_flow_may_have_the_shorter_time(start: Start) -> None:
    proxy = start(PLAIN + '[timeouts]\nudp_one_way = "10m"\nudp_idle = "150ms"\n')
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as client:
        client.sendto(b"?", (proxy.here, 8443))
        backend.sendto(b"!", heard(backend)[1])
        heard(client)
        flow_ended(proxy, client, "idle_timeout")


def test_a_candidate_where_nobody_is_hands_the_first_flight_to_the_next(start: Start) -> None:
    text = PLAIN.replace('targets = ["HERE:9001"]', 'targets = ["HERE:9003", "HERE:9002"]\nfallback = "c"')
    text += '[backend.c]\ntargets = ["HERE:9001"]\n'
    proxy = start(text + '[timeouts]\nudp_one_way = "2s"\n')
    flight = [bytes([number]) * 1200 for number in range(5)]
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as client:
        send_joined(client, (proxy.here, 8443), flight)
        assert [heard(backend)[0] for _ in flight] == flight
        line = flow_ended(proxy, client, "one_way_timeout")
        assert (line["backend"], line["target"]) == ("c", f"{proxy.here}:9001")
        assert line["bytes_in"] == len(b"".join(flight)), "what was sent twice counts once"
    assert proxy.metrics()['edgeproxy_backend_failures_total{backend="b"}'] == 1
    wait_until(lambda: active(proxy, "b") == active(proxy, "c") == 0, DEADLINE, "no backend has any")


def test_a_flow_that_finds_nobody_in_the_end_has_been_at_no_backend(start: Start) -> None:
    text = PLAIN.replace('targets = ["HERE:9001"]', 'targets = ["HERE:9001", "nobody.invalid:9001"]')
    proxy = start(text + '[resolver]\nservers = ["HERE:5353"]\ntimeout = "50ms"\n')
    for _ in range(3):
        with udp(proxy.here) as client:
            client.sendto(b"first", (proxy.here, 8443))
            line = flow_ended(proxy, client, "name_not_resolved")
            assert "target" not in line
    with ExitStack() as stack:
        backend = stack.enter_context(udp(proxy.here, 9001))
        for _ in range(2):
            client = stack.enter_context(udp(proxy.here))
            client.sendto(b"now", (proxy.here, 8443))
            assert heard(backend)[0] == b"now"
        wait_until(lambda: active(proxy, "b") == 2, DEADLINE, "the backend has these two")


def test_a_candidate_that_rests_comes_after_the_fallback(start: Start) -> None:
    rest = 'eject = {failures = 1, duration = "10m"}\nfallback = "c"'
    proxy = start(PLAIN + rest + '\n[backend.c]\ntargets = ["HERE:9002"]\n')
    with udp(proxy.here, 9002) as spare, udp(proxy.here) as client:
        client.sendto(b"nobody is there", (proxy.here, 8443))
        assert heard(spare)[0] == b"nobody is there"
        with udp(proxy.here, 9001), udp(proxy.here) as other:
            other.sendto(b"to the spare", (proxy.here, 8443))
            assert heard(spare)[0] == b"to the spare"
    with udp(proxy.here, 9001) as resting, udp(proxy.here) as client:
        client.sendto(b"nobody else", (proxy.here, 8443))
        assert heard(resting)[0] == b"nobody else"


def test_where_nobody_is_at_all_the_flow_ends_and_the_next_datagram_tries_anew(start: Start) -> None:
    proxy = start(PLAIN)
    with udp(proxy.here) as client:
        client.sendto(b"first", (proxy.here, 8443))
        line = flow_ended(proxy, client, "backend_refused")
        assert line["target"] == f"{proxy.here}:9001"
        with udp(proxy.here, 9001) as backend:
            client.sendto(b"second", (proxy.here, 8443))
            assert heard(backend)[0] == b"second"


def test_a_backend_that_has_answered_may_go_and_come_back(start: Start) -> None:
    proxy = start(PLAIN)
    with udp(proxy.here) as client:
        with udp(proxy.here, 9001) as backend:
            client.sendto(b"?", (proxy.here, 8443))
            backend.sendto(b"!", sender := heard(backend)[1])
            heard(client)
        for _ in range(3):
            client.sendto(b"lost", (proxy.here, 8443))
        with udp(proxy.here, 9001) as backend:

            def comes_through() -> bool:
                client.sendto(b"again", (proxy.here, 8443))
                backend.settimeout(0.2)
                try:
                    return heard(backend) == (b"again", sender)
                except TimeoutError:
                    return False

            wait_until(comes_through, DEADLINE, "the same flow, from the same socket")
    assert proxy.lines() == []


def test_the_rate_of_a_flow_drops_and_tells_what_is_beyond_it(start: Start) -> None:
    proxy = start(PLAIN.replace("[[rule]]", 'rate_per_flow = "100kB/s"\n[[rule]]'))
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as client:
        client.sendto(b"first", (proxy.here, 8443))
        _, sender = heard(backend)
        begun = time.monotonic()
        for _ in range(2):
            send_joined(client, (proxy.here, 8443), [bytes(1000)] * 50)
        wait_until(lambda: met(proxy) == 101, DEADLINE, "all are counted")
        passed = 101 - (before := drops(proxy)["rate"])
        bucket = 5 + 100 * (time.monotonic() - begun)
        assert 5 <= passed <= bucket + 2, "a bucket holds 5 kB, and fills by 100 kB a second"
        begun = time.monotonic()
        for _ in range(100):
            backend.sendto(bytes(1000), sender)
        metric = 'edgeproxy_sent_datagrams_total{listener="in",transport="udp"}'
        wait_until(lambda: proxy.metrics()[metric] + drops(proxy)["rate"] - before == 100, DEADLINE, "answers too")
        assert 5 <= proxy.metrics()[metric] <= 5 + 100 * (time.monotonic() - begun) + 2
        assert set(drops(proxy)) == {"rate"}


def test_what_no_rule_takes_or_a_rule_refuses_is_told(start: Start) -> None:
    text = PLAIN.replace("[[rule]]", '[[rule]]\nfrom = ["192.0.2.0/24"]').replace(
        "[backend", '[[rule]]\nname = "never"\nprotocols = ["quic"]\nrefuse = true\n[backend', 1
    )
    proxy = start(text)
    with udp(proxy.here) as plain, udp(proxy.here) as quic:
        plain.sendto(b"nothing that is known", (proxy.here, 8443))
        flow_ended(proxy, plain, "no_rule")
        quic.sendto(first_flight("aioquic_v1")[0], (proxy.here, 8443))
        assert flow_ended(proxy, quic, "refused_by_rule")["rule"] == "never"
    wait_drops(proxy, {"refused": 2})


def test_a_denied_source_begins_no_flow_and_fills_no_log(start: Start) -> None:
    proxy = start('deny = ["127.0.0.1/32"]\n' + PLAIN + '[timeouts]\nudp_one_way = "150ms"\n')
    with udp(proxy.here, 9001) as backend, udp("127.0.0.1") as denied, udp(proxy.here) as client:
        for _ in range(50):
            denied.sendto(b"denied", (proxy.here, 8443))
        wait_drops(proxy, {"denied": 50})
        client.sendto(b"welcome", (proxy.here, 8443))
        assert heard(backend)[0] == b"welcome"
        flow_ended(proxy, client, "one_way_timeout")
    assert len(proxy.lines()) == 1


def test_no_datagram_of_a_flow_is_lost_by_twenty_reloads(start: Start) -> None:
    proxy = start(PLAIN)
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as client:
        client.sendto(b"begin", (proxy.here, 8443))
        _, sender = heard(backend)
        for reload in range(20):
            for number in range(20):
                client.sendto(f"{reload} {number}".encode(), (proxy.here, 8443))
                backend.sendto(f"{number} {reload}".encode(), sender)
            proxy.reload(PLAIN + f'[timeouts]\nudp_idle = "{reload + 1}m"\n')
            for number in range(20):
                assert heard(backend) == (f"{reload} {number}".encode(), sender), "the same flow"
                assert heard(client)[0] == f"{number} {reload}".encode()
    assert drops(proxy) == {}
    assert proxy.lines() == [], "no flow has ended"


def test_a_listener_that_is_gone_takes_its_flows_with_it(start: Start) -> None:
    proxy = start(PLAIN)
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as client:
        client.sendto(b"begin", (proxy.here, 8443))
        heard(backend)
        proxy.reload(PLAIN.replace("8443", "8444"))
        flow_ended(proxy, client, "drained")
        client.sendto(b"other", (proxy.here, 8444))
        assert heard(backend)[0] == b"other"
        wait_until(lambda: _is_nobody_at(proxy.here, 8443), DEADLINE, "nobody receives there any more")


def _is_nobody_at(here: str, port: int) -> bool:
    with udp(here) as client:
        client.settimeout(0.2)
        client.connect((here, port))
        client.send(b"?")
        try:
            client.recv(1)
        except ConnectionRefusedError:
            return True
        except TimeoutError:
            pass
        return False
