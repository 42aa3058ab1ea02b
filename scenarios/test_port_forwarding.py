"""What the article says of port forwarding, asked of a homelab whose way in is `ssh -R`.

    phone -- cafe(NAT) -- internet -- vps-a, vps-b   <==ssh -R==   nas, pi -- home-router(NAT) -- isp(NAT) -- internet

Each claim has two witnesses: what the client saw, and what the other end (a log, a socket) saw.
"""

from __future__ import annotations

import errno
import os
from ipaddress import ip_address, ip_network

import pytest

from lab import Lab, wait_until

pytestmark = [pytest.mark.topology("homelab_ssh", scope="module"), pytest.mark.essential]

CARRIER_GRADE = ip_network("100.64.0.0/10")  # RFC 6598
NOBODY_ANSWERS = 28  # curl: operation timed out


def test_https_reaches_a_server_behind_carrier_grade_nat(lab: Lab) -> None:
    assert ip_address(lab["home-router"].address("access")) in CARRIER_GRADE
    answer = lab["phone"].run(["curl", "-sS", "https://way-in.nas.example.net/"], check=True)
    assert answer.stdout.startswith("nas served way-in.nas.example.net")
    lab["nas"].wait_log("web", '"way-in.nas.example.net" "GET /')


def test_the_name_in_the_tls_hello_chooses_the_home_host(lab: Lab) -> None:
    for host in ("nas", "pi"):
        answer = lab["phone"].run(["curl", "-sS", f"https://chosen.{host}.example.net/"], check=True)
        assert answer.stdout.startswith(f"{host} served chosen.{host}.example.net")
    alias = lab["phone"].run(["curl", "-sS", "https://cloud.hub.example.net/"], check=True)
    assert alias.stdout.startswith("nas served cloud.hub.example.net")
    assert "chosen.nas" not in lab["pi"].log("web")
    assert "chosen.pi" not in lab["nas"].log("web")


def test_the_edge_holds_no_key_for_the_names_it_forwards(lab: Lab) -> None:
    subject = ["openssl", "s_client", "-connect", "vps-a.example.net:443", "-servername", "x.pi.example.net"]
    seen = lab["phone"].run([*subject, "-verify_return_error"], input="").stdout
    assert "Verify return code: 0 (ok)" in seen
    for node, keys in (("nas", 1), ("vps-a", 0), ("vps-b", 0)):
        private = lab[node].run(["grep", "-rlE", "BEGIN (EC )?PRIVATE KEY", "/run/lab"]).stdout
        assert len(private.splitlines()) == keys, f"{node} holds {private}"


def test_ipv6_clients_reach_it_where_there_is_a_path(lab: Lab) -> None:
    answer = lab["stranger"].run(["curl", "-sS", "-6", "https://six.nas.example.net/"], check=True)
    assert answer.stdout.startswith("nas served six.nas.example.net")
    line = f'{lab["stranger"].address(version=6)} to 443 name "six.nas.example.net"'
    wait_until(
        lambda: any(line in lab[edge].log("edge") for edge in ("vps-a", "vps-b")),
        30,
        "an edge logs the connection, which it does at its end",
    )


def test_the_server_loses_the_clients_address(lab: Lab) -> None:
    answer = lab["phone"].run(["curl", "-sS", "https://who.nas.example.net/"], check=True)
    assert answer.stdout == "nas served who.nas.example.net to 127.0.0.1\n"
    lab["nas"].wait_log("web", '127.0.0.1 "who.nas.example.net"')
    cafe = lab["cafe"].address("internet")
    wait_until(
        lambda: any(f'{cafe} to 443 name "who.nas' in lab[edge].log("edge") for edge in ("vps-a", "vps-b")),
        30,
        "an edge logs the address that the server does not see",
    )


