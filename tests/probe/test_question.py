"""Who is asked for what, from facts alone."""

from __future__ import annotations

from typing import Any

from lab.probe.question import Target, addresses, questions, targets

FACTS: dict[str, Any] = {
    "nodes": [
        {
            "name": "a",
            "interfaces": [{"network": "lan", "addresses": ["192.0.2.1/24", "2001:db8:1::1/64"]}],
            "services": [
                {"name": "dns", "ports": [{"protocol": "udp", "number": 53}, {"protocol": "tcp", "number": 53}]},
                {"name": "quiet", "ports": []},
            ],
            "forwards": [],
        },
        {
            "name": "r",
            "interfaces": [
                {"network": "wan", "addresses": ["198.51.100.1/24"]},
                {"network": "lan", "addresses": ["192.0.2.254/24"]},
            ],
            "services": [],
            "forwards": [
                {"protocol": "tcp", "port": 8053, "to": "a:53", "addresses": ["198.51.100.1"]},
                {"protocol": "udp", "port": 53, "to": "a:53", "addresses": ["198.51.100.1"]},
            ],
        },
        {
            "name": "b",
            "interfaces": [{"network": "wan", "addresses": ["198.51.100.2/24"]}],
            "services": [],
            "forwards": [],
        },
    ]
}
A, R, B = FACTS["nodes"]


def test_targets_are_every_port_then_every_node() -> None:
    assert targets(FACTS) == (
        Target("a", "dns", "udp", 53),
        Target("a", "dns", "tcp", 53),
        Target("r", "8053->a:53", "tcp", 8053, ("198.51.100.1",)),
        Target("r", "53->a", "udp", 53, ("198.51.100.1",)),
        Target("a", "", "icmp", None),
        Target("r", "", "icmp", None),
        Target("b", "", "icmp", None),
    )
    assert [str(target) for target in targets(FACTS)[1:5:3]] == ["a/dns tcp/53", "a icmp"]


def test_a_shared_network_goes_before_all_other_addresses() -> None:
    assert addresses(A, R, 4) == ("192.0.2.254",)
    assert addresses(B, R, 4) == ("198.51.100.1",)
    assert addresses(R, R, 4) == ("198.51.100.1", "192.0.2.254")


def test_without_a_shared_network_every_address_is_asked_in_order() -> None:
    assert addresses({"interfaces": []}, R, 4) == ("198.51.100.1", "192.0.2.254")
    assert addresses(B, A, 6) == ("2001:db8:1::1",)


def test_an_ip_version_that_the_target_has_not_has_no_address() -> None:
    assert addresses(A, R, 6) == ()


def test_a_node_asks_its_own_services_but_not_its_own_echo() -> None:
    asked = [(question.target, question.version) for question in questions(FACTS, ("a",))]
    assert (Target("a", "dns", "tcp", 53), 4) in asked
    assert (Target("a", "", "icmp", None), 4) not in asked
    assert len(asked) == len(set(asked)) == 2 * 4 + 2
    assert len(questions(FACTS, ("a", "r", "b"))) == 2 * (3 * 2 + 3 * 2) + 3 * 2


def test_a_port_forward_is_asked_at_its_outside_address_by_ipv4_alone() -> None:
    asked = [question for question in questions(FACTS, ("a", "r", "b")) if question.target.forwarded_at]
    assert [(each.source, each.target.port, each.version, each.addresses) for each in asked] == [
        (source, port, 4, ("198.51.100.1",)) for source in ("a", "r", "b") for port in (8053, 53)
    ]
