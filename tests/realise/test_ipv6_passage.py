"""The firewall's `ipv6`: what of IPv6 comes in from outside, by real connections."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from lab.realise.lab import Lab

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

TOPOLOGY = """
#   server -- internet -- simple, strict, open -- lan1, lan2, lan3 -- a host each
networks:
  internet: {prefixes: ["2001:db8:1::/64", 198.51.100.0/24]}
  lan1: {prefixes: ["2001:db8:a::/64", 192.168.1.0/24]}
  lan2: {prefixes: ["2001:db8:b::/64", 192.168.2.0/24]}
  lan3: {prefixes: ["2001:db8:c::/64", 192.168.3.0/24]}
  lan4: {prefixes: ["2001:db8:d::/64", 192.168.4.0/24]}
nodes:
  server: {links: {internet: auto}}
  simple:
    role: router
    links: {internet: auto, lan1: auto}
    nat: {outside: internet}
    firewall: {ipv6: rfc6092}
  strict: {role: router, links: {internet: auto, lan2: auto}, nat: {outside: internet}}
  open: {role: router, links: {internet: auto, lan3: auto}, nat: {outside: internet}, firewall: {ipv6: open}}
  ipv6-only:
    role: router
    links: {internet: auto, lan4: auto}
    firewall: {outside: internet, ipv6: rfc6092}
  behind-simple: {links: {lan1: auto}}
  behind-strict: {links: {lan2: auto}}
  behind-open: {links: {lan3: auto}}
  behind-ipv6-only: {links: {lan4: auto}}
"""
ROUTERS = ("simple", "strict", "open", "ipv6-only")


@pytest.fixture(scope="module")
def lab(module_up: Callable[..., Lab]) -> Lab:
    return module_up(TOPOLOGY)


def passes_in(lab: Lab, node: str, port: int, *, expected: bool, source: str = "::") -> bool:
    """Whether a datagram of the server arrives at a node; silence that is expected is not waited for long."""
    with lab[node].udp(port, "::", timeout=30 if expected else 0.3) as receiver, lab["server"].udp(0, source) as sender:
        sender.sendto(b"?", (lab[node].address(version=6), port))
        return received(receiver, b"?")


def received(receiver: socket.socket, payload: bytes) -> bool:
    try:
        return receiver.recv(100) == payload
    except TimeoutError:
        return False


@pytest.mark.parametrize(("router", "passes"), list(zip(ROUTERS, (False, False, True, False), strict=True)))
def test_a_new_connection_from_outside(lab: Lab, router: str, *, passes: bool) -> None:
    host = lab[f"behind-{router}"]
    with host.listen(443, "::"):
        if passes:
            lab["server"].connect((host.address(version=6), 443)).close()
            return
        with pytest.raises(TimeoutError):
            lab["server"].connect((host.address(version=6), 443), timeout=0.4)


@pytest.mark.parametrize("router", ROUTERS)
def test_a_connection_from_inside_is_answered(lab: Lab, router: str) -> None:
    to = (lab["server"].address(version=6), 7000)
    with lab["server"].listen(7000, "::") as server, lab[f"behind-{router}"].connect(to) as client:
        accepted, _ = server.accept()
        with accepted:
            accepted.sendall(b"welcome")
            assert client.recv(100) == b"welcome"


@pytest.mark.parametrize(("router", "passes"), list(zip(ROUTERS, (True, False, True, True), strict=True)))
def test_a_ping_from_outside(lab: Lab, router: str, *, passes: bool) -> None:
    address = lab[f"behind-{router}"].address(version=6)
    done = lab["server"].run(["ping", "-c", "1", "-W", "30" if passes else "0.4", address])
    assert (done.returncode == 0) == passes


@pytest.mark.parametrize(("router", "passes"), list(zip(ROUTERS, (True, False, True, True), strict=True)))
def test_the_key_exchange_of_ipsec_from_outside(lab: Lab, router: str, *, passes: bool) -> None:
    assert passes_in(lab, f"behind-{router}", 500, expected=passes) == passes
    assert passes_in(lab, f"behind-{router}", 501, expected=router == "open") == (router == "open")


def test_only_simple_security_drops_a_source_forged_from_inside_or_to_inside(lab: Lab) -> None:
    """REC-5, REC-6: of what would pass otherwise."""
    for router, prefix, passes in (("simple", "2001:db8:a::bad", False), ("open", "2001:db8:c::bad", True)):
        lab["server"].run(["ip", "-6", "addr", "add", f"{prefix}/128", "dev", "lo", "nodad"], check=True)
        assert passes_in(lab, f"behind-{router}", 500, source=prefix, expected=passes) == passes
        host = lab[f"behind-{router}"]
        host.run(["ip", "-6", "addr", "add", "2001:db8:99::1/128", "dev", "lo", "nodad"], check=True)
        waits = 30 if passes else 0.3
        with lab["server"].udp(7001, "::", timeout=waits) as receiver, host.udp(0, "2001:db8:99::1") as sender:
            sender.sendto(b"forged", (lab["server"].address(version=6), 7001))
            assert passes == received(receiver, b"forged")


def test_unique_local_addresses_do_not_pass_simple_security(lab: Lab) -> None:
    """REC-7: to a port that is open to all others."""
    lab["server"].run(["ip", "-6", "addr", "add", "fd00::1/128", "dev", "lo", "nodad"], check=True)
    for router, passes in (("simple", False), ("open", True)):
        assert passes_in(lab, f"behind-{router}", 500, source="fd00::1", expected=passes) == passes


def test_ipv4_of_a_router_that_guards_ipv6_alone_passes(lab: Lab) -> None:
    host = lab["behind-ipv6-only"]
    with host.listen(443) as server, lab["server"].connect((host.address(), 443)):
        server.accept()[0].close()
