"""The lab's linkwire: one for all links, without rights; if it dies its links are cut, told, and mended by a change."""

from __future__ import annotations

import signal

import pytest

from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from tests.realise.conftest import Up
from tests.realise.test_links import TOPOLOGY, fastest, is_reachable

pytestmark = [pytest.mark.essential, pytest.mark.single_id]


def test_the_death_of_linkwire_is_told_and_mended_by_the_next_change(up: Up) -> None:
    lab = up(TOPOLOGY)
    assert fastest(lab, "router", "line") >= 20.0
    kill_linkwire(lab)
    wait_until(lambda: lab.link("router:line").show()[0]["state"] == "cut", 30, "the link is told to be cut")
    (link,) = lab.link("router:line").show()
    assert "killed by signal 9" in link["problem"]
    assert lab.ask({"ask": "inspect"})[0]["link_troubles"] == [f"router:line: {link['problem']}"]
    assert not is_reachable(lab, "router", "line")
    wait_until(lambda: is_reachable(lab, "nas", "home"), 30, "the others are as they were")
    lab.link("router:line").impair(delay="12ms")
    assert lab.link("router:line").show()[0]["problem"] == ""
    assert fastest(lab, "router", "line") >= 24.0
    kill_linkwire(lab)
    lab.link("line").clear()
    assert fastest(lab, "router", "line", below=20.0) < 20.0
    assert lab.ask({"ask": "inspect"})[0]["link_troubles"] == []


def test_a_link_whose_wire_is_dead_stays_cut_whoever_moves(up: Up) -> None:
    lab = up(
        """
networks: {home: {prefixes: [192.168.1.0/24]}, cafe: {prefixes: [10.0.0.0/24]}}
nodes:
  nas: {links: {home: auto}}
  laptop: {links: {home: {delay: 10ms}}}
  phone: {links: {cafe: auto}}
"""
    )
    kill_linkwire(lab)
    wait_until(lambda: lab.link("laptop:home").show()[0]["state"] == "cut", 30, "the link is told to be cut")
    lab.move("laptop", "cafe")
    assert lab.link("laptop:cafe").show()[0]["state"] == "cut"
    assert not is_reachable(lab, "laptop", "cafe")
    lab.link("laptop:cafe").clear()
    wait_until(lambda: is_reachable(lab, "laptop", "cafe"), 30, "the laptop is back")


def test_many_links_are_impaired_by_one_linkwire(up: Up) -> None:
    lab = up(
        """
networks: {home: {prefixes: [192.0.2.0/24]}}
nodes:
  many: {count: 30, links: {home: {delay: 10ms}}}
"""
    )
    assert len(linkwires(lab)) == 1
    assert 40.0 <= fastest(lab, "many-1", "home", below=90.0) < 90.0
    lab.link("home").clear()
    assert fastest(lab, "many-1", "home", below=30.0) < 30.0
    ports = lab["many-1"].run(["ip", "-br", "link"]).stdout
    assert "home" in ports


def test_linkwire_has_no_capability(up: Up) -> None:
    lab = up(TOPOLOGY)
    (pid,) = linkwires(lab)
    status = lab["nas"].read(f"/proc/{pid}/status").decode()
    held = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith("Cap")}
    assert int(held["CapEff"], 16) == int(held["CapPrm"], 16) == 0


def linkwires(lab: Lab) -> list[int]:
    """Process ids within the lab."""
    found = lab[next(iter(lab.nodes))].run(["pgrep", "-x", "linkwire"]).stdout
    return [int(line) for line in found.split()]


def kill_linkwire(lab: Lab) -> None:
    (pid,) = linkwires(lab)
    lab[next(iter(lab.nodes))].run(["kill", f"-{int(signal.SIGKILL)}", str(pid)], check=True)
    wait_until(lambda: not linkwires(lab), 30, "linkwire is dead")
