"""Signals that come while the proxy starts: none kills it, none is lost, and nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from lab.realise.node import Node
from lab.realise.running import Process
from tests.proxy.running import DEADLINE, OPERATION, Proxy, edgeproxy

CONFIG = """
[listener.in]
tcp = ["127.0.0.1:8000"]
[[rule]]
to = "web"
[backend.web]
targets = ["127.0.0.1:9000", "192.0.2.1:9000"]
source = "client"
[transparent]
manage_rules = true
"""

HOLD = "import os, signal, sys; signal.pthread_sigmask(0, [1, 2, 15]); "
EXEC = "os.execv(sys.argv[1], sys.argv[1:])"


@pytest.fixture(scope="module")
def node(lab_folder: Path) -> Iterator[Node]:
    file = lab_folder / "t.yaml"
    file.write_text("nodes: {a: {}}\n")
    with Lab.up(file, name=f"ep-{os.getpid()}-signals") as lab:
        yield lab["a"]


@contextmanager
def starting(node: Node, folder: Path) -> Iterator[tuple[Proxy, Process]]:
    """A proxy whose signals are held back until it hears them itself, so that none comes too early; rules go too."""
    folder.mkdir()
    before = rules(node)
    proxy = Proxy(folder, "127.0.0.1", node.connect)
    proxy.write(CONFIG + OPERATION)
    argv = ["python3", "-c", HOLD + EXEC, edgeproxy(), "run", "-c", str(proxy.config)]
    with (folder / "stderr").open("w") as stderr, node.start(argv, stderr=stderr) as process:
        wait_until(lambda: _is_edgeproxy(node, process.pid), DEADLINE, "the program")
        yield proxy, process
    wait_until(lambda: rules(node) == before, DEADLINE, "the rules are gone")


def _is_edgeproxy(node: Node, pid: int) -> bool:
    return node.read(f"/proc/{pid}/cmdline").startswith(edgeproxy().encode())


def rules(node: Node) -> str:
    words = (["ip", "-4", "rule"], ["ip", "route", "show", "table", "all"], ["nft", "list", "ruleset"])
    return "".join(node.run(command, check=True).stdout for command in words)


# How far the start has come when the first signal is sent.
MOMENTS: dict[str, Callable[[Node, Proxy], bool]] = {
    "at once": lambda _, __: True,
    "with rules": lambda node, _: "lookup 25968" in node.run(["ip", "rule"], check=True).stdout,
    "with an admin socket": lambda _, proxy: (proxy.folder / "admin").exists(),
    "in its sandbox": lambda _, proxy: "sandbox:" in proxy.said,
    "ready": lambda _, proxy: "ready" in proxy.said,
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_sighup_neither_kills_nor_is_lost(node: Node, lab_folder: Path, moment: str) -> None:
    with starting(node, lab_folder / f"hup-{moment}") as (proxy, process):
        wait_until(lambda: MOMENTS[moment](node, proxy), DEADLINE, moment)
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: "edgeproxy: reloaded" in proxy.said, DEADLINE, "the reload")
        assert json.loads(proxy.ask("top", "--once", "--json"))["reloads"] == 1
        process.terminate()
        assert process.wait(DEADLINE) == 0


def test_many_of_them_during_the_start_do_not_either(node: Node, lab_folder: Path) -> None:
    with starting(node, lab_folder / "hups") as (proxy, process):

        def is_ready() -> bool:
            process.send_signal(signal.SIGHUP)
            return "edgeproxy: ready" in proxy.said

        wait_until(is_ready, DEADLINE, "the start")
        wait_until(lambda: "edgeproxy: reloaded" in proxy.said, DEADLINE, "the reload")
        process.terminate()
        assert process.wait(DEADLINE) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", MOMENTS)
def test_an_end_before_it_is_ready_is_a_good_one_and_leaves_nothing(
    node: Node, lab_folder: Path, moment: str, number: signal.Signals
) -> None:
    with starting(node, lab_folder / f"{number.name}-{moment}") as (proxy, process):
        wait_until(lambda: MOMENTS[moment](node, proxy), DEADLINE, moment)
        process.send_signal(number)
        assert process.wait(DEADLINE) == 0, proxy.said
        assert not (proxy.folder / "admin").exists()


def test_who_is_told_to_end_before_it_has_taken_over_leaves_all_as_it_was(node: Node, lab_folder: Path) -> None:
    with starting(node, lab_folder / "heir") as (proxy, process):
        wait_until(lambda: "edgeproxy: ready" in proxy.said, DEADLINE, "the start")
        whole = rules(node)
        words = [edgeproxy(), "run", "-c", str(proxy.config), "--take-over"]
        ended = node.run(["python3", "-c", HOLD + "os.kill(os.getpid(), 15); " + EXEC, *words], timeout=DEADLINE)
        assert ended.returncode == 0, ended.stderr
        assert "told to end before it was ready" in ended.stderr
        wait_until(lambda: "all goes on here" in proxy.said, DEADLINE, "the word of it")
        assert json.loads(proxy.ask("top", "--once", "--json"))["pid"] == process.pid
        assert rules(node) == whole
        process.terminate()
        assert process.wait(DEADLINE) == 0
