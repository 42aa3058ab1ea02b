"""Backends by name, from a real name server: what clients choose leads where it may, and nowhere else."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dns.message
import dns.query
import pytest

from lab.realise.asking import wait_until
from tests.proxy.conftest import Start
from tests.proxy.ends import DEADLINE, accepted, connect, listening, own, read, read_all, refused
from tests.proxy.running import Line, Proxy, own_address

pytestmark = pytest.mark.skipif(
    shutil.which("dnsmasq", path="/usr/sbin:/usr/bin:/sbin") is None, reason="needs dnsmasq"
)
CONFIG = r"""
[listener.in]
tcp = ["HERE:8443"]
[[rule]]
name = "all"
protocols = ["http1"]
server_name = '^(?P<host>.+)\.example\.net$'
to = "chosen"
[[rule]]
name = "whole"
server_name = '^(?P<host>.+)$'
to = "whole"
[backend.chosen]
targets = ["$host.lan:9001"]
allow_suffixes = [".lan"]
[backend.whole]
targets = ["$host:9001"]
allow_suffixes = [".lan"]
[resolver]
servers = ["HERE:5353"]
timeout = "5s"
[targets]
allow = ["THERE/32", "OTHER/32"]
"""


class NameServer:
    """dnsmasq for names of a file."""

    def __init__(self, folder: Path, address: str, process: subprocess.Popen[bytes]) -> None:
        self.hosts, self.address, self.process = folder / "hosts", address, process

    def has(self, **names: str) -> None:
        """These names, and no others; several addresses with a comma between."""
        pairs = [(one, name) for name, addresses in names.items() for one in addresses.split(",")]
        self.hosts.write_text("".join(f"{address} {name}.lan\n" for address, name in pairs))
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self._tells(names), DEADLINE, "the new names")

    def _tells(self, names: dict[str, str]) -> bool:
        return all(self.answer(name) == set(addresses.split(",")) for name, addresses in names.items())

    def answer(self, name: str) -> set[str]:
        question = dns.message.make_query(f"{name}.lan", "A")
        answer = dns.query.udp(question, self.address, timeout=DEADLINE, port=5353).answer
        return {record.address for records in answer for record in records}


@contextmanager
def name_server(folder: Path, address: str) -> Iterator[NameServer]:
    (folder / "hosts").write_text("")
    words = [
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--local=/lan/",
        "--local-ttl=1",
    ]
    words += ["--port=5353", f"--listen-address={address}", "--bind-interfaces", f"--addn-hosts={folder}/hosts"]
    words += ["--user=root", "--group=root", "--pid-file="]
    program = shutil.which("dnsmasq", path="/usr/sbin:/usr/bin:/sbin")
    assert program
    with subprocess.Popen([program, *words], stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: answers(address, 5353), DEADLINE, "the name server")
            yield NameServer(folder, address, process)
        finally:
            process.kill()


def answers(address: str, port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex((address, port)) == 0


@pytest.fixture
def places() -> tuple[str, str]:
    return own_address(), own_address()


@pytest.fixture
def proxy(start: Start, places: tuple[str, str]) -> Proxy:
    # One worker, for each remembers names for itself.
    return start("workers = 1\n" + CONFIG.replace("THERE", places[0]).replace("OTHER", places[1]))


@pytest.fixture
def names(proxy: Proxy, tmp_path: Path) -> Iterator[NameServer]:
    tmp_path.chmod(0o755)
    with name_server(tmp_path, proxy.here) as served:
        yield served


def request(host: str) -> bytes:
    return f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


def led(proxy: Proxy, server: socket.socket, host: str) -> Line:
    with connect(proxy.here, 8443) as client:
        client.sendall(request(host))
        with accepted(server) as end:
            assert read(end, 3) == b"GET"
            read(end, len(request(host)) - 3)
        assert read_all(client) == b""
        client.shutdown(socket.SHUT_WR)
        who = own(client)
    return proxy.line(who)


def reason(proxy: Proxy, host: str) -> str:
    line = proxy.line(refused(proxy.here, 8443, request(host)))
    proxy.ended(line["peer"], line["close"])
    assert "target" not in line
    return str(line["close"])


def test_a_name_that_the_client_chose_leads_to_its_address(
    proxy: Proxy, names: NameServer, places: tuple[str, str]
) -> None:
    names.has(nas=places[0])
    with listening(places[0], 9001) as server:
        line = led(proxy, server, "nas.example.net")
    assert line["target"] == f"{places[0]}:9001"
    assert line["server_name"] == "nas.example.net"


def test_an_address_that_changes_is_followed_when_its_time_is_over(
    proxy: Proxy, names: NameServer, places: tuple[str, str]
) -> None:
    names.has(nas=places[0])
    with listening(places[0], 9001) as old, listening(places[1], 9001):
        led(proxy, old, "nas.example.net")
        names.has(nas=places[1])

        def is_new() -> bool:
            with connect(proxy.here, 8443) as client:
                client.sendall(request("nas.example.net"))
                line = proxy.wait_for(lambda line: line["peer"] == own(client) and line["target"], "a target")
                return bool(line["target"] == f"{places[1]}:9001")

        wait_until(is_new, DEADLINE, "the new address")


def test_a_name_outlives_its_server_and_a_reload(proxy: Proxy, names: NameServer, places: tuple[str, str]) -> None:
    names.has(nas=places[0])
    with listening(places[0], 9001) as server:
        led(proxy, server, "nas.example.net")
        proxy.reload(proxy.config.read_text() + "# the same\n")
        names.process.kill()
        names.process.wait(DEADLINE)
        # The last answer cannot be younger than the server's end, and holds for a second (--local-ttl).
        gone = time.monotonic()
        wait_until(lambda: time.monotonic() > gone + 1.1, DEADLINE, "the answer has run out")
        for _ in range(3):
            assert led(proxy, server, "nas.example.net")["target"] == f"{places[0]}:9001"


def test_of_several_addresses_one_that_answers_is_taken(
    proxy: Proxy, names: NameServer, places: tuple[str, str]
) -> None:
    names.has(nas=",".join(places))
    for place in places:
        with listening(place, 9001) as server:
            assert led(proxy, server, "nas.example.net")["target"] == f"{place}:9001"
    assert reason(proxy, "nas.example.net") == "backend_refused"


def test_a_name_that_is_none_is_not_resolved(proxy: Proxy, names: NameServer, places: tuple[str, str]) -> None:
    assert reason(proxy, "nobody.example.net") == "name_not_resolved"
    names.has(nas=places[0])
    assert reason(proxy, "nobody.example.net") == "name_not_resolved"
    names.process.kill()
    names.process.wait(DEADLINE)
    assert reason(proxy, "somebody.example.net") == "name_not_resolved"


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "169.254.169.254", "169.254.1.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "100.100.100.200"],
)
def test_a_name_does_not_lead_where_names_may_not(proxy: Proxy, names: NameServer, address: str) -> None:
    names.has(evil=address)
    assert reason(proxy, "evil.example.net") == "target_forbidden"


def test_a_name_does_not_lead_back_to_the_proxy(start: Start, tmp_path: Path) -> None:
    proxy = start(CONFIG.replace("THERE", "127.0.9.9").replace("OTHER", "127.0.9.8").replace(":9001", ":8443"))
    with name_server(tmp_path, proxy.here) as names:
        names.has(own=proxy.here)
        assert reason(proxy, "own.example.net") == "self_loop"


@pytest.mark.parametrize("host", ["evil.example.com", "127.0.0.1", "notlan", "lan", "[::1]", "nas.lan.example.com"])
def test_a_name_that_does_not_end_as_it_must_is_refused_and_not_asked_for(
    proxy: Proxy, names: NameServer, host: str
) -> None:
    names.process.kill()
    line = proxy.line(refused(proxy.here, 8443, request(host)))
    if line["close"] == "no_rule":
        assert "server_name" not in line, "an address is no name"
    else:
        proxy.ended(line["peer"], "name_refused")
        assert line["close_detail"]


def test_a_name_that_ends_as_it_must_is_led(proxy: Proxy, names: NameServer, places: tuple[str, str]) -> None:
    names.has(nas=places[0])
    with listening(places[0], 9001) as server:
        assert led(proxy, server, "nas.lan")["rule"] == "whole"
