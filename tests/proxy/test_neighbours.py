"""Backends answer clients of their own network without the proxy: for those they see the proxy's address.

client -- internet -- home (the proxy) -- lan -- nas, and a neighbour of it; on home containers, by a bridge and routed
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from lab.realise.node import Node
from tests.proxy.ends import DEADLINE, PORTS, accepted, own, peer, read
from tests.proxy.running import Proxy, edgeproxy, running_in
from tests.realise.conftest import Up

TOPOLOGY = """
networks:
  internet: {prefixes: [198.51.100.0/24, "2001:db8:1::/64"]}
  lan: {prefixes: [192.168.1.0/24, "2001:db8:10::/64"]}
nodes:
  client: {links: {internet: [198.51.100.66, "2001:db8:1::66"]}}
  home: {role: router, links: {internet: [198.51.100.1, "2001:db8:1::1"], lan: [192.168.1.1, "2001:db8:10::1"]}}
  nas: {links: {lan: [192.168.1.10, "2001:db8:10::10"]}}
  neighbour: {links: {lan: [192.168.1.20, "2001:db8:10::20"]}}
"""
BACKEND = 9001
NAS = {4: "192.168.1.10", 6: "2001:db8:10::10"}
HOME = {4: "192.168.1.1", 6: "2001:db8:10::1"}
CONFIG = f"""
[listener.in]
tcp = ["0.0.0.0:8443-8447", "[::]:8443-8447"]
udp = ["192.168.1.1:8443", "[2001:db8:10::1]:8443", "198.51.100.1:8443", "[2001:db8:1::1]:8443"]
[[rule]]
ports = [8443]
to = "nas"
[[rule]]
ports = [8444]
to = "here"
[[rule]]
ports = [8445]
to = "bridged"
[[rule]]
ports = [8446]
to = "routed"
[[rule]]
ports = [8447]
to = "must"
[backend.nas]
targets = ["192.168.1.10:{BACKEND}", "[2001:db8:10::10]:{BACKEND}"]
source = "client_or_own"
[backend.here]
targets = ["192.168.1.1:{BACKEND}", "[2001:db8:10::1]:{BACKEND}"]
source = "client_or_own"
[backend.bridged]
targets = ["10.8.0.2:{BACKEND}"]
source = "client_or_own"
[backend.routed]
targets = ["10.9.0.2:{BACKEND}"]
source = "client_or_own"
[backend.must]
targets = ["192.168.1.10:{BACKEND}"]
source = "client"
[transparent]
manage_rules = true
"""


@pytest.fixture(scope="module")
def lab(module_up: Up) -> Lab:
    return module_up(TOPOLOGY)


@pytest.fixture(scope="module")
def proxy(lab: Lab, lab_folder: Path) -> Iterator[Proxy]:
    folder = lab_folder / "managed"
    folder.mkdir()
    with running_in(lab["home"], CONFIG, "127.0.0.1", folder) as found:
        yield found


def seen_by(server_node: Node, at: str, node: Node, source: str, to: tuple[str, int]) -> tuple[str, str]:
    """The client's endpoint, and the one that the backend sees, between whom bytes have passed both ways."""
    with (
        server_node.listen(BACKEND, at) as server,
        node.connect(to, DEADLINE, source=(source, next(PORTS))) as client,
    ):
        server.settimeout(DEADLINE)
        client.sendall(b"there")
        with accepted(server) as backend:
            assert read(backend, 5) == b"there"
            backend.sendall(b"back")
            assert read(client, 4) == b"back"
            return own(client), peer(backend)


@pytest.mark.essential
@pytest.mark.parametrize("version", [4, 6])
def test_a_client_of_the_backends_own_network_is_served_by_the_proxys_address(
    lab: Lab, proxy: Proxy, version: int
) -> None:
    neighbour = lab["neighbour"].address("lan", version)
    who, seen = seen_by(lab["nas"], NAS[version], lab["neighbour"], neighbour, (HOME[version], 8443))
    assert seen.startswith((f"{HOME[version]}:", f"[{HOME[version]}]:"))
    assert proxy.line(who)["source"] == "own"
    far, home = lab["client"].address("internet", version), lab["home"].address("internet", version)
    who, seen = seen_by(lab["nas"], NAS[version], lab["client"], far, (home, 8443))
    assert seen == who
    assert proxy.line(who)["source"] == "client_endpoint"


