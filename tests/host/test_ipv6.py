"""IPv6 on hosts without it."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from lab.host import Status, required
from lab.host.ipv6 import judge_ipv6
from lab.host.trial import End, Outcome, Stage


@pytest.mark.skipif(os.geteuid() != 0, reason="prepares the host as root")
def test_kernel_without_ipv6(host: Any) -> None:
    examined = host.examine(before=host.refusing("socket", "EAFNOSUPPORT", "0=10"))
    assert [each.name for each in required(examined.values())] == ["IPv6"]
    assert "runs without IPv6" in examined["IPv6"].found


@pytest.mark.parametrize(
    ("number", "step", "changed", "mend"),
    [
        (errno.EACCES, "address", {}, "ipv6.disable_ipv6=1"),
        (errno.EADDRNOTAVAIL, "bind", {"ipv6_module_disabled": True}, "ipv6.disable=1"),
        (errno.EINVAL, "address", {}, "modprobe ipv6"),
    ],
)
def test_ipv6_switched_off(host: Any, number: int, step: str, changed: dict[str, object], mend: str) -> None:
    verdict = judge_ipv6(Outcome(End.REFUSED, Stage.ACTION, number, step), host.facts(**changed))
    assert verdict.status is Status.MISSING
    assert mend in verdict.mend
