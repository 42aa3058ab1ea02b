"""`lab mesh`: a row for each pair, both rows where the ends differ, and what could not be asked."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from lab.errors import ExitCode
from lab.mesh.ask import mesh_paths
from lab.mesh.paths import Way
from lab.realise.asking import wait_until
from lab.realise.lab import Lab

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

TOPOLOGY = """
#   vps -- internet -- router (NAT) -- home -- nas, pi
#             +------- cafe (NAT) -- tables
networks:
  internet: {prefixes: [198.51.100.0/24]}
  home: {prefixes: [192.168.1.0/24]}
  tables: {prefixes: [10.0.0.0/24]}
nodes:
  router: {role: router, links: {internet: 198.51.100.1, home: 192.168.1.1}, nat: {outside: internet}}
  cafe: {role: router, links: {internet: 198.51.100.80, tables: 10.0.0.1}, nat: {outside: internet}}
  vps: {links: {internet: 198.51.100.10}}
  nas: {links: {home: 192.168.1.10}}
  pi: {links: {home: 192.168.1.11}}
mesh: {net: {driver: nebula, prefix: 10.9.0.0/24, lighthouses: [vps], members: [nas, pi]}}
"""


@pytest.fixture
def meshed(up: Any) -> Iterator[Lab]:
    running = Lab(up(TOPOLOGY))
    yield running
    running.close()


def test_each_pair_has_its_way(lab: Any, meshed: Lab) -> None:
    text = lab("mesh", "--lab", meshed.name, code=0).stdout
    assert text.startswith(f"net  nebula, 3 members of lab {meshed.name}\n")
    assert re.search(
        r"^vps - nas +direct +198\.51\.100\.1:\d+ \(router\) 198\.51\.100\.10:4242 +\d\d:", text, re.MULTILINE
    )
    assert "no tunnel: nas - pi\n" in text
    meshed["nas"].run(["ping", "-c", "1", "-w", "30", "pi.net"], check=True)
    # The pair is asked one end after the other: as long as the way is new, they may differ.
    wait_until(lambda: mesh_paths(meshed, "net").between("nas", "pi").way is Way.LAN, 30, "both use their LAN")
    text = lab("mesh", "net", "--lab", meshed.name, code=0).stdout
    assert re.search(r"^nas - pi +LAN +192\.168\.1\.11:4442 192\.168\.1\.10:4342 +\d\d:\d\d:\d\d$", text, re.MULTILINE)
    assert "no tunnel" not in text


def test_json_has_both_views(lab: Any, meshed: Lab) -> None:
    found = json.loads(lab("mesh", "--json", "--lab", meshed.name, code=0).stdout)
    assert found.keys() == {"lab", "mesh", "driver", "members", "silent", "pairs"}
    first = found["pairs"][0]
    assert first.keys() == {"first", "second", "way", "agrees", "since", "views"}
    assert (first["first"], first["second"], first["way"], first["agrees"]) == ("vps", "nas", "direct", True)
    there, back = first["views"]
    assert there.keys() == {"node", "peer", "way", "endpoint", "owner", "relays", "since"}
    assert (there["node"], there["owner"]) == ("vps", "router")
    assert (back["node"], back["endpoint"]) == ("nas", "198.51.100.10:4242")


def test_who_cannot_be_asked_is_named_and_its_pairs_differ(lab: Any, meshed: Lab) -> None:
    meshed.signal_service("vps", "net", signal.SIGTERM)
    wait_until(lambda: "vps" in dict(mesh_paths(meshed, "net").silent), 30, "it has ended")
    result = lab("mesh", "--lab", meshed.name, code=ExitCode.FAILED)
    assert re.search(r"^vps -> nas +not asked +- +-$", result.stdout, re.MULTILINE)
    assert re.search(r"^nas -> vps +(none|direct) ", result.stdout, re.MULTILINE)
    assert re.search(r"^the ends differ: nas -> vps, pi -> vps, vps -> nas, vps -> pi$", result.stdout, re.MULTILINE)
    assert re.search(r"^vps could not be asked: .*refused", result.stdout, re.MULTILINE)
    assert json.loads(lab("mesh", "--json", "--lab", meshed.name).stdout)["silent"][0]["node"] == "vps"


def test_the_address_that_a_member_had_before_it_moved_is_called_stale(lab: Any, up: Any) -> None:
    """WireGuard does not learn of the move: what it says stays stale for three minutes."""
    name = up(TOPOLOGY.replace("driver: nebula", "driver: wireguard"))
    with closing(Lab(name)) as running:
        running["nas"].run(["ping", "-c", "1", "-w", "30", "pi.net"], check=True)
        wait_until(lambda: mesh_paths(running).between("nas", "pi").way is Way.LAN, 30, "both use their LAN")
        running.move("pi", "tables")
        text = lab("mesh", "--lab", name, code=0).stdout
        assert re.search(r"^nas -> pi +stale +192\.168\.1\.11:\d+ \(nobody has it\)", text, re.MULTILINE)
        assert re.search(r"^sent to an address that nobody has: nas -> pi$", text, re.MULTILINE)
        pair = next(each for each in json.loads(lab("mesh", "--json", "--lab", name).stdout)["pairs"] if is_of(each))
        assert (pair["agrees"], pair["way"], pair["views"][0]["owner"]) == (False, None, None)


def test_after_a_move_nothing_is_called_a_way_that_leads_to_nobody(lab: Any, meshed: Lab) -> None:
    """However long the program needs to notice."""
    meshed["nas"].run(["ping", "-c", "1", "-w", "30", "pi.net"], check=True)
    wait_until(lambda: mesh_paths(meshed).between("nas", "pi").way is Way.LAN, 30, "both use their LAN")
    meshed.move("pi", "tables")

    def is_found_again() -> bool:
        (pair,) = filter(is_of, json.loads(lab("mesh", "--json", "--lab", meshed.name, code=0).stdout)["pairs"])
        unowned = [view for view in pair["views"] if view["endpoint"] is not None and view["owner"] is None]
        assert not (pair["agrees"] and unowned)
        meshed["pi"].run(["ping", "-c", "1", "-w", "1", "nas.net"])
        return pair["way"] in ("direct", "relayed")

    wait_until(is_found_again, 90, "both ends use a way to where the other is")


def is_of(pair: dict[str, Any]) -> bool:
    """Whether it is the two neighbours at home."""
    return (pair["first"], pair["second"]) == ("nas", "pi")


def test_a_lab_without_a_mesh_says_so(lab: Any, up: Any) -> None:
    name = up("nodes: {a: {}}")
    said = lab("mesh", "--lab", name, code=ExitCode.WRONG_INPUT).stderr
    assert f"lab {name} has 0 meshes, not one: none; `mesh:` in a topology makes one" in said


def test_watch_goes_on_until_interrupted(lab: Any, meshed: Lab) -> None:
    with lab.start("mesh", "--watch", "--lab", meshed.name) as process:
        deadline = threading.Timer(100, process.kill)
        deadline.start()
        try:
            read_until(process, r"^no tunnel: nas - pi$")
            meshed["nas"].run(["ping", "-c", "1", "-w", "30", "pi.net"], check=True)
            read_until(process, r"^nas - pi +LAN")
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
        finally:
            deadline.cancel()
            process.kill()


def read_until(process: subprocess.Popen[str], pattern: str) -> None:
    """Read lines up to one that matches."""
    assert process.stdout is not None
    while not re.search(pattern, line := process.stdout.readline()):
        assert line, f"it ended before a line matched {pattern}"
