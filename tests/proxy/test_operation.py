"""A proxy in operation: reloads, ends, its log, metrics and commands."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import time
from itertools import pairwise

import pytest

from lab.realise.asking import wait_until
from tests.proxy.conftest import Start
from tests.proxy.ends import DEADLINE, accepted, connect, is_reset, listening, own, read, read_all, refused
from tests.proxy.running import Proxy, edgeproxy, own_address

CONFIG = """
[listener.in]
tcp = ["HERE:8443"]
[[rule]]
name = "nobody"
from = ["127.0.0.77/32"]
refuse = true
[[rule]]
name = "first"
to = "out"
[backend.out]
targets = ["HERE:9001"]
"""
MORE = CONFIG.replace('"first"', '"second"').replace('8443"]', '8443", "HERE:8444"]')


def passes(client: socket.socket, backend: socket.socket) -> None:
    client.sendall(b"there")
    assert read(backend, 5) == b"there"
    backend.sendall(b"back")
    assert read(client, 4) == b"back"


@pytest.mark.essential
def test_a_reload_keeps_connections_and_takes_new_rules_and_listeners(start: Start) -> None:
    proxy = start(CONFIG)
    with listening(proxy.here, 9001) as server, connect(proxy.here, 8443) as client, accepted(server) as backend:
        passes(client, backend)
        proxy.reload(MORE)
        passes(client, backend)
        for port in (8443, 8444):
            with connect(proxy.here, port) as later, accepted(server) as end:
                passes(later, end)
                who = own(later)
                (line,) = [line for line in proxy.connections() if line["peer"] == who]
                assert line["rule"] == "second"
        who = own(client)
    assert proxy.line(who)["rule"] == "first", "it is told of as it began"


def test_many_reloads_under_traffic_lose_no_connection(start: Start) -> None:
    proxy = start(CONFIG)
    before = 'edgeproxy_opened_total{listener="in",transport="tcp"}'
    totals = [proxy.metrics()]
    with listening(proxy.here, 9001) as server:
        for number in range(30):
            with connect(proxy.here, 8443) as client, accepted(server) as backend:
                passes(client, backend)
                proxy.reload((MORE, CONFIG)[number % 2])
                passes(client, backend)
            totals.append(proxy.metrics())
    assert totals[-1][before] == 30
    for earlier, later in pairwise(totals):
        for key, value in earlier.items():
            if key.split("{")[0].endswith(("_total", "_bucket", "_sum", "_count")):
                assert later.get(key, -1) >= value, key
    assert totals[-1]["edgeproxy_reloads_total"] == 30


def test_who_waits_at_a_listener_that_is_taken_away_is_served(start: Start) -> None:
    """The process is stopped while they connect, so that the kernel has accepted them and the proxy has not."""
    proxy = start("workers = 1\n" + MORE)
    with listening(proxy.here, 9001) as server:
        proxy.send_signal(signal.SIGSTOP)
        clients = [connect(proxy.here, 8444) for _ in range(5)]
        proxy.write("workers = 1\n" + CONFIG)
        proxy.send_signal(signal.SIGHUP)
        proxy.send_signal(signal.SIGCONT)
        for client in clients:
            client.sendall(b"x")
        for _ in clients:
            with accepted(server) as end:
                assert read(end, 1) == b"x"
                end.sendall(b"y")
        for client in clients:
            assert read_all(client) == b"y"
            client.close()
    wait_until(lambda: proxy.metrics()["edgeproxy_reloads_total"] == 1, DEADLINE, "the reload")
    wait_until(lambda: not answers(proxy.here, 8444), DEADLINE, "nobody listens any more")


def answers(address: str, port: int) -> bool:
    """Whether anybody listens; the proxy leads this source nowhere."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.77", 0))
        return asked.connect_ex((address, port)) == 0


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("[listener.in]\ntcp = 5\n", "c.toml:"),
        (CONFIG.replace('to = "out"', 'to = "nowhere"'), 'no backend is called "nowhere"'),
        (CONFIG.replace("HERE:8443", "192.0.2.1:8443"), "no interface has this address"),
        (CONFIG.replace("HERE:8443", "HERE:8449"), "another program listens there"),
    ],
)
def test_a_reload_that_is_not_possible_changes_nothing_and_says_why(start: Start, wrong: str, why: str) -> None:
    proxy = start(CONFIG)
    proxy.write(wrong)
    with listening(proxy.here, 8449):
        proxy.send_signal(signal.SIGHUP)
        wait_until(lambda: "not reloaded, the old configuration stays" in proxy.said, DEADLINE, "the complaint")
        wait_until(lambda: why in proxy.said, DEADLINE, "the reason")
    assert proxy.metrics()["edgeproxy_reload_failures_total"] == 1
    with listening(proxy.here, 9001) as server, connect(proxy.here, 8443) as client, accepted(server) as backend:
        passes(client, backend)


