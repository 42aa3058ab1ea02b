"""NPTv6 by real connections: the addresses are those of RFC 6296, and the firewall still knows whom it let out."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network

import pytest

from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from tests.realise.test_nat_knobs import is_refused

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

# The prefixes and the first host are the example of RFC 6296 section 3.1 and appendix B.
TOPOLOGY = """
#   first, second -- lan -- router (NPTv6) -- internet -- server
networks:
  internet: {prefixes: ["2001:db8:2::/64", 198.51.100.0/24]}
  lan: {prefixes: ["fd01:203:405:1::/64", 192.168.1.0/24]}
nodes:
  server: {links: {internet: auto}}
  router:
    role: router
    links: {internet: auto, lan: auto}
    nat:
      outside: internet
      ipv6_prefix: {inside: "fd01:203:405::/48", outside: "2001:db8:1::/48"}
    firewall: {allow: [{udp: 7002, to: first}]}
  first: {links: {lan: ["fd01:203:405:1::1234", 192.168.1.10]}}
  second: {links: {lan: auto}}
"""
FIRST_OUTSIDE = "2001:db8:1:d550::1234"


@pytest.fixture(scope="module")
def lab(module_up: Callable[..., Lab]) -> Lab:
    return module_up(TOPOLOGY)


def server_address(lab: Lab) -> str:
    return lab["server"].address(version=6)


def test_a_sender_has_the_address_outside_that_the_rfc_works_out_and_gets_its_answer(lab: Lab) -> None:
    with lab["server"].udp(7000, "::") as server, lab["first"].udp(0, "::") as client:
        client.sendto(b"ping", (server_address(lab), 7000))
        payload, peer = server.recvfrom(100)
        server.sendto(payload[::-1], peer)
        assert client.recvfrom(100)[0] == b"gnip"
    assert peer[0] == FIRST_OUTSIDE


def test_the_checksum_on_the_wire_outside_is_that_of_inside(lab: Lab) -> None:
    """Checksum-neutral: the translator changes addresses alone (RFC 6296 section 2.6)."""
    checksums = []
    with lab["router"].packet("lan") as inside, lab["router"].packet("internet") as outside:
        with lab["second"].udp(7009, "::") as client:
            client.sendto(b"mark of this test", (server_address(lab), 7010))
        for sniffer in (inside, outside):
            frame = b""
            while not frame.endswith(b"mark of this test"):
                frame = sniffer.recv(2000)
            checksums.append((IPv6Address(frame[22:38]), frame[60:62]))  # source; the checksum of UDP
    assert checksums[0][0] == IPv6Address(lab["second"].address(version=6))
    assert checksums[1][0] in IPv6Network("2001:db8:1::/48")
    assert checksums[0][1] == checksums[1][1]


def test_connections_and_errors_come_back_to_their_sender(lab: Lab) -> None:
    with lab["server"].listen(7001) as server, lab["first"].connect((server_address(lab), 7001)) as client:
        accepted, peer = server.accept()
        with accepted:
            accepted.sendall(b"welcome")
            assert client.recv(100) == b"welcome"
        assert peer[0] == FIRST_OUTSIDE
    with lab["first"].udp(0, "::", timeout=0.5) as client:
        client.connect((server_address(lab), 7999))  # where nobody listens
        wait_until(lambda: is_refused(client), 30, "the error has come")


def test_from_outside_only_what_the_firewall_allows_comes_in_to_the_translated_address(lab: Lab) -> None:
    with lab["first"].udp(7002, "::") as allowed, lab["first"].udp(7003, "::") as other:
        with lab["server"].udp(0, "::") as client:
            client.sendto(b"in?", (FIRST_OUTSIDE, 7003))
            client.sendto(b"in!", (FIRST_OUTSIDE, 7002))
            payload, peer = allowed.recvfrom(100)
            allowed.sendto(payload, peer)
            assert client.recvfrom(100)[1][:2] == (FIRST_OUTSIDE, 7002)
        other.settimeout(0.2)
        with pytest.raises(TimeoutError):
            other.recv(100)


def test_a_ping_passes(lab: Lab) -> None:
    told = lab["first"].run(["ping", "-c", "1", "-W", "20", server_address(lab)], check=True)
    assert " 0% packet loss" in told.stdout
