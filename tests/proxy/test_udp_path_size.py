"""Sizes of paths, and who says what they are: ICMP may be made up by anybody, devices are this host's own."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from tests.proxy.running import DEADLINE, running_in
from tests.proxy.udp_bench import Address, decode, drops, first_flight, heard, wait_drops
from tests.realise.conftest import Up

TOPOLOGY = """
#   client -- outside -- home -- inside (mtu 1300) -- service
networks:
  outside: {prefixes: [192.0.2.0/24, "2001:db8::/64"]}
  inside: {prefixes: [10.0.0.0/24, "fd00::/64"], mtu: 1300}
nodes:
  client:
    links: {outside: [192.0.2.7, "2001:db8::7"]}
  home:
    role: router
    links:
      outside: [192.0.2.1, "2001:db8::1"]
      inside: [10.0.0.1, "fd00::1"]
  service:
    links: {inside: [10.0.0.9, "fd00::9"]}
"""
CONFIG = """
[listener.in]
udp = ["192.0.2.1:8443", "[2001:db8::1]:8443"]
[[rule]]
to = "b"
[backend.b]
targets = ["SERVICE:9001"]
"""


@pytest.fixture(scope="module")
def lab(module_up: Up) -> Lab:
    return module_up(TOPOLOGY)


def too_long(lab: Lab, network: str, by: str, ends: tuple[Address, Address], mtu: int) -> bytes:
    """A frame of a node that tells home that a datagram of its own, from the one end to the other, was too long."""
    to_home, own = (lab[name].run(["cat", f"/sys/class/net/{network}/address"]).stdout.strip() for name in ("home", by))
    (source, source_port), (destination, destination_port) = ends
    sent = UDP(sport=source_port, dport=destination_port) / bytes(1400)
    told: Packet
    if ip_address(source).version == 6:
        quoted = bytes(IPv6(src=source, dst=destination) / sent)[:1200]
        told = IPv6(src=destination, dst=source) / ICMPv6PacketTooBig(mtu=mtu) / quoted
    else:
        quoted = bytes(IP(src=source, dst=destination, flags="DF") / sent)[:28]
        told = IP(src=destination, dst=source) / ICMP(type=3, code=4, nexthopmtu=mtu) / quoted
    return bytes(Ether(src=own, dst=to_home) / told)


def is_believed(lab: Lab, destination: str, mtu: int) -> bool:
    """Whether home's kernel takes this for the size of the path."""
    return f"mtu {mtu}" in str(lab["home"].run(["ip", "route", "get", destination]).stdout)


@pytest.mark.essential
@pytest.mark.parametrize(
    ("home", "own", "mtu", "most"), [("192.0.2.1", "192.0.2.7", 600, 1472), ("2001:db8::1", "2001:db8::7", 1280, 1452)]
)
def test_made_up_icmp_takes_no_answer_from_quic_and_what_is_really_too_long_is_counted(
    lab: Lab, folder: Path, home: str, own: str, mtu: int, most: int
) -> None:
    with ExitStack() as stack:
        text = CONFIG.replace("SERVICE", "10.0.0.9")
        proxy = stack.enter_context(running_in(lab["home"], text, "127.0.0.1", folder))
        backend = stack.enter_context(lab["service"].udp(9001, "10.0.0.9", timeout=DEADLINE))
        client = stack.enter_context(lab["client"].udp(0, own, timeout=DEADLINE))
        wire = stack.enter_context(lab["client"].packet("outside"))
        backend.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER, IP_PMTUDISC_DONT (ip(7))
        client.sendto(first_flight("aioquic_v1")[0], (home, 8443))
        sender = heard(backend)[1]
        wire.send(too_long(lab, "outside", "client", ((home, 8443), client.getsockname()[:2]), mtu))
        wait_until(lambda: is_believed(lab, own, mtu), DEADLINE, "the kernel believes it")
        for _ in range(3):
            backend.sendto(b"\x40" + bytes(most - 1), sender)
            assert len(heard(client)[0]) == most
        assert drops(proxy) == {}
        backend.sendto(b"\x40" + bytes(most), sender)
        wait_drops(proxy, {"too_long": 1})
        backend.sendto(b"\x40after", sender)
        assert heard(client)[0] == b"\x40after"


@pytest.mark.parametrize(
    ("home", "own", "service"), [("192.0.2.1", "192.0.2.7", "10.0.0.9"), ("2001:db8::1", "2001:db8::7", "[fd00::9]")]
)
@pytest.mark.parametrize("form", ["every", "first"])
def test_quic_begins_on_a_narrow_path_though_it_bears_a_header_and_its_probes_are_not_cut(
    lab: Lab, folder: Path, home: str, own: str, service: str, form: str
) -> None:
    with ExitStack() as stack:
        text = CONFIG.replace("SERVICE", service) + f'send_proxy_udp = "{form}"\n'
        proxy = stack.enter_context(running_in(lab["home"], text, "127.0.0.1", folder))
        backend = stack.enter_context(lab["service"].udp(9001, service.strip("[]"), timeout=DEADLINE))
        client = stack.enter_context(lab["client"].udp(0, own, timeout=DEADLINE))
        initial = first_flight("aioquic_v1")[0] + bytes(80)  # as long as quic-go's
        client.sendto(initial, (home, 8443))
        assert decode(heard(backend)[0]).rest == initial
        at_base = b"\x40" + bytes(1249 if form == "every" else 1199)
        client.sendto(at_base, (home, 8443))
        assert decode_if(form == "every", heard(backend)[0]) == at_base
        client.sendto(b"\x40" + bytes(1300), (home, 8443))
        wait_drops(proxy, {"too_long": 1})
        client.sendto(at_base, (home, 8443))
        assert decode_if(form == "every", heard(backend)[0]) == at_base


def decode_if(has_header: bool, datagram: bytes) -> bytes:  # noqa: FBT001
    return decode(datagram).rest if has_header else datagram


@pytest.mark.parametrize(("service", "mtu"), [("10.0.0.9", 600), ("fd00::9", 1290)])
def test_what_icmp_said_of_an_earlier_datagram_costs_none_that_is_short(
    lab: Lab, folder: Path, service: str, mtu: int
) -> None:
    with ExitStack() as stack:
        text = CONFIG.replace("SERVICE", f"[{service}]" if ":" in service else service)
        proxy = stack.enter_context(running_in(lab["home"], text, "127.0.0.1", folder))
        backend = stack.enter_context(lab["service"].udp(9001, service, timeout=DEADLINE))
        client = stack.enter_context(lab["client"].udp(0, "192.0.2.7", timeout=DEADLINE))
        wire = stack.enter_context(lab["service"].packet("inside"))
        client.sendto(b"?", ("192.0.2.1", 8443))
        sender = heard(backend)[1]
        for number in range(8):
            told = too_long(lab, "inside", "service", (sender, (service, 9001)), mtu - number)
            lab["home"].run(["kill", "-STOP", str(proxy.pid)], check=True)
            # In this order, for what was ready first is looked at first.
            client.sendto(b"%d" % number, ("192.0.2.1", 8443))
            wire.send(told)
            wait_until(lambda now=mtu - number: is_believed(lab, service, now), DEADLINE, "the kernel believes it")  # type: ignore[misc]
            lab["home"].run(["kill", "-CONT", str(proxy.pid)], check=True)
            assert heard(backend)[0] == b"%d" % number
        assert drops(proxy) == {}
