"""Settings of a node: hosts do not forward, routers do, what the file sets is set, for the node alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lab.errors import RealiseError
from lab.realise.lab import Lab

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

TOPOLOGY = """
#   host -- lan -- router -- far -- server
networks:
  lan: {prefixes: [192.168.1.0/24, "fd00:1::/64"]}
  far: {prefixes: [198.51.100.0/24, "2001:db8:1::/64"]}
nodes:
  host:
    links: {lan: auto}
    sysctls: {net.ipv4.tcp_ecn: 1, net.ipv4.ip_local_port_range: "40000 40010", net.ipv4.conf.lan.log_martians: 1}
  router: {role: router, links: {lan: auto, far: auto}}
  between: {links: {lan: auto, far: auto}}
  server: {links: {far: auto}}
"""
HOSTS = ("host", "between", "server")


@pytest.fixture(scope="module")
def lab(module_up: Callable[..., Lab]) -> Lab:
    return module_up(TOPOLOGY)


def setting(lab: Lab, node: str, name: str) -> str:
    """As a program of the node reads it: group ids look otherwise from outside of a user namespace."""
    return lab[node].run(["cat", "/proc/sys/" + name.replace(".", "/")], check=True).stdout.strip()


@pytest.mark.parametrize(
    "name", ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv6.conf.lan.forwarding"]
)
def test_a_router_forwards_and_a_host_does_not(lab: Lab, name: str) -> None:
    assert setting(lab, "router", name) == "1"
    assert setting(lab, "between", name) == "0"


def test_a_host_between_two_networks_passes_nothing_on(lab: Lab) -> None:
    between, router = lab["between"].address("lan"), lab["router"].address("lan")
    server = lab["server"].address()
    ping = ["ping", "-c", "1", "-w", "20", server]
    assert lab["host"].run(ping).returncode == 0
    lab["host"].run(["ip", "route", "replace", "198.51.100.0/24", "via", between], check=True)
    try:
        with lab["server"].udp(9000) as listening, lab["host"].udp() as client:
            listening.settimeout(0.2)
            client.sendto(b"?", (server, 9000))
            with pytest.raises(TimeoutError):
                listening.recv(10)
    finally:
        lab["host"].run(["ip", "route", "replace", "198.51.100.0/24", "via", router], check=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("net.ipv4.tcp_ecn", "1"),
        ("net.ipv4.ip_local_port_range", "40000\t40010"),
        ("net.ipv4.conf.lan.log_martians", "1"),
    ],
)
def test_a_sysctl_of_the_file_is_set_in_its_node_only(lab: Lab, name: str, value: str) -> None:
    assert setting(lab, "host", name) == value
    assert setting(lab, "router", name) != value


def test_a_sysctl_of_the_file_has_its_effect(lab: Lab) -> None:
    with lab["host"].udp() as client:
        client.connect((lab["router"].address("lan"), 1))
        assert 40000 <= client.getsockname()[1] <= 40010


@pytest.mark.parametrize("node", [*HOSTS, "router"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("net.ipv4.conf.all.rp_filter", "0"),
        ("net.ipv6.conf.all.disable_ipv6", "0"),
        ("net.ipv6.conf.default.accept_dad", "0"),
        ("net.ipv6.conf.default.accept_ra", "0"),
        ("net.ipv4.ping_group_range", "0\t0"),
    ],
)
def test_what_a_lab_depends_on_does_not_depend_on_the_host(lab: Lab, node: str, name: str, value: str) -> None:
    assert setting(lab, node, name) == value


def test_the_hosts_own_settings_stay_as_they_are(up: Callable[..., Lab]) -> None:
    names = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv4.tcp_ecn", "net.ipv4.conf.all.rp_filter")
    paths = [Path("/proc/sys") / name.replace(".", "/") for name in names]
    before = [path.read_text() for path in paths]
    lab = up(
        {
            "networks": {"lan": {"prefixes": ["10.0.0.0/24"]}},
            "nodes": {"r": {"role": "router", "links": {"lan": "auto"}}},
        }
    )
    assert setting(lab, "r", "net.ipv4.ip_forward") == "1"
    assert [path.read_text() for path in paths] == before


@pytest.mark.parametrize(
    ("name", "value"),
    [("net.ipv4.no_such_setting", "1"), ("net.ipv4.tcp_ecn", "many"), ("net.ipv4.conf.lan.no_such", "1")],
)
def test_a_sysctl_that_the_kernel_refuses_is_named(up: Callable[..., Lab], name: str, value: str) -> None:
    topology = {
        "networks": {"lan": {"prefixes": ["10.0.0.0/24"]}},
        "nodes": {"a": {"links": {"lan": "auto"}, "sysctls": {name: value}}},
    }
    with pytest.raises(RealiseError, match=f"node a: sysctl {name} = '{value}': "):
        up(topology)
