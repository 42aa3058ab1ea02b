"""One lab for all tests of natbox: each test gives its router a NAT of its own, which ends with the test.

alice, bob -- home -- router (natbox) -- internet -- east (two addresses), west, hop -- beyond -- far
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from subprocess import PIPE
from typing import Any

import pytest

from lab.realise.lab import Lab
from lab.realise.running import Process

TOPOLOGY = """
networks:
  internet: {prefixes: [198.51.100.0/24], internet: true}
  home: {prefixes: [192.168.1.0/24]}
  beyond: {prefixes: [203.0.113.0/24]}
nodes:
  east: {links: {internet: 198.51.100.10}}
  west: {links: {internet: 198.51.100.20}}
  hop: {role: router, links: {internet: 198.51.100.30, beyond: 203.0.113.1}}
  far: {links: {beyond: 203.0.113.10}}
  router:
    role: router
    links: {internet: 198.51.100.1, home: 192.168.1.1}
  alice: {links: {home: 192.168.1.10}}
  bob: {links: {home: 192.168.1.20}}
"""
# What a firewall beside natbox looks like: only what the NAT lets in gets in.
FIREWALL = """
table inet firewall {
    chain input {
        type filter hook input priority filter; policy accept;
        ct state established,related accept
        iifname != "internet" accept
        icmp type echo-request accept
        drop
    }
    chain forward {
        type filter hook forward priority filter; policy accept;
        ct state established,related accept
        ct state invalid drop
        iifname != "internet" accept
        meta mark 0x4e42 accept
        drop
    }
}
"""
OUTSIDE = "198.51.100.1"
SECOND_OUTSIDE = "198.51.100.2"
EAST, SECOND_EAST, WEST = "198.51.100.10", "198.51.100.11", "198.51.100.20"
CONFIG = "/run/natbox.json"
NARROW_MTU = 1280
SOCKET = "/run/natbox.sock"


class NatBox:
    """A running natbox on the lab's router."""

    def __init__(self, lab: Lab, process: Process) -> None:
        self.lab = lab
        self.process = process

    def table(self) -> dict[str, Any]:
        printed = self.lab["router"].run(["natbox", "table", SOCKET], check=True)
        table: dict[str, Any] = json.loads(printed.stdout)
        return table

    def mappings(self, protocol: str) -> dict[str, str]:
        """Outside endpoints by inside endpoint, forwards aside."""
        return {
            mapping["inside"]: mapping["outside"]
            for mapping in self.table()["mappings"]
            if mapping["protocol"] == protocol and not mapping["forward"]
        }


Translate = Callable[..., AbstractContextManager[NatBox]]


@pytest.fixture(scope="package")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    file = tmp_path_factory.mktemp("nat") / "nat.yaml"
    file.write_text(TOPOLOGY)
    with Lab.up(file, name=f"nat-{os.getpid()}") as lab:
        lab["router"].run(["nft", "-f", "-"], input=FIREWALL, check=True)
        lab["router"].run(["ip", "address", "add", f"{SECOND_OUTSIDE}/24", "dev", "internet"], check=True)
        lab["east"].run(["ip", "address", "add", f"{SECOND_EAST}/24", "dev", "internet"], check=True)
        # Nobody outside knows a way to the inside, so what reaches it has been translated.
        for name in ("east", "west", "hop"):
            lab[name].run(["ip", "route", "del", "192.168.1.0/24"], check=True)
        lab["hop"].run(["ip", "link", "set", "beyond", "mtu", str(NARROW_MTU)], check=True)
        yield lab


@pytest.fixture
def natbox(lab: Lab) -> Translate:
    @contextmanager
    def translate(**settings: Any) -> Iterator[NatBox]:
        """natbox on the router, with these keys of its configuration beside `outside`."""
        router = lab["router"]
        settings.setdefault("outside", {"interface": "internet", "addresses": [OUTSIDE]})
        router.run(["tee", CONFIG], input=json.dumps(settings), check=True)
        rules = router.run(["natbox", "rules", CONFIG], check=True).stdout
        router.run(["iptables-restore"], input=rules, check=True)
        # What the tracker knows of the connections of earlier tests would let packets in.
        router.run(["conntrack", "-F"], check=True)
        with router.start(["natbox", "run", CONFIG, SOCKET], stdout=PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "natbox: ready\n"
            yield NatBox(lab, process)
            if process.returncode is None:
                process.terminate()
                assert process.wait(30) == 0

    return translate
