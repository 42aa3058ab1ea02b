"""The count of network namespaces that the kill test goes by counts what lives, and no more."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from tests.kill import network_namespaces
from tests.kill.network_namespaces import SLABS, settled

AT_ONCE = 6
PATIENCE = 60.0  # seconds; others' namespaces that begin or end meanwhile spoil a try


@pytest.fixture(autouse=True)
def _told() -> None:
    try:
        SLABS.read_bytes()
    except OSError:
        pytest.skip(f"{SLABS} is for root")


@contextmanager
def _living(many: int) -> Iterator[None]:
    """Namespaces, each with one process in it, that all end together."""
    line = ["unshare", "--net", "sh", "-c", "echo here; exec cat"]
    processes = [subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(many)]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == b"here\n"
        yield
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate()


@pytest.mark.alone
def test_namespaces_that_live_are_counted() -> None:
    def are_counted() -> bool:
        before = settled()
        with _living(AT_ONCE):
            return settled(enough=before + AT_ONCE) == before + AT_ONCE

    wait_until(are_counted, PATIENCE, f"{AT_ONCE} that live are counted as {AT_ONCE}")


@pytest.mark.alone
def test_namespaces_that_ended_together_are_counted_no_more() -> None:
    """The last that ended keep their memory until the next end: a lab's end after a trial's end is not a leak.

    Different numbers of them, for a count of those that ended last is the same after each six.
    """

    def after(many: int, enough: int) -> int:
        with _living(many):
            pass
        return settled(enough)

    def are_gone() -> bool:
        before = settled()
        return all(after(many, before) == before for many in (AT_ONCE, AT_ONCE // 2, AT_ONCE))

    wait_until(are_gone, PATIENCE, "those that ended are counted no more")


@pytest.mark.alone
def test_a_namespace_that_only_a_mount_holds_is_counted(tmp_path: Path) -> None:
    name = tmp_path / "held"
    name.touch()

    def is_counted_while_it_is_held() -> bool:
        before = settled()
        subprocess.run(["unshare", f"--net={name}", "true"], check=True)
        try:
            held = settled(enough=before + 1)
        finally:
            subprocess.run(["umount", name], check=True)
        return (held, settled(enough=before)) == (before + 1, before)

    wait_until(is_counted_while_it_is_held, PATIENCE, "one more is counted while it is held, and not after")


def test_the_count_begins_once_a_namespace_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after the start of a machine, which no test can have: the first end is counted too many from then on."""
    has_ended: list[object] = []
    monkeypatch.setattr(network_namespaces, "counted", lambda: 6 if has_ended else 5)
    monkeypatch.setattr(subprocess, "run", lambda *_words, **_options: has_ended.append(True))
    assert settled() == 6