@pytest.mark.parametrize("version", [4, 6])
def test_a_backend_on_this_host_sees_clients_of_the_networks_that_it_is_in(
    lab: Lab, proxy: Proxy, version: int
) -> None:
    neighbour = lab["neighbour"].address("lan", version)
    who, seen = seen_by(lab["home"], HOME[version], lab["neighbour"], neighbour, (HOME[version], 8444))
    assert seen == who
    assert proxy.line(who)["source"] == "client_endpoint"


@pytest.mark.parametrize("version", [4, 6])
def test_so_are_its_datagrams(lab: Lab, proxy: Proxy, version: int) -> None:
    assert proxy.pid
    for node, network in (("neighbour", "lan"), ("client", "internet")):
        address, home = lab[node].address(network, version), lab["home"].address(network, version)
        with (
            lab["nas"].udp(BACKEND, NAS[version], timeout=DEADLINE) as server,
            lab[node].udp(next(PORTS), address, timeout=DEADLINE) as client,
        ):
            client.sendto(b"there", (home, 8443))
            said, whom = server.recvfrom(99)
            assert (said, whom[0]) == (b"there", address if node == "client" else HOME[version])
            server.sendto(b"back", whom)
            assert client.recvfrom(99)[0] == b"back"


def way_back() -> list[str]:
    """The line that the documentation has for a backend on another host, with this lab's values."""
    page = (Path(__file__).parents[2] / "docs/edgeproxy.md").read_text()
    (line,) = re.findall(r"`(ip rule add ipproto tcp [^`]*)`", page)
    return [part.strip() for part in line.replace("THIS-HOST", HOME[4]).replace("8080", str(BACKEND)).split(";")]


def test_a_backend_whose_own_rule_leads_its_answers_here_may_see_its_neighbours_too(lab: Lab, proxy: Proxy) -> None:
    nas = lab["nas"]
    for line in way_back():
        nas.run(line.split(), check=True)
    try:
        neighbour = lab["neighbour"].address("lan")
        who, seen = seen_by(nas, NAS[4], lab["neighbour"], neighbour, (HOME[4], 8447))
        assert seen == who
        assert proxy.line(who)["source"] == "client_endpoint"
    finally:
        nas.run(["ip", "rule", "del", "lookup", "100"], check=True)
        nas.run(["ip", "route", "flush", "table", "100"], check=True)


SERVE = f"""
import socket
with socket.create_server(("0.0.0.0", {BACKEND})) as server:
    print("listens", flush=True)
    while True:
        client, (address, _) = server.accept()
        with client:
            client.recv(1)
            client.sendall(address.encode())
"""
VISIT = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 60) as client:
    client.sendall(b"x")
    print(client.recv(99).decode())
