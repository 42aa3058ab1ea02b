"""Bounds on what clients may take; nobody who stays within them notices those who do not."""

from __future__ import annotations

import resource
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from tests.proxy.conftest import Start
from tests.proxy.ends import (
    DEADLINE,
    accepted,
    connect,
    deaf,
    endpoint,
    fill,
    is_reset,
    listening,
    own,
    read,
    read_all,
    refused,
    reset,
)
from tests.proxy.hellos import padded_hello
from tests.proxy.limited import BANNER, PATIENT, config, header, is_served, waiting
from tests.proxy.running import Proxy

FEW = 72  # descriptors: some 45 are the proxy's own, and 20 clients have room beside whoever asks for its metrics


@contextmanager
def led(proxy: Proxy, *ports: int) -> Iterator[list[socket.socket]]:
    """Clients that are with the backend, which says nothing yet."""
    with listening(proxy.here, 9001) as server, ExitStack() as stack:
        clients = []
        for port in ports:
            clients.append(stack.enter_context(connect(proxy.here, port, "127.0.0.9")))
            clients[-1].sendall(BANNER)
            # Before the next comes: how many of one source wait to be led on may be bounded.
            assert read(stack.enter_context(accepted(server)), len(BANNER)) == BANNER
        yield clients


def test_connections_in_all_are_bounded(start: Start) -> None:
    proxy = start(config(limits="connections = 5"))
    with led(proxy, 8443, 8443, 8443, 8444, 8444):
        proxy.ended(refused(proxy.here, 8443, source="127.0.0.10"), "over_limit_connections")
        proxy.ended(refused(proxy.here, 8444, source="127.0.0.11"), "over_limit_connections")
    wait_until(lambda: proxy.active("in") == 0, DEADLINE, "they have gone")
    is_served(proxy)


def test_connections_of_a_listener_are_bounded(start: Start) -> None:
    proxy = start(config(listener="connections = 3"))
    with led(proxy, 8443, 8443, 8443), connect(proxy.here, 8444) as other:
        proxy.ended(refused(proxy.here, 8443, source="127.0.0.10"), "over_limit_listener")
        wait_until(lambda: own(other) in {line["peer"] for line in proxy.connections()}, DEADLINE, "it is in")
    wait_until(lambda: proxy.active("in") == 0, DEADLINE, "they have gone")
    is_served(proxy)


@pytest.mark.parametrize("bound", ["total", "listener"])
def test_who_has_said_nothing_for_longest_gives_way_to_a_newcomer(start: Start, bound: str) -> None:
    limits = {"limits": "connections = 5"} if bound == "total" else {"listener": "connections = 4"}
    proxy = start(config(top="workers = 1", **limits))
    with led(proxy, 8443) as [oldest], ExitStack() as stack:
        elsewhere = stack.enter_context(waiting(proxy, 1, "127.0.0.5", 8444))
        silent = stack.enter_context(waiting(proxy, 1, "127.0.0.3")) + stack.enter_context(waiting(proxy, 2))
        silent[1].sendall(BANNER[:1])
        leaving = elsewhere + silent if bound == "total" else silent
        newcomers = []
        for first in leaving:
            newcomers += stack.enter_context(waiting(proxy, 1, "127.0.0.4"))
            proxy.ended(own(first), "evicted")
            assert is_reset(first)
        names = {own(client) for client in [oldest, *newcomers]} | {own(elsewhere[0])} - {own(one) for one in leaving}
        assert {line["peer"] for line in proxy.connections()} == names


def test_nobody_gives_way_to_one_too_many_of_a_source(start: Start) -> None:
    proxy = start(config(top="workers = 1", limits="connections = 3\nconnections_per_source = 2"))
    with waiting(proxy, 1), waiting(proxy, 2, "127.0.0.9"):
        proxy.ended(refused(proxy.here, 8443, source="127.0.0.9"), "over_limit_connections")
        assert len(proxy.connections()) == 3


def test_those_who_take_all_places_and_wait_hold_up_nobody(start: Start) -> None:
    proxy = start(config(top="workers = 1", limits="connections = 100"))
    with ExitStack() as stack:
        silent = stack.enter_context(waiting(proxy, 100))
        silent += [stack.enter_context(connect(proxy.here, 8443, f"127.0.1.{number}")) for number in range(50)]
        for client in silent[50:]:
            client.sendall(b"G")
        wait_until(lambda: [line["close"] for line in proxy.lines()] == ["evicted"] * 50, DEADLINE, "a line of each")
        for _ in range(20):
            is_served(proxy)
        assert ends(proxy, "evicted") >= 51
        assert {line["close"] for line in proxy.lines()} <= {"evicted", "backend_closed", "client_closed"}


