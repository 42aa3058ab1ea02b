"""Flows in a lab: answers from the address that was hit, the client's own address, TPROXY, sizes of paths, floods."""

from __future__ import annotations

import re
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from tests.proxy.running import DEADLINE, Proxy, running_in
from tests.proxy.udp_bench import (
    DIVERT,
    drops,
    first_flight,
    flows,
    heard,
    wait_drops,
)
from tests.realise.conftest import Up

TOPOLOGY = """
#   client -- outside -- home -- inside (mtu 1300) -- service
networks:
  outside: {prefixes: [192.0.2.0/24, "2001:db8::/64"]}
  inside: {prefixes: [10.0.0.0/24, "fd00::/64"], mtu: 1300}
nodes:
  client:
    links: {outside: [192.0.2.7, "2001:db8::7"]}
    routes: [{to: default, via: 192.0.2.1}, {to: default, via: "2001:db8::1"}]
  home:
    role: router
    links:
      outside: [192.0.2.1, 192.0.2.2, 192.0.2.3, "2001:db8::1", "2001:db8::2"]
      inside: [10.0.0.1, "fd00::1"]
  service:
    links: {inside: [10.0.0.9, "fd00::9"]}
"""
RULE = """
[[rule]]
to = "b"
"""


@pytest.fixture(scope="module")
def lab(module_up: Up) -> Lab:
    return module_up(TOPOLOGY)


@contextmanager
def at_home(lab: Lab, folder: Path, text: str) -> Iterator[Proxy]:
    with running_in(lab["home"], text, "127.0.0.1", folder) as proxy:
        yield proxy


@pytest.mark.essential
def test_answers_leave_from_the_address_that_was_hit(lab: Lab, folder: Path) -> None:
    text = '[listener.in]\nudp = ["0.0.0.0:8443", "[::]:8443"]\n' + RULE + '[backend.b]\ntargets = ["10.0.0.9:9001"]\n'
    with at_home(lab, folder, text) as proxy, lab["service"].udp(9001, "10.0.0.9", timeout=DEADLINE) as backend:
        link_local = f"{_link_local(lab)}%outside"
        for hit in ("192.0.2.1", "192.0.2.2", "192.0.2.3", "10.0.0.1", "2001:db8::1", "2001:db8::2", link_local):
            family = socket.AF_INET6 if ":" in hit else socket.AF_INET
            with lab["client"].socket(family, socket.SOCK_DGRAM) as client:
                client.settimeout(DEADLINE)
                scope = int(lab["client"].run(["cat", "/sys/class/net/outside/ifindex"]).stdout) if "%" in hit else 0
                to = (hit.split("%")[0], 8443, 0, scope) if ":" in hit else (hit, 8443)
                client.sendto(hit.encode(), to)
                asked, sender = heard(backend)
                assert asked == hit.encode()
                backend.sendto(b"!", sender)
                answer, came_from = heard(client)
                assert (answer, came_from[0].split("%")[0]) == (b"!", hit.split("%")[0])
        assert drops(proxy) == {}


def _link_local(lab: Lab) -> str:
    shown = lab["home"].run(["ip", "-6", "-o", "address", "show", "dev", "outside", "scope", "link"]).stdout
    return str(shown.split()[3].split("/")[0])


def test_a_datagram_to_all_hosts_of_a_network_is_answered_by_this_one(lab: Lab, folder: Path) -> None:
    text = '[listener.in]\nudp = ["0.0.0.0:8443"]\n' + RULE + '[backend.b]\ntargets = ["10.0.0.9:9001"]\n'
    with (
        at_home(lab, folder, text),
        lab["service"].udp(9001, "10.0.0.9", timeout=DEADLINE) as backend,
        lab["client"].udp(timeout=DEADLINE) as client,
    ):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.sendto(b"?", ("192.0.2.255", 8443))
        backend.sendto(b"!", heard(backend)[1])
        assert heard(client) == (b"!", ("192.0.2.1", 8443))


