"""`edgeproxy doctor` for the shipped examples, as a user has it: what is missing has a line that mends it."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from lab.realise.node import Node
from tests.proxy.running import edgeproxy
from tests.realise.conftest import Up

EXAMPLES = Path(__file__).parents[2] / "proxy/examples"
TOPOLOGY = """
networks:
  mesh: {prefixes: [10.144.0.0/16, "fd44::/64"]}
nodes:
  here: {links: {mesh: [10.144.0.5, "fd44::5"]}}
  nas: {links: {mesh: [10.144.0.6, "fd44::6"]}}
"""
Finding = dict[str, Any]


@pytest.fixture(scope="module")
def node(lab_folder: Path, module_up: Up) -> Node:
    (lab_folder / "hosts").write_text("10.144.0.6 nas.tailnet\nfd44::6 nas.tailnet\n")
    return module_up(TOPOLOGY)["here"]


def example(folder: Path, name: str, old: str = "", new: str = "") -> Path:
    """A shipped file, changed in one place."""
    text = (EXAMPLES / name).read_text()
    assert not old or text.count(old) == 1
    path = folder / name
    path.write_text(text.replace(old, new) if old else text)
    return path


def ask(node: Node, folder: Path, config: Path, before: str = "") -> list[Finding]:
    """What it finds, in a mount namespace whose /etc/hosts has the other host's name; its exit status says the same."""
    command = f"mount --bind {folder}/hosts /etc/hosts && exec {before} {edgeproxy()} doctor --json -c {config}"
    done = node.run(["unshare", "--mount", "sh", "-c", command])
    assert done.stdout, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    bad: list[Finding] = [finding for finding in answer["findings"] if finding["status"] in {"missing", "unable"}]
    assert done.returncode == (1 if bad else 0), done.stdout
    assert answer["able"] == (not bad)
    return bad


def mend(node: Node, findings: list[Finding]) -> None:
    for finding in findings:
        assert finding["mend"], finding
        node.run(["sh", "-ec", finding["mend"]], check=True)


SPOILT_HOME = {
    "rule of IPv4": ("ip -4 rule del pref 1000", {"rules and routes"}),
    "rule of IPv6": ("ip -6 rule del pref 1000", {"rules and routes"}),
    "route of IPv4": ("ip -4 route flush table 25968", {"rules and routes"}),
    "route of IPv6": ("ip -6 route flush table 25968", {"rules and routes"}),
    "a route of somebody else": ("ip route add 10.9.0.0/16 dev lo table 25968", {"rules and routes"}),
    "IPv6": (
        "sysctl -qw net.ipv6.conf.lo.disable_ipv6=1",
        {"IPv6", "rules and routes"},
    ),
}


@pytest.mark.essential
@pytest.mark.parametrize("what", SPOILT_HOME)
def test_what_a_home_lacks_is_mended_by_the_line_given(node: Node, lab_folder: Path, what: str) -> None:
    config = example(lab_folder, "home.toml", "manage_rules = true", "manage_rules = false")
    mend(node, ask(node, lab_folder, config))
    assert ask(node, lab_folder, config) == []
    spoil, names = SPOILT_HOME[what]
    node.run(["sh", "-ec", spoil], check=True)
    found = ask(node, lab_folder, config)
    assert found
    assert {finding["name"] for finding in found} <= names, found
    mend(node, found)
    assert ask(node, lab_folder, config) == []


def test_the_shipped_home_needs_nothing_but_to_be_started(node: Node, lab_folder: Path) -> None:
    node.run(["sh", "-c", "ip -4 rule del pref 1000; ip -6 rule del pref 1000"])
    assert ask(node, lab_folder, example(lab_folder, "home.toml")) == []


@pytest.mark.parametrize("version", [4, 6])
def test_a_link_that_is_too_small_for_the_edges_header_is_mended_by_the_line_given(
    node: Node, lab_folder: Path, version: int
) -> None:
    """nas.tailnet is a name, which is looked up as the proxy would; its link must take QUIC's first datagram."""
    config = example(lab_folder, "edge.toml")
    hosts = lab_folder / "hosts"
    whole = hosts.read_text()
    hosts.write_text("".join(line for line in whole.splitlines(keepends=True) if (":" in line) == (version == 6)))
    device = "mesh"
    try:
        node.run(["ip", "link", "set", "dev", device, "mtu", "1379" if version == 6 else "1359"], check=True)
        found = ask(node, lab_folder, config)
        assert [finding["name"] for finding in found] == ["packets to nas"]
        mend(node, found)
        assert ask(node, lab_folder, config) == []
    finally:
        hosts.write_text(whole)
        node.run(["ip", "link", "set", "dev", device, "mtu", "1500"], check=True)
        # Below 1280 the kernel takes IPv6 from a link.
        node.run(["ip", "address", "replace", "fd44::5/64", "dev", device, "nodad"], check=True)


def listening_also(folder: Path, endpoints: str) -> Path:
    return example(folder, "edge.toml", "tcp = [", f"tcp = [{endpoints},")


def test_an_address_that_nobody_has_is_mended_by_the_line_given_where_it_may_be_right(
    node: Node, lab_folder: Path
) -> None:
    config = listening_also(lab_folder, '"10.144.0.77:81", "[fd44::77]:81"')
    found = ask(node, lab_folder, config)
    assert [finding["name"] for finding in found] == ["listeners", "listeners"]
    mend(node, found)
    assert ask(node, lab_folder, config) == []


def test_an_address_of_no_network_here_is_told_in_words_alone(node: Node, lab_folder: Path) -> None:
    config = listening_also(lab_folder, '"192.0.2.77:81", "[2001:db8::77]:81"')
    found = ask(node, lab_folder, config)
    assert [(finding["name"], finding["mend"]) for finding in found] == [("listeners", "")] * 2
    for finding, version in zip(found, [4, 6], strict=True):
        assert f"net.ipv{version}.ip_nonlocal_bind" in finding["found"]


@pytest.mark.root
@pytest.mark.parametrize("name", ["home.toml", "edge.toml"])
def test_capabilities_that_an_ordinary_user_lacks_are_given_by_the_line(
    node: Node, lab_folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = lab_folder / "bin"
    folder.mkdir(exist_ok=True)
    lab_folder.chmod(0o755)
    program = folder / "edgeproxy"
    shutil.copy(edgeproxy(), program)
    monkeypatch.setenv("EDGEPROXY", str(program))
    config = example(lab_folder, name)
    user = "setpriv --reuid 65534 --regid 65534 --clear-groups"
    found = ask(node, lab_folder, config, user)
    assert [finding["name"] for finding in found] == ["capabilities"], found
    node.run(["sh", "-ec", f"PATH={shlex.quote(str(folder))}:$PATH; {found[0]['mend']}"], check=True)
    assert ask(node, lab_folder, config, user) == []