def test_whoever_broke_off_while_a_backend_is_slow_makes_room_first(start: Start) -> None:
    """What they said still goes to the backend; that takes less patience where others need the place."""
    proxy = start(config(listener="connections = 1"))
    with listening(proxy.here, 9001) as server, ExitStack() as stack:
        names = {}
        for port in [8444, 8443]:
            client = stack.enter_context(connect(proxy.here, port))
            client.sendall(BANNER)
            assert read(stack.enter_context(accepted(server)), len(BANNER)) == BANNER
            fill(client)
            names[port] = own(client)
            reset(client)  # half a second and more before the other: alike, both would end in this order
        proxy.ended(names[8443], "client_reset")
        assert [line["peer"] for line in proxy.connections()] == [names[8444]]
        with connect(proxy.here, 8443) as client, ExitStack() as inner:
            client.sendall(BANNER)
            assert read(inner.enter_context(accepted(server)), len(BANNER)) == BANNER
    proxy.ended(names[8444], "client_reset")


def test_connections_of_a_source_are_bounded(start: Start) -> None:
    proxy = start(config(limits="connections_per_source = 3"))
    with waiting(proxy, 2, "127.0.0.9"), waiting(proxy, 1, "127.0.0.9", 8444):
        proxy.ended(refused(proxy.here, 8443, source="127.0.0.9"), "over_limit_source")
        proxy.ended(refused(proxy.here, 8444, source="127.0.0.9"), "over_limit_source")
        is_served(proxy, "127.0.0.8")
    wait_until(lambda: proxy.active("in") + proxy.active("two") == 0, DEADLINE, "they have gone")
    is_served(proxy, "127.0.0.9")


def test_behind_a_header_its_client_is_the_source_and_a_prefix_of_64_bits_is_one(start: Start) -> None:
    proxy = start(config(limits="connections_per_source = 3"))
    own_clients = ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:0:1"]
    with waiting(proxy, 8, "127.0.0.2", 8444) as clients:
        for client, source in zip(clients, own_clients, strict=False):
            client.sendall(header(source))
        wait_until(lambda: {client_of(line) for line in proxy.connections()} >= set(own_clients), DEADLINE, "headers")
        who = refused(proxy.here, 8444, header("2001:db8::3"), "127.0.0.2")
        assert proxy.ended(who, "over_limit_source")["client"] == "[2001:db8::3]:40000"
        is_served(proxy, "127.0.0.2", 8444, header("2001:db8:0:1::1"))
        is_served(proxy, "127.0.0.2", 8444, header("203.0.113.7"))
        is_served(proxy, "127.0.0.2")
    wait_until(lambda: proxy.active("two") == 0, DEADLINE, "they have gone")
    is_served(proxy, "127.0.0.2", 8444, header("2001:db8::3"))


def test_a_source_is_a_prefix_of_the_length_that_the_file_has(start: Start) -> None:
    bounds = "connections_per_source = 2\nudp_flows_per_source = 1\nsource_prefix_v4 = 24\nsource_prefix_v6 = 56"
    proxy = start(config(listener='udp = ["HERE:8443"]', limits=bounds))
    with waiting(proxy, 1, "127.0.9.1"), waiting(proxy, 1, "127.0.9.255"):
        proxy.ended(refused(proxy.here, 8443, source="127.0.9.9"), "over_limit_source")
        is_served(proxy, "127.0.8.9")
    own_clients = ["2001:db8:0:1::1", "2001:db8:0:ff::1"]
    with waiting(proxy, 2, "127.0.0.2", 8444) as clients:
        for client, source in zip(clients, own_clients, strict=True):
            client.sendall(header(source))
        wait_until(lambda: {client_of(line) for line in proxy.connections()} >= set(own_clients), DEADLINE, "headers")
        proxy.ended(refused(proxy.here, 8444, header("2001:db8:0:2::1"), "127.0.0.2"), "over_limit_source")
        is_served(proxy, "127.0.0.2", 8444, header("2001:db8:0:100::1"))


