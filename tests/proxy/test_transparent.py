"""Backends see the client's own address: at loopback, at another address of the proxy's host, on another host.

client -- internet -- home (the proxy) -- lan -- nas, whose way to the internet leads by home
"""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

import pytest

from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from lab.realise.node import Node
from tests.proxy.ends import DEADLINE, PORTS, accepted, is_reset, own, peer, read
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
"""
# Port asked for, name of the backend, its addresses, and whose address it sees.
PLACES = {
    8443: ("loopback", ["127.0.0.1", "::1"], "client"),
    8444: ("own-address", ["192.168.1.1", "2001:db8:10::1"], "client"),
    8445: ("elsewhere", ["192.168.1.10", "2001:db8:10::10"], "client"),
    8446: ("not-asked", ["192.168.1.10", "2001:db8:10::10"], "own"),
    8447: ("or-own", ["192.168.1.10"], "client_or_own"),
    8448: ("never-own", ["192.168.1.10"], "client"),
}
BACKEND = 9001
PAGE = (Path(__file__).parents[2] / "docs/edgeproxy.md").read_text()
MANY_PORTS = dedent(
    re.sub(r"^\S.*", "", PAGE.split("\n#### Many ports at one socket\n")[1].split("\n#")[0], flags=re.MULTILINE)
)
LISTENER, _, TPROXY = MANY_PORTS.partition("# nft -f - <<'END'\n")
TPROXY = TPROXY.partition("END\n")[0]
CONFIG = """
[listener.in]
tcp = ["0.0.0.0:8443-8449", "[::]:8443-8449"]
LISTENER
[[rule]]
name = "all"
listeners = ["all"]
to = "all"
[backend.all]
targets = ["192.168.1.10:$port"]
source = "client"
[transparent]
manage_rules = MANAGED
""" + "".join(
    f"""
[[rule]]
name = "{name}"
ports = [{port}]
to = "{name}"
[backend.{name}]
targets = [{", ".join(f'"{"[" + address + "]" if ":" in address else address}:{BACKEND}"' for address in addresses)}]
source = "{source}"
"""
    for port, (name, addresses, source) in PLACES.items()
)
LACK = "note: transparent.manage_rules is off"
HOME = {4: "198.51.100.1", 6: "2001:db8:1::1"}
CLIENT = {4: "198.51.100.66", 6: "2001:db8:1::66"}


@pytest.fixture(scope="module")
def lab(module_up: Up) -> Lab:
    return module_up(TOPOLOGY)


@pytest.fixture(scope="module")
def proxy(lab: Lab, lab_folder: Path) -> Iterator[Proxy]:
    with serving(lab, lab_folder / "managed") as found:
        yield found


@contextmanager
def serving(lab: Lab, folder: Path, *, managed: bool = True) -> Iterator[Proxy]:
    folder.mkdir()
    text = CONFIG.replace("LISTENER", LISTENER).replace("MANAGED", "true" if managed else "false")
    with running_in(lab["home"], text, "127.0.0.1", folder) as found:
        yield found


def coming(lab: Lab, port: int, version: int = 4) -> socket.socket:
    """A client by whose endpoint its line is found: none before had it."""
    return lab["client"].connect((HOME[version], port), DEADLINE, source=(CLIENT[version], next(PORTS)))


@contextmanager
def relayed(lab: Lab, proxy: Proxy, port: int, version: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client and its backend, between whom bytes have passed both ways."""
    addresses = PLACES[port][1]
    address = next((one for one in addresses if (":" in one) == (version == 6)), addresses[0])
    node = lab["nas"] if address.endswith((".10", "::10")) else lab["home"]
    assert proxy.pid
    with node.listen(BACKEND, address) as server, coming(lab, port, version) as client:
        server.settimeout(DEADLINE)
        with accepted(server) as backend:
            client.sendall(b"there")
            assert read(backend, 5) == b"there"
            backend.sendall(b"b" * 100_000)
            assert read(client, 100_000) == b"b" * 100_000
            yield client, backend


@pytest.mark.essential
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("port", [8443, 8444, 8445])
def test_a_backend_sees_the_clients_own_endpoint(lab: Lab, proxy: Proxy, port: int, version: int) -> None:
    with relayed(lab, proxy, port, version) as (client, backend):
        who = own(client)
        assert who.startswith(("198.51.100.66:", "[2001:db8:1::66]:"))
        assert peer(backend) == who
    line = proxy.line(who)
    assert (line["source"], line["rule"]) == ("client_endpoint", PLACES[port][0])


