"""Limits that make labs small."""

from __future__ import annotations

import os
from typing import Any

import pytest

from lab.host import Status, required
from lab.host.limits import judge_neighbours, judge_open_files

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="prepares the host as root")


@pytest.mark.essential
@pytest.mark.single_id
def test_few_open_files(host: Any) -> None:
    files = host.examine(enter="env", before="prlimit --nofile=1024:1024")["open files"]
    assert files.status is Status.LIMITED
    assert files.found == "1024: about 256 nodes fit"
    assert files.mend == "sudo prlimit --pid $$ --nofile=65536:65536"


def test_enough_open_files() -> None:
    assert judge_open_files(4096).status is Status.OK
    assert judge_open_files(4095).status is Status.LIMITED
    assert judge_open_files(-1).status is Status.OK


@pytest.mark.essential
@pytest.mark.single_id
@pytest.mark.parametrize("kind", ["net", "mnt", "uts"])
def test_few_namespaces(host: Any, kind: str) -> None:
    examined = host.examine(
        enter="unshare --user --map-root-user", prepare=f"echo 60 > /proc/sys/user/max_{kind}_namespaces"
    )
    limit = examined["namespace limits"]
    assert limit.status is Status.LIMITED
    assert limit.found == f"user.max_{kind}_namespaces is 60: at most 59 nodes"
    assert limit.mend == f"sudo sysctl -w user.max_{kind}_namespaces=65536"
    assert required([limit]) == []


@root_only
def test_limits_that_cannot_be_read(host: Any) -> None:
    examined = host.examine(prepare="mount -t tmpfs none /proc/sys; mount --bind /dev/null /proc/meminfo")
    assert examined["namespace limits"].status is Status.LIMITED
    assert examined["memory"].status is Status.LIMITED


@root_only
def test_little_memory(host: Any) -> None:
    prepare = """
        mount -t tmpfs none /mnt
        printf 'MemTotal: 500000 kB\\nMemFree: 10 kB\\nMemAvailable: 102400 kB\\n' > /mnt/meminfo
        mount --bind /mnt/meminfo /proc/meminfo
    """
    memory = host.examine(prepare=prepare)["memory"]
    assert memory.status is Status.LIMITED
    assert memory.found.startswith("100 MiB available")


def test_room_for_neighbours() -> None:
    assert judge_neighbours(1024).status is Status.OK
    assert "32 nodes of a network" in judge_neighbours(1024).found
    few = judge_neighbours(128)
    assert few.status is Status.LIMITED
    assert few.mend == "sudo sysctl -w net.ipv4.neigh.default.gc_thresh3=65536 net.ipv6.neigh.default.gc_thresh3=65536"
    assert judge_neighbours(None).status is Status.OK


@root_only
def test_few_neighbours(host: Any) -> None:
    prepare = """
        mount -t tmpfs none /mnt
        echo 100 > /mnt/few
        mount --bind /mnt/few /proc/sys/net/ipv4/neigh/default/gc_thresh3
    """
    assert host.examine(prepare=prepare)["neighbours"].found.startswith("100 entries")