@pytest.mark.parametrize("address", ["0.0.0.0", "HERE"])
def test_a_reload_may_widen_and_narrow_an_endpoint(start: Start, address: str) -> None:
    other = "HERE" if address == "0.0.0.0" else "0.0.0.0"
    # At all addresses: one that no other test has at any, nor this one with the other address beside it.
    port = (20000 if address == "HERE" else 25000) + int.from_bytes(os.urandom(2)) % 5000
    text = CONFIG.replace("HERE:8443", "ADDRESS:PORT").replace("PORT", str(port))
    proxy = start(text.replace("ADDRESS", address))
    with listening(proxy.here, 9001) as server, connect(proxy.here, port) as client, accepted(server) as backend:
        passes(client, backend)
        proxy.reload(text.replace("ADDRESS", other))
        passes(client, backend)
        with connect(proxy.here, port) as later, accepted(server) as end:
            passes(later, end)
    wait_until(lambda: answers("127.0.0.1", port) == (other == "0.0.0.0"), DEADLINE, "the other addresses")


def test_the_end_waits_for_connections_and_takes_no_more(start: Start) -> None:
    proxy = start(CONFIG)
    with listening(proxy.here, 9001) as server, connect(proxy.here, 8443) as client, accepted(server) as backend:
        passes(client, backend)
        proxy.send_signal(signal.SIGTERM)
        wait_until(lambda: not answers(proxy.here, 8443), DEADLINE, "nothing new is taken")
        wait_until(lambda: proxy.metrics()["edgeproxy_draining"] == 1, DEADLINE, "it is told")
        passes(client, backend)
        client.shutdown(socket.SHUT_WR)
        assert read_all(backend) == b""
        backend.close()
        assert read_all(client) == b""
        assert proxy.wait(DEADLINE) == 0
        assert proxy.line_after_end(own(client))["close"] == "client_closed"


@pytest.mark.parametrize("how", ["timeout", "second"])
def test_the_end_does_not_wait_for_ever_and_resets_who_is_left(start: Start, how: str) -> None:
    proxy = start(CONFIG + f'[timeouts]\ndrain = "{"500ms" if how == "timeout" else "1h"}"\n')
    with listening(proxy.here, 9001) as server, connect(proxy.here, 8443) as client, accepted(server) as backend:
        passes(client, backend)
        begun = time.monotonic()
        proxy.send_signal(signal.SIGTERM)
        wait_until(lambda: not answers(proxy.here, 8443), DEADLINE, "nothing new is taken")
        if how == "second":
            proxy.send_signal(signal.SIGTERM)
        assert proxy.wait(DEADLINE) == 0
        assert time.monotonic() - begun > (0.4 if how == "timeout" else 0)
        assert is_reset(client)
        assert is_reset(backend)
        assert proxy.line_after_end(own(client))["close"] == "drained"
    assert not (proxy.folder / "admin").exists()


def test_log_lines_of_two_proxies_are_joined_by_their_id(start: Start) -> None:
    home = start(CONFIG.replace('8443"]', '8443"]\nproxy_header = [{from = "127.0.0.0/8", policy = "require"}]'))
    sends = 'send_proxy = "v2"\nsend_proxy_with = ["unique_id"]\n'
    edge = start(CONFIG.replace('"HERE:9001"]', f'"{home.here}:8443"]\n{sends}'))
    with listening(home.here, 9001) as server, connect(edge.here, 8443) as client, accepted(server) as backend:
        passes(client, backend)
        client.shutdown(socket.SHUT_WR)
        assert read_all(backend) == b""
        who = own(client)
    at_edge = edge.line(who)
    wait_until(lambda: home.connections() == [] and home.lines(), DEADLINE, "the end at home")
    (at_home,) = home.lines()
    for key in ("unique_id", "client", "original_dst", "bytes_in", "bytes_out", "close"):
        assert at_edge[key] == at_home[key], key
    assert len(at_edge["unique_id"]) == 32


def test_ids_are_never_alike(start: Start) -> None:
    proxy = start(CONFIG)
    names = [refused(proxy.here, 8443) for _ in range(200)]
    for name in (names[0], names[-1]):
        proxy.line(name)
    wait_until(lambda: len(proxy.lines()) == 200, DEADLINE, "all lines")
    assert len({line["unique_id"] for line in proxy.lines()}) == 200


