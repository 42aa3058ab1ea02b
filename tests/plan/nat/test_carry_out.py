"""What a NAT adds to a plan beside nftables: queue rules, natbox as a service of the network, settings of conntrack."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.plan.build import build
from lab.plan.step import LoadRuleset, Plan, SetSysctls, StartService
from lab.topology.load import load_topology

NETWORK = """
networks: {{internet: {{prefixes: [198.51.100.0/24]}}, lan: {{prefixes: [10.0.0.0/24]}}}}
nodes:
  gate:
    role: router
    links: {{internet: {{address: [198.51.100.1, 198.51.100.2], interface: wan}}, lan: auto}}
    nat: {{outside: internet, {nat}}}
  nas: {{links: {{lan: 10.0.0.10}}, services: {{web: {{run: sleep 60}}, after: {{run: sleep 60, after: [web]}}}}}}
"""


def planned(folder: Path, nat: str, *, services: bool = True) -> Plan:
    file = folder / "t.yaml"
    file.write_text(NETWORK.format(nat=nat))
    return build(load_topology(file), services=services)


def rulesets(plan: Plan) -> dict[str, str]:
    return {step.program: step.text for step in plan.steps if isinstance(step, LoadRuleset)}


def natbox_configuration(plan: Plan) -> dict[str, object]:
    (step,) = (step for step in plan.steps if isinstance(step, StartService) and step.argv[0] == "natbox")
    return dict(json.loads(step.files[0][1]))


def test_natbox_reads_every_knob(tmp_path: Path) -> None:
    knobs = """mapping: address_dependent, filtering: endpoint_independent,
      ports: {range: 20000-29999, allocation: sequential, parity: true}, port_block: 100,
      pool: [198.51.100.2, 198.51.100.1], pooling: arbitrary, sessions: 50, refresh: outbound, hairpin: external_source,
      timers: {udp: 30s, udp_dns: 10s, tcp_established: 2h, tcp_transitory: 4min, icmp: 60s},
      icmp_errors: drop, unsolicited_tcp: reject, forwards: [{tcp: 443, to: "nas:8443"}]"""
    assert natbox_configuration(planned(tmp_path, knobs)) == {
        "outside": {"interface": "wan", "addresses": ["198.51.100.2", "198.51.100.1"]},
        "mapping": "address_dependent",
        "filtering": "endpoint_independent",
        "ports": {"first": 20000, "last": 29999, "allocation": "sequential", "parity": True},
        "block_size": 100,
        "pooling": "arbitrary",
        "sessions_per_subscriber": 50,
        "timers": {"udp": 30.0, "udp_dns": 10.0, "tcp_established": 7200.0, "tcp_transitory": 240.0, "icmp": 60.0},
        "refresh": "outbound",
        "hairpin": "external_source",
        "icmp_errors": False,
        "tcp_unsolicited": "reset",
        "forwards": [{"protocol": "tcp", "port": 443, "to": "10.0.0.10", "to_port": 8443}],
    }


def test_packets_are_queued_to_natbox_and_nft_only_filters(tmp_path: Path) -> None:
    plan = planned(tmp_path, "preset: full_cone, pool: [198.51.100.1, 198.51.100.2]")
    assert rulesets(plan)["iptables-restore"].splitlines() == [
        "*raw",
        ":PREROUTING ACCEPT [0:0]",
        ":OUTPUT ACCEPT [0:0]",
        "-A PREROUTING -d 198.51.100.1/32 -j NFQUEUE --queue-num 1",
        "-A PREROUTING -d 198.51.100.2/32 -j NFQUEUE --queue-num 1",
        "COMMIT",
        "*mangle",
        ":FORWARD ACCEPT [0:0]",
        ":POSTROUTING ACCEPT [0:0]",
        "-A FORWARD -m conntrack --ctstate NEW",
        *(
            f"-A POSTROUTING -s 198.51.100.{last}/32 -o wan -p tcp -m tcp --tcp-flags RST RST "
            "-m conntrack --ctstate RELATED -j ACCEPT"
            for last in (1, 2)
        ),
        "-A POSTROUTING -o wan -j NFQUEUE --queue-num 0",
        "COMMIT",
    ]
    assert "meta mark 0x4e42 accept" in rulesets(plan)["nft"]
    assert "nat hook" not in rulesets(plan)["nft"]


@pytest.mark.parametrize(("hairpin", "is_queued"), [("internal_source", False), ("external_source", True)])
def test_a_hairpin_queues_a_packet_once_more_for_its_source(tmp_path: Path, hairpin: str, *, is_queued: bool) -> None:
    text = rulesets(planned(tmp_path, f"hairpin: {hairpin}"))["iptables-restore"]
    assert ("-A POSTROUTING -m mark --mark 0x4e41 -j NFQUEUE --queue-num 2\n" in text) == is_queued
    assert "--icmp-type redirect -j DROP\n" in text


def test_natbox_with_icmp_errors_dropped_drops_the_routers_own_too(tmp_path: Path) -> None:
    text = rulesets(planned(tmp_path, "preset: full_cone, icmp_errors: drop"))["iptables-restore"]
    for kind in ("destination-unreachable", "time-exceeded"):
        assert f"-A POSTROUTING -p icmp -m icmp --icmp-type {kind} -j DROP\n" in text


def test_natbox_is_part_of_the_network_and_comes_before_all_services(tmp_path: Path) -> None:
    starts = [step for step in planned(tmp_path, "preset: full_cone").steps if isinstance(step, StartService)]
    assert [(step.node, step.service, step.after) for step in starts] == [
        ("gate", "nat", ()),
        ("nas", "web", ("gate/nat",)),
        ("nas", "after", ("gate/nat", "nas/web")),
    ]
    without = planned(tmp_path, "preset: full_cone", services=False)
    assert [step.service for step in without.steps if isinstance(step, StartService)] == ["nat"]


def test_nat_by_the_kernel_starts_nothing(tmp_path: Path) -> None:
    plan = planned(tmp_path, "preset: symmetric", services=False)
    assert not any(isinstance(step, StartService) for step in plan.steps)
    assert list(rulesets(plan)) == ["nft"]


@pytest.mark.parametrize(("timers", "set_to"), [("{icmp: 5s}", ["5"]), ("{icmp: 30s}", []), ("{udp: 5s}", [])])
def test_the_timer_of_icmp_is_set_once_conntrack_is_there(tmp_path: Path, timers: str, set_to: list[str]) -> None:
    steps = planned(tmp_path, f"timers: {timers}").steps
    settings = [step for step in steps if isinstance(step, SetSysctls)]
    assert [step.sysctls for step in settings] == [
        (("net.netfilter.nf_conntrack_icmp_timeout", value),) for value in set_to
    ]
    loads = [index for index, step in enumerate(steps) if isinstance(step, LoadRuleset)]
    assert all(steps.index(step) > max(loads) for step in settings)
