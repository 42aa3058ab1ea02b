"""How many flows there may be: in all, of one source, of one candidate; their rate; and answers of many at once."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack, suppress

import pytest

from lab.realise.asking import wait_until
from tests.proxy.conftest import Start
from tests.proxy.ends import endpoint
from tests.proxy.running import DEADLINE, own_address
from tests.proxy.udp_bench import (
    drops,
    flow_ended,
    flows,
    heard,
    met,
    send_joined,
    silent,
    simple_header,
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


def test_a_flow_limit_lets_the_oldest_unanswered_flow_go_and_no_other(start: Start) -> None:
    proxy = start("workers = 1\n" + PLAIN + "[limits]\nudp_flows = 4\n")
    with udp(proxy.here, 9001) as backend:
        clients = [udp(proxy.here) for _ in range(12)]
        try:
            good = clients[:3]
            for client in good:
                client.sendto(b"?", (proxy.here, 8443))
                backend.sendto(b"!", heard(backend)[1])
                heard(client)
                client.sendto(b"thanks", (proxy.here, 8443))
                heard(backend)
            for client in clients[3:]:
                client.sendto(b"flood", (proxy.here, 8443))
                assert heard(backend)[0] == b"flood", "each has its turn"
            for client in clients[3:-1]:
                flow_ended(proxy, client, "evicted")
            for client in good:
                client.sendto(b"still here", (proxy.here, 8443))
                assert heard(backend)[0] == b"still here"
            assert len(proxy.lines()) == 8
        finally:
            for client in clients:
                client.close()
    assert drops(proxy) == {}


def test_a_flood_is_counted_whole_and_has_few_lines_in_the_log(start: Start) -> None:
    more = '[limits]\nudp_flows = 4\n[timeouts]\nudp_one_way = "1h"\n'
    proxy, flood, begun = start("workers = 1\n" + PLAIN + more), 200, time.monotonic()
    with udp(proxy.here, 9001) as backend, ExitStack() as stack:

        def one_more() -> None:
            client = stack.enter_context(udp(proxy.here))
            client.sendto(b"flood", (proxy.here, 8443))
            assert heard(backend)[0] == b"flood"

        def is_told() -> bool:
            one_more()
            proxy.connections()  # whoever is not here any more is handed to the log by then
            return any("left_out" in line for line in proxy.lines())

        for _ in range(flood):
            one_more()
        wait_until(is_told, DEADLINE, "a line that tells of those without one")
        wait_until(lambda: flows(proxy) == 4, DEADLINE, "those that gave way have ended")
        proxy.connections()
        found = proxy.metrics()
    evicted = found['edgeproxy_closed_total{transport="udp",reason="evicted"}']
    left_out = found['edgeproxy_access_log_lines_total{outcome="left_out"}']
    assert evicted >= flood - 4
    wait_until(lambda: len(proxy.lines()) == evicted - left_out, DEADLINE, "all the others have a line")
    lines, seconds = proxy.lines(), time.monotonic() - begun
    assert {line["close"] for line in lines} == {"evicted"}
    assert len(lines) <= 10 + seconds, "ten at once, then one a second"
    assert 0 < sum(line.get("left_out", 0) for line in lines) <= left_out


UNSERVED = {
    "refused_by_rule": PLAIN.replace("[[rule]]", '[[rule]]\nrefuse = true\nfrom = ["127.0.0.0/8"]\n[[rule]]'),
    "no_rule": PLAIN.replace("[[rule]]", '[[rule]]\nfrom = ["192.0.2.1/32"]'),
    "backend_refused": PLAIN,
    "one_way_timeout": PLAIN.replace("HERE:9001", "HERE:9002") + '[timeouts]\nudp_one_way = "100ms"\n',
}


@pytest.mark.parametrize("reason", UNSERVED)
def test_of_a_flood_that_nothing_is_answered_in_few_lines_are_in_the_log(start: Start, reason: str) -> None:
    proxy, begun = start("workers = 1\n" + UNSERVED[reason]), time.monotonic()

    def ended() -> int:
        return int(proxy.metrics()[f'edgeproxy_closed_total{{transport="udp",reason="{reason}"}}'])

    with udp(proxy.here, 9002), ExitStack() as stack:

        def one_more() -> None:
            stack.enter_context(udp(proxy.here)).sendto(b"flood", (proxy.here, 8443))

        def is_told() -> bool:
            one_more()
            proxy.connections()  # whoever is not here any more is handed to the log by then
            return any("left_out" in line for line in proxy.lines())

        for count in range(1, 101):
            one_more()
            wait_until(lambda count=count: flows(proxy) + ended() == count, DEADLINE, "its flow")  # type: ignore[misc]
        wait_until(is_told, DEADLINE, "a line that tells of those without one")
        wait_until(lambda: flows(proxy) == 0, DEADLINE, "all have ended")
        proxy.connections()
        left_out = proxy.metrics()['edgeproxy_access_log_lines_total{outcome="left_out"}']
        wait_until(lambda: len(proxy.lines()) == ended() - left_out, DEADLINE, "all the others have a line")
    lines, seconds = proxy.lines(), time.monotonic() - begun
    assert {line["close"] for line in lines} == {reason}
    assert len(lines) <= 10 + seconds, "ten at once, then one a second"
    assert 0 < sum(line.get("left_out", 0) for line in lines) <= left_out


def test_each_flow_that_was_answered_has_its_line(start: Start) -> None:
    proxy = start("workers = 1\n" + PLAIN + '[timeouts]\nudp_idle = "100ms"\n')
    with udp(proxy.here, 9001) as backend, ExitStack() as stack:
        clients = [stack.enter_context(udp(proxy.here)) for _ in range(30)]
        for client in clients:
            client.sendto(b"?", (proxy.here, 8443))
            backend.sendto(b"!", heard(backend)[1])
            assert heard(client)[0] == b"!"
        for client in clients:
            assert proxy.line(endpoint(client.getsockname()))["close"] == "idle_timeout"


def test_all_flows_of_a_listener_share_its_rate(start: Start) -> None:
    proxy = start(PLAIN.replace("[[rule]]", 'rate = "100kB/s"\n[[rule]]'))
    with udp(proxy.here, 9001), ExitStack() as stack:
        clients = [stack.enter_context(udp(proxy.here)) for _ in range(10)]
        begun = time.monotonic()
        for client in clients:
            send_joined(client, (proxy.here, 8443), [bytes(1000)] * 10)
        wait_until(lambda: met(proxy) == 100, DEADLINE, "all are counted")
        passed = 100 - drops(proxy)["rate"]
        assert 5 <= passed <= 5 + 100 * (time.monotonic() - begun) + 2, "5 kB, and 100 kB a second"
    assert set(drops(proxy)) == {"rate"}


def test_clients_that_came_back_once_keep_no_newcomer_out_for_long(start: Start) -> None:
    proxy = start("workers = 1\n" + PLAIN + "[limits]\nudp_flows = 8\n")
    with ExitStack() as stack:
        backend = stack.enter_context(udp(proxy.here, 9001))
        good, *made_up, newcomer = [stack.enter_context(udp(proxy.here)) for _ in range(9)]
        for client in (*made_up, good):
            client.sendto(b"?", (proxy.here, 8443))
            backend.sendto(b"!", heard(backend)[1])
            heard(client)
            client.sendto(b"and again", (proxy.here, 8443))
            heard(backend)

        def is_let_in() -> bool:
            for client in (good, newcomer):
                client.sendto(b"now", (proxy.here, 8443))
            return endpoint(newcomer.getsockname()) in {line["peer"] for line in proxy.connections()}

        wait_until(is_let_in, DEADLINE, "a place for the newcomer")
        flow_ended(proxy, made_up[0], "evicted")
        assert endpoint(good.getsockname()) in {line["peer"] for line in proxy.connections()}


def test_a_full_table_lets_newcomers_of_all_workers_in(start: Start) -> None:
    proxy = start("workers = 2\n" + PLAIN + "[limits]\nudp_flows = 1\n")
    with udp(proxy.here, 9001) as backend, ExitStack() as stack:
        backend.settimeout(0.2)
        for number in range(20):  # the one place is the one or the other worker's
            client = stack.enter_context(udp(proxy.here))
            says = b"newcomer %d" % number

            def is_let_in(client: socket.socket = client, says: bytes = says) -> bool:
                client.sendto(says, (proxy.here, 8443))
                with suppress(TimeoutError):
                    return heard(backend)[0] == says
                return False

            wait_until(is_let_in, DEADLINE, f"a place for newcomer {number}")


def test_a_worker_gets_its_part_of_a_table_that_another_one_has_filled(start: Start) -> None:
    trusts = 'proxy_header = [{from = "127.0.0.1/32", policy = "require", udp = "spp"}]\n[[rule]]'
    more = '[limits]\nudp_flows = 40\n[timeouts]\nudp_one_way = "1h"\n'
    proxy = start("workers = 2\n" + PLAIN.replace("[[rule]]", trusts) + more)
    with udp(proxy.here, 9001), udp("127.0.0.1") as peer, ExitStack() as stack:
        for number in range(40):  # of one peer's socket, and so of one worker
            header = simple_header((f"192.0.2.{number}", 1000), ("192.0.2.99", 8443))
            peer.sendto(header + b"flood", (proxy.here, 8443))
        wait_until(lambda: flows(proxy) == 40, DEADLINE, "a full table")
        clients = [stack.enter_context(udp(proxy.here)) for _ in range(20)]
        own = {endpoint(client.getsockname()) for client in clients}

        def are_let_in() -> bool:
            for client in clients:
                client.sendto(b"newcomer", (proxy.here, 8443))
            return own <= {line["peer"] for line in proxy.connections()}

        wait_until(are_let_in, DEADLINE, "a place for each of as many as a worker's part")


def test_what_was_sent_and_is_kept_for_another_try_keeps_no_newcomer_out(start: Start) -> None:
    targets = '["HERE:9001", "HERE:9002"]\nconnect_timeout = "1m"'
    proxy = start("workers = 1\n" + PLAIN.replace('["HERE:9001"]', targets))
    with ExitStack() as stack:
        backend = stack.enter_context(udp(proxy.here, 9001))
        clients = [stack.enter_context(udp(proxy.here)) for _ in range(300)]
        for number, client in enumerate(clients):
            first = number.to_bytes(2) * 30_000  # of 300 these are more than a worker keeps
            client.sendto(first, (proxy.here, 8443))
            assert heard(backend)[0] == first, number
        assert flows(proxy) == len(clients), "and nobody gave way"
    assert drops(proxy) == {}


def test_a_source_has_no_more_flows_than_its_limit(start: Start) -> None:
    proxy = start(PLAIN + "[limits]\nudp_flows_per_source = 2\n")
    with udp(proxy.here, 9001) as backend:
        clients = [udp(proxy.here) for _ in range(5)] + [udp("127.0.0.1")]
        for client in clients:
            client.sendto(b"?", (proxy.here, 8443))
        assert [heard(backend)[0] for _ in range(3)] == [b"?"] * 3
        wait_drops(proxy, {"flow_limit": 3})
        assert silent(backend)
        for client in clients:
            client.close()


def test_a_listener_has_no_more_flows_than_its_limit_and_its_own_give_way(start: Start) -> None:
    text = PLAIN.replace(
        'udp = ["HERE:8443"]', 'udp = ["HERE:8443"]\nudp_flows = 2\n[listener.two]\nudp = ["HERE:8444"]'
    )
    proxy = start("workers = 1\n" + text)
    with udp(proxy.here, 9001) as backend, ExitStack() as stack:
        clients = [stack.enter_context(udp(proxy.here)) for _ in range(6)]
        ports = [8444, 8443, 8444, 8443, 8443, 8444]
        for client, port in zip(clients, ports, strict=True):
            client.sendto(b"?", (proxy.here, port))
            assert heard(backend)[0] == b"?", "each has its turn"
        flow_ended(proxy, clients[1], "evicted")
        assert flows(proxy) == 5, "the oldest of its listener, and nobody else"
        for client in clients[3:5]:
            client.sendto(b"still here", (proxy.here, 8443))
            source = heard(backend)[1]
            backend.sendto(b"!", source)
            heard(client)
            client.sendto(b"thanks", (proxy.here, 8443))
            assert heard(backend)[1] == source
        clients[1].sendto(b"?", (proxy.here, 8443))
        wait_drops(proxy, {"flow_limit": 1})
        assert silent(backend), "those in use stay"


@pytest.mark.parametrize("before", ["", "udp_flows = 100"])
def test_a_limit_by_reload_lets_newcomers_in_for_flows_that_were_there_before(start: Start, before: str) -> None:
    def text(bound: str) -> str:
        own = PLAIN.replace('udp = ["HERE:8443"]', f'udp = ["HERE:8443"]\n{bound}')
        return "workers = 1\n" + own + '[timeouts]\nudp_one_way = "1h"\n'

    proxy = start(text(before))
    with udp(proxy.here, 9001) as backend, ExitStack() as stack:
        clients = [stack.enter_context(udp(proxy.here)) for _ in range(11)]
        for client in clients[:-1]:
            client.sendto(b"?", (proxy.here, 8443))
            assert heard(backend)[0] == b"?"
        proxy.reload(text("udp_flows = 2"))
        clients[-1].sendto(b"new", (proxy.here, 8443))
        assert heard(backend)[0] == b"new"
        for client in clients[:-2]:
            flow_ended(proxy, client, "evicted")
        assert flows(proxy) == 2
    assert drops(proxy) == {}


def test_a_flow_too_many_of_a_source_has_nobody_give_way(start: Start) -> None:
    proxy = start("workers = 1\n" + PLAIN + "[limits]\nudp_flows = 2\nudp_flows_per_source = 1\n")
    other = own_address()
    with udp(proxy.here, 9001) as backend, udp(other) as first, udp(proxy.here) as second, udp(proxy.here) as third:
        for client in (first, second):
            client.sendto(b"?", (proxy.here, 8443))
            assert heard(backend)[0] == b"?"
        third.sendto(b"?", (proxy.here, 8443))
        wait_drops(proxy, {"flow_limit": 1})
        assert flows(proxy) == 2
        assert proxy.lines() == []


def test_flows_count_for_the_balance_by_fewest_connections(start: Start) -> None:
    text = PLAIN.replace('["HERE:9001"]', '["HERE:9001", "HERE:9002"]\nbalance = "least_connections"')
    proxy = start(text)
    with udp(proxy.here, 9001) as first, udp(proxy.here, 9002) as second:
        clients = [udp(proxy.here) for _ in range(6)]
        for count, client in enumerate(clients, 1):
            client.sendto(b"?", (proxy.here, 8443))
            wait_until(lambda count=count: flows(proxy) == count, DEADLINE, "the flow")  # type: ignore[misc]
        for backend in (first, second):
            assert [heard(backend)[0] for _ in range(3)] == [b"?"] * 3
        for client in clients:
            client.close()


def test_answers_by_calls_of_many_arrive_as_they_were(start: Start) -> None:
    proxy = start(PLAIN)
    answers = [bytes([number]) * 1000 for number in range(40)] + [b"end"]
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        client.sendto(b"?", (proxy.here, 8443))
        _, sender = heard(backend)
        send_joined(backend, sender, answers)
        assert [heard(client)[0] for _ in answers] == answers
