"""sshd and ssh as they are: those whom the topology lets in come in by key, others do not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lab.realise.lab import Lab

pytestmark = pytest.mark.essential

TOPOLOGY = """
#   laptop, phone, stranger -- lan -- nas, pi
networks: {lan: {prefixes: [192.0.2.0/24, "2001:db8::/64"]}}
nodes:
  nas: {links: {lan: [192.0.2.10, "2001:db8::10"]}, services: {ssh: {use: sshd, authorized: [laptop]}}}
  pi: {links: {lan: auto}, services: {ssh: {use: sshd, authorized: [phone]}}}
  laptop: {links: {lan: auto}}
  phone: {links: {lan: auto}}
  stranger: {links: {lan: auto}}
"""
SSH = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20"]


@pytest.fixture(scope="module")
def lab(module_up: Callable[..., Lab]) -> Lab:
    return module_up(TOPOLOGY)


@pytest.mark.parametrize("name", ["nas", "192.0.2.10", "2001:db8::10"])
def test_an_authorized_node_logs_in_by_any_name_of_the_server(lab: Lab, name: str) -> None:
    done = lab["laptop"].run([*SSH, f"root@{name}", "hostname; id -un"])
    assert (done.stdout, done.returncode) == ("nas\nroot\n", 0), done.stderr


@pytest.mark.parametrize("node", ["phone", "stranger"])
def test_another_node_is_refused_with_or_without_a_key(lab: Lab, node: str) -> None:
    """phone has a key, for pi."""
    done = lab[node].run([*SSH, "-o", "StrictHostKeyChecking=no", "root@nas", "true"])
    assert done.returncode == 255
    assert "Permission denied" in done.stderr
    assert lab["phone"].run([*SSH, "root@pi", "hostname"]).stdout == "pi\n"


def test_the_server_is_known_by_its_key_and_an_impostor_is_not_believed(lab: Lab) -> None:
    """A second sshd with a key of its own at another port of the same address."""
    make = "ssh-keygen -q -t ed25519 -N '' -f /run/lab/impostor"
    serve = "exec /usr/sbin/sshd -D -e -f /dev/null -p 2222 -h /run/lab/impostor"
    with lab["nas"].start(["sh", "-c", f"{make}; {serve}"]):
        lab["nas"].wait_bound(2222, timeout=30)
        check = ["-o", "CheckHostIP=no", "-o", "HostKeyAlias=nas", "-p", "2222"]
        done = lab["laptop"].run([*SSH, *check, "root@nas", "true"])
    assert done.returncode == 255
    assert "HOST IDENTIFICATION HAS CHANGED" in done.stderr


def test_a_login_key_is_its_nodes_alone(lab: Lab) -> None:
    key = "/run/lab/home/.ssh/id_ed25519"
    assert lab["laptop"].run(["stat", "-c", "%a %U", key]).stdout == "600 root\n"
    keys = [lab[node].run(["cat", key], check=True).stdout for node in ("laptop", "phone")]
    assert len(set(keys)) == 2
    with pytest.raises(FileNotFoundError):
        lab["stranger"].read(key)


def test_a_session_goes_through_ssh_with_its_input(lab: Lab) -> None:
    text = "through ssh\n" * 10_000
    assert lab["laptop"].run([*SSH, "root@nas", "cat"], input=text).stdout == text


def test_a_tunnel_of_ssh_carries_connections_back(lab: Lab) -> None:
    command = [*SSH, "-N", "-R", "0.0.0.0:8022:127.0.0.1:8080", "root@nas"]
    with lab["laptop"].listen(8080) as server, lab["laptop"].start(command):
        lab["nas"].wait_bound(8022, timeout=30)
        with lab["phone"].connect(("192.0.2.10", 8022)) as client:
            accepted, peer = server.accept()
            with accepted:
                client.sendall(b"back home")
                assert accepted.recv(100) == b"back home"
            assert peer[0].endswith("127.0.0.1")
