"""Impaired links on hosts that lack their means: exit code 3, what is missing and how to mend it, and no trace."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from lab.errors import ExitCode
from lab.host import examine
from lab.host.finding import Status
from tests.realise.test_bad_hosts import NOBODY, Host, host

__all__ = ["host"]  # a fixture is found by its name

pytestmark = pytest.mark.root

DELAYED = """
networks: {home: {prefixes: [192.0.2.0/24]}}
nodes: {a: {links: {home: {delay: 10ms}}}, b: {links: {home: auto}}}
"""
NO_FOLDER = "mount -t tmpfs none /dev/net"
FOR_ROOT_ALONE = f"{NO_FOLDER}; mknod -m 0600 /dev/net/tun c 10 200"


@pytest.fixture(scope="module", autouse=True)
def _without_netem() -> None:
    (netem,) = (each for each in examine() if each.name == "sch_netem")
    if netem.status is Status.OK:
        pytest.skip("this kernel has netem, and so the links need no TAP")


@pytest.mark.parametrize(
    ("prepare", "before", "said"),
    [
        (NO_FOLDER, "", "/dev/net/tun: No such file or directory: sudo mkdir -p /dev/net && sudo mknod"),
        (FOR_ROOT_ALONE, NOBODY, "/dev/net/tun: Permission denied: sudo chmod 0666 /dev/net/tun"),
    ],
)
def test_without_tap_devices_a_delay_is_refused(host: Host, prepare: str, before: str, said: str) -> None:
    answer = host(DELAYED, prepare=prepare, before=before)
    assert answer.code == ExitCode.HOST_NOT_ABLE, answer.errors
    assert "no netem, and linkwire has no TAP devices: " in answer.errors
    assert said in answer.errors
    assert answer.left == answer.doors == []


def test_without_tap_devices_a_rate_alone_is_fine(host: Host) -> None:
    answer = host(DELAYED.replace("delay: 10ms", "rate: 10mbit"), prepare=NO_FOLDER)
    assert answer.code == ExitCode.OK, answer.errors


def test_without_linkwire_a_delay_is_refused(host: Host) -> None:
    linkwire = shutil.which("linkwire", path=str(Path(sys.executable).parent))
    assert linkwire
    answer = host(DELAYED, prepare=f"mount --bind /dev/null {linkwire}")
    assert answer.code == ExitCode.HOST_NOT_ABLE, answer.errors
    assert "no linkwire to carry impaired links: " in answer.errors
    assert "`make setup` builds it" in answer.errors
    assert answer.left == answer.doors == []
