"""Kernels and machines that the lab is not built for."""

from __future__ import annotations

from typing import Any

import pytest

from lab.host import Status
from lab.host.kernel import judge_kernel


@pytest.mark.essential
def test_kernel_that_says_it_is_old(host: Any) -> None:
    kernel = host.examine(enter="env", before="setarch --uname-2.6")["kernel"]
    assert kernel.status is Status.LIMITED
    assert "older than 5.4" in kernel.found


@pytest.mark.parametrize(
    ("system", "release", "machine", "status"),
    [
        ("Linux", "5.4.0-42-generic", "x86_64", Status.OK),
        ("Linux", "6.12-rc1", "aarch64", Status.OK),
        ("Linux", "10.0.1", "x86_64", Status.OK),
        ("Linux", "5.3.18", "x86_64", Status.LIMITED),
        ("Linux", "strange", "x86_64", Status.LIMITED),
        ("Linux", "6.1.0", "riscv64", Status.LIMITED),
        ("Darwin", "23.1.0", "arm64", Status.MISSING),
    ],
)
def test_kernels(system: str, release: str, machine: str, status: Status) -> None:
    verdict = judge_kernel(system, release, machine)
    assert verdict.status is status
    assert bool(verdict.mend) == (status is not Status.OK)
