"""Hundreds of clients connect at the very moment at which listening sockets change hands, or go: all are served."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from tests.proxy.conftest import Start
from tests.proxy.ends import connect, read_all
from tests.proxy.flooding import WIDTH, Flood
from tests.proxy.running import DEADLINE, Proxy
from tests.proxy.upgrading import Upgrades, echoing, upgrading

CONFIG = """
workers = 2
[listener.in]
tcp = ["HERE:8000", "HERE:8001"]
[[rule]]
to = "echo"
[backend.echo]
targets = ["HERE:9000"]
[limits]
connections_per_source = 5000
"""


@pytest.fixture
def proxy(start: Start) -> Proxy:
    return start(CONFIG)


@pytest.fixture
def upgrades(proxy: Proxy) -> Iterator[Upgrades]:
    with upgrading(proxy) as found:
        yield found


def with_workers(count: int) -> str:
    return CONFIG.replace("workers = 2", f"workers = {count}")


def reload(proxy: Proxy, upgrades: Upgrades) -> None:
    """By the process that serves now, whichever it is."""
    before = upgrades.status()["reloads"]
    os.kill(proxy.pid, signal.SIGHUP)
    wait_until(lambda: upgrades.status()["reloads"] > before, DEADLINE, "the reload")


def listening_sockets(proxy: Proxy) -> set[str]:
    """Inodes of the sockets that listen at port 8000 (proc_pid_net(5): TCP_LISTEN is 0A)."""
    own = f"{int.from_bytes(socket.inet_aton(proxy.here), sys.byteorder):08X}:{8000:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[9] for row in rows if (row[1], row[3]) == (own, "0A")}


@pytest.mark.essential
def test_no_client_of_a_flood_is_reset_by_take_overs_with_other_workers_and_by_reloads(
    proxy: Proxy, upgrades: Upgrades
) -> None:
    with Flood(proxy.here, 8000, 9000) as flood:
        flood.wait(1)
        for count in (1, 2, 1, 1, 3, 2):
            before = listening_sockets(proxy)
            upgrades.upgrade(with_workers(count))
            assert upgrades.status()["workers"] == count
            flood.wait(1)
            reload(proxy, upgrades)
            flood.wait(1)
            assert len(before) >= 2
            # With a socket goes whoever waits in its queue (tcp_migrate_req in ip-sysctl.rst); seldom is anybody there.
            assert before <= listening_sockets(proxy)
    assert flood.faults == []
    proxy.connections()  # makes the last process write what it has to say
    wait_until(lambda: len(proxy.lines()) >= flood.served, DEADLINE, "a line of each who was served")
    assert len(proxy.lines()) == flood.served
    assert {line["close"] for line in proxy.lines()} == {"client_closed"}


def fewer_workers(_: Proxy, upgrades: Upgrades) -> None:
    upgrades.proxy.write(with_workers(1))
    upgrades.start()


def more_workers(_: Proxy, upgrades: Upgrades) -> None:
    upgrades.proxy.write(with_workers(3))
    upgrades.start()


def reload_without_the_endpoint(proxy: Proxy, _: Upgrades) -> None:
    proxy.write(CONFIG.replace('"HERE:8000", ', ""))
    os.kill(proxy.pid, signal.SIGHUP)


def take_over_without_the_endpoint(proxy: Proxy, upgrades: Upgrades) -> None:
    proxy.write(CONFIG.replace('"HERE:8000", ', ""))
    upgrades.start()


def end(proxy: Proxy, _: Upgrades) -> None:
    os.kill(proxy.pid, signal.SIGTERM)


@pytest.mark.parametrize(
    "change", [fewer_workers, more_workers, reload_without_the_endpoint, take_over_without_the_endpoint, end]
)
def test_whoever_waits_to_be_accepted_when_sockets_change_hands_or_go_is_served(
    proxy: Proxy, upgrades: Upgrades, change: Callable[[Proxy, Upgrades], None]
) -> None:
    """The process is stopped meanwhile, so that all of them wait in the sockets' queues."""
    with echoing(proxy.here, 9000), ExitStack() as stack:
        os.kill(proxy.pid, signal.SIGSTOP)
        try:
            clients = [stack.enter_context(connect(proxy.here, 8000)) for _ in range(WIDTH)]
            change(proxy, upgrades)
        finally:
            os.kill(proxy.pid, signal.SIGCONT)
        for number, client in enumerate(clients):
            client.sendall(b"%d" % number)
            client.shutdown(socket.SHUT_WR)
        assert [read_all(client) for client in clients] == [b"%d" % number for number in range(WIDTH)]
        if upgrades.later:
            wait_until(lambda: "edgeproxy: ready" in upgrades.said(), DEADLINE, "the take-over")