def test_a_log_that_was_moved_away_is_opened_anew(start: Start) -> None:
    proxy = start(CONFIG)
    proxy.line(refused(proxy.here, 8443))
    log = proxy.folder / "log"
    log.rename(proxy.folder / "log.1")
    proxy.reload(CONFIG)
    wait_until(log.exists, DEADLINE, "the new file")
    who = refused(proxy.here, 8443)
    assert proxy.line(who)["peer"] == who
    assert len(proxy.lines()) == 1
    assert len((proxy.folder / "log.1").read_text().splitlines()) == 1
    assert stat.S_IMODE(log.stat().st_mode) & 0o007 == 0, "the log is not everybody's"


def test_a_log_that_cannot_be_opened_anew_is_told_and_counted_and_the_old_one_goes_on(start: Start) -> None:
    """As `create 0640 root` of logrotate makes it for the user of a service."""
    proxy = start(CONFIG)
    proxy.line(refused(proxy.here, 8443))
    log = proxy.folder / "log"
    log.rename(proxy.folder / "log.1")
    log.touch(0o400)
    proxy.reload(CONFIG)
    who = refused(proxy.here, 8443)
    failures = "edgeproxy_access_log_reopen_failures_total"
    wait_until(lambda: proxy.metrics()[failures] == 1, DEADLINE, "the failure is counted")
    wait_until(lambda: "nocreate" in proxy.said, DEADLINE, "it is told")
    (told,) = [line for line in proxy.said.splitlines() if "nocreate" in line]
    assert f"operation.access_log: {log}: " in told
    assert "Permission denied" in told
    wait_until(lambda: who in (proxy.folder / "log.1").read_text(), DEADLINE, "its line")
    assert log.read_text() == ""
    log.unlink()
    proxy.reload(CONFIG)
    wait_until(log.exists, DEADLINE, "the new file")
    proxy.line(refused(proxy.here, 8443))
    assert proxy.metrics()[failures] == 1


def test_the_lines_of_the_log_are_counted(start: Start) -> None:
    proxy = start(CONFIG)
    proxy.line(refused(proxy.here, 8443))
    written = 'edgeproxy_access_log_lines_total{outcome="written"}'
    wait_until(lambda: proxy.metrics()[written] == 1, DEADLINE, "the line is counted")


def test_the_admin_socket_is_its_owners_alone(start: Start) -> None:
    proxy = start(CONFIG)
    mode = (proxy.folder / "admin").stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_a_second_proxy_with_the_same_socket_or_port_does_not_start(start: Start) -> None:
    proxy = start(CONFIG)
    for other in (own_address(), proxy.here):
        same = proxy.folder / "second.toml"
        same.write_text(proxy.config.read_text().replace(proxy.here, other))
        done = subprocess.run(
            [edgeproxy(), "run", "-c", same], capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        assert done.returncode == 1
        assert done.stderr.strip()
    with listening(proxy.here, 9001) as server, connect(proxy.here, 8443) as client, accepted(server) as backend:
        passes(client, backend)
    assert json.loads(proxy.ask("top", "--once", "--json"))["pid"] == proxy.pid


def test_it_starts_again_where_it_was_killed(start: Start) -> None:
    proxy = start(CONFIG)
    text = proxy.config.read_text()
    proxy.send_signal(signal.SIGKILL)
    proxy.wait(DEADLINE)
    assert (proxy.folder / "admin").exists()
    again = start(text, here=proxy.here)
    with listening(again.here, 9001) as server, connect(again.here, 8443) as client, accepted(server) as backend:
        passes(client, backend)


def test_top_and_connections_tell_what_goes_on(start: Start) -> None:
    proxy = start(CONFIG)
    with listening(proxy.here, 9001) as server, connect(proxy.here, 8443) as client, accepted(server) as backend:
        passes(client, backend)
        (shown,) = [json.loads(line) for line in proxy.ask("connections").splitlines()]
        assert (shown["peer"], shown["rule"], shown["backend"]) == (own(client), "first", "out")
        table = proxy.ask("top", "--once")
        for word in ("LISTENER", "in", "first", "out", f"pid {proxy.pid}"):
            assert word in table
    proxy.ask("top", "--no-such-word", status=2)
    told = proxy.ask("connections", "--help")
    assert [key for key in shown if key not in re.split(r"\W+", told)] == [], "its help names all keys"


def test_without_a_proxy_the_commands_say_so(start: Start) -> None:
    proxy: Proxy = start(CONFIG)
    asked = [edgeproxy(), "top", "--once", "--socket", str(proxy.folder / "nobody")]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode != 0
    assert "is edgeproxy running" in done.stderr