"""


class Container:
    """A network of its own on a node, at the far end of a pair of links."""

    def __init__(self, node: Node, pid: int) -> None:
        self.node, self.pid = node, pid

    def within(self, *words: str) -> list[str]:
        return ["nsenter", f"--target={self.pid}", "--net", *words]

    def visit(self, address: str, port: int) -> str:
        """Whom the backend sees there; "" if this one was not led to it."""
        words = self.within(sys.executable, "-c", VISIT, address, str(port))
        return self.node.run(words, timeout=DEADLINE).stdout.strip()

    def is_seen_as(self, seen: str, address: str, port: int) -> None:
        """Waits until the backend sees it so: the proxy hears of a new network a moment after it is there."""
        found: list[str] = []

        def look() -> bool:
            found.append(self.visit(address, port))
            return found[-1] == seen

        try:
            wait_until(look, DEADLINE, f"the backend sees {seen}")
        except TimeoutError as error:
            raise AssertionError(found) from error


@contextmanager
def container(home: Node, number: int, lines: str) -> Iterator[Container]:
    """Its end of the pair is `inner`, this host's `outer` and the number; lines of `ip`, in or out, make the rest."""
    with home.start(["unshare", "--net", "sleep", "infinity"]) as process:
        own_net = home.run(["readlink", "/proc/self/ns/net"]).stdout

        def is_apart() -> bool:
            return home.run(["readlink", f"/proc/{process.pid}/ns/net"]).stdout not in {own_net, ""}

        wait_until(is_apart, DEADLINE, "a network")
        made = Container(home, process.pid)
        home.run(
            ["ip", "link", "add", f"outer{number}", "type", "veth", "peer", "name", "inner", "netns", str(process.pid)],
            check=True,
        )
        for line in lines.strip().splitlines():
            where, *words = line.split()
            command = ["ip", *words]
            home.run(made.within(*command) if where == "in" else command, check=True)
        try:
            yield made
        finally:
            home.run(["ip", "link", "del", f"outer{number}"], check=True)
            process.kill()


@contextmanager
def serving(backend: Container, folder: Path) -> Iterator[None]:
    said = folder / f"said-{backend.pid}"
    words = backend.within(sys.executable, "-c", SERVE)
    with said.open("w") as out, backend.node.start(words, stdout=out, stderr=out) as process:
        wait_until(lambda: "listens" in said.read_text(), DEADLINE, "the backend")
        yield
        process.kill()


def test_containers_of_one_bridge_are_neighbours(lab: Lab, proxy: Proxy, lab_folder: Path) -> None:
    home = lab["home"]
    for line in ("link add bridge type bridge", "address add 10.8.0.1/24 dev bridge", "link set bridge up"):
        home.run(["ip", *line.split()], check=True)
    try:
        with ExitStack() as stack:
            two = [
                stack.enter_context(
                    container(
                        home,
                        number,
                        f"""
                        out link set outer{number} master bridge up
                        in address add 10.8.0.{number}/24 dev inner
                        in link set inner up
                        in route add default via 10.8.0.1
                        """,
                    )
                )
                for number in (2, 3)
            ]
            stack.enter_context(serving(two[0], lab_folder))
            two[1].is_seen_as("10.8.0.1", "10.8.0.1", 8445)
            with lab["client"].connect(("198.51.100.1", 8445), DEADLINE) as client:
                client.sendall(b"x")
                assert client.recv(99) == b"198.51.100.66", proxy.said
    finally:
        home.run(["ip", "link", "del", "bridge"], check=True)


def test_containers_that_only_this_host_joins_see_each_other(lab: Lab, proxy: Proxy, lab_folder: Path) -> None:
    """One network, though each is alone on a link of its own: all that one sends the other comes by this host."""
    home = lab["home"]
    with ExitStack() as stack:
        two = [
            stack.enter_context(
                container(
                    home,
                    number,
                    f"""
                    out address add 10.9.0.1/24 dev outer{number}
                    out link set outer{number} up
                    out route add 10.9.0.{number} dev outer{number}
                    in address add 10.9.0.{number}/32 dev inner
                    in link set inner up
                    in route add 10.9.0.1 dev inner
                    in route add default via 10.9.0.1
                    """,
                )
            )
            for number in (2, 3)
        ]
        stack.enter_context(serving(two[0], lab_folder))
        assert two[1].visit("10.9.0.1", 8446) == "10.9.0.3", proxy.said


def test_doctor_tells_whom_a_backend_that_must_see_clients_cannot_serve(lab: Lab, proxy: Proxy) -> None:
    asked = lab["home"].run([edgeproxy(), "doctor", "-c", str(proxy.config), "--json"])
    answer = json.loads(asked.stdout)
    notes = [finding for finding in answer["findings"] if finding["status"] == "note"]
    assert [note["name"] for note in notes] == ["neighbours of must"]
    for word in ("192.168.1.0/24", "192.168.1.10", "client_or_own"):
        assert word in notes[0]["found"]