def test_a_source_has_no_more_connections_that_wait_to_be_led_on_than_its_limit(start: Start) -> None:
    """Those that are led on do not count, nor do those whose client is not known yet."""
    proxy = start(config(limits="undecided_per_source = 2"))
    with led(proxy, 8443, 8443, 8443), waiting(proxy, 2, "127.0.0.9"), waiting(proxy, 3, "127.0.0.2", 8444):
        proxy.ended(refused(proxy.here, 8443, source="127.0.0.9"), "over_limit_undecided")
    wait_until(lambda: proxy.active("in") + proxy.active("two") == 0, DEADLINE, "they have gone")
    with waiting(proxy, 2, "127.0.0.2", 8444) as clients:
        for client in clients:
            client.sendall(header("203.0.113.7"))
        known = ["203.0.113.7"] * 2
        wait_until(lambda: [client_of(line) for line in proxy.connections()] == known, DEADLINE, "headers")
        refused_one = refused(proxy.here, 8444, header("203.0.113.7"), "127.0.0.2")
        assert proxy.ended(refused_one, "over_limit_undecided")["client"].startswith("203.0.113.7:")
        is_served(proxy, "127.0.0.2", 8444, header("203.0.113.8"))


def client_of(line: dict[str, str]) -> str:
    return line["client"].rsplit(":", 1)[0].strip("[]")


@pytest.mark.parametrize("how", ["undecided", "dialling"])
def test_first_bytes_of_all_together_are_bounded(start: Start, how: str) -> None:
    allow_descriptors()
    nearly = padded_hello("nas.example.net", 60_000)
    nearly = nearly[:-1] if how == "undecided" else nearly
    held = 64 * 1024 * 1024 // len(nearly)
    with ExitStack() as stack:
        text = config(top="workers = 1", limits='preface_bytes = "1MiB"', preface="10m")
        proxy = start(text.replace(*PATIENT))
        if how == "dialling":
            stack.enter_context(deaf(proxy.here, 9001))
        for number in range(held + 5):
            client = stack.enter_context(connect(proxy.here, 8443, f"127.0.{number % 200}.1"))
            with suppress(ConnectionResetError, BrokenPipeError):
                client.sendall(nearly)
            if number == held - 5:
                assert ends(proxy, "over_limit_preface_memory") == 0
        wait_until(lambda: ends(proxy, "over_limit_preface_memory") > 0, DEADLINE, "the bound")
        assert ends(proxy, "over_limit_preface_memory") < 20
        assert int(proxy.status()["VmRSS"].split()[0]) < 250_000
        assert proxy.active("in") > held - 20, "those who were in stay in"
    wait_until(lambda: proxy.active("in") == 0, DEADLINE, "they have gone")
    is_served(proxy)


def ends(proxy: Proxy, reason: str) -> int:
    return int(proxy.metrics()[f'edgeproxy_closed_total{{transport="tcp",reason="{reason}"}}'])


def test_without_descriptors_accepting_waits_and_goes_on_when_there_are_some(start: Start) -> None:
    proxy = start(config(), before=("prlimit", f"--nofile={FEW}:{FEW}"))
    failures = 'edgeproxy_accept_errors_total{listener="in"}'
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(proxy.here, 8443)) for _ in range(80)]
        wait_until(lambda: is_short(proxy), DEADLINE, "descriptors run out")
        before = cpu(proxy)
        wait_until(lambda: len(proxy_descriptors(proxy)) <= FEW, DEADLINE, "the limit holds")
        for client in clients[:60]:
            client.close()
        wait_until(lambda: proxy.active("in") == 20, DEADLINE, "those who waited are in")
        assert proxy.metrics()[failures] >= 1
        assert cpu(proxy) - before < 2, "it rests between its tries"
    wait_until(lambda: proxy.active("in") == 0, DEADLINE, "they have gone")
    is_served(proxy)


def test_who_needs_a_descriptor_for_the_backend_when_there_is_none_is_reset_with_that_reason(start: Start) -> None:
    proxy = start(config(), before=("prlimit", f"--nofile={FEW}:{FEW}"))
    with listening(proxy.here, 9001), ExitStack() as stack:
        clients = [stack.enter_context(connect(proxy.here, 8443)) for _ in range(80)]
        wait_until(lambda: is_short(proxy), DEADLINE, "descriptors run out")
        for client in clients[:10]:
            client.sendall(BANNER)
            client.settimeout(0.1)
        wait_until(lambda: any(map(has_been_reset, clients[:10])), DEADLINE, "one was reset")
    opened = 'edgeproxy_opened_total{listener="in",transport="tcp"}'
    wait_until(lambda: proxy.metrics()[opened] == 80, DEADLINE, "those who waited were in")
    wait_until(lambda: proxy.active("in") == 0, DEADLINE, "they have gone")
    assert ends(proxy, "over_limit_descriptors") >= 1
    is_served(proxy)


def has_been_reset(client: socket.socket) -> bool:
    try:
        client.recv(1)
    except ConnectionResetError:
        return True
    except TimeoutError:
        pass
    return False


def is_short(proxy: Proxy) -> bool:
    return len(proxy_descriptors(proxy)) >= FEW - 2