@pytest.mark.parametrize(
    ("port", "version", "source"),
    [(8446, 4, "own"), (8446, 6, "own"), (8447, 4, "client_endpoint"), (8447, 6, "own"), (8448, 4, "client_endpoint")],
)
def test_a_backend_sees_the_proxy_where_that_is_asked_for_or_has_to_be(
    lab: Lab, proxy: Proxy, port: int, version: int, source: str
) -> None:
    with relayed(lab, proxy, port, version) as (client, backend):
        who = own(client)
        assert (peer(backend) == who) == (source == "client_endpoint")
        if source == "own":
            assert backend.getpeername()[0] in {"192.168.1.1", "2001:db8:10::1"}
    assert proxy.line(who)["source"] == source


def test_who_cannot_be_seen_and_must_be_is_refused(lab: Lab, proxy: Proxy) -> None:
    with lab["client"].socket(socket.AF_INET6) as client:
        client.settimeout(DEADLINE)
        client.bind((CLIENT[6], next(PORTS)))
        who = own(client)
        try:
            client.connect((HOME[6], 8448))
            assert is_reset(client)
        except ConnectionResetError:
            pass
    proxy.ended(who, "transparency_impossible")


def test_who_is_on_the_proxys_own_host_is_led_too(lab: Lab, proxy: Proxy) -> None:
    """Client and backend on one host: the backend sees the proxy, for nothing else is possible."""
    for address in ("127.0.0.1", HOME[4], "192.168.1.1"):
        with (
            lab["home"].listen(BACKEND, "127.0.0.1") as server,
            lab["home"].connect((address, 8443), DEADLINE) as client,
        ):
            server.settimeout(DEADLINE)
            with accepted(server) as backend:
                client.sendall(b"there")
                assert read(backend, 5) == b"there"
            who = own(client)
        assert proxy.line(who)["source"] == "own"


def test_the_way_of_others_is_not_touched(lab: Lab, proxy: Proxy) -> None:
    """A service at the same backend, reached without the proxy, and one of the host's own."""
    assert proxy.pid
    with lab["nas"].listen(BACKEND) as server, lab["client"].connect(("192.168.1.10", BACKEND), DEADLINE) as client:
        server.settimeout(DEADLINE)
        with accepted(server) as end:
            client.sendall(b"x")
            assert read(end, 1) == b"x"
            assert "198.51.100.66" in peer(end)


@contextmanager
def diverting(home: Node) -> Iterator[None]:
    assert home.run(["nft", "-f", "-"], input=TPROXY).returncode == 0
    try:
        yield
    finally:
        home.run(["nft", "delete", "table", "ip", "divert"], check=True)


@pytest.mark.essential
def test_one_socket_serves_a_range_of_ports_and_knows_which_was_asked_for(lab: Lab, proxy: Proxy) -> None:
    with diverting(lab["home"]):
        for port in (20000, 23456, 29999):
            with lab["nas"].listen(port, "192.168.1.10") as server:
                server.settimeout(DEADLINE)
                with coming(lab, port) as client, accepted(server) as backend:
                    client.sendall(b"there")
                    assert read(backend, 5) == b"there"
                    backend.sendall(b"back")
                    assert read(client, 4) == b"back"
                    who = own(client)
                    assert peer(backend) == who
            line = proxy.line(who)
            assert (line["original_dst"], line["target"]) == (f"{HOME[4]}:{port}", f"192.168.1.10:{port}")
            assert line["listener"] == "all"


def rules(home: Node) -> str:
    words = (["ip", "-4", "rule"], ["ip", "-6", "rule"], ["nft", "list", "ruleset"])
    return "".join(home.run(command, check=True).stdout for command in words)


