"""What the article says of overlay networks, asked of a homelab whose edges reach home through a mesh.

    phone -- cafe(NAT) -- internet -- vps-a, vps-b -- internet -- isp(NAT) -- home-router(NAT) -- nas, pi, laptop
    tailnet 10.144.0.0/16: vps-a, vps-b (lighthouses), phone, nas, pi, laptop

The twin of test_port_forwarding.py: what a star of forwarded ports cannot do, a mesh does.
"""

from __future__ import annotations

import errno
import os
import signal

import pytest

from lab import Lab, Way, mesh_paths, wait_until
from scenarios.mesh_traffic import MANY, received, talk, talk_until

pytestmark = [pytest.mark.topology("homelab", scope="module"), pytest.mark.essential]

EDGES = ("vps-a", "vps-b")


def test_strangers_come_in_by_an_edge_that_goes_through_the_mesh(lab: Lab) -> None:
    answer = lab["stranger"].run(["curl", "-sS", "https://way-in.nas.example.net/"], check=True)
    assert answer.stdout.startswith("nas served way-in.nas.example.net")
    by_mesh = [f'"peer":"{lab[edge].address("tailnet")}:' for edge in EDGES]
    lab["nas"].wait_log("home", '"server_name":"way-in.nas.example.net"', timeout=30)
    (line,) = (line for line in lab["nas"].log("home").splitlines() if '"way-in.nas.example.net"' in line)
    assert any(peer in line for peer in by_mesh)


def test_the_name_in_the_tls_hello_chooses_the_home_host(lab: Lab) -> None:
    for host in ("nas", "pi"):
        answer = lab["phone"].run(["curl", "-sS", f"https://chosen.{host}.example.net/"], check=True)
        assert answer.stdout.startswith(f"{host} served chosen.{host}.example.net")
    assert "chosen.nas" not in lab["pi"].log("web")
    assert "chosen.pi" not in lab["nas"].log("web")


def test_the_edge_holds_no_key_for_the_names_it_forwards(lab: Lab) -> None:
    for node, keys in (("nas", 1), ("vps-a", 0), ("vps-b", 0)):
        private = lab[node].run(["grep", "-rlE", "BEGIN (EC )?PRIVATE KEY", "/run/lab"]).stdout
        assert len(private.splitlines()) == keys, f"{node} holds {private}"


def test_ssh_to_the_edge_arrives_at_home(lab: Lab) -> None:
    command = ["ssh", "-p", "2222", "vps-a.example.net", "hostname; echo $SSH_CONNECTION"]
    answer = lab["phone"].run(command, check=True)
    assert answer.stdout.startswith(f"nas\n{lab['cafe'].address('internet')} ")


def test_every_port_of_a_member_is_open_to_members(lab: Lab) -> None:
    """Where forwarding leads to one port that somebody keeps open, each member has all of its own."""
    laptop, phone = lab["laptop"], lab["phone"]
    with laptop.listen(8080) as server, phone.connect((laptop.address("tailnet"), 8080)) as client:
        connection, peer = server.accept()
        with connection:
            assert peer[0].removeprefix("::ffff:") == phone.address("tailnet")  # and the client keeps its address
            client.sendall(b"hello")
            assert connection.recv(5) == b"hello"


def test_udp_passes(lab: Lab) -> None:
    nas, phone = lab["nas"], lab["phone"]
    with nas.udp(443) as server, phone.udp() as client:
        client.sendto(b"quic?", (nas.address("tailnet"), 443))
        assert server.recvfrom(64)[0] == b"quic?"


def test_who_is_no_member_stays_out(lab: Lab) -> None:
    """An address of the mesh is none of the internet's."""
    with pytest.raises(OSError, match=os.strerror(errno.ENETUNREACH)):
        lab["stranger"].connect((lab["nas"].address("tailnet"), 443), timeout=1)


def test_a_member_in_a_cafe_reaches_home_directly_through_three_nats(lab: Lab) -> None:
    pair = talk_until(lab, "phone", "nas", Way.DIRECT)
    assert [view.owner for view in pair.views if view] == ["isp", "cafe"]  # whose NAT each end sends to


def test_neighbours_stay_in_the_house(lab: Lab) -> None:
    """Where a public name takes the long way by an edge, the name in the mesh does not leave."""
    talk_until(lab, "laptop", "nas", Way.LAN)
    before = received(lab, "home-router", "home")
    talk(lab, "laptop", "nas", MANY)
    assert received(lab, "home-router", "home") - before < MANY / 2


def test_direct_ways_outlive_both_lighthouses(lab: Lab) -> None:
    """No middle that all depends on: the last test, for it takes the edges away."""
    talk_until(lab, "phone", "nas", Way.DIRECT)
    for edge in EDGES:
        lab.signal_service(edge, "tailnet", signal.SIGTERM)
    wait_until(lambda: len(mesh_paths(lab).silent) == len(EDGES), 60, "both lighthouses are gone")
    talk(lab, "phone", "nas", MANY)
    # A busy machine may have an end that is asked too late.
    wait_until(lambda: mesh_paths(lab).between("phone", "nas").way is Way.DIRECT, 60, "both say that they are direct")
