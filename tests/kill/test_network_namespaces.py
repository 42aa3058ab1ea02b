"""The count of network namespaces that the kill test goes by counts what lives, and no more."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kill.network_namespaces import SLABS, settled

AT_ONCE = 6


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
    before = settled()
    with _living(AT_ONCE):
        assert settled() == before + AT_ONCE


@pytest.mark.alone
def test_namespaces_that_ended_together_are_counted_no_more() -> None:
    """The last that ended keep their memory until the next end: a lab's end after a trial's end is not a leak."""
    before = settled()
    with _living(AT_ONCE):
        pass
    assert settled() == before


@pytest.mark.alone
def test_a_namespace_that_only_a_mount_holds_is_counted(tmp_path: Path) -> None:
    name = tmp_path / "held"
    name.touch()
    before = settled()
    subprocess.run(["unshare", f"--net={name}", "true"], check=True)
    try:
        assert settled() == before + 1
    finally:
        subprocess.run(["umount", name], check=True)
    assert settled() == before