def test_ssh_to_the_edge_arrives_at_home_from_loopback(lab: Lab) -> None:
    answer = lab["phone"].run(["ssh", "-p", "2222", "vps-a.example.net", "hostname; echo $SSH_CONNECTION"], check=True)
    assert answer.stdout.startswith("nas\n127.0.0.1 ")


def test_nodes_at_home_are_not_reachable_but_by_what_is_forwarded(lab: Lab) -> None:
    """Star-shaped: every path goes through an edge, and only to ports that someone keeps open there."""
    laptop = lab["laptop"]
    with laptop.listen(8080), lab["nas"].connect((laptop.address("home"), 8080)):
        pass  # the control: it listens, and a neighbour gets through
    for stray in ("phone", "vps-a"):
        with laptop.listen(8080), pytest.raises((TimeoutError, OSError), match=r"timed out|unreachable|No route"):
            lab[stray].connect((laptop.address("home"), 8080), timeout=1)
    with pytest.raises(ConnectionRefusedError):
        lab["phone"].connect((lab["vps-a"].address(), 8080))


def test_udp_does_not_pass(lab: Lab) -> None:
    """A datagram to a forwarded port finds nobody, though a server waits for it at home."""
    nas = lab["nas"]
    with nas.udp(443, timeout=30) as server, lab["laptop"].udp() as neighbour, lab["phone"].udp() as client:
        neighbour.sendto(b"control", (nas.address("home"), 443))
        assert server.recv(64) == b"control"
        client.connect((lab["vps-a"].address(), 443))
        client.send(b"quic?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(64)
        server.settimeout(0.5)
        with pytest.raises(TimeoutError):
            server.recv(64)


def test_an_edge_has_each_port_once(lab: Lab) -> None:
    """The second tunnel for an address and port is refused, and the first keeps working."""
    taken = ["-R", "127.0.2.1:443:127.0.0.1:443"]
    again = lab["pi"].run(["ssh", "-N", "-o", "ExitOnForwardFailure=yes", *taken, lab["vps-a"].address()])
    assert again.returncode == 255
    assert "remote port forwarding failed" in again.stderr
    answer = lab["phone"].run(["curl", "-sS", "https://still.nas.example.net/"], check=True)
    assert answer.stdout.startswith("nas served")


def test_a_public_name_takes_the_long_way_from_inside(lab: Lab) -> None:
    """No hairpin: a laptop beside the server leaves the house and comes back by an edge."""
    lab["laptop"].run(["curl", "-sS", "-4", "https://long-way.nas.example.net/"], check=True)
    carrier = lab["isp"].address("internet")
    wait_until(
        lambda: any(f'{carrier} to 443 name "long-way.nas' in lab[e].log("edge") for e in ("vps-a", "vps-b")),
        30,
        "an edge logs the laptop's connection with the carrier's address",
    )
    assert lab["laptop"].address("home") not in lab["nas"].log("web")


def test_dynamic_dns_and_a_forward_at_home_do_not_work_behind_carrier_grade_nat(lab: Lab) -> None:
    resolved = lab["phone"].run(["dig", "+short", "home.example.net"], check=True).stdout.strip()
    assert resolved == lab["isp"].address("internet")
    refused = lab["phone"].run(["curl", "-sSk", "--max-time", "2", "https://home.example.net/"])
    assert refused.returncode == NOBODY_ANSWERS
    # The forward is sound: whoever stands between the carrier's NAT and the home router is served.
    forwarded = lab["isp"].run(["curl", "-sSk", f"https://{lab['home-router'].address('access')}/"], check=True)
    assert forwarded.stdout.startswith("nas served")
    assert f"to {lab['isp'].address('access')}" in forwarded.stdout


def test_the_address_that_the_router_knows_is_of_no_use_to_others(lab: Lab) -> None:
    """What a router's own dynamic DNS client would register cannot even be routed to."""
    unreachable = os.strerror(errno.ENETUNREACH)
    with pytest.raises(OSError, match=unreachable):
        lab["stranger"].connect((lab["home-router"].address("access"), 443), timeout=1)
