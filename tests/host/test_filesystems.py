"""procfs, sysfs and tmpfs on hosts that refuse them."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from lab.host import Status, required
from lab.host.filesystems import judge_proc
from lab.host.trial import End, Outcome, Stage

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="prepares the host as root")

COVERED = "mount -t tmpfs none /proc/sys"


def test_covered_proc_as_in_containers(host: Any) -> None:
    examined = host.examine(prepare=COVERED, before=host.nobody)
    assert [each.name for each in required(examined.values())] == ["procfs"]
    assert "/proc/sys" in examined["procfs"].found


@pytest.mark.parametrize(("container", "mend"), [(False, "sudo umount /proc/sys"), (True, "systempaths=unconfined")])
def test_mend_of_a_covered_proc(host: Any, *, container: bool, mend: str) -> None:
    """Whether this machine is itself a container cannot be changed here, so this is judged from facts."""
    denied = Outcome(End.REFUSED, Stage.ACTION, errno.EPERM)
    verdict = judge_proc(denied, host.facts(container=container, proc_covers=("/proc/sys",)))
    assert verdict.status is Status.MISSING
    assert mend in verdict.mend


def test_covered_proc_in_a_container(host: Any) -> None:
    prepare = f"{COVERED}; mount -t tmpfs none /run; touch /run/.containerenv"
    proc = host.examine(prepare=prepare, before=host.nobody)["procfs"]
    assert proc.status is Status.MISSING
    assert "systempaths=unconfined" in proc.mend


def test_covered_proc_is_no_matter_for_root(host: Any) -> None:
    assert host.examine(prepare=COVERED)["procfs"].status is Status.OK


def test_covered_sysfs_is_a_limit(host: Any) -> None:
    examined = host.examine(prepare="mount -t tmpfs none /sys/kernel", before=host.nobody)
    assert examined["sysfs"].status is Status.LIMITED
    assert examined["sysfs"] not in required(examined.values())


def test_read_only_sysfs_serves(host: Any) -> None:
    sysfs = host.examine(prepare="mount -o remount,bind,ro /sys", before=host.nobody)["sysfs"]
    assert sysfs.status is Status.OK
    assert "read-only" in sysfs.found


def test_tmpfs_refused(host: Any) -> None:
    nosuid_nodev = "3=6"
    examined = host.examine(before=host.refusing("mount", "EPERM", nosuid_nodev))
    assert [each.name for each in required(examined.values())] == ["tmpfs"]
    assert "Operation not permitted" in examined["tmpfs"].found
