"""A mesh made real by either driver: addresses, names, keys of its own; and what a host must have for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.errors import HostError, UsageError
from lab.mesh.ask import mesh_paths
from lab.mesh.paths import Pair, Way
from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from lab.realise.order import require_mesh
from lab.topology.load import load_topology

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

TOPOLOGY = """
#   phone -- cafe (NAT) -- internet (vps) -- router (NAT) -- home -- nas, pi
networks:
  internet: {prefixes: [198.51.100.0/24]}
  home: {prefixes: [192.168.1.0/24]}
  cafe-lan: {prefixes: [10.0.0.0/24]}
nodes:
  router: {role: router, links: {internet: auto, home: auto}, nat: {outside: internet}}
  vps: {links: {internet: 198.51.100.10}}
  nas: {links: {home: auto}}
  pi: {links: {home: auto}}
  cafe: {role: router, links: {internet: auto, cafe-lan: auto}, nat: {outside: internet}}
  phone: {links: {cafe-lan: auto}}
mesh:
  one: {driver: nebula, prefix: 10.144.0.0/16, lighthouses: [vps], members: {nas: 10.144.7.7, pi: auto}}
  two: {driver: wireguard, prefix: 10.145.0.0/16, lighthouses: [vps], members: [nas, pi, phone], domain: two.example}
  three: {driver: nebula, prefix: 10.146.0.0/16, lighthouses: [vps], members: [nas]}
"""
MESHES = ("one", "two", "three")


@pytest.fixture(scope="module")
def lab(module_up: Callable[..., Lab]) -> Lab:
    return module_up(TOPOLOGY)


@pytest.mark.parametrize("mesh", MESHES)
def test_an_interface_of_the_meshs_name_has_the_address(lab: Lab, mesh: str) -> None:
    shown = lab["nas"].run(["ip", "-o", "-4", "address", "show", "dev", mesh], check=True).stdout
    address = lab["nas"].addresses(mesh)[0]
    assert f" {address} " in shown
    assert lab["nas"].address("one") == "10.144.7.7"
    assert lab["nas"].addresses() == lab["nas"].addresses("home")


@pytest.mark.parametrize("name", ["vps.one", "pi.one", "vps.two.example", "pi.two.example", "vps.three"])
def test_members_answer_by_their_names(lab: Lab, name: str) -> None:
    said = lab["nas"].run(["ping", "-c", "1", "-w", "30", name], check=True).stdout
    prefix = {"one": "10.144.", "two": "10.145.", "three": "10.146."}[name.split(".")[1]]
    assert f"PING {name} ({prefix}" in said


def test_members_alone_know_the_names(lab: Lab) -> None:
    assert lab["pi"].run(["getent", "hosts", "vps.three"]).returncode != 0
    assert lab["router"].run(["getent", "hosts", "nas.one"]).returncode != 0


def between(lab: Lab, mesh: str, first: str, second: str, way: Way) -> Pair:
    """What both ends say once they agree on the way."""
    found: list[Pair] = []

    def is_theirs() -> bool:
        found.append(mesh_paths(lab, mesh).between(first, second))
        return found[-1].way is way

    wait_until(is_theirs, 60, f"{first} and {second} say that their way is {way}")
    return found[-1]


@pytest.mark.parametrize("mesh", ["one", "two"])
def test_both_ends_tell_of_the_lan(lab: Lab, mesh: str) -> None:
    lab["nas"].run(["ping", "-c", "1", "-w", "30", lab["pi"].address(mesh)], check=True)
    pair = between(lab, mesh, "nas", "pi", Way.LAN)
    assert [view.owner for view in pair.views if view is not None] == ["pi", "nas"]
    assert (pair.since is None) == (mesh == "two")  # WireGuard does not keep it


def test_wireguards_hub_passes_on_what_members_cannot_send_each_other(lab: Lab) -> None:
    said = lab["phone"].run(["ping", "-c", "3", "-i", "0.2", "-w", "30", "nas.two.example"], check=True).stdout
    assert "ttl=63" in said  # one forwards on the way,
    assert "Redirect" not in said  # and does not send them elsewhere
    pair = between(lab, "two", "phone", "nas", Way.RELAYED)
    assert (pair.way, [view.relays for view in pair.views if view]) == (Way.RELAYED, [("vps",), ("vps",)])


def test_wireguard_reaches_a_neighbour_whose_firewall_keeps_out_who_was_not_asked(up: Callable[..., Lab]) -> None:
    """As of two that both have one."""
    shut = "firewall: {input: drop, allow: [{icmp: true}]}"
    lab = up(
        f"""
