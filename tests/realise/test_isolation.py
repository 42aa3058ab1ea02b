"""A node has a name, names of its neighbours and folders of its own; the host's files stay as they are."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.realise.lab import Lab

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

TOPOLOGY = """
#   nas -- lan -- pi        cafe -- phone
networks:
  lan: {prefixes: [192.168.1.0/24, "fd00:1::/64"]}
  cafe: {prefixes: [10.0.0.0/24]}
nodes:
  nas: {links: {lan: 192.168.1.10}, dns: [192.168.1.53, "fd00:1::53"]}
  pi:
    links: {lan: 192.168.1.20}
    hosts: {printer: 192.0.2.7, printer.example: 192.0.2.7, printer6: "2001:db8::7", web: [phone]}
  phone: {links: {cafe: auto}}
"""
OWN_FOLDERS = (
    *("/tmp", "/run", "/var/log", "/var/tmp"),
    *(folder for folder in ("/var/lib/nginx", "/var/lib/misc") if Path(folder).is_dir()),
)


@pytest.fixture(scope="module")
def lab(module_up: Callable[..., Lab]) -> Lab:
    return module_up(TOPOLOGY)


@pytest.mark.parametrize("node", ["nas", "pi", "phone"])
def test_a_node_is_called_by_its_own_name(lab: Lab, node: str) -> None:
    assert lab[node].run(["hostname"]).stdout.strip() == node
    assert socket.gethostname() != node


def test_the_hosts_file_names_who_shares_a_network(lab: Lab) -> None:
    lines = lab["nas"].read("/etc/hosts").decode().splitlines()
    assert "127.0.0.1 localhost" in lines
    assert "192.168.1.20 pi" in lines
    assert f"{lab['pi'].address(version=6)} pi" in lines
    assert "192.168.1.10 nas" in lines
    assert not [line for line in lines if "phone" in line]


def test_the_hosts_file_of_another_network_names_others(lab: Lab) -> None:
    text = lab["phone"].read("/etc/hosts").decode()
    assert "10.0.0.1 phone" in text
    assert "nas" not in text


def test_entries_of_the_topology_stand_in_the_hosts_file_of_their_node_only(lab: Lab) -> None:
    lines = lab["pi"].read("/etc/hosts").decode().splitlines()
    assert "192.0.2.7 printer printer.example" in lines
    assert "2001:db8::7 printer6" in lines
    assert "10.0.0.1 web" in lines
    assert "printer" not in lab["nas"].read("/etc/hosts").decode()


def test_names_of_the_hosts_file_resolve(lab: Lab) -> None:
    resolved = lab["pi"].run(["getent", "ahosts", "printer.example"]).stdout
    assert resolved.split()[0] == "192.0.2.7"
    assert lab["pi"].run(["getent", "ahostsv4", "nas"]).stdout.split()[0] == "192.168.1.10"


def test_resolv_conf_holds_the_name_servers_of_the_topology_only(lab: Lab) -> None:
    assert lab["nas"].read("/etc/resolv.conf") == b"nameserver 192.168.1.53\nnameserver fd00:1::53\n"
    assert lab["phone"].read("/etc/resolv.conf") == b""


@pytest.mark.parametrize("file", ["/etc/hosts", "/etc/resolv.conf"])
def test_a_node_cannot_change_the_files_that_it_shares(lab: Lab, file: str) -> None:
    before = lab["nas"].read(file)
    done = lab["nas"].run(["sh", "-c", f"echo x >> {file}"])
    assert done.returncode != 0
    assert lab["nas"].read(file) == before


@pytest.mark.parametrize("folder", OWN_FOLDERS)
def test_a_folder_of_its_own_is_seen_by_its_node_only(lab: Lab, folder: str) -> None:
    file = f"{folder}/left-by-{lab.name}"
    assert lab["nas"].run(["sh", "-c", f"echo mine > {file}"]).returncode == 0
    assert lab["nas"].read(file) == b"mine\n"
    assert not Path(file).exists()
    with pytest.raises(FileNotFoundError):
        lab["pi"].read(file)


@pytest.mark.parametrize("folder", ["/var/tmp", "/var/log", *OWN_FOLDERS[4:]])
def test_a_folder_of_its_own_holds_nothing_of_the_host(lab: Lab, folder: str) -> None:
    assert lab["pi"].run(["ls", "-A", folder]).stdout == ""


@pytest.mark.parametrize(("folder", "mode"), [("/tmp", "1777"), ("/var/tmp", "1777"), ("/run", "755")])
def test_a_folder_of_its_own_has_the_usual_mode(lab: Lab, folder: str, mode: str) -> None:
    assert lab["nas"].run(["stat", "-c", "%a", folder]).stdout.strip() == mode


def test_root_of_a_node_lives_in_a_folder_of_the_node(lab: Lab) -> None:
    done = lab["nas"].run(["sh", "-c", "echo $HOME; getent passwd root | cut -d: -f6; pwd"])
    assert done.stdout.split() == ["/run/lab/home"] * 3


def test_programs_of_a_node_see_processes_of_the_lab_only(lab: Lab) -> None:
    seen = lab["nas"].run(["ls", "/proc"]).stdout.split()
    pids = [int(entry) for entry in seen if entry.isdigit()]
    assert 1 in pids
    assert len(pids) < 20
    commands = [lab["nas"].run(["cat", f"/proc/{pid}/cmdline"]).stdout for pid in pids]
    assert not [command for command in commands if "pytest" in command]


def test_a_node_sees_its_own_interfaces_in_sys(lab: Lab) -> None:
    assert set(lab["phone"].run(["ls", "/sys/class/net"]).stdout.split()) >= {"lo", "cafe"}
    assert "lan" not in lab["phone"].run(["ls", "/sys/class/net"]).stdout.split()


def test_nodes_do_not_share_memory_of_the_host(lab: Lab) -> None:
    file = f"/dev/shm/{lab.name}"
    lab["nas"].run(["touch", file], check=True)
    assert not Path(file).exists()


def test_the_environment_of_a_program_holds_nothing_of_the_users(
    up: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does that of process 1, which every program may read."""
    monkeypatch.setenv("SECRET_OF_THE_USER", "do not tell")
    said = up(TOPOLOGY)["nas"].run(["sh", "-c", "env; tr '\\0' '\\n' < /proc/1/environ"], check=True).stdout
    assert said.count("PATH=") >= 2
    assert "do not tell" not in said
