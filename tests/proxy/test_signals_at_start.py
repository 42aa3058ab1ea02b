"""Signals that come while the proxy starts: none kills it, none is lost, and nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from lab.realise.node import Node
from lab.realise.running import Process
from tests.proxy.running import DEADLINE, OPERATION, Proxy, edgeproxy
from tests.realise.conftest import Up

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


@pytest.fixture(scope="module")
def node(module_up: Up) -> Node:
    return module_up("nodes: {a: {}}")["a"]


@contextmanager
def starting(node: Node, folder: Path, *, waits_for: str = "") -> Iterator[tuple[Proxy, Process]]:
    """A proxy; one of its files may be a FIFO that nobody has open, for which it waits. Rules go with it."""
    folder.mkdir()
    before = rules(node)
    proxy = Proxy(folder, "127.0.0.1", node.connect)
    proxy.write(CONFIG + OPERATION)
    if waits_for:
        with suppress(FileNotFoundError):
            (folder / waits_for).rename(folder / "later")
        os.mkfifo(folder / waits_for)
    argv = [edgeproxy(), "run", "-c", str(proxy.config)]
    with (folder / "stderr").open("w") as stderr, node.start(argv, stderr=stderr) as process:
        yield proxy, process
    wait_until(lambda: rules(node) == before, DEADLINE, "the rules are gone")


def masks(node: Node, pid: int) -> dict[str, set[signal.Signals]]:
    """What a process holds back, and what it catches."""
    lines = node.read(f"/proc/{pid}/status").decode().splitlines()
    fields = {key: value for key, _, value in (line.partition(":") for line in lines)}
    return {key: {n for n in signal.Signals if int(fields[key], 16) >> (n - 1) & 1} for key in ("SigBlk", "SigCgt")}


def hears(node: Node, process: Process) -> bool:
    """Whether it has begun to."""
    return signal.SIGTERM in masks(node, process.pid)["SigCgt"]


def opened_for_writing(fifo: Path) -> int:
    """A descriptor, once somebody waits to read there."""
    found: list[int] = []

    def look() -> bool:
        with suppress(OSError):  # ENXIO: nobody does yet
            found.append(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        return bool(found)

    wait_until(look, DEADLINE, f"a reader of {fifo}")
    return found[0]


def rules(node: Node) -> str:
    words = (["ip", "-4", "rule"], ["ip", "route", "show", "table", "all"], ["nft", "list", "ruleset"])
    return "".join(node.run(command, check=True).stdout for command in words)


# How far the start has come when the first signal is sent.
MOMENTS: dict[str, Callable[[Node, Proxy], bool]] = {
    "with rules": lambda node, _: "lookup 25968" in node.run(["ip", "rule"], check=True).stdout,
    "with an admin socket": lambda _, proxy: (proxy.folder / "admin").exists(),
    "in its sandbox": lambda _, proxy: "sandbox:" in proxy.said,
    "ready": lambda _, proxy: "ready" in proxy.said,
}


@pytest.mark.essential
def test_what_comes_before_it_has_read_its_configuration_is_not_lost(node: Node, lab_folder: Path) -> None:
    with starting(node, lab_folder / "early", waits_for="c.toml") as (proxy, process):
        with open(opened_for_writing(proxy.config), "w", encoding="utf-8") as told:
            assert masks(node, process.pid)["SigBlk"] == {signal.SIGHUP}
            assert masks(node, process.pid)["SigCgt"] >= {signal.SIGTERM, signal.SIGINT}
            process.send_signal(signal.SIGHUP)
            (proxy.folder / "later").rename(proxy.config)  # what the reload reads
            told.write(proxy.config.read_text())
        wait_until(lambda: "edgeproxy: reloaded" in proxy.said, DEADLINE, "the reload")
        assert json.loads(proxy.ask("top", "--once", "--json"))["reloads"] == 1
        process.terminate()
        assert process.wait(DEADLINE) == 0


@pytest.mark.essential
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("file", ["c.toml", "log"])
def test_a_start_that_waits_for_a_file_can_be_ended(
    node: Node, lab_folder: Path, file: str, number: signal.Signals
) -> None:
    with starting(node, lab_folder / f"{number.name}-{file}", waits_for=file) as (proxy, process):
        wait_until(lambda: hears(node, process), DEADLINE, "its handlers")
        process.send_signal(signal.SIGHUP)
        process.send_signal(number)
        assert process.wait(DEADLINE) == 0, proxy.said
        assert "told to end before it was ready" in proxy.said
        assert not (proxy.folder / "admin").exists()


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
        wait_until(lambda: hears(node, process), DEADLINE, "its handlers")

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
        process.send_signal(signal.SIGSTOP)  # so that the heir waits for it
        said = proxy.folder / "stderr.1"
        argv = [edgeproxy(), "run", "-c", str(proxy.config), "--take-over"]
        with said.open("w") as stderr, node.start(argv, stderr=stderr) as heir:
            wait_until(lambda: asked(node, proxy), DEADLINE, "the heir asks")
            heir.terminate()
            assert heir.wait(DEADLINE) == 0, said.read_text()
        assert "told to end before it was ready" in said.read_text()
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: "all goes on here" in proxy.said, DEADLINE, "the word of it")
        assert json.loads(proxy.ask("top", "--once", "--json"))["pid"] == process.pid
        assert rules(node) == whole
        process.terminate()
        assert process.wait(DEADLINE) == 0


def asked(node: Node, proxy: Proxy) -> bool:
    """Whether somebody is connected to the admin socket, whom nobody has accepted yet."""
    lines = node.run(["ss", "-xlH"], check=True).stdout.splitlines()
    (waiting,) = [line.split()[2] for line in lines if f"{proxy.folder}/admin" in line]
    return int(waiting) > 0
