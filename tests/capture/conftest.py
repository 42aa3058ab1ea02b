"""Decoders that are not ours: tshark and capinfos of Debian; a lab of two hosts that the tests of a file share."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.realise.lab import Lab

NUMBERS = itertools.count(1)
TOPOLOGY = """
#   phone --- lan --- nas --- dmz --- web
networks:
  lan: {prefixes: [192.0.2.0/24, "2001:db8:1::/64"]}
  dmz: {prefixes: [198.51.100.0/24]}
nodes:
  phone: {links: {lan: 192.0.2.1}}
  nas: {links: {lan: 192.0.2.2, dmz: 198.51.100.2}}
  web: {links: {dmz: 198.51.100.3}}
"""
CHECKSUMS = [f"-o{protocol}.check_checksum:TRUE" for protocol in ("ip", "tcp", "udp")]

Decode = Callable[..., list[list[str]]]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    file = tmp_path_factory.mktemp("topologies") / "capture.yaml"
    file.write_text(TOPOLOGY)
    with Lab.up(file, name=f"cap-{os.getpid()}-{next(NUMBERS)}") as made:
        yield made


def output(*command: str | Path) -> str:
    """What a program says; it must succeed, and not complain of the file."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    complaints = [line for line in done.stderr.splitlines() if "This could be dangerous" not in line]
    assert complaints == []
    return done.stdout


@pytest.fixture(scope="session")
def decode() -> Decode:
    """Fields of the packets that match a display filter, as tshark sees them, checksums verified."""

    def decoded(file: Path, *fields: str, where: str = "frame") -> list[list[str]]:
        names = [word for field in fields for word in ("-e", field)]
        said = output("tshark", "-n", *CHECKSUMS, "-r", file, "-Y", where, "-T", "fields", *names)
        return [line.split("\t") for line in said.splitlines()]

    return decoded


@pytest.fixture(scope="session")
def about() -> Callable[[Path], str]:
    """What capinfos says of a file."""
    return lambda file: output("capinfos", file)
