"""What an upgrade takes along besides connections and flows, and what a newer configuration changes by it."""

from __future__ import annotations

import errno
import os
import re
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from tests.proxy import proxy_protocol as pp
from tests.proxy.conftest import Start
from tests.proxy.ends import connect, read
from tests.proxy.running import DEADLINE, OPERATION, edgeproxy
from tests.proxy.upgrading import Flow, UdpEcho, echoing, until_ended, upgrading

TCP = """
[listener.in]
tcp = ["HERE:8000"]
[[rule]]
to = "echo"
[backend.echo]
targets = ["HERE:9000"]
"""
UDP = """
[listener.in]
udp = ["HERE:8001"]
[[rule]]
to = "udp"
[backend.udp]
targets = ["HERE:9001"]
"""


def test_sources_that_were_denied_stay_so_for_the_time_that_is_left(start: Start) -> None:
    proxy = start(TCP)
    proxy.ask("deny", "203.0.113.0/24", "2001:db8::/48", "--for", "1h")
    with upgrading(proxy) as upgrades:
        upgrades.upgrade()
        upgrades.upgrade()
        told = proxy.ask("denied")
        assert "203.0.113.0/24" in told
        assert "2001:db8::/48" in told
        left = [int(seconds) for seconds in re.findall(r" (\d+)s$", told, re.MULTILINE)]
        assert len(left) == 2, told
        assert 3000 < min(left) <= max(left) <= 3600


def test_the_admin_socket_and_the_metrics_go_on_at_their_places(start: Start) -> None:
    proxy = start(TCP)
    first, admin = proxy.pid, (proxy.folder / "admin").stat().st_ino
    with upgrading(proxy) as upgrades, echoing(proxy.here, 9000):
        for _ in range(2):
            process = upgrades.upgrade()
            assert upgrades.status()["pid"] == process.pid
            assert "edgeproxy_closed_total" in proxy.scrape()
        until_ended(first)
        assert upgrades.later[0].wait(DEADLINE) == 0
        assert upgrades.status()["pid"] == upgrades.later[1].pid
        assert (proxy.folder / "admin").stat().st_ino == admin
        # Others than before: the old ones are given up with the old process.
        proxy.config.write_text(proxy.config.read_text().replace("/admin", "/admin2").replace(":9464", ":9465"))
        upgrades.start(f"--take-over={proxy.folder / 'admin'}")
        wait_until(lambda: "edgeproxy: ready" in upgrades.said(), DEADLINE, "the upgrade")
        assert upgrades.later[1].wait(DEADLINE) == 0
        assert not (proxy.folder / "admin").exists()
        assert (proxy.folder / "admin2").exists()
        with pytest.raises(ConnectionRefusedError):
            connect(proxy.here, 9464)
        connect(proxy.here, 9465).close()
    assert not (proxy.folder / "admin2").exists()


def test_endpoints_come_and_go_with_an_upgrade(start: Start) -> None:
    both = TCP.replace('["HERE:8000"]', '["HERE:8000", "HERE:8010"]\nudp = ["HERE:8001"]')
    proxy = start(both)
    with upgrading(proxy) as upgrades, echoing(proxy.here, 9000), connect(proxy.here, 8010) as staying:
        staying.sendall(b"1")
        assert read(staying, 1) == b"1"
        upgrades.upgrade(TCP.replace('["HERE:8000"]', '["HERE:8000", "HERE:8020"]'))
        for port in (8000, 8020):
            with connect(proxy.here, port) as client:
                client.sendall(b"x")
                assert read(client, 1) == b"x"
        with pytest.raises(ConnectionRefusedError):
            connect(proxy.here, 8010).close()
        staying.sendall(b"2")
        assert read(staying, 1) == b"2"
        wait_until(lambda: _is_free(proxy.here, 8001), DEADLINE, "the UDP port is free")


