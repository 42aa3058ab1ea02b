"""Whether the kernel's rules are there is told in metrics and by `top`, whatever a network manager does to them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from lab.realise.node import Node
from tests.proxy.running import DEADLINE, OPERATION, Proxy, running_in
from tests.realise.conftest import Up

CONFIG = """
workers = 1
[listener.in]
tcp = ["127.0.0.1:8000"]
[[rule]]
to = "web"
[backend.web]
targets = ["127.0.0.1:9000", "192.0.2.1:9000"]
source = "SOURCE"
[transparent]
manage_rules = MANAGED
"""
PRESENT, RESTORED = "edgeproxy_kernel_rules_present", "edgeproxy_kernel_rules_restored_total"


def config(*, managed: bool = True, source: str = "client") -> str:
    return CONFIG.replace("MANAGED", "true" if managed else "false").replace("SOURCE", source) + OPERATION


@pytest.fixture(scope="module")
def node(module_up: Up) -> Node:
    return module_up("nodes: {a: {}}")["a"]


@contextmanager
def serving(node: Node, folder: Path, text: str) -> Iterator[Proxy]:
    with running_in(node, text, "127.0.0.1", folder) as proxy:
        yield proxy


def state(proxy: Proxy) -> tuple[float | None, float | None]:
    """Present and restored, as metrics and `top` agree."""
    metrics = proxy.metrics()
    found = (metrics.get(PRESENT), metrics.get(RESTORED))
    of_top = json.loads(proxy.ask("top", "--once", "--json"))["kernel_rules"]
    shown = (of_top["present"], of_top["restored"]) if of_top else (None, None)
    return found if found == shown else state(proxy)  # it has changed between the two questions


def times(proxy: Proxy) -> int:
    """How often it said that it put something back."""
    return proxy.said.count("somebody removed rules")


def rules(node: Node) -> list[str]:
    words = (
        ["ip", "-4", "rule"],
        ["ip", "-4", "route", "show", "table", "all", "proto", "237"],
        ["nft", "list", "ruleset"],
    )
    return sorted("".join(node.run(command, check=True).stdout for command in words).splitlines())


@pytest.mark.essential
@pytest.mark.parametrize(
    "removal",
    [
        "nft flush ruleset",
        "ip route flush table 25968",
        "ip rule del lookup 25968",
        "nft delete table inet edgeproxy_0x6570",
    ],
)
def test_what_somebody_removes_is_put_back_and_counted(node: Node, folder: Path, removal: str) -> None:
    with serving(node, folder, config()) as proxy:
        whole = rules(node)
        assert state(proxy) == (1, 0)
        node.run(removal.split(), check=True)
        wait_until(lambda: times(proxy) > 0, DEADLINE, "the word of it")
        wait_until(lambda: rules(node) == whole, DEADLINE, "the rules")
        wait_until(lambda: state(proxy) == (1, times(proxy)), DEADLINE, "the count")
        # `ip route flush` looks whether all is gone, and may begin anew.
        assert times(proxy) == 1 or removal.startswith("ip route flush")
        wait_until(lambda: f"put back {times(proxy)}  " in proxy.ask("top", "--once"), DEADLINE, "the count in top")


@pytest.mark.parametrize(("by", "restored"), [("the proxy", 1), ("somebody", 0)])
def test_rules_that_cannot_be_put_back_are_missing_until_they_are_there(
    node: Node, folder: Path, by: str, restored: int
) -> None:
    broken = folder / "nft"
    broken.write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    broken.chmod(0o755)
    place = node.run(["sh", "-c", "readlink -f $(command -v nft)"], check=True).stdout.strip()
    with serving(node, folder, config()) as proxy:
        whole, tables = rules(node), node.run(["nft", "list", "ruleset"], check=True).stdout
        # Of the node alone: it has mounts of its own. The program that is covered is still there for this test.
        node.run(["cp", place, str(folder / "whole")], check=True)
        node.run(["mount", "--bind", str(broken), place], check=True)
        try:
            node.run([str(folder / "whole"), "flush", "ruleset"], check=True)
            wait_until(lambda: state(proxy)[0] == 0, DEADLINE, "the lack")
            assert "rules are missing: broken" in proxy.said
            assert "KERNEL RULES MISSING" in proxy.ask("top", "--once")
        finally:
            node.run(["umount", place], check=True)
        # Either is news, at which the keeper looks again.
        node.run(["nft", "-f", "-"], input="add table inet another" if by == "the proxy" else tables, check=True)
        wait_until(lambda: state(proxy) == (1, restored), DEADLINE, "the rules")
        node.run(["nft", "-f", "-"], input="add table inet another\ndelete table inet another", check=True)
        assert rules(node) == whole


def test_rules_that_nobody_keeps_count_as_missing_until_none_are_wanted(node: Node, folder: Path) -> None:
    with serving(node, folder, config()) as proxy:
        words = ["pgrep", "-P", str(proxy.pid), "-f", "keep-rules"]
        node.run(["kill", "-KILL", *node.run(words, check=True).stdout.split()], check=True)
        wait_until(lambda: state(proxy) == (0, 0), DEADLINE, "the lack")
        proxy.reload(config(source="own"))
        assert state(proxy) == (None, None)


def test_of_rules_that_others_manage_nothing_is_told(node: Node, folder: Path) -> None:
    with serving(node, folder, config(managed=False)) as proxy:
        assert state(proxy) == (None, None)
