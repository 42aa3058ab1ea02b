"""Which candidate a client gets, and what happens when one does not answer."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from lab.realise.asking import wait_until
from tests.proxy.conftest import Start
from tests.proxy.ends import DEADLINE, accepted, connect, deaf, listening, own, read_all, refused
from tests.proxy.running import Proxy, own_address

CANDIDATES = (9001, 9002, 9003)


def config(more: str = "", candidates: tuple[int, ...] = CANDIDATES, others: str = "") -> str:
    targets = ", ".join(f'"HERE:{port}"' for port in candidates)
    return f"""
[listener.in]
tcp = ["HERE:8443"]
[[rule]]
to = "out"
[backend.out]
targets = [{targets}]
{more}
{others}
"""


@contextmanager
def candidates(proxy: Proxy, *ports: int) -> Iterator[dict[int, socket.socket]]:
    with ExitStack() as stack:
        yield {port: stack.enter_context(listening(proxy.here, port)) for port in ports or CANDIDATES}


def target(proxy: Proxy, source: str = "") -> int:
    """The port of the candidate that a client gets."""
    with connect(proxy.here, 8443, source) as client:
        client.shutdown(socket.SHUT_WR)
        return led_to(proxy, own(client))


def led_to(proxy: Proxy, who: str) -> int:
    line = proxy.wait_for(lambda line: line["peer"] == who and line["target"], f"a target of {who}")
    return int(line["target"].rsplit(":", 1)[1])


def standing(proxy: Proxy, port: int | str) -> str:
    status = json.loads(proxy.ask("top", "--once", "--json"))
    targets = [target for backend in status["backends"] for target in backend["targets"]]
    (found,) = [one for one in targets if one["target"].endswith(f":{port}")]
    return str(found["condition"])


def test_in_order_the_first_gets_all(start: Start) -> None:
    proxy = start(config())
    with candidates(proxy):
        assert [target(proxy) for _ in range(6)] == [9001] * 6


def test_round_robin_gives_each_its_turn(start: Start) -> None:
    proxy = start(config('balance = "round_robin"'))
    with candidates(proxy):
        found = [target(proxy) for _ in range(9)]
        assert found == [found[0], found[1], found[2]] * 3
        assert sorted(found[:3]) == list(CANDIDATES)


def test_least_connections_goes_by_those_that_are_open(start: Start) -> None:
    proxy = start(config('balance = "least_connections"'))
    with candidates(proxy) as servers, ExitStack() as stack:
        held: dict[int, list[socket.socket]] = {port: [] for port in CANDIDATES}
        for _ in range(9):
            client = stack.enter_context(connect(proxy.here, 8443))
            held[led_to(proxy, own(client))].append(client)
        assert [len(clients) for clients in held.values()] == [3, 3, 3]
        for client in held[9002]:
            client.shutdown(socket.SHUT_WR)
            accepted(servers[9002]).close()
            assert read_all(client) == b""
            proxy.line(own(client))
        assert [target(proxy) for _ in range(3)] == [9002] * 3


def test_source_hash_goes_by_the_clients_address_and_nothing_else(start: Start) -> None:
    proxy = start(config('balance = "source_hash"'))
    with candidates(proxy):
        sources = [f"127.0.{number}.1" for number in range(12)]
        first = {source: target(proxy, source) for source in sources}
        assert {source: target(proxy, source) for source in sources} == first
        assert len(set(first.values())) > 1, "not all at one"
    with candidates(proxy, 9001, 9002):
        for source, port in first.items():
            if port != 9003:
                assert target(proxy, source) == port, "who has a candidate keeps it when another goes"


def test_a_candidate_that_refuses_is_passed_over_and_counted(start: Start) -> None:
    proxy = start(config())
    with candidates(proxy, 9003) as servers, connect(proxy.here, 8443) as client:
        client.sendall(b"x")
        with accepted(servers[9003]) as end:
            assert end.recv(1) == b"x", "nothing is lost on the way"
        who = own(client)
    assert proxy.line(who)["target"] == f"{proxy.here}:9003"


def test_when_all_refuse_the_client_is_reset(start: Start) -> None:
    proxy = start(config())
    line = proxy.ended(refused(proxy.here, 8443, b"x"), "backend_refused")
    assert "target" not in line
    assert proxy.metrics()['edgeproxy_backend_failures_total{backend="out"}'] >= 1


def test_the_fallback_is_tried_when_no_candidate_answers(start: Start) -> None:
    others = '[backend.spare]\ntargets = ["HERE:9005"]\n'
    proxy = start(config('fallback = "spare"', others=others))
    with candidates(proxy, 9005):
        assert target(proxy) == 9005
        (connection,) = proxy.connections()
        assert connection["backend"] == "spare"
        with candidates(proxy, 9002):
            assert target(proxy) == 9002
    proxy.ended(refused(proxy.here, 8443), "backend_refused")


def test_fallbacks_are_followed_to_the_last(start: Start) -> None:
    """However many; a circle of them is a fault of the file."""
    chain = [f'[backend.b{number}]\ntargets = ["HERE:{9100 + number}"]\n' for number in range(40)]
    others = "".join(f'{backend}fallback = "b{number + 1}"\n' for number, backend in enumerate(chain[:-1])) + chain[-1]
    proxy = start(config('fallback = "b0"', others=others))
    with candidates(proxy, 9139):
        assert target(proxy) == 9139


def test_a_candidate_has_its_time_to_connect(start: Start) -> None:
    for limit, least in (("200ms", 0.2), ("700ms", 0.7)):
        proxy = start(config(f'connect_timeout = "{limit}"', (9001, 9002)))
        with deaf(proxy.here, 9001), candidates(proxy, 9002):
            assert target(proxy) == 9002
            (connection,) = proxy.connections()
        assert proxy.line(connection["peer"])["connect_us"] >= least * 1e6
        with deaf(proxy.here, 9001), deaf(proxy.here, 9002):
            begun = time.monotonic()
            proxy.ended(refused(proxy.here, 8443), "backend_timeout")
            assert time.monotonic() - begun > 2 * least - 0.05


def test_a_candidate_has_no_more_than_its_time_to_connect(start: Start) -> None:
    ports = tuple(range(9001, 9011))
    proxy = start(config('connect_timeout = "100ms"', ports))
    with ExitStack() as stack:
        for port in ports:
            stack.enter_context(deaf(proxy.here, port))
        line = proxy.ended(refused(proxy.here, 8443), "backend_timeout")
    assert 1_000_000 <= line["total_us"] < 15_000_000, "30 s if nothing is said"


def test_a_candidate_that_fails_clients_rests(start: Start) -> None:
    proxy = start(config('eject = {failures = 2, duration = "10m"}', (9001, 9002)))
    with candidates(proxy, 9002):
        assert target(proxy) == 9002
        assert standing(proxy, 9001) == "up"
        assert target(proxy) == 9002
        wait_until(lambda: standing(proxy, 9001) == "ejected", DEADLINE, "the ejection is told")
        with candidates(proxy, 9001):
            assert target(proxy) == 9002, "it rests, though it would answer"


def test_a_candidate_rests_for_a_while_only(start: Start) -> None:
    proxy = start(config('eject = {failures = 2, duration = "1s"}', (9001, 9002)))
    with candidates(proxy, 9002):
        assert [target(proxy) for _ in range(2)] == [9002] * 2
        with candidates(proxy, 9001):
            wait_until(lambda: target(proxy) == 9001, 20, "the end of the rest, which is 30 s if nothing is said")
            wait_until(lambda: standing(proxy, 9001) == "up", DEADLINE, "the end of the rest is told")


def test_that_a_host_fails_at_one_port_says_nothing_of_the_other_ports_that_clients_may_choose(start: Start) -> None:
    host = own_address()
    text = config("eject = {failures = 1}").replace('"HERE:8443"', '"HERE:8443", "HERE:8444"')
    proxy = start(text.replace('targets = ["HERE:9001"', f'targets = ["{host}:$port", "HERE:9001"'))
    with candidates(proxy), listening(host, 8444):
        for _ in range(3):
            assert target(proxy) == 9001, "nobody is at the first one's port 8443"
        with connect(proxy.here, 8444) as client:
            client.shutdown(socket.SHUT_WR)
            assert led_to(proxy, own(client)) == 8444
    assert standing(proxy, "$port") == "up"


def test_a_host_that_does_not_answer_at_two_ports_that_clients_chose_rests_at_all(start: Start) -> None:
    host = own_address()
    text = config('eject = {failures = 2, duration = "1h"}\nconnect_timeout = "500ms"')
    text = text.replace('"HERE:8443"', '"HERE:8443", "HERE:8444", "HERE:8445"')
    proxy = start(text.replace('targets = ["HERE:9001"', f'targets = ["{host}:$port", "HERE:9001"'))
    with candidates(proxy), deaf(host, 8443), deaf(host, 8444), listening(host, 8445):
        assert target(proxy) == 9001
        for port in (8444, 8445):
            with connect(proxy.here, port) as client:
                client.shutdown(socket.SHUT_WR)
                assert led_to(proxy, own(client)) == 9001
        wait_until(lambda: standing(proxy, "$port") == "ejected", DEADLINE, "the rest is told")


def test_without_ejection_a_candidate_is_tried_each_time(start: Start) -> None:
    proxy = start(config("", (9001, 9002)))
    with candidates(proxy, 9002):
        assert [target(proxy) for _ in range(5)] == [9002] * 5
        with candidates(proxy, 9001):
            assert target(proxy) == 9001


def test_checks_take_a_candidate_out_and_in_again(start: Start) -> None:
    health = 'health = {interval = "500ms", timeout = "500ms", rise = 2, fall = 2}'
    proxy = start(config(health + '\nbalance = "round_robin"', (9001, 9002)))
    up = 'edgeproxy_backend_up{{backend="out",target="{}:{}",transport="tcp"}}'

    def are_up() -> dict[int, float]:
        metrics = proxy.metrics()
        return {port: metrics[up.format(proxy.here, port)] for port in (9001, 9002)}

    with candidates(proxy, 9002):
        with candidates(proxy, 9001):
            wait_until(lambda: {target(proxy), target(proxy)} == {9001, 9002}, DEADLINE, "both are used")
        wait_until(lambda: are_up() == {9001: 0, 9002: 1}, DEADLINE, "it is down")
        assert standing(proxy, 9001) == "down"
        with candidates(proxy, 9001):
            wait_until(lambda: target(proxy) == 9001, DEADLINE, "it is used again")
            wait_until(lambda: are_up() == {9001: 1, 9002: 1}, DEADLINE, "it is up")


@pytest.mark.parametrize("knob", ["rise", "fall"])
def test_checks_need_as_many_in_a_row_as_they_are_told(start: Start, knob: str) -> None:
    rise, fall = (1000, 1) if knob == "rise" else (1, 1000)
    health = f'health = {{interval = "500ms", timeout = "500ms", rise = {rise}, fall = {fall}}}'
    here = own_address()
    with listening(here, 9001) as checked, listening(here, 9002) as other:
        proxy = start(config(health, (9001, 9002)), here)
        if knob == "rise":
            checked.close()
            wait_until(lambda: standing(proxy, 9001) == "down", DEADLINE, "it is down")
            with listening(proxy.here, 9001) as again:
                for _ in range(4):
                    accepted(again).close()
                assert target(proxy) == 9002, "a thousand checks have not passed yet"
                assert standing(proxy, 9001) == "down"
        else:
            checked.close()
            for _ in range(6):  # as many rounds of checks, of which the other candidate tells
                accepted(other).close()
            with candidates(proxy, 9001):
                assert target(proxy) == 9001
                assert standing(proxy, 9001) == "up"


def test_when_checks_fail_for_all_clients_are_led_nevertheless(start: Start) -> None:
    """The checks may be what is wrong."""
    proxy = start(config('health = {interval = "500ms", timeout = "500ms", rise = 1000, fall = 1}', (9001,)))
    wait_until(lambda: standing(proxy, 9001) == "down", DEADLINE, "it is down")
    with candidates(proxy, 9001):
        assert target(proxy) == 9001
        assert standing(proxy, 9001) == "down"


def test_the_fallback_comes_before_a_candidate_that_is_down(start: Start) -> None:
    """Nobody waits for a host that checks speak against, but it is tried when nobody else answers."""
    health = 'health = {interval = "200ms", timeout = "200ms", rise = 1000, fall = 1}'
    others = '[backend.spare]\ntargets = ["HERE:9005"]\nfallback = "last"\n[backend.last]\ntargets = ["HERE:9006"]\n'
    proxy = start(config(f'{health}\nfallback = "spare"', (9001, 9002), others))
    wait_until(lambda: {standing(proxy, port) for port in (9001, 9002)} == {"down"}, DEADLINE, "both are down")
    with candidates(proxy, 9001, 9002):
        with candidates(proxy, 9005, 9006):
            assert target(proxy) == 9005
        with candidates(proxy, 9006):
            assert target(proxy) == 9006
        assert target(proxy) == 9001
        failures = 'edgeproxy_backend_failures_total{{backend="{}"}}'
        found = {name: proxy.metrics()[failures.format(name)] for name in ("out", "spare", "last")}
        assert found == {"out": 2, "spare": 2, "last": 1}, "clients that a backend did not serve"
    with candidates(proxy, 9002):
        assert target(proxy) == 9002


def test_a_reload_keeps_what_is_known_of_candidates(start: Start) -> None:
    text = config('eject = {failures = 1, duration = "60s"}', (9001, 9002))
    proxy = start(text)
    with candidates(proxy, 9002):
        assert target(proxy) == 9002
        proxy.reload(text + "[timeouts]\nidle = '30m'\n")
        with candidates(proxy, 9001):
            assert target(proxy) == 9002
        proxy.reload(config('eject = {failures = 1, duration = "61s"}', (9001, 9002)))
        with candidates(proxy, 9001):
            assert target(proxy) == 9001, "other terms, a new beginning"
