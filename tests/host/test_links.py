"""Links on hosts that lack them; the kernel's netlink answers are refused at the socket."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from lab.host import Status, required
from lab.host.links import judge_discipline, judge_link, judge_tap, judge_wireguard
from lab.host.trial import End, Outcome, Stage

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="prepares the host as root")
ROUTE = ("0=16", "2=0")  # socket(AF_NETLINK, ..., NETLINK_ROUTE)
DONE = Outcome(End.DONE, Stage.ACTION)


def refused(number: int, text: str = "") -> Outcome:
    return Outcome(End.REFUSED, Stage.ACTION, number, text)


@root_only
def test_kernel_that_makes_no_links(host: Any) -> None:
    examined = host.examine(before=host.refusing("socket", "EPROTONOSUPPORT", *ROUTE))
    assert {"veth", "bridge"} <= {each.name for each in required(examined.values())}
    for name in ("veth", "bridge"):
        assert f"sudo modprobe {name}" in examined[name].mend
    for name in ("sch_netem", "sch_tbf", "WireGuard"):
        assert examined[name].status is Status.LIMITED
        assert examined[name].mend.startswith(f"sudo modprobe {name.lower()}")


@root_only
@pytest.mark.parametrize(
    ("prepare", "found", "mend"),
    [
        ("", "does not exist", "mknod -m 0666 /dev/net/tun c 10 200"),
        ("mknod -m 0600 /dev/net/tun c 10 200", "may not be used: open", "sudo chmod 0666 /dev/net/tun"),
        ("mknod -m 0666 /dev/net/tun c 1 3", "TUNSETIFF", "sudo rm -rf /dev/net/tun"),
        ("mknod -m 0666 /dev/net/tun c 10 254", "nothing stands behind", "sudo modprobe tun"),
    ],
)
def test_no_tap(host: Any, prepare: str, found: str, mend: str) -> None:
    examined = host.examine(prepare=f"mount -t tmpfs none /dev/net; {prepare}", before=host.nobody)
    assert examined["TAP"].status is Status.MISSING
    assert found in examined["TAP"].found
    assert mend in examined["TAP"].mend
    assert examined["TAP"] not in required(examined.values())


@root_only
def test_tap_for_everybody(host: Any) -> None:
    prepare = "mount -t tmpfs none /dev/net; mknod -m 0666 /dev/net/tun c 10 200"
    assert host.examine(prepare=prepare, before=host.nobody)["TAP"].status is Status.OK


@root_only
def test_neither_netem_nor_tap(host: Any) -> None:
    refusing = host.refusing("socket", "EPROTONOSUPPORT", *ROUTE)
    examined = host.examine(prepare="mount -t tmpfs none /dev/net", before=refusing)
    assert examined["sch_netem"].status is Status.MISSING
    assert examined["sch_tbf"].status is Status.MISSING


# A kernel is not rebuilt for a test: what it says about kinds that it does not have is judged from its errno.


def test_link_kind_not_in_the_kernel() -> None:
    verdict = judge_link("bridge", refused(errno.EOPNOTSUPP))
    assert (verdict.status, verdict.found) == (Status.MISSING, "this kernel has no bridge")
    assert verdict.mend == "sudo modprobe bridge"


def test_netem_is_replaced_by_linkwire() -> None:
    verdict = judge_discipline("sch_netem", refused(errno.ENOENT), DONE)
    assert verdict.status is Status.LIMITED
    assert "linkwire" in verdict.found
    assert "this kernel has no sch_netem" in verdict.found


def test_netem_without_linkwire() -> None:
    assert judge_discipline("sch_netem", refused(errno.ENOENT), refused(errno.EACCES)).status is Status.MISSING


def test_netem_in_the_kernel_needs_no_tap() -> None:
    assert judge_discipline("sch_netem", DONE, refused(errno.EACCES)).status is Status.OK


def test_wireguard_is_for_information() -> None:
    assert judge_wireguard(refused(errno.EOPNOTSUPP)).status is Status.LIMITED
    assert judge_wireguard(DONE).status is Status.OK


def test_tun_module_not_loaded() -> None:
    verdict = judge_tap(refused(errno.ENODEV, "open"))
    assert (verdict.status, verdict.mend) == (Status.MISSING, "sudo modprobe tun")
