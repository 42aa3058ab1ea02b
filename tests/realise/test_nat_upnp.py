"""Port forwards on demand: the clients of three protocols ask miniupnpd, and what they get is tried from outside."""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Callable
from ipaddress import IPv6Address

import pytest

from lab.realise.lab import Lab

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

# miniupnpd forwards nothing where the outside address is for documentation; this prefix is nobody's in a lab.
TOPOLOGY = """
#   pi, nas -- home -- router (upnp) ----+-- internet -- server
#   guest -- flat -- inner (upnp) -- access -- carrier
networks:
  internet: {prefixes: [192.0.1.0/24]}
  home: {prefixes: [192.168.1.0/24]}
  access: {prefixes: [100.64.0.0/24]}
  flat: {prefixes: [192.168.2.0/24]}
nodes:
  server: {links: {internet: 192.0.1.10}}
  router: {role: router, links: {internet: 192.0.1.1, home: 192.168.1.1}, nat: {outside: internet, upnp: true}}
  carrier: {role: router, links: {internet: 192.0.1.2, access: 100.64.0.1}, nat: {outside: internet}}
  inner: {role: router, links: {access: auto, flat: 192.168.2.1}, nat: {outside: access, upnp: true}}
  pi: {links: {home: 192.168.1.20}}
  nas: {links: {home: 192.168.1.10}}
  guest: {links: {flat: auto}}
"""
OUTSIDE = "192.0.1.1"
UPNPC = ["upnpc", "-u", "http://192.168.1.1:5000/rootDesc.xml"]  # searching takes it two seconds
A_MOMENT = 0.4  # seconds to wait for what is not to come


@pytest.fixture(scope="module")
def lab(module_up: Callable[..., Lab]) -> Lab:
    return module_up(TOPOLOGY, services=False)


def reaches(lab: Lab, node: str, port: int, patience: float = 30.0) -> bool:
    """Whether a connection from outside to the router's port is accepted on the node's within so many seconds."""
    with lab[node].listen(port) as server:
        try:
            client = lab["server"].connect((OUTSIDE, port), timeout=patience)
        except TimeoutError:
            return False
        with client:
            server.settimeout(30)
            server.accept()[0].close()
        return True


def found_by_ssdp(lab: Lab, node: str, port: int) -> str:
    """What upnpc says that searches for a router, for two seconds, and asks it for a forward of a TCP port."""
    deadline = time.monotonic() + 60
    while "rootDesc.xml" not in (said := lab[node].run(["upnpc", "-a", "@", str(port), str(port), "tcp"]).stdout):
        assert time.monotonic() < deadline, said
    return said


def ask_by_nat_pmp(lab: Lab, node: str, router: str, port: int) -> str:
    """What natpmpc says of the outside address and of a forward of a TCP port.

    It asks again after 250 ms. If both answers come then, it takes the second for that to its next question, whose
    protocol is UNKNOWN: so it is to ask for all of it anew.
    """
    command = ["natpmpc", "-g", router, "-a", str(port), str(port), "tcp", "60"]
    deadline = time.monotonic() + 60
    while "protocol UNKNOWN" in (said := lab[node].run(command).stdout):
        assert time.monotonic() < deadline, said
    return said


def test_a_forward_asked_for_by_upnp_is_there_until_it_is_given_back(lab: Lab) -> None:
    assert not reaches(lab, "pi", 7000, A_MOMENT)
    told = found_by_ssdp(lab, "pi", 7000)
    assert f"external {OUTSIDE}:7000 TCP is redirected to internal 192.168.1.20:7000" in told
    assert reaches(lab, "pi", 7000)
    lab["pi"].run([*UPNPC, "-d", "7000", "tcp"], check=True)
    assert not reaches(lab, "pi", 7000, A_MOMENT)


def test_a_forward_asked_for_by_nat_pmp(lab: Lab) -> None:
    told = ask_by_nat_pmp(lab, "pi", "192.168.1.1", 7001)
    assert f"Public IP address : {OUTSIDE}" in told
    assert "Mapped public port 7001 protocol TCP to local port 7001" in told
    assert reaches(lab, "pi", 7001)


def test_a_forward_asked_for_by_pcp(lab: Lab) -> None:
    """A MAP request and its answer, field by field (RFC 6887 sections 7.1, 7.2, 11.1)."""
    own = IPv6Address("::ffff:192.168.1.20").packed
    anywhere = IPv6Address("::ffff:0.0.0.0").packed
    request = (
        struct.pack("!BBHI16s", 2, 1, 0, 120, own) + b"nonce of 12 " + struct.pack("!B3xHH16s", 6, 7002, 7002, anywhere)
    )
    with lab["pi"].udp() as client:
        client.sendto(request, ("192.168.1.1", 5351))
        answer = client.recv(1100)
    version, opcode, result, lifetime = struct.unpack_from("!BBxBI", answer)
    assert (version, opcode, result) == (2, 0x81, 0)
    assert 0 < lifetime <= 120
    assert answer[24:36] == b"nonce of 12 "
    protocol, inside, outside, address = struct.unpack_from("!B3xHH16s", answer, 36)
    assert (protocol, inside, outside, str(IPv6Address(address).ipv4_mapped)) == (6, 7002, 7002, OUTSIDE)
    assert reaches(lab, "pi", 7002)


@pytest.mark.parametrize("ports", [["80", "80"], ["192.168.1.10", "7003", "7003"]])
def test_a_low_port_or_somebody_elses_is_refused(lab: Lab, ports: list[str]) -> None:
    request = [*UPNPC, "-a", *(ports if len(ports) == 3 else ["@", *ports]), "tcp"]
    said = lab["pi"].run(request)
    assert re.search("failed with code (606|718)", said.stdout + said.stderr), said
    assert not reaches(lab, "nas" if len(ports) == 3 else "pi", int(ports[-1]), A_MOMENT)


def test_behind_a_carrier_it_is_there_but_forwards_nothing(lab: Lab) -> None:
    """The private address of such a router would be a false success: nobody reaches it from the internet."""
    told = found_by_ssdp(lab, "guest", 7004)
    assert "http://192.168.2.1:5000/rootDesc.xml" in told
    assert "is redirected to" not in told
    assert "Mapped public port" not in ask_by_nat_pmp(lab, "guest", "192.168.2.1", 7004)
    assert "7004" not in lab["inner"].run(["nft", "list", "ruleset"], check=True).stdout


def test_nobody_outside_is_offered_anything(lab: Lab) -> None:
    with lab["server"].udp(timeout=A_MOMENT) as client:
        client.sendto(b"\0\0", (OUTSIDE, 5351))  # NAT-PMP: which is the outside address?
        with pytest.raises(TimeoutError):
            client.recv(100)
    with pytest.raises(TimeoutError):
        lab["server"].connect((OUTSIDE, 5000), timeout=A_MOMENT)