@pytest.mark.essential
@pytest.mark.parametrize(
    ("hit", "own", "target"), [("192.0.2.1", "192.0.2.7", "127.0.0.1"), ("2001:db8::1", "2001:db8::7", "::1")]
)
def test_a_transparent_backend_sees_the_clients_endpoint(
    lab: Lab, folder: Path, hit: str, own: str, target: str
) -> None:
    at, to = (f"[{hit}]", f"[{target}]") if ":" in hit else (hit, target)
    text = f'[listener.in]\nudp = ["{at}:8443"]\n' + RULE
    text += f'[backend.b]\ntargets = ["{to}:9001"]\nsource = "client"\n[transparent]\nmanage_rules = true\n'
    with at_home(lab, folder, text) as proxy, lab["home"].udp(9001, target, timeout=DEADLINE) as backend:
        clients = [lab["client"].udp(0, own, timeout=DEADLINE) for _ in range(2)]
        try:
            for client in clients:
                client.sendto(b"?", (hit, 8443))
                asked, sender = heard(backend)
                assert (asked, sender) == (b"?", client.getsockname()[:2])
            for client in clients:
                backend.sendto(str(client.fileno()).encode(), client.getsockname()[:2])
            for client in clients:
                assert heard(client) == (str(client.fileno()).encode(), (hit, 8443))
        finally:
            for client in clients:
                client.close()
        assert drops(proxy) == {}


@pytest.mark.essential
def test_by_tproxy_clients_meet_the_address_and_port_that_they_asked_for(lab: Lab, folder: Path) -> None:
    text = '[listener.in]\nudp = ["0.0.0.0:5000", "[::]:5000"]\narrival = "tproxy"\n'
    text += RULE + '[backend.b]\ntargets = ["10.0.0.9:$port"]\n'
    home = lab["home"]
    home.run(["sh", "-ec", DIVERT], check=True)
    try:
        with at_home(lab, folder, text) as proxy:
            for asked in (
                ("198.51.100.1", 5000),
                ("198.51.100.2", 5000),
                ("198.51.100.1", 5042),
                ("198.51.100.1", 5099),
                ("2001:db8:1::1", 5000),
                ("2001:db8:1::1", 5042),
            ):
                own = "2001:db8::7" if ":" in asked[0] else "192.0.2.7"
                with (
                    lab["service"].udp(asked[1], "10.0.0.9", timeout=DEADLINE) as backend,
                    lab["client"].udp(0, own, timeout=DEADLINE) as client,
                ):
                    for number in range(3):
                        client.sendto(f"{number}?".encode(), asked)
                        question, sender = heard(backend)
                        assert question == f"{number}?".encode(), "later ones meet the same flow"
                        backend.sendto(f"{number}!".encode(), sender)
                        assert heard(client) == (f"{number}!".encode(), asked)
            assert drops(proxy) == {}
            assert flows(proxy) == 6
            found = {line["original_dst"] for line in proxy.connections()}
            assert "198.51.100.1:5042" in found
    finally:
        home.run(["sh", "-c", "nft delete table inet divert; ip rule del fwmark 7; ip -6 rule del fwmark 7"])


def test_quic_is_never_cut_and_others_are(lab: Lab, folder: Path) -> None:
    text = '[listener.in]\nudp = ["192.0.2.1:8443"]\n' + RULE + '[backend.b]\ntargets = ["10.0.0.9:9001"]\n'
    with (
        at_home(lab, folder, text) as proxy,
        lab["service"].udp(9001, "10.0.0.9", timeout=DEADLINE) as backend,
        lab["client"].udp(timeout=DEADLINE) as plain,
        lab["client"].udp(timeout=DEADLINE) as quic,
    ):
        plain.sendto(bytes(1400), ("192.0.2.1", 8443))
        assert len(heard(backend)[0]) == 1400, "in two packets"
        initial = first_flight("aioquic_v1")[0]
        quic.sendto(initial, ("192.0.2.1", 8443))
        assert heard(backend)[0] == initial
        quic.sendto(b"\x40" + bytes(1300), ("192.0.2.1", 8443))
        wait_drops(proxy, {"too_long": 1})
        quic.sendto(b"\x40" + bytes(1200), ("192.0.2.1", 8443))
        assert len(heard(backend)[0]) == 1201
        # The other way: the path to the client is 1500 wide, and a service that sends in pieces does not widen it.
        backend.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER, IP_PMTUDISC_DONT (ip(7))
        quic.sendto(b"\x40?", ("192.0.2.1", 8443))
        _, to_quic = heard(backend)
        plain.sendto(b"?", ("192.0.2.1", 8443))
        _, to_plain = heard(backend)
        backend.sendto(b"\x40" + bytes(1600), to_quic)
        wait_drops(proxy, {"too_long": 2})
        backend.sendto(bytes(1600), to_plain)
        assert len(heard(plain)[0]) == 1600, "one listener serves both"
        backend.sendto(b"\x40" + bytes(1200), to_quic)
        assert len(heard(quic)[0]) == 1201


