"""No way out of a lab, and no trace of it on the host."""

from __future__ import annotations

import errno
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from lab.realise.lab import Lab

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

TOPOLOGY = """
#   laptop -- home -- router (NAT) -- internet -- server
networks:
  internet: {prefixes: [198.51.100.0/24, "2001:db8:1::/64"], internet: true}
  home: {prefixes: [192.168.1.0/24, "2001:db8:10::/64"]}
nodes:
  server: {links: {internet: auto}, services: {web: {run: "python3 -m http.server 80", ready: {tcp: 80}}}}
  router: {role: router, links: {internet: auto, home: auto}, nat: {outside: internet}}
  laptop: {links: {home: auto}}
"""
NODES = ("server", "router", "laptop")


@pytest.fixture(scope="module")
def lab(module_up: Callable[..., Lab]) -> Lab:
    return module_up(TOPOLOGY)


@pytest.fixture(scope="module")
def host_server() -> Iterator[tuple[int, list[str]]]:
    """A server on all addresses of the host, and those addresses."""
    with socket.socket(socket.AF_INET6) as server:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind(("::", 0))
        server.listen()
        said = subprocess.run(["ip", "-o", "address"], capture_output=True, text=True, check=True).stdout
        addresses = [line.split()[3].partition("/")[0] for line in said.splitlines()]
        yield server.getsockname()[1], [address for address in addresses if not address.startswith("fe80")]


@pytest.mark.parametrize("node", NODES)
def test_no_address_of_the_host_answers(lab: Lab, host_server: tuple[int, list[str]], node: str) -> None:
    port, addresses = host_server
    assert addresses
    for address in addresses:
        with pytest.raises(OSError) as caught:  # noqa: PT011 - any of these
            lab[node].connect((address, port), timeout=0.3)
        refused_by_itself = errno.ECONNREFUSED if address in ("127.0.0.1", "::1") else None
        silent = isinstance(caught.value, TimeoutError)
        assert silent or caught.value.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, refused_by_itself), address


def test_the_fabric_has_switches_and_no_address_or_route(lab: Lab) -> None:
    """The supervisor holds the fabric's network open beside those of the nodes; it is the one with bridges."""
    look = (
        "for fd in /proc/1/fd/*; do case $(readlink $fd) in net:*) "
        'if [ -n "$(nsenter --net=$fd ip link show type bridge)" ]; then nsenter --net=$fd sh -c \''
        "ip -o link show type bridge; echo ==; ip -o address; "
        "ip route show table all; ip -6 route show table all'; fi; esac; done"
    )
    said = lab["server"].run(["sh", "-c", look], check=True).stdout
    bridges, _, rest = said.partition("==\n")
    assert len(bridges.splitlines()) == 2, said
    assert rest == ""


def test_the_node_on_the_internet_has_no_default_route(lab: Lab) -> None:
    assert lab["server"].run(["ip", "route", "show", "default"]).stdout == ""
    assert "via" in lab["laptop"].run(["ip", "route", "show", "default"]).stdout


@pytest.mark.alone  # it takes for its own what other tests make on the host
def test_a_lab_makes_no_interface_route_or_mount_on_the_host(up: Callable[..., Lab]) -> None:
    def state() -> list[str]:
        commands = (
            ["ip", "-o", "link"],
            ["ip", "route", "show", "table", "all"],
            ["ip", "-6", "route"],
            ["ip", "netns"],
        )
        said = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for command in commands]
        said = [re.sub(r" expires \d+sec", "", each) for each in said]
        return [*said, Path("/proc/self/mountinfo").read_text(), *map(str, Path("/dev/shm").iterdir())]

    def makes_nothing() -> bool:
        before = state()
        lab = up(TOPOLOGY)
        during = state()
        lab.down()
        assert lab.name not in str([during, state()])
        return during == before == state()

    wait_until(makes_nothing, 60, "the host is as it was: what others change meanwhile spoils a try, not all")


def test_what_nodes_write_into_their_own_folders_is_not_on_the_host(up: Callable[..., Lab]) -> None:
    lab = up(TOPOLOGY)
    token = f"left-by-{lab.name}"
    places = [Path(place) for place in ("/tmp", "/run", "/run/lock", "/run/lab", "/var/log", "/var/tmp", "/dev/shm")]
    for node in NODES:
        lab[node].run(["touch", *(f"{place}/{token}-{node}" for place in places)], check=True)
    assert [entry for place in places if place.is_dir() for entry in place.iterdir() if token in entry.name] == []
    lab.down()
    assert [entry for place in places if place.is_dir() for entry in place.iterdir() if token in entry.name] == []


def test_the_hosts_name_and_files_stay_as_they_are(up: Callable[..., Lab]) -> None:
    files = [
        Path(name) for name in ("/etc/hosts", "/etc/resolv.conf", "/etc/passwd", "/etc/ssl/certs/ca-certificates.crt")
    ]
    before = [(file.read_bytes(), file.stat().st_mtime_ns) for file in files if file.exists()]
    name = socket.gethostname()
    up(TOPOLOGY).down()
    assert [(file.read_bytes(), file.stat().st_mtime_ns) for file in files if file.exists()] == before
    assert socket.gethostname() == name


def test_a_lab_is_in_a_session_of_its_own_and_holds_no_folder_of_the_user(lab: Lab) -> None:
    assert lab["server"].run(["readlink", "/proc/1/cwd"]).stdout.strip() in ("/", "")
    assert lab["server"].run(["ps", "-o", "sid=", "-p", "1"]).stdout.strip() == "0"
