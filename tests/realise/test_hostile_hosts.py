"""What a host has set or mounted does not change a lab, and a lab's programs do not change the host's kernel."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.plan.build import build
from lab.plan.step import SetInEveryNode
from lab.realise import registry
from lab.realise.lab import Lab
from lab.topology.load import load_topology

ROOT = Path(__file__).resolve().parents[2]
TOPOLOGY = """
#   host -- lan -- router -- far
networks: {lan: {prefixes: [192.0.2.0/24]}, far: {prefixes: [198.51.100.0/24]}}
nodes:
  host: {links: {lan: auto}, services: {sleeper: {run: sleep 1000}}}
  router: {role: router, links: {lan: auto, far: auto}}
"""
# capabilities(7), by their numbers in linux/capability.h
OF_THE_HOST = {"SYS_MODULE": 16, "SYS_RAWIO": 17, "SYS_BOOT": 22, "SYS_TIME": 25}
SETTINGS = ("proxy_arp", "arp_ignore", "arp_announce", "arp_filter", "route_localnet", "rp_filter")


@pytest.fixture(scope="module")
def lab(module_up: Callable[..., Lab]) -> Lab:
    return module_up(TOPOLOGY)


# A host whose mounts are shared, as systemd makes them all; what is unmounted there goes from its slaves too.
WITNESS = """
import json, subprocess, sys
from pathlib import Path
from lab.realise import registry
from lab.realise.asking import wait_until
from lab.realise.lab import Lab

def mounted(pid):
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    return [line for line in lines if line.split()[4] == "/mnt"]

def own():
    return Path("/proc/self/mountinfo").read_text()

before = own()
with Lab.up(Path(sys.argv[1]), name=sys.argv[2]) as lab:
    (state,) = lab.services()
    supervisor = registry.supervisor_of(lab._channel)
    look = lambda: (mounted(supervisor), lab["host"].run(["grep", " /mnt ", f"/proc/{state['pid']}/mountinfo"]).stdout)
    first = look()
    lab["host"].run(["mount", "-t", "tmpfs", "own", "/mnt/of-the-lab"], check=True)
    unchanged = own() == before
    lab["host"].run(["umount", "/mnt/of-the-lab"], check=True)
    subprocess.run(["umount", "/mnt"], check=True)
    gone = None
    try:
        wait_until(lambda: "outer" not in str(look()), 30, "it is gone")
        gone = True
    except TimeoutError:
        gone = False