def test_a_flood_of_made_up_sources_leaves_flows_that_live_and_memory_in_bounds(lab: Lab, folder: Path) -> None:
    text = '[listener.in]\nudp = ["192.0.2.1:8443"]\n' + RULE
    text += '[backend.b]\ntargets = ["10.0.0.9:9001"]\n[limits]\nudp_flows = 1000\n[timeouts]\nudp_one_way = "1h"\n'
    with (
        at_home(lab, folder, text) as proxy,
        lab["service"].udp(9001, "10.0.0.9", timeout=DEADLINE) as backend,
        lab["client"].udp(timeout=DEADLINE) as good,
        lab["client"].packet("outside") as wire,
    ):
        backend.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        to_good = _exchange(good, backend)
        assert _exchange(good, backend) == to_good
        before = _peak(proxy)
        header = _frame_to_home(lab)
        for number in range(20_000):
            wire.send(_spoofed(header, number))
            if number % 500 == 0:
                assert _exchange(good, backend) == to_good, "the same flow"
                wait_until(lambda: flows(proxy) <= 1000, DEADLINE, "flows in bounds")
        wait_until(lambda: _descriptors(lab, proxy) < 1300, DEADLINE, "those that gave way have closed")
        assert _peak(proxy) - before < 40_000, "kilobytes, with the log's lines"
        with lab["client"].udp(timeout=DEADLINE) as late:

            def is_served() -> bool:
                late.sendto(b"good late", ("192.0.2.1", 8443))
                backend.settimeout(0.2)
                try:
                    return any(heard(backend)[0] == b"good late" for _ in range(5000))
                except TimeoutError:
                    return False

            wait_until(is_served, DEADLINE, "a newcomer's turn")
        wait_until(lambda: {line["close"] for line in proxy.lines()} == {"evicted"}, DEADLINE, "the reason")
        assert set(drops(proxy)) <= {"flow_limit"}


def test_a_hundred_thousand_made_up_sources_cost_honest_flows_nothing_and_are_forgotten(lab: Lab, folder: Path) -> None:
    most, honest_flows, sources, at_once = 1000, 4, 100_000, 500
    text = '[listener.in]\nudp = ["192.0.2.1:8443"]\n[[rule]]\nfrom = ["203.0.0.0/8"]\nto = "void"\n' + RULE
    text += '[backend.b]\ntargets = ["10.0.0.9:9001"]\n[backend.void]\ntargets = ["10.0.0.9:9002"]\n'
    text += f'[limits]\nudp_flows = {most}\n[timeouts]\nudp_one_way = "5s"\n'
    with ExitStack() as stack:
        proxy = stack.enter_context(at_home(lab, folder, text))
        backend = stack.enter_context(lab["service"].udp(9001, "10.0.0.9", timeout=DEADLINE))
        stack.enter_context(lab["service"].udp(9002, "10.0.0.9"))  # hears all, and answers nothing
        wire = stack.enter_context(lab["client"].packet("outside"))
        honest = [stack.enter_context(lab["client"].udp(timeout=DEADLINE)) for _ in range(honest_flows)]

        def ask_all() -> list[tuple[str, int]]:
            """By which endpoint the backend is asked for each of them."""
            found = []
            for client in honest:
                client.sendto(b"?", ("192.0.2.1", 8443))
                asked, sender = heard(backend)
                backend.sendto(b"!", sender)
                assert (asked, heard(client)[0]) == (b"?", b"!")
                found.append(sender)
            return found

        known = ask_all()
        assert ask_all() == known, "they have been answered, and have spoken since"
        before, header = _peak(proxy), _frame_to_home(lab)
        for first in range(0, sources, at_once):
            for number in range(first, first + at_once):
                wire.send(_spoofed(header, number))
            # As many as a socket's buffer holds: the kernel loses none, so all of them are met.
            wait_until(lambda goal=first + at_once: _met(proxy) == goal + honest_flows, DEADLINE, "all")  # type: ignore[misc]
            wait_until(lambda: flows(proxy) <= most, DEADLINE, "flows in bounds")
            if first % 5000 == 0:
                assert ask_all() == known, "the same flows"
        wait_until(lambda: _descriptors(lab, proxy) < most + 300, DEADLINE, "those that gave way have closed")
        assert _peak(proxy) - before < 40_000, "kilobytes, with the log's lines"
        wait_until(lambda: flows(proxy) == honest_flows, DEADLINE, "silent flows end")
        wait_until(lambda: _descriptors(lab, proxy) < 300, DEADLINE, "they have closed")
        assert ask_all() == known
        proxy.connections()  # the workers hand over their lines, and another thread writes them
        assert set(drops(proxy)) <= {"flow_limit"}
        assert drops(proxy).get("flow_limit", 0) < sources / 100
        ends = {"evicted", "one_way_timeout"}
        wait_until(lambda: {line["close"] for line in proxy.lines()} == ends, DEADLINE, "a line for each reason")