@pytest.mark.essential
def test_rules_that_somebody_removes_are_put_back(lab: Lab, proxy: Proxy) -> None:
    home, whole = lab["home"], rules(lab["home"])
    assert "25968" in whole
    for removal in (["ip", "-4", "rule", "flush"], ["ip", "-6", "rule", "flush"]):
        home.run(removal, check=True)
        # What a network manager puts back itself (ip-rule(8)): the tables that every host has.
        version = removal[1]
        for table, priority in (("main", "32766"), ("default", "32767")):
            home.run(["ip", version, "rule", "add", "lookup", table, "pref", priority])
        wait_until(lambda: rules(home).count("25968") == whole.count("25968"), DEADLINE, "the rules")
    wait_until(lambda: "somebody removed rules" in proxy.said, DEADLINE, "the word of it")
    for port in (8443, 8444, 8445):
        with relayed(lab, proxy, port, 4) as (client, backend):
            assert peer(backend) == own(client)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_rules_are_gone_with_the_proxy(lab: Lab, lab_folder: Path, end: int) -> None:
    home = lab["nas"]
    folder = lab_folder / f"ends-by-{end}"
    folder.mkdir()
    text = CONFIG.replace("LISTENER", LISTENER).replace("MANAGED", "true").replace("192.168.1.10", "192.168.1.77")
    before = rules(home)
    with running_in(home, text, "127.0.0.1", folder) as found:
        assert rules(home) != before
        found.send_signal(end)
        found.wait(DEADLINE)
        wait_until(lambda: rules(home) == before, DEADLINE, "the rules are gone")


def test_mark_and_table_are_those_of_the_file(lab: Lab, lab_folder: Path) -> None:
    """Answers come back by them, to a backend at another address of the proxy's host."""
    nas, folder = lab["nas"], lab_folder / "numbered"
    folder.mkdir()
    text = UNMANAGED.replace("127.0.0.1", "192.168.1.10") + "[transparent]\nmanage_rules = true\nmark = 7\ntable = 77\n"
    before = rules(nas)
    with running_in(nas, text, "127.0.0.1", folder) as proxy, nas.listen(BACKEND, "192.168.1.10") as server:
        assert re.search(r"fwmark 0x7\b.* lookup 77\b", rules(nas)), rules(nas)
        assert "25968" not in rules(nas)
        server.settimeout(DEADLINE)
        with lab["home"].connect(("192.168.1.10", 8443), DEADLINE) as client, accepted(server) as backend:
            client.sendall(b"there")
            assert read(backend, 5) == b"there"
            who = own(client)
            assert peer(backend) == who
        assert proxy.line(who)["source"] == "client_endpoint"
    wait_until(lambda: rules(nas) == before, DEADLINE, "the rules are gone")


UNMANAGED = """
[listener.in]
tcp = ["0.0.0.0:8443"]
[[rule]]
to = "out"
[backend.out]
targets = ["127.0.0.1:9001"]
source = "client"
connect_timeout = "2s"
"""


def test_without_management_the_printed_lines_do_the_same(lab: Lab, lab_folder: Path) -> None:
    nas, folder = lab["nas"], lab_folder / "unmanaged"
    folder.mkdir()
    before = rules(nas)
    with running_in(nas, UNMANAGED, "127.0.0.1", folder) as proxy, nas.listen(BACKEND, "127.0.0.1") as server:
        words = [edgeproxy(), "rules", "-c", str(proxy.config)]
        doctor = [edgeproxy(), "doctor", "-c", str(proxy.config)]
        assert rules(nas) == before
        assert LACK in proxy.said
        assert nas.run(doctor).returncode == 1
        with lab["home"].connect(("192.168.1.10", 8443), DEADLINE) as client:
            assert is_reset(client), "its answers go astray"
            proxy.ended(own(client), "backend_timeout")
        lines = nas.run(words, check=True).stdout
        nas.run(["sh", "-e"], input=lines, check=True)
        assert nas.run(doctor).returncode == 0, nas.run(doctor).stdout
        server.settimeout(DEADLINE)
        with lab["home"].connect(("192.168.1.10", 8443), DEADLINE) as client, accepted(server) as end:
            assert peer(end) == own(client)
    with running_in(nas, UNMANAGED, "127.0.0.1", folder) as proxy:
        assert LACK not in proxy.said
        nas.run(["sh", "-e"], input=nas.run([*words, "--remove"], check=True).stdout, check=True)
        assert rules(nas) == before


def test_the_process_holds_two_capabilities_in_a_lab_too(proxy: Proxy) -> None:
    status = proxy.status()
    assert int(status["CapEff"], 16) == 1 << 10 | 1 << 13
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
