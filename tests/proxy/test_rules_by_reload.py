"""Who keeps the kernel's rules may change while it runs: by a reload where the process can, else by an upgrade."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from lab.realise.node import Node
from tests.proxy.running import DEADLINE, OPERATION, Proxy, edgeproxy, running_in
from tests.realise.conftest import Up

CONFIG = """
[listener.in]
tcp = ["127.0.0.1:8000"]
[[rule]]
to = "web"
[backend.web]
targets = ["127.0.0.1:9000"]
source = "SOURCE"
[transparent]
manage_rules = MANAGED
"""
LINE = 10  # of manage_rules, in the file that is written


def config(*, managed: bool, source: str = "client") -> str:
    text = CONFIG.replace("MANAGED", "true" if managed else "false").replace("SOURCE", source)
    return "workers = 2" + text + OPERATION


@pytest.fixture(scope="module")
def node(module_up: Up) -> Node:
    return module_up("nodes: {a: {}}")["a"]


@contextmanager
def serving(node: Node, folder: Path, text: str) -> Iterator[Proxy]:
    folder.mkdir()
    with running_in(node, text, "127.0.0.1", folder) as proxy:
        yield proxy


def rules(node: Node) -> str:
    words = (["ip", "-4", "rule"], ["ip", "-4", "route", "show", "table", "all", "proto", "237"])
    return "".join(node.run(command, check=True).stdout for command in words)


@pytest.mark.essential
def test_management_that_a_reload_turns_off_takes_the_rules_along_and_on_again_brings_them(
    node: Node, lab_folder: Path
) -> None:
    before = rules(node)
    with serving(node, lab_folder / "off", config(managed=True)) as proxy:
        managed = rules(node)
        assert managed != before
        for _ in range(2):
            proxy.reload(config(managed=False))
            wait_until(lambda: rules(node) == before, DEADLINE, "the rules are gone")
            proxy.reload(config(managed=True))
            assert rules(node) == managed, proxy.said
    wait_until(lambda: rules(node) == before, DEADLINE, "the rules are gone")


def test_a_reload_that_needs_no_rules_any_more_takes_them_along(node: Node, lab_folder: Path) -> None:
    before = rules(node)
    with serving(node, lab_folder / "own", config(managed=True, source="own")) as proxy:
        assert rules(node) == before
        proxy.reload(config(managed=True))
        assert "lookup 25968" in rules(node)
        proxy.reload(config(managed=True, source="own"))
        wait_until(lambda: rules(node) == before, DEADLINE, "the rules are gone")


@pytest.mark.parametrize("managed", [True, False])
def test_rules_stay_for_connections_that_began_under_them(node: Node, lab_folder: Path, *, managed: bool) -> None:
    before = rules(node)
    with serving(node, lab_folder / f"stay-{managed}", config(managed=True)) as proxy, ExitStack() as stack:
        with_rules = rules(node)
        server = stack.enter_context(node.listen(9000, "127.0.0.1"))
        kept = stack.enter_context(node.connect(("127.0.0.1", 8000)))
        kept.sendall(b"a")
        backend = stack.enter_context(server.accept()[0])
        assert backend.recv(1) == b"a"
        for _ in range(2):
            proxy.reload(config(managed=managed, source="own"))
            assert rules(node) == with_rules
        other = stack.enter_context(node.connect(("127.0.0.1", 8000)))
        other.sendall(b"c")
        later = stack.enter_context(server.accept()[0])
        assert later.recv(1) == b"c"
        backend.sendall(b"b")
        assert kept.recv(1) == b"b"
        assert rules(node) == with_rules
        kept.close()
        backend.close()
        wait_until(lambda: rules(node) == before, DEADLINE, "the rules are gone")
        later.sendall(b"d")
        assert other.recv(1) == b"d"


@pytest.mark.essential
def test_management_that_a_reload_cannot_turn_on_is_refused_with_the_way_and_an_upgrade_is_one(
    node: Node, lab_folder: Path
) -> None:
    before = rules(node)
    with serving(node, lab_folder / "on", config(managed=False)) as proxy, ExitStack() as stack:
        proxy.write(config(managed=True))
        proxy.send_signal(signal.SIGHUP)
        wait_until(lambda: "not reloaded" in proxy.said, DEADLINE, "the refusal")
        (refusal,) = [line for line in proxy.said.splitlines() if "not reloaded" in line]
        assert re.search(rf"{re.escape(str(proxy.config))}:{LINE}: transparent\.manage_rules: .*CAP_NET_ADMIN", refusal)
        assert "restart" in refusal
        assert "--take-over" in refusal
        assert rules(node) == before
        said = proxy.folder / "stderr.1"
        argv = [edgeproxy(), "run", "-c", str(proxy.config), "--take-over"]
        later = stack.enter_context(node.start(argv, stderr=stack.enter_context(said.open("w"))))
        wait_until(lambda: "edgeproxy: ready" in said.read_text(), DEADLINE, "the upgrade")
        assert proxy.wait(DEADLINE) == 0
        assert "lookup 25968" in rules(node)
        later.terminate()
        assert later.wait(DEADLINE) == 0
        wait_until(lambda: rules(node) == before, DEADLINE, "the rules are gone")


def test_an_upgrade_without_management_takes_the_rules_along(node: Node, lab_folder: Path) -> None:
    before = rules(node)
    with serving(node, lab_folder / "upgrade-off", config(managed=True)) as proxy, ExitStack() as stack:
        assert rules(node) != before
        stack.enter_context(node.listen(9000, "127.0.0.1"))
        kept = stack.enter_context(node.connect(("127.0.0.1", 8000)))  # for whom the first process goes on
        proxy.wait_for(lambda line: line["listener"] == "in", "the connection")
        proxy.write(config(managed=False))
        said = proxy.folder / "stderr.1"
        argv = [edgeproxy(), "run", "-c", str(proxy.config), "--take-over"]
        later = stack.enter_context(node.start(argv, stderr=stack.enter_context(said.open("w"))))
        wait_until(lambda: "edgeproxy: ready" in said.read_text(), DEADLINE, "the upgrade")
        wait_until(lambda: rules(node) == before, DEADLINE, "the rules are gone")
        kept.close()
        later.terminate()
        assert later.wait(DEADLINE) == 0


def keeper_of(node: Node, proxy: Proxy) -> str:
    (found,) = node.run(["pgrep", "-P", str(proxy.pid), "-f", "keep-rules"], check=True).stdout.split()
    return found


def test_a_keeper_that_is_slow_has_a_reload_refused_and_keeps_the_rules(node: Node, lab_folder: Path) -> None:
    before = rules(node)
    with serving(node, lab_folder / "slow", config(managed=True)) as proxy:
        managed = rules(node)
        assert managed != before
        keeper = keeper_of(node, proxy)
        node.run(["kill", "-STOP", keeper], check=True)
        proxy.write(config(managed=True, source="own"))
        proxy.send_signal(signal.SIGHUP)
        wait_until(lambda: "not reloaded" in proxy.said, DEADLINE, "the refusal")
        assert rules(node) == managed
        node.run(["kill", "-CONT", keeper], check=True)
        wait_until(lambda: "rules are as the configuration has them" in proxy.said, DEADLINE, "the keeper's answer")
        assert rules(node) == managed
        proxy.reload(config(managed=True, source="own"))
        wait_until(lambda: rules(node) == before, DEADLINE, "the rules are gone")
        proxy.reload(config(managed=True))
        wait_until(lambda: rules(node) == managed, DEADLINE, "the rules are back")
    wait_until(lambda: rules(node) == before, DEADLINE, "the rules are gone")


def test_without_its_keeper_a_reload_that_needs_no_rules_is_taken_and_one_that_does_is_refused(
    node: Node, lab_folder: Path
) -> None:
    before = rules(node)
    with serving(node, lab_folder / "gone", config(managed=True)) as proxy:
        node.run(["kill", "-KILL", keeper_of(node, proxy)], check=True)
        wait_until(lambda: "the rule keeper is gone" in proxy.said, DEADLINE, "the word of it")
        proxy.reload(config(managed=True, source="own"))
        proxy.write(config(managed=True))
        proxy.send_signal(signal.SIGHUP)
        wait_until(lambda: "not reloaded" in proxy.said, DEADLINE, "the refusal")
    with serving(node, lab_folder / "gone-after", config(managed=True)):
        pass  # it takes over what the dead one left
    wait_until(lambda: rules(node) == before, DEADLINE, "the rules are gone")