def _met(proxy: Proxy) -> int:
    """Flows that have ever begun, and those that were refused: another worker's newcomer may be faster to a place."""
    of = re.compile(
        r'edgeproxy_(active\{listener=".*",transport="udp"|closed_total\{transport="udp",reason=".*"|'
        r'dropped_datagrams_total\{reason="flow_limit")\}'
    )
    return int(sum(value for key, value in proxy.metrics().items() if of.fullmatch(key)))


def _exchange(good: socket.socket, backend: socket.socket) -> tuple[str, int]:
    """Where the good client's flow comes from, which has its answer then; the flood's datagrams are read away.

    On a busy machine the flood may fill a socket's buffer: it asks again, as clients do.
    """
    backend.settimeout(1)
    until = time.monotonic() + DEADLINE
    while time.monotonic() < until:
        good.sendto(b"good", ("192.0.2.1", 8443))
        with suppress(TimeoutError):
            while (received := heard(backend))[0] != b"good":
                pass
            backend.sendto(b"!", received[1])
            assert heard(good)[0] == b"!"
            return received[1]
    raise TimeoutError


def _descriptors(lab: Lab, proxy: Proxy) -> int:
    """How many it has open; its number is one of the node's processes."""
    listed = lab["home"].run(["ls", f"/proc/{proxy.pid}/fd"], check=True).stdout.split()
    assert len(listed) > 10, "it has sockets at least"
    return len(listed)


def _peak(proxy: Proxy) -> int:
    """The most memory that it ever had, in kilobytes."""
    return int(proxy.status()["VmHWM"].split()[0])


def _frame_to_home(lab: Lab) -> bytes:
    mac = {name: lab[name].run(["cat", "/sys/class/net/outside/address"]).stdout.strip() for name in ("home", "client")}
    return b"".join(bytes.fromhex(mac[name].replace(":", "")) for name in ("home", "client")) + b"\x08\0"


def _spoofed(header: bytes, number: int) -> bytes:
    """One datagram from a source that is not there."""
    payload = b"flood"
    source = struct.pack("!BBH", 203, 0 + (number >> 16), number & 0xFFFF)
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 28 + len(payload), number & 0xFFFF, 0, 64, 17, 0)
    ip += source + socket.inet_aton("192.0.2.1")
    total = sum(struct.unpack("!10H", ip))
    total = (total & 0xFFFF) + (total >> 16)
    ip = ip[:10] + struct.pack("!H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + ip[12:]
    # A checksum of 0 is none (RFC 768).
    return header + ip + struct.pack("!HHHH", 1024 + number % 60000, 8443, 8 + len(payload), 0) + payload
