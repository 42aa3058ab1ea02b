"""Mermaid text: of the form that its parser reads, every node, network and link in it, no name taken for a keyword."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings

from lab.draw import to_mermaid
from lab.topology.model import Topology
from tests.draw import samples
from tests.draw.random_topology import topologies

TEXT = r'"(?P<text>(?:[^"#]|#\w+;)*)"'
VERTEX = re.compile(
    rf"    (?P<id>[ns]\d+)(?P<open>\(\[|\[\[|\{{\{{|\[){TEXT}(?P<close>\]\)|\]\]|\}}\}}|\]):::(?P<style>\w+)"
)
EDGE = re.compile(rf"    (?P<a>[ns]\d+) (?P<arrow>---|-\.->)(?:\|{TEXT}\|)? (?P<b>[ns]\d+)")
STYLE = re.compile(r"    classDef (?P<name>\w+) [\w:#,-]+")
PAIRS = {"([": "])", "[[": "]]", "{{": "}}", "[": "]"}


@pytest.mark.parametrize("sample", samples.SAMPLES)
def test_sample_is_complete(sample: Callable[[], Topology]) -> None:
    assert_complete(sample())


@given(topologies())
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_topology_is_complete(topology: Topology) -> None:
    assert_complete(topology)
    assert to_mermaid(topology) == to_mermaid(topology)


def test_names_are_never_ids() -> None:
    for line in to_mermaid(samples.keywords()).splitlines()[1:]:
        bare = re.sub(r'"[^"]*"', "", line)
        assert not re.search(r"\b(end|graph|subgraph|click|style|class|default)\b", bare), line


def test_router_and_host_and_internet_differ() -> None:
    text = to_mermaid(samples.homelab())
    assert re.search(r'\{\{"<b>isp</b><br/>NAT"\}\}:::router', text)
    assert '["<b>laptop</b>"]:::host' in text
    assert re.search(r'\(\["<b>internet</b><br/>198\.51\.100\.0/24<br/>2001:db8:1::/64"\]\):::internet', text)


def test_home_router_says_what_it_does() -> None:
    assert "<b>home-router</b><br/>NAT · firewall<br/>443 → 192.168.1.10:443" in to_mermaid(samples.homelab())


def test_cable_is_one_edge() -> None:
    _, edges = read_mermaid(to_mermaid(samples.chain()))
    assert [(a, b) for a, _, b, _ in edges] == [("n0", "n1"), ("n1", "n2")]
    assert "r1-r2<br/>10.0.12.0/31<br/>10.0.12.0 to 10.0.12.1" in to_mermaid(samples.chain())


def test_tunnel_is_a_dotted_arrow() -> None:
    assert re.search(r'    n6 -\.->\|"opens 2222"\| n0', to_mermaid(samples.homelab()))


def test_a_crowd_stays_below_the_edges_that_mermaid_accepts() -> None:
    text = to_mermaid(samples.crowd(1000))
    _, edges = read_mermaid(text)
    assert len(edges) == 3
    assert len(text) < 50_000  # mermaid's option maxTextSize
    assert all(f"h{number}x" in text for number in range(1, 1001))


def test_quotes_do_not_end_a_text() -> None:
    text = to_mermaid(samples.topology("t", [], [samples.node("n", {}, image='a"#b')]))
    assert "a#quot;#35;b" in text


def assert_complete(topology: Topology) -> None:
    vertices, edges = read_mermaid(to_mermaid(topology))
    texts = Counter(word for text in vertices.values() for word in [re.split(r"</b>", text)[0].removeprefix("<b>")])
    cables = {network.name for network in topology.networks if network.point_to_point}
    labels = " ".join(text for _, _, _, text in edges)
    for network in topology.networks:
        assert texts[network.name] or (network.name in cables and network.name in labels), network.name
    folded = {name for text in texts for name in names_of(text)}
    for node in topology.nodes:
        assert node.name in folded
    for a, _, b, _ in edges:
        assert {a, b} <= vertices.keys()
    ends = [
        (node.name, interface.network)
        for node in topology.nodes
        if texts[node.name] or any(text.startswith(f"{node.name} …") for text in texts)
        for interface in node.interfaces
    ]
    drawn_as_edge = [
        name for name in cables if not any(text.startswith(f"<b>{name}</b>") for text in vertices.values())
    ]
    halves = sum(network in drawn_as_edge for _, network in ends)
    solid = [edge for edge in edges if edge[1] == "---"]
    if not set(texts) & {n.name for n in topology.networks} & {n.name for n in topology.nodes}:
        assert len(solid) == len(ends) - halves // 2


def read_mermaid(text: str) -> tuple[dict[str, str], list[tuple[str, str, str, str]]]:
    """Vertices by id, and edges as (from, arrow, to, label); every line must be one of the known forms."""
    lines = text.splitlines()
    assert lines[0] == "flowchart TD"
    vertices: dict[str, str] = {}
    edges: list[tuple[str, str, str, str]] = []
    styles: set[str] = set()
    used: set[str] = set()
    for line in lines[1:]:
        if vertex := VERTEX.fullmatch(line):
            assert PAIRS[vertex["open"]] == vertex["close"]
            assert vertex["id"] not in vertices
            vertices[vertex["id"]] = vertex["text"]
            used.add(vertex["style"])
        elif edge := EDGE.fullmatch(line):
            edges.append((edge["a"], edge["arrow"], edge["b"], edge["text"] or ""))
        else:
            style = STYLE.fullmatch(line)
            assert style, line
            styles.add(style["name"])
    assert used <= styles
    return vertices, edges


def names_of(title: str) -> list[str]:
    """The names that a box's title stands for."""
    run = re.fullmatch(r"(?P<stem>.+-)(?P<first>\d+) … (?P=stem)(?P<last>\d+) \(\d+\)", title)
    if not run:
        return [title]
    return [f"{run['stem']}{number}" for number in range(int(run["first"]), int(run["last"]) + 1)]
