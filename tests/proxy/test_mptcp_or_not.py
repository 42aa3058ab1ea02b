"""Multipath TCP where it is not to be had, or not asked for by all: plain TCP in its place, reloads, doctor."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from lab.realise.node import Node
from tests.proxy.ends import DEADLINE, accepted, is_reset, own, read_all
from tests.proxy.mptcp import (
    ASKED,
    DISABLED,
    EDGE,
    FLAG,
    HOME,
    TIMES,
    TOPOLOGY,
    both,
    connections,
    counted,
    exchange,
    joined,
    needs_mptcp,
    serving,
    tell_ways,
    ways,
)
from tests.proxy.running import Proxy, edgeproxy
from tests.realise.conftest import Up

pytestmark = needs_mptcp


@pytest.fixture(scope="module")
def lab(module_up: Up) -> Lab:
    lab = module_up(TOPOLOGY)
    tell_ways(lab)
    return lab


@pytest.fixture
def proxies(lab: Lab, folder: Path) -> Iterator[tuple[Proxy, Proxy]]:
    with both(lab, folder) as found:
        yield found


@pytest.fixture
def server(lab: Lab) -> Iterator[socket.socket]:
    with serving(lab) as server:
        yield server


def test_clients_of_plain_tcp_are_served_alike(lab: Lab, proxies: tuple[Proxy, Proxy], server: socket.socket) -> None:
    _, home = proxies
    with lab["edge"].connect(("10.2.0.2", 4443), DEADLINE) as client, accepted(server) as backend:
        exchange(client, backend)
        who = own(client)
        client.shutdown(socket.SHUT_WR)
        assert read_all(backend) == b""
    assert home.line(who)["close"] == "client_closed"
    assert (counted(home, "client", "tcp"), counted(home, "client", "mptcp")) == (1, 0)


def test_a_plain_client_that_takes_nothing_has_the_time_that_it_would_have_elsewhere(
    lab: Lab, folder: Path, server: socket.socket
) -> None:
    with (
        both(lab, folder, home=HOME + TIMES) as (_, home),
        lab["edge"].connect(("10.2.0.2", 4443), DEADLINE) as client,
        accepted(server) as backend,
    ):
        exchange(client, backend)
        who = own(client)
        with lab.link("home:lte").cut():
            backend.sendall(b"in vain")
            assert is_reset(backend)
        assert home.line(who)["close"] == "peer_vanished"


@contextmanager
def disabled(node: Node) -> Iterator[None]:
    node.run(["sysctl", "-w", f"{FLAG}=0"], check=True)
    try:
        yield
    finally:
        node.run(["sysctl", "-w", f"{FLAG}=1"], check=True)


@pytest.mark.parametrize("side", ["edge", "home"])
def test_a_kernel_that_has_it_switched_off_gives_plain_tcp_and_one_warning(
    lab: Lab, folder: Path, server: socket.socket, side: str
) -> None:
    with (
        disabled(lab[side]),
        both(lab, folder) as (edge, home),
        joined(lab, server) as (client, backend),
    ):
        who = own(client)
        assert (ways(lab["edge"], "10.1.0.2"), connections(lab[side], "")) == (1, 0)
        client.shutdown(socket.SHUT_WR)
        assert read_all(backend) == b""
        backend.close()
        assert read_all(client) == b""
        assert edge.line(who)["backend_subflows"] == 0
        assert (counted(edge, "backend", "tcp"), counted(home, "client", "tcp")) == (1, 1)
        told, silent = (edge, home) if side == "edge" else (home, edge)
        key = "backend.home" if side == "edge" else "listener.in"
        (warning,) = [line for line in told.said.splitlines() if "MPTCP" in line]
        assert warning == f"edgeproxy: note: {key}.{DISABLED}"
        assert "MPTCP" not in silent.said
        told.reload((EDGE if side == "edge" else HOME).replace("[[rule]]", "[[rule]]\nname = 'another'"))
        assert told.said.count(DISABLED) == 2, "a reload warns as a start does"


def test_a_reload_keeps_connections_and_changes_what_is_made_from_then_on(
    lab: Lab, proxies: tuple[Proxy, Proxy], server: socket.socket
) -> None:
    edge, home = proxies
    with joined(lab, server) as (client, backend):
        edge.reload(EDGE.replace(ASKED, ""))
        home.reload(HOME.replace(ASKED, ""))
        exchange(client, backend)
        with joined(lab, server):
            assert connections(lab["edge"], "10.1.0.2:4443") == 1, "the first one alone"
        edge.reload(EDGE)
        home.reload(HOME)
        exchange(client, backend)
        with joined(lab, server):
            assert connections(lab["edge"], "10.1.0.2:4443") == 2
    assert counted(edge, "backend", "mptcp") == counted(home, "client", "mptcp") == 2


def test_a_process_that_began_without_it_refuses_a_reload_that_asks_for_it(
    lab: Lab, folder: Path, server: socket.socket
) -> None:
    with both(lab, folder, EDGE.replace(ASKED, "")) as (edge, _):
        edge.write(EDGE)
        edge.send_signal(signal.SIGHUP)
        wait_until(lambda: "not reloaded" in edge.said, DEADLINE, "the refusal")
        (line,) = [line for line in edge.said.splitlines() if "not reloaded" in line]
        place = edge.config.read_text().splitlines().index(ASKED.strip()) + 1
        assert f"{edge.config}:{place}: backend.home.mptcp: this process began without MPTCP" in line
        assert "--take-over" in line
        with joined(lab, server):
            assert connections(lab["edge"], "10.1.0.2:4443") == 0


def test_doctor_gives_the_lines_that_mend_what_is_missing(module_up: Up, folder: Path) -> None:
    lab = module_up(TOPOLOGY)
    for side, text, lines in [
        ("edge", EDGE, ["ip mptcp limits set subflows 2 add_addr_accepted 2"]),
        (
            "home",
            HOME,
            [
                "ip mptcp endpoint add 10.1.0.2 dev fibre signal",
                "ip mptcp endpoint add 10.2.0.2 dev lte signal",
            ],
        ),
    ]:
        node, file = lab[side], folder / f"{side}.toml"
        file.write_text(text)
        command = [edgeproxy(), "doctor", "-c", str(file)]
        asked = node.run(command, check=False)
        found = [line.strip() for line in asked.stdout.splitlines() if line.strip().startswith("ip mptcp")]
        assert (asked.returncode, found) == (1, lines), asked.stdout
        for line in lines:
            node.run(line.split(), check=True)
        asked = node.run(command, check=False)
        assert asked.returncode == 0, asked.stdout
        assert "MPTCP: sockets: tried" in asked.stdout
        with disabled(node):
            asked = node.run(command, check=False)
        assert asked.returncode == 1
        assert f"sysctl -w {FLAG}=1" in asked.stdout