def proxy_descriptors(proxy: Proxy) -> list[str]:
    return [path.name for path in Path(f"/proc/{proxy.pid}/fd").iterdir()]


def cpu(proxy: Proxy) -> float:
    fields = Path(f"/proc/{proxy.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def allow_descriptors(count: int = 5000) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count:
        pytest.skip(f"needs {count} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))


def test_two_thousand_who_say_one_byte_hold_up_nobody(start: Start) -> None:
    allow_descriptors()
    proxy = start(config(limits="connections_per_source = 5000", preface="30s"))
    before = int(proxy.status()["VmRSS"].split()[0])
    with ExitStack() as stack:
        names = []
        for number in range(2000):
            client = stack.enter_context(connect(proxy.here, 8443, f"127.0.{number % 200}.1"))
            client.sendall(b"GS\x16"[number % 3 :][:1])
            names.append(own(client))
        wait_until(lambda: proxy.active("in") == 2000, DEADLINE, "all are in")
        assert int(proxy.status()["VmRSS"].split()[0]) - before < 40_000, "20 KB each at most"
        for _ in range(20):
            is_served(proxy)
        wait_until(lambda: ends(proxy, "preface_timeout") == 2000, 2 * DEADLINE, "all have ended")
    wait_until(lambda: len(proxy.lines()) == 2020, DEADLINE, "all are in the log")
    ended = {line["peer"]: line["close"] for line in proxy.lines()}
    assert {ended[name] for name in names} == {"preface_timeout"}


def test_ten_thousand_who_say_one_byte_take_what_is_stated_and_hold_up_nobody(start: Start) -> None:
    """docs/edgeproxy.md: 6 KiB of each, beside what the kernel keeps."""
    allow_descriptors(10_300)
    proxy = start(config(limits="connections = 12000\nconnections_per_source = 12000", preface="10m"))
    before = int(proxy.status()["VmRSS"].split()[0])
    with ExitStack() as stack:
        clients = []
        for number in range(10_000):
            client = stack.enter_context(connect(proxy.here, 8443, f"127.0.{number % 200}.1"))
            client.sendall(b"GS\x16"[number % 3 :][:1])
            clients.append(client)
        wait_until(lambda: proxy.active("in") == 10_000, 3 * DEADLINE, "all are in")
        assert int(proxy.status()["VmHWM"].split()[0]) - before < 10_000 * 6, "KiB"
        for _ in range(20):
            is_served(proxy)
        for begun in range(0, 10_000, 2500):
            portion = clients[begun : begun + 2500]
            for client in portion[::2]:
                reset(client)
            for client in portion[1::2]:
                client.close()
            # Of what waits for the disk the log keeps 2 MiB, and all of these together have more.
            wait_until(lambda at=begun: len(proxy.lines()) == 20 + at + 2500, 3 * DEADLINE, "they are in the log")  # type: ignore[misc]
    wait_until(lambda: ends(proxy, "client_left_early") == 10_000, 3 * DEADLINE, "all have ended")
    wait_until(lambda: len(proxy.lines()) == 10_020, 3 * DEADLINE, "all are in the log")
    assert Counter(line["close"] for line in proxy.lines())["client_left_early"] == 10_000


def test_who_leaves_makes_room_in_whichever_state(start: Start) -> None:
    proxy = start(config(limits="connections = 4"))
    for said in (b"", BANNER[:3], b"GET / HTTP/1.1\r\nA: b\r\n"):
        with waiting(proxy, 4) as clients:
            for client in clients:
                client.sendall(said)
        wait_until(lambda: proxy.active("in") == 0, DEADLINE, "they have gone")
    for _ in range(8):
        who = refused(proxy.here, 8443, BANNER)
        proxy.ended(who, "backend_refused")
    with listening(proxy.here, 9001) as server:
        for _ in range(3):
            with connect(proxy.here, 8443) as client:
                client.sendall(BANNER)
                with accepted(server) as end:
                    assert endpoint(end.getpeername())
                assert is_reset(client) or read_all(client) == b""
    wait_until(lambda: proxy.active("in") == 0, DEADLINE, "they have gone")
    with waiting(proxy, 4):
        pass


def room_for_descriptors(proxy: Proxy) -> int:
    """How large the kernel's table is (proc(5), FDSize)."""
    status = Path(f"/proc/{proxy.pid}/status").read_text()
    return int(status.partition("FDSize:")[2].split()[0])


def test_there_is_room_for_the_descriptors_of_all_who_may_come_before_anybody_has(start: Start) -> None:
    few, many = (start(config(limits=f"connections = {count}\nudp_flows = 10")) for count in (100, 1500))
    assert room_for_descriptors(few) < 2 * 1500 <= room_for_descriptors(many)
