"""Pictures: nothing is missing, nothing overlaps, text fits, lines end where they should, same input same bytes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from lab.draw import to_svg
from lab.draw.style import STYLE
from lab.topology.model import Mesh, MeshDriver, Topology
from tests.draw import samples
from tests.draw.random_topology import topologies
from tests.draw.svg_reading import SIZES, Area, Reading, Text, read_svg

every_sample = pytest.mark.parametrize("sample", samples.SAMPLES)
any_topology = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))


@every_sample
def test_sample_is_drawn_well(sample: Callable[[], Topology]) -> None:
    topology = sample()
    reading = read_svg(to_svg(topology))
    assert_complete(topology, reading)
    assert_apart(reading)
    assert_text_fits(reading)
    assert_lines_end_at_boxes(reading)
    assert_no_line_runs_through_a_box(reading)


@given(topologies())
@any_topology
def test_any_topology_is_drawn_well(topology: Topology) -> None:
    svg = to_svg(topology)
    assert svg == to_svg(topology)
    reading = read_svg(svg)
    assert_complete(topology, reading)
    assert_apart(reading)
    assert_text_fits(reading)
    assert_lines_end_at_boxes(reading)


@pytest.mark.parametrize("count", [6, 7, 30, 1000])
def test_a_crowd_is_drawn_well_and_at_a_usable_shape(count: int) -> None:
    topology = samples.crowd(count)
    reading = read_svg(to_svg(topology))
    assert_complete(topology, reading)
    assert_text_fits(reading)
    assert_lines_end_at_boxes(reading)
    assert reading.width < 4.5 * reading.height
    if count < 100:  # pairs of a thousand boxes take longer than they tell
        assert_apart(reading)
        assert_no_line_runs_through_a_box(reading)


def test_a_thousand_different_hosts_take_less_than_a_second() -> None:
    topology = samples.crowd(1000)
    started = time.process_time()
    to_svg(topology)
    assert time.process_time() - started < 1.0


def test_pages_do_not_scroll_sideways_for_the_homelab() -> None:
    assert read_svg(to_svg(samples.homelab())).width < 900  # the width of a README


def test_internet_stands_above_everything_but_its_own_hosts() -> None:
    reading = read_svg(to_svg(samples.homelab()))
    internet = next(network.area for network in reading.networks if network.names == ("internet",))
    above = {name for node in reading.nodes if node.area.bottom < internet.y for name in node.names}
    assert above == {"vps-a", "vps-b", "dns", "stranger"}
    assert all(network.area.y > internet.bottom for network in reading.networks if network.names != ("internet",))


def test_router_stands_between_its_outside_and_its_inside() -> None:
    reading = read_svg(to_svg(samples.homelab()))
    areas = {network.names[0]: network.area for network in reading.networks}
    router = next(node.area for node in reading.nodes if "home-router" in node.names)
    assert areas["access"].bottom < router.y
    assert router.bottom < areas["home"].y


def test_nat_firewall_forward_and_image_are_marked_where_they_are() -> None:
    marks = {
        node.names[0]: {text.words for _, text in node.chips}
        for sample in (samples.homelab, samples.many_links)
        for node in read_svg(to_svg(sample())).nodes
    }
    assert marks["isp"] == {"NAT"}
    assert marks["home-router"] == {"NAT", "firewall", "443 → nas"}
    assert marks["spare"] == set()
    assert "homelab/media:1" in marks["media"]
    assert marks["dns"] == {"dnsmasq 53 53/udp"}


def test_equal_numbered_nodes_are_one_box_that_says_how_many() -> None:
    reading = read_svg(to_svg(samples.guests(200)))
    assert [len(node.names) for node in reading.nodes] == [1, 200]
    stack = reading.nodes[1]
    assert [text.words for text in stack.texts] == ["guest-1 … guest-200 (200)"]
    assert {"10.20.0.11 … .210", "…::1 … :c8"} <= {text.words for group in reading.addresses for text in group.texts}


def test_tunnel_is_an_arrow_from_the_node_that_opens_it() -> None:
    reading = read_svg(to_svg(samples.homelab()))
    assert [tunnel.names for tunnel in reading.tunnels] == [("nas", "vps-a")]


def test_tunnels_to_one_target_join_and_only_the_first_has_an_arrow() -> None:
    away = samples.network("internet", "198.51.100.0/24")
    hosts = [samples.node(f"h{i}", {"internet": []}, samples.service("t", tunnel=("vps", 80 + i))) for i in range(3)]
    vps = samples.node("vps", {"internet": []})
    reading = read_svg(to_svg(samples.topology("t", [away], [vps, *hosts])))
    assert [tunnel.names[0] for tunnel in reading.tunnels] == ["h0", "h1", "h2"]
    area = next(node.area for node in reading.nodes if node.names == ("vps",))
    assert [area.touches(tunnel.points[-1]) for tunnel in reading.tunnels] == [True, False, False]
    assert_lines_end_at_boxes(reading)


def test_cable_has_a_label_on_a_straight_line() -> None:
    reading = read_svg(to_svg(samples.chain()))
    assert all("cable" in network.classes for network in reading.networks)
    assert len({x for link in reading.links for x, _ in link.points}) == 1


def test_tree_links_never_cross_each_other() -> None:
    reading = read_svg(to_svg(samples.homelab()))
    for one, other in combinations(reading.links, 2):
        for first in one.segments:
            for second in other.segments:
                assert not thick(first).overlaps(thick(second))


def test_legend_explains_only_what_is_drawn() -> None:
    plain = {text.words for text in read_svg(to_svg(samples.two_lans())).legend}
    assert plain == {"router", "host", "service and its TCP ports"}
    full = {text.words for text in read_svg(to_svg(samples.homelab())).legend}
    assert "opens a port on another node" in full
    assert "point-to-point link" not in full


def test_title_and_description_speak_for_the_picture() -> None:
    reading = read_svg(to_svg(samples.homelab()))
    assert reading.title == "homelab: network topology"
    assert "home (192.168.1.0/24, 2001:db8:10::/64)" in reading.description
    assert "11 nodes · 4 networks · 9 services" in reading.description


def test_a_mesh_is_named_below_the_title() -> None:
    mesh = Mesh("tailnet", MeshDriver.NEBULA, IPv4Network("10.144.0.0/16"), "tailnet", 4242, ())
    svg = to_svg(replace(samples.homelab(), meshes=(mesh,)))
    assert "9 services · mesh tailnet 10.144.0.0/16" in read_svg(svg).description
    assert "mesh" not in to_svg(samples.homelab())


def test_text_is_escaped() -> None:
    image = 'x"<&>'
    odd = samples.topology('a<b>&"c', [], [samples.node("n", {}, image=image)])
    reading = read_svg(to_svg(odd))
    assert reading.heading[0].words == 'a<b>&"c'
    assert reading.nodes[0].chips[0][1].words == image


def test_nothing_is_loaded_from_elsewhere() -> None:
    svg = to_svg(samples.homelab())
    assert re.findall(r"https?://[^\"]+", svg) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"url\(|@import|<script|<image|href", svg)


def test_sizes_that_the_tests_measure_with_are_those_of_the_style() -> None:
    for kind, size in SIZES.items():
        rule = next(rule for rule in STYLE.split("}") if re.search(rf"\.{kind}(>?text|\s+text)?\{{", rule))
        assert f"font-size:{size:g}px" in rule, kind


def test_file_and_order_of_sets_do_not_matter() -> None:
    topology = samples.many_links()
    moved = Topology(topology.name, Path("/elsewhere.yaml"), topology.networks, topology.nodes, topology.ssh)
    assert to_svg(topology) == to_svg(moved)


def assert_complete(topology: Topology, reading: Reading) -> None:
    drawn = [name for node in reading.nodes for name in node.names]
    assert sorted(drawn) == sorted(node.name for node in topology.nodes)
    assert [network.names[0] for network in reading.networks] == [network.name for network in topology.networks]
    for network, bar in zip(topology.networks, reading.networks, strict=True):
        shown = " ".join(text.words for text in bar.texts).replace("\u00a0", " ").split()
        assert shown == [network.name, *map(str, network.prefixes)]
    tips = "\n".join(group.tips for group in reading.addresses)
    box_of = {name: node for node in reading.nodes for name in node.names}
    for node in topology.nodes:
        box = box_of[node.name]
        if len(box.names) == 1:
            assert "".join(text.words for text in box.texts) == node.name
        chips = [text.words.split(" ")[0] for _, text in box.chips]
        assert all(service.name in chips for service in node.services)
        for interface in node.interfaces:
            addresses = " ".join(map(str, interface.addresses)) or "no address"
            assert f"{node.name} {interface.name}: {addresses}" in tips
    expected = [
        (node.name, interface.name, interface.network)
        for node in topology.nodes
        if any(box.names[0] == node.name for box in reading.nodes)
        for interface in node.interfaces
    ]
    assert sorted(link.names for link in reading.links) == sorted(expected)


def assert_apart(reading: Reading) -> None:
    labels = [label_area(group.texts) for group in reading.addresses if group.texts]
    solid = [node.area for node in reading.nodes] + [network.area for network in reading.networks] + labels
    for one, other in combinations(solid, 2):
        assert not one.overlaps(other), (one, other)


def assert_text_fits(reading: Reading) -> None:
    page = Area(0, 0, reading.width, reading.height)
    for drawn in (*reading.nodes, *reading.networks):
        assert page.holds(drawn.area)
        for text in drawn.texts:
            assert drawn.area.holds(text.area), text
        for chip, text in drawn.chips:
            assert chip.holds(text.area), text
            assert drawn.area.holds(chip), text
        for (one, _), (other, _) in combinations(drawn.chips, 2):
            assert not one.overlaps(other)
    for group in reading.addresses:
        assert all(group.area.holds(text.area) for text in group.texts)
    for text in (*reading.heading, *reading.legend):
        assert page.holds(text.area), text


def assert_lines_end_at_boxes(reading: Reading) -> None:
    boxes = {name: node.area for node in reading.nodes for name in node.names}
    bars = {network.names[0]: network.area for network in reading.networks}
    for link in reading.links:
        node, _, network = link.names
        assert boxes[node].touches(link.points[0]), link
        assert bars[network].touches(link.points[-1]), link
    for tunnel in reading.tunnels:
        source, target = tunnel.names
        assert boxes[source].touches(tunnel.points[0]), tunnel
        x, y = tunnel.points[-1]
        others = [line for line in reading.tunnels if line is not tunnel and line.names[1] == target]
        joined = any(thick(segment).holds(Area(x, y, x, y)) for line in others for segment in line.segments)
        assert boxes[target].touches((x, y)) or joined, tunnel


def assert_no_line_runs_through_a_box(reading: Reading) -> None:
    for line in (*reading.links, *reading.tunnels):
        for segment in line.segments:
            assert segment[0][0] == pytest.approx(segment[1][0]) or segment[0][1] == pytest.approx(segment[1][1])
            assert not [node.names for node in reading.nodes if node.area.crossed_by(segment)], line


def label_area(texts: tuple[Text, ...]) -> Area:
    areas = [text.area for text in texts]
    return Area(
        min(a.x for a in areas), min(a.y for a in areas), max(a.right for a in areas), max(a.bottom for a in areas)
    )


def thick(segment: tuple[tuple[float, float], tuple[float, float]]) -> Area:
    (x1, y1), (x2, y2) = segment
    return Area(min(x1, x2) - 0.5, min(y1, y2) - 0.5, max(x1, x2) + 0.5, max(y1, y2) + 0.5)