networks: {{lan: {{prefixes: [192.168.1.0/24]}}}}
nodes:
  hub: {{links: {{lan: auto}}}}
  open: {{links: {{lan: auto}}}}
  shut: {{links: {{lan: auto}}, {shut}}}
  also: {{links: {{lan: auto}}, {shut}}}
mesh: {{wg: {{driver: wireguard, prefix: 10.145.0.0/24, lighthouses: [hub], members: [open, shut, also]}}}}
"""
    )
    for one, other in (("open", "shut"), ("shut", "also"), ("also", "shut")):
        lab[one].run(["ping", "-c", "1", "-w", "60", lab[other].address("wg")], check=True, timeout=90)


def test_the_mesh_must_be_named_if_there_are_several(lab: Lab) -> None:
    with pytest.raises(UsageError, match="has 3 meshes, not one: one, two, three; name one of them"):
        mesh_paths(lab)
    with pytest.raises(UsageError, match=r"no mesh 'four'.*one, two, three"):
        mesh_paths(lab, "four")


def test_private_keys_are_their_owners_alone_and_the_authoritys_is_nowhere(lab: Lab) -> None:
    found = lab["nas"].run(["grep", "-rlE", "PRIVATE KEY", "/run/lab/services", "/var/tmp"]).stdout.split()
    names = ("host.key", "status_host_key", "status_key")
    assert sorted(found) == sorted(f"/run/lab/services/{mesh}/{name}" for mesh in ("one", "three") for name in names)
    modes = lab["nas"].run(["stat", "-c", "%a", *found, "/run/lab/services/two/private.key"], check=True).stdout
    assert set(modes.split()) == {"600"}


def test_who_is_no_member_cannot_ask(lab: Lab) -> None:
    """The sshd for questions is on loopback, and wants the mesh's key."""
    assert lab["pi"].run(["ssh", "-F", "none", "-p", "4242", lab["nas"].address("home")]).returncode == 255
    stranger = ["ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-p", "4242"]
    refused = lab["nas"].run([*stranger, "lab@127.0.0.1", "list-hostmap"])
    assert "Permission denied" in refused.stderr


def test_a_member_that_ended_could_not_be_asked(up: Callable[..., Lab]) -> None:
    """Could not ask is not a no: the other end's view stays, and the pair does not agree."""
    lab = up(TOPOLOGY)
    lab.signal_service("vps", "one", 15)
    wait_until(lambda: "vps" in dict(mesh_paths(lab, "one").silent), 60, "vps cannot be asked")
    paths = mesh_paths(lab, "one")
    assert paths.between("vps", "nas").views[0] is None
    assert not paths.between("vps", "nas").agrees


def test_a_host_without_the_tunnel_device_is_told_how_to_mend_it(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(TOPOLOGY)
    topology = load_topology(tmp_path / "t.yaml")
    require_mesh(topology)
    with pytest.raises(HostError, match="sudo modprobe tun"):
        require_mesh(topology, str(tmp_path / "tun"))
    (tmp_path / "shut").touch(mode=0)
    if os.geteuid() != 0:  # root may open anything
        with pytest.raises(HostError, match="sudo chmod 0666"):
            require_mesh(topology, str(tmp_path / "shut"))