def _is_free(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        try:
            own.bind((address, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def test_the_service_manager_hears_who_the_service_is(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(DEADLINE)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        proxy = start(TCP)
        assert manager.recv(999).startswith(b"READY=1\n")
        with upgrading(proxy) as upgrades:
            first, process = proxy.pid, upgrades.upgrade()
            assert manager.recv(999).startswith(b"MAINPID=%d\n" % process.pid)
            assert manager.recv(999).startswith(b"READY=1\n"), "only after the manager knows whom to believe"
            until_ended(first)
        assert manager.recv(999).startswith(b"STOPPING=1\n"), "of the newer one; the old one's end is not the service's"


def test_a_backend_that_wants_one_header_gets_no_second_one(start: Start) -> None:
    proxy = start(UDP + 'send_proxy_udp = "first"\n')
    with upgrading(proxy) as upgrades, UdpEcho(proxy.here, 9001):
        flow = Flow(proxy.here, 8001)
        flow.socket.send(b"hello")
        header = flow.socket.recv(99).partition(b" ")[2]
        assert header == pp.v2((flow.socket.getsockname(), (proxy.here, 8001)), family=pp.UDP4) + b"hello"
        for _ in range(2):
            upgrades.upgrade()
            flow.ask()
        flow.close()


def test_the_header_of_a_peers_first_datagram_still_holds(start: Start) -> None:
    trusted = 'proxy_header = [{from = "127.0.0.0/8", policy = "require", udp = "first"}]\n[[rule]]'
    proxy = start(UDP.replace("[[rule]]", trusted))
    with upgrading(proxy) as upgrades, UdpEcho(proxy.here, 9001):
        flow = Flow(proxy.here, 8001)
        flow.socket.send(pp.v2(family=pp.UDP4) + b"hello")
        assert flow.socket.recv(99).endswith(b" hello")
        upgrades.upgrade()
        flow.ask()
        (line,) = proxy.connections()
        assert (line["client"], line["original_dst"]) == ("203.0.113.7:40000", "198.51.100.1:443")
        assert line["bytes_in"] == len("hello1")
        flow.close()


def test_a_peers_socket_whose_flow_has_ended_is_still_known(start: Start) -> None:
    trusted = 'proxy_header = [{from = "127.0.0.0/8", policy = "require", udp = "first"}]\n[[rule]]'
    # Each flow is answered, however late, and ends by the time for those.
    text = UDP.replace("[[rule]]", trusted) + '[timeouts]\nudp_one_way = "10m"\nudp_idle = "150ms"\n'
    proxy = start(text)
    with upgrading(proxy) as upgrades, UdpEcho(proxy.here, 9001):
        flow = Flow(proxy.here, 8001)
        flow.socket.send(pp.v2(family=pp.UDP4) + b"hello")
        assert flow.socket.recv(99).endswith(b" hello")
        forged = pp.v2((("203.0.113.8", 40001), ("198.51.100.1", 443)), family=pp.UDP4) + b"x"
        for _ in range(2):
            wait_until(lambda: proxy.connections() == [], DEADLINE, "the flow's end")
            upgrades.upgrade()
            upgrades.upgrade()
            flow.socket.send(forged)
            assert flow.socket.recv(99).partition(b" ")[2] == forged, "to the backend it is payload"
        ended = ["203.0.113.7:40000"] * 3
        wait_until(lambda: [line["client"] for line in proxy.lines()] == ended, DEADLINE, "the flows' ends")
        flow.close()


def test_a_flow_whose_name_is_still_looked_up_begins_anew_with_what_it_has_sent(start: Start) -> None:
    named = UDP.replace("HERE:9001", "nas.example.net:9001") + '[resolver]\nservers = ["HERE:5353"]\ntimeout = "30s"\n'
    proxy = start(named + '[targets]\nallow = ["127.0.0.0/8"]\n' + OPERATION)
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        server.bind((proxy.here, 5353))
        server.settimeout(DEADLINE)
        upgrades = stack.enter_context(upgrading(proxy))
        stack.enter_context(UdpEcho(proxy.here, 9001))
        flow = Flow(proxy.here, 8001)
        flow.send()
        asked = [server.recvfrom(999), server.recvfrom(999)]
        flow.send()
        proxy.wait_for(lambda line: line["transport"] == "udp", "the flow")
        first = proxy.pid
        upgrades.upgrade()
        until_ended(first)
        asked = [server.recvfrom(999), server.recvfrom(999)]
        for question, peer in asked:
            server.sendto(answered(question, proxy.here), peer)
        for number in (1, 2):
            flow.receive(number)
        flow.close()


def answered(question: bytes, address: str) -> bytes:
    """The answer to a question for A, or none for another type (RFC 1035 section 4)."""
    end = question.index(b"\0", 12) + 5
    is_a = question[end - 4 : end - 2] == b"\0\1"
    head = question[:2] + b"\x81\x80\0\1" + (b"\0\1" if is_a else b"\0\0") + bytes(4)
    record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(address) if is_a else b""
    return head + question[12:end] + record


RULES = """
[listener.in]
tcp = ["127.0.0.1:8000"]
[[rule]]
to = "web"
[backend.web]
targets = ["127.0.0.1:9000"]
source = "client"
[transparent]
manage_rules = true
[operation]
admin_socket = "FOLDER/admin"
"""


@pytest.mark.essential
def test_the_kernels_rules_stay_through_upgrades_and_go_with_the_last_process(tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    file.write_text("nodes: {a: {}}\n")
    config = tmp_path / "c.toml"
    config.write_text(RULES.replace("FOLDER", str(tmp_path)))
    with Lab.up(file, name=f"t-{os.getpid()}-rules") as lab, ExitStack() as stack:
        node = lab["a"]

        def has_rule() -> bool:
            return "lookup 25968" in node.run(["ip", "rule"], check=True).stdout

        def keepers() -> list[str]:
            return node.run(["pgrep", "-f", "exe keep-rules"]).stdout.split()

        assert not has_rule()
        processes = []
        for number in range(3):
            path = tmp_path / f"stderr.{number}"
            stderr = stack.enter_context(path.open("w"))
            words = ["--take-over"] if number else []
            argv = [edgeproxy(), "run", "-c", str(config), *words]
            processes.append(stack.enter_context(node.start(argv, stderr=stderr)))
            wait_until(lambda path=path: "ready" in path.read_text(), DEADLINE, "the start")  # type: ignore[misc]
            assert has_rule(), path.read_text()
        assert processes[0].wait(DEADLINE) == 0
        assert processes[1].wait(DEADLINE) == 0
        assert has_rule()
        assert len(keepers()) == 1, "it goes from process to process"
        node.run(["ip", "rule", "flush"], check=True)
        wait_until(has_rule, DEADLINE, "the keeper puts back what somebody removed")
        wait_until(lambda: "they are there again" in (tmp_path / "stderr.2").read_text(), DEADLINE, "word of it")
        processes[2].terminate()
        assert processes[2].wait(DEADLINE) == 0
        wait_until(lambda: not has_rule(), DEADLINE, "no rules")
        wait_until(lambda: not keepers(), DEADLINE, "nobody keeps them")