print(json.dumps({"first": first, "gone": gone, "unchanged": unchanged}))
"""
PREPARE = "mount --make-rshared / && mount -t tmpfs outer /mnt && mkdir /mnt/of-the-lab"


@pytest.mark.essential
@pytest.mark.single_id
@pytest.mark.parametrize(
    "enter",
    [
        pytest.param("unshare --mount --propagation private", marks=pytest.mark.root, id="root"),
        pytest.param("unshare --user --map-root-user --mount --propagation private", id="root of its own"),
    ],
)
def test_the_host_can_unmount_what_a_lab_sees(tmp_path: Path, name: str, enter: str) -> None:
    (tmp_path / "t.yaml").write_text(TOPOLOGY)
    words = [sys.executable, "-c", WITNESS, str(tmp_path / "t.yaml"), name]
    done = subprocess.run(
        [*enter.split(), "sh", "-euc", f'{PREPARE}; exec "$@"', "sh", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    of_supervisor, of_service = found["first"]
    assert len(of_supervisor) == 1
    for line in (of_supervisor[0], of_service):
        optional = line.split(" - ")[0].split()[6:]
        assert [field for field in optional if field.startswith("master:")], line
        assert not [field for field in optional if field.startswith("shared:")], line
    assert found["gone"], "the lab still holds what the host has unmounted"
    assert found["unchanged"], "what a node mounts is seen by the host"


@pytest.mark.root
@pytest.mark.parametrize(
    "file",
    [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/vm/overcommit_memory",
        "/proc/sys/fs/suid_dumpable",
        "/proc/sysrq-trigger",
    ],
)
def test_root_of_a_node_cannot_write_settings_of_the_hosts_kernel(lab: Lab, file: str) -> None:
    """Opening for append changes nothing by itself."""
    if not Path(file).exists():
        pytest.skip("this kernel has no such setting")
    for node in lab.nodes:
        assert lab[node].run(["sh", "-c", f": >> {file}"]).returncode != 0
        assert lab[node].run(["sh", "-c", ": >> /proc/sys/net/ipv4/ip_forward"]).returncode == 0


@pytest.mark.root
def test_root_of_a_node_cannot_write_into_sys(lab: Lab) -> None:
    find = "find /sys/kernel /sys/module /sys/class/net/lan/ -maxdepth 4 -type f -perm -200"
    written = f"{find} | head -n 300 | while read file; do (: >> $file) 2>/dev/null && echo $file; done; true"
    assert len(lab["host"].run(["sh", "-c", find]).stdout.splitlines()) > 3
    assert lab["host"].run(["sh", "-c", written], check=True).stdout == ""


@pytest.mark.essential
@pytest.mark.single_id
def test_the_network_of_a_node_is_its_own_to_set_and_to_see(lab: Lab) -> None:
    node = lab["host"]
    node.run(["sh", "-c", "echo 77 > /proc/sys/net/ipv4/ip_default_ttl"], check=True)
    assert node.read("/proc/sys/net/ipv4/ip_default_ttl") == b"77\n"
    assert lab["router"].run(["cat", "/proc/sys/net/ipv4/ip_default_ttl"]).stdout != "77\n"
    assert set(node.run(["ls", "/sys/class/net"]).stdout.split()) >= {"lo", "lan"}


def capabilities(status: str) -> dict[str, int]:
    return {
        key: int(value, 16)
        for key, _, value in (line.partition(":\t") for line in status.splitlines())
        if key.startswith("Cap")
    }


@pytest.mark.root
@pytest.mark.parametrize("capability", OF_THE_HOST)
def test_no_process_of_a_lab_has_powers_over_the_hosts_kernel(lab: Lab, capability: str) -> None:
    (state,) = lab.services()
    assert capabilities(Path("/proc/self/status").read_text())["CapPrm"] >> OF_THE_HOST[capability] & 1, "no witness"
    statuses = [Path(f"/proc/{registry.supervisor_of(lab._channel)}/status").read_text()]
    statuses += [lab["host"].read(f"/proc/{pid}/status").decode() for pid in (1, state["pid"])]
    statuses.append(lab["host"].run(["cat", "/proc/self/status"]).stdout)
    for status in statuses:
        for kind, bits in capabilities(status).items():
            assert not bits >> OF_THE_HOST[capability] & 1, f"{kind} of {status.split()[1]}"


@pytest.mark.essential
@pytest.mark.single_id
@pytest.mark.parametrize("setting", SETTINGS)
def test_what_a_host_may_have_set_is_off_in_every_node(lab: Lab, setting: str) -> None:
    for node in lab.nodes:
        interfaces = ["all", "default", "lan"]
        files = [f"/proc/sys/net/ipv4/conf/{interface}/{setting}" for interface in interfaces]
        found = lab[node].run(["cat", *files], check=True).stdout.split()
        assert dict(zip(interfaces, found, strict=True)) == dict.fromkeys(interfaces, "0"), node


@pytest.mark.essential
@pytest.mark.single_id
@pytest.mark.parametrize("setting", SETTINGS)
def test_the_plan_sets_what_a_host_may_have_set(tmp_path: Path, setting: str) -> None:
    """A new namespace copies the values of the host's first one, which a test must not change (ip-sysctl)."""
    (tmp_path / "t.yaml").write_text(TOPOLOGY)
    common = [step for step in build(load_topology(tmp_path / "t.yaml")).steps if isinstance(step, SetInEveryNode)]
    found = {name: value for step in common for name, value in step.sysctls}
    assert [found.get(f"net.ipv4.conf.{which}.{setting}") for which in ("all", "default")] == ["0", "0"]
