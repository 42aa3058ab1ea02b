"""What the pages say of the topology language is so: examples load, every key is named, faults are word for word."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.draw.svg import to_svg
from lab.errors import TopologyError
from lab.plan.build import build
from lab.plan.step import StartService
from lab.topology.load import load_topology
from lab.topology.nat_preset import PRESETS
from lab.topology.schema import json_schema

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "topology.md"
README = ROOT / "README.md"
BLOCKS = [
    pytest.param(match[1], id=f"{page.stem}-{number}")
    for page in (PAGE, README)
    for number, match in enumerate(re.finditer(r"^```yaml\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE), 1)
]
LAN = "networks: {home: {prefixes: [192.168.1.0/24]}}\n"

# The places of the faults that the page shows, and a file that has each.
FAULTY = {
    "nodes.nas.link": LAN + "nodes: {nas: {link: {home: auto}}}",
    "nodes.nas.links.hoem": LAN + "nodes: {nas: {links: {hoem: auto}}}",
    "nodes.nas.links.home": LAN + "nodes: {nas: {links: {home: 192.168.2.10}}}",
    "networks.home.prefixes[0]": "networks: {home: {prefixes: [192.168.1.5/24]}}\nnodes: {a: {}}",
    "nodes.nas.services.web.ready.timeout": (
        "nodes: {nas: {services: {web: {run: sleep 60, ready: {tcp: 80, timeout: 30}}}}}"
    ),
    "networks.home.internet": "networks: {home: {prefixes: [192.168.1.0/24], internet: yes}}\nnodes: {a: {}}",
    "nodes.nas.nat": LAN + "nodes: {nas: {links: {home: auto}, nat: {outside: home}}}",
    "nodes.nas.routes[0].via": LAN + "nodes: {nas: {links: {home: auto}, routes: [{to: default, via: 10.0.0.1}]}}",
    "nodes.nas.services.web.run": (
        LAN + 'nodes: {nas: {links: {home: auto}, services: {web: {run: "sleep {{ node.adress.home }}"}}}}'
    ),
    "nodes.nas.services.t.to": (
        LAN + "nodes:\n"
        '  nas: {links: {home: auto}, services: {t: {use: ssh_tunnel, to: vps, forwards: ["80:localhost:80"]}}}\n'
        "  vps: {links: {home: auto}, services: {ssh: {use: sshd}}}"
    ),
    "nodes.nas.services.a.after": (
        "nodes: {nas: {services: {a: {run: sleep 1, after: [b]}, b: {run: sleep 1, after: [a]}}}}"
    ),
}
SHOWN = {
    match[1]: match[2]
    for match in re.finditer(
        r"^\| `+((?:networks|nodes)\.\S+): (.*?) ?`+ \|",
        PAGE.read_text().partition("## Common faults")[2],
        re.MULTILINE,
    )
}


def first_example(tmp_path: Path) -> Path:
    file = tmp_path / "t.yaml"
    file.write_text(str(BLOCKS[0].values[0]))
    return file


def keys_of(schema: Any) -> Iterator[str]:
    """Every key that a file may have, wherever it may stand."""
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
    for inner in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from keys_of(inner)


def test_there_are_examples() -> None:
    assert len([block for block in BLOCKS if str(block.id).startswith("topology")]) >= 3
    assert len([block for block in BLOCKS if str(block.id).startswith("README")]) >= 1


@pytest.mark.parametrize("block", BLOCKS)
def test_an_example_is_a_whole_topology(block: str, tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(block)
    assert build(load_topology(tmp_path / "t.yaml")).steps


def test_every_key_of_the_language_is_in_the_page() -> None:
    keys = sorted(set(keys_of(json_schema())))
    assert len(keys) > 50
    text = PAGE.read_text()
    assert [key for key in keys if not re.search(rf"`{key}(?:`|: )", text)] == []


def test_every_known_program_is_in_the_page() -> None:
    definitions = json_schema()["$defs"].values()
    programs = [each["properties"]["use"]["const"] for each in definitions if "use" in each.get("properties", {})]
    assert len(programs) >= 4
    assert [program for program in programs if f"| `{program}` |" not in PAGE.read_text()] == []


@pytest.mark.parametrize("place", sorted(FAULTY.keys() | SHOWN.keys()))
def test_a_fault_reads_as_the_page_has_it(place: str, tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(FAULTY[place])
    with pytest.raises(TopologyError) as raised:
        load_topology(tmp_path / "t.yaml")
    (line,) = str(raised.value).splitlines()
    assert re.sub(r"^.*?:[0-9]+:[0-9]+: ", "", line) == f"{place}: {SHOWN[place]}"


def test_the_first_example_means_what_its_comments_say(tmp_path: Path) -> None:
    topology = load_topology(first_example(tmp_path))
    nodes = {node.name: node for node in topology.nodes}
    addresses = {name: [str(a.ip) for i in node.interfaces for a in i.addresses] for name, node in nodes.items()}
    assert {"203.0.113.1", "192.168.1.1"} <= set(addresses["router"])
    assert addresses["nas"] == ["192.168.1.10", "2001:db8:10::10"]
    assert {"guest-1", "guest-2"} <= set(nodes)
    assert all([str(resolver) for resolver in node.dns] == ["203.0.113.53"] for node in nodes.values())


def test_every_fact_of_the_page_is_one(tmp_path: Path) -> None:
    table = PAGE.read_text().partition("| fact | what | example |")[2].partition("```")[0]
    facts = re.findall(r"`((?:lab|service|node|nodes|networks)\.[A-Za-z0-9_.]+)`", table)
    assert len(facts) >= 10
    words = {"NETWORK": "home", "NODE": "nas"}
    paths = [".".join(words.get(part, part) for part in fact.split(".")) for fact in facts]
    text = "".join(f"{path}={{{{ {path} }}}}\n" for path in paths)
    nas = {"links": {"home": "192.168.1.10"}, "services": {"web": {"run": "sleep 60", "files": {"f": {"text": text}}}}}
    networks = {"home": {"prefixes": ["192.168.1.0/24", "2001:db8:10::/64"]}}
    (tmp_path / "t.yaml").write_text(json.dumps({"name": "homelab", "networks": networks, "nodes": {"nas": nas}}))
    (step,) = (step for step in build(load_topology(tmp_path / "t.yaml")).steps if isinstance(step, StartService))
    rendered = dict(line.split("=") for line in step.files[0][1].splitlines())
    for fact, path in zip(facts, paths, strict=True):
        example = re.search(rf"^\| `{re.escape(fact)}` \| [^|]* \| `([^`]+)` \|$", table, re.MULTILINE)
        assert rendered[path]
        assert example is None or rendered[path] == example[1]


@pytest.mark.parametrize("name", ["homelab", "homelab_ssh"])
def test_a_picture_of_the_pages_is_that_of_its_topology(name: str) -> None:
    """`lab graph topologies/homelab.yaml -o docs/homelab.svg` makes it anew."""
    drawn = to_svg(load_topology(ROOT / "topologies" / f"{name}.yaml"))
    assert (ROOT / "docs" / f"{name}.svg").read_text() == drawn


def test_the_presets_of_the_page_are_those_of_the_language(tmp_path: Path) -> None:
    """Each row of the table, spelt out of what its preset becomes."""
    table = PAGE.read_text().partition("| preset | mapping, filtering |")[2].partition("\n\n")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert len(rows) == len(PRESETS)
    assert rows == [_preset_row(tmp_path / "t.yaml", name) for name in PRESETS]


def _preset_row(file: Path, name: str) -> str:
    file.write_text(
        "networks: {out: {prefixes: [198.51.100.0/24]}, lan: {prefixes: [10.0.0.0/24]}}\n"
        f"nodes: {{r: {{role: router, links: {{out: auto, lan: auto}}, nat: {{outside: out, preset: {name}}}}}}}"
    )
    nat = load_topology(file).nodes[0].nat
    assert nat is not None
    does, ports, timers = nat.behaviour, nat.behaviour.ports, nat.behaviour.timers
    choice = f"{ports.first}-{ports.last} {ports.allocation}" + (" parity" if ports.parity else "")
    seconds = (timers.udp, timers.tcp_established, timers.tcp_transitory, timers.icmp)
    usual = {"refresh": "both", "hairpin": "none"}
    other = {key: getattr(does, key) for key in ("port_block", "sessions", "refresh", "hairpin")}
    said = ", ".join(f"{key} {value}" for key, value in other.items() if value is not None and value != usual.get(key))
    cells = [f"`{name}`", f"{does.mapping}, {does.filtering}", choice, ", ".join(f"{s:.0f}" for s in seconds), said]
    return "| " + " | ".join([*cells, str(nat.engine)]).replace("|  |", "| |") + " |"
