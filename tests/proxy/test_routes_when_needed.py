"""This host's routes are read and followed once a configuration asks who is whose neighbour, and not before.

client -- internet -- home (the proxy) -- lan -- nas, and a neighbour of it
"""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.realise.lab import Lab
from lab.realise.node import Node
from tests.proxy.running import running_in
from tests.proxy.test_neighbours import HOME, NAS, TOPOLOGY, seen_by
from tests.realise.conftest import Up

ADDRESSES, ROUTES, LINKS = 0x110, 0x440, 0x1  # groups of news (linux/rtnetlink.h, RTMGRP_*)
CONFIG = """
[listener.in]
tcp = ["0.0.0.0:8443", "[::]:8443"]
[[rule]]
to = "nas"
[backend.nas]
targets = ["192.168.1.10:9001", "[2001:db8:10::10]:9001"]
source = "SOURCE"
[transparent]
manage_rules = true
"""


def follows(node: Node) -> set[int]:
    """The groups of those who hear of addresses: the proxy, and nobody else there."""
    rows = [line.split() for line in node.run(["cat", "/proc/net/netlink"]).stdout.splitlines()[1:]]
    groups = [int(row[3], 16) for row in rows if row[1] == "0"]
    return {of for of in groups if of & ADDRESSES}


@pytest.mark.essential
def test_a_reload_that_needs_the_routes_has_them_read_and_followed(module_up: Up, folder: Path) -> None:
    lab: Lab = module_up(TOPOLOGY)
    home, neighbour = lab["home"], lab["neighbour"]
    with running_in(home, CONFIG.replace("SOURCE", "client"), "127.0.0.1", folder) as proxy:
        assert follows(home) == {ADDRESSES}
        proxy.reload(CONFIG.replace("SOURCE", "client_or_own"))
        assert follows(home) == {ADDRESSES | ROUTES | LINKS}
        for version in (4, 6):
            source = neighbour.address("lan", version)
            who, seen = seen_by(lab["nas"], NAS[version], neighbour, source, (HOME[version], 8443))
            assert seen.startswith((f"{HOME[version]}:", f"[{HOME[version]}]:"))
            assert proxy.line(who)["source"] == "own"
        proxy.reload(CONFIG.replace("SOURCE", "own"))
        proxy.reload(CONFIG.replace("SOURCE", "client_or_own"))
    with running_in(home, CONFIG.replace("SOURCE", "client_or_own"), "127.0.0.1", folder):
        assert follows(home) == {ADDRESSES | ROUTES | LINKS}
