"""Firewall policies and their exceptions, for the node itself and through it, in both IP versions."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from lab.realise.lab import Lab

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

TOPOLOGY = """
#   friend, stranger -- outside -- (three routers) -- inside -- target, other
networks:
  outside: {prefixes: [198.51.100.0/24, "2001:db8:1::/64"]}
  inside: {prefixes: [192.168.1.0/24, "2001:db8:10::/64"]}
nodes:
  friend: {links: {outside: [198.51.100.10, "2001:db8:1::10"]}}
  stranger: {links: {outside: [198.51.100.20, "2001:db8:1::20"]}}
  accepting: {links: {outside: [198.51.100.31, "2001:db8:1::31"]}, firewall: {input: accept}}
  dropping:
    links: {outside: [198.51.100.32, "2001:db8:1::32"], inside: [192.168.1.32, "2001:db8:10::32"]}
    firewall:
      outside: outside
      input: drop
      allow:
        - {tcp: 1000}
        - {udp: 1001}
        - {icmp: true, from: 198.51.100.10/32}
        - {icmp: true, from: "2001:db8:1::10/128"}
        - {tcp: 1002, from: 198.51.100.10/32}
        - {tcp: 1002, from: "2001:db8:1::10/128"}
  rejecting:
    links: {outside: [198.51.100.33, "2001:db8:1::33"]}
    firewall: {input: reject, allow: [{tcp: 1000}]}
  router:
    role: router
    links: {outside: [198.51.100.1, "2001:db8:1::1"], inside: [192.168.1.1, "2001:db8:10::1"]}
    firewall:
      outside: outside
      forward: drop
      allow:
        - {tcp: 2000, to: target}
        - {udp: 2001, to: target}
        - {icmp: true, to: target}
        - {tcp: 2002, to: target, from: 198.51.100.10/32}
        - {tcp: 2002, to: target, from: "2001:db8:1::10/128"}
        - {tcp: 2003, to: 192.168.1.10}
  target: {links: {inside: [192.168.1.10, "2001:db8:10::10"]}}
  other: {links: {inside: [192.168.1.20, "2001:db8:10::20"]}}
"""
# What a socket is told when its packet is answered "administratively prohibited" (RFC 1812 5.2.7.1, RFC 4443 3.1).
PROHIBITED = {4: errno.EHOSTUNREACH, 6: errno.EACCES}
SILENCE = 0.2  # seconds that are waited for what is not to come
PATIENCE = 30.0  # seconds for what is to come


@pytest.fixture(scope="module")
def lab(module_up: Callable[..., Lab]) -> Lab:
    return module_up(TOPOLOGY)


def tcp(lab: Lab, client: str, server: str, port: int, version: int, wait: float = PATIENCE) -> str:
    """What becomes of a connection to a port where the server listens: "connected" or the name of the error."""
    with lab[server].listen(port):
        try:
            lab[client].connect((lab[server].address(version=version), port), timeout=wait).close()
        except TimeoutError:
            return "silence"
        except OSError as error:
            return errno.errorcode[error.errno or 0]
    return "connected"


def is_silent(lab: Lab, client: str, server: str, port: int, version: int) -> bool:
    """Whether a connection meets silence."""
    return tcp(lab, client, server, port, version, SILENCE) == "silence"


def udp(lab: Lab, client: str, server: str, port: int, version: int, wait: float = PATIENCE) -> bool:
    """Whether a datagram arrives."""
    to, own = (lab[node].address(version=version) for node in (server, client))
    with lab[server].udp(port, to, timeout=wait) as listening, lab[client].udp(0, own) as sending:
        sending.sendto(b"?", (to, port))
        try:
            return listening.recv(10) == b"?"
        except TimeoutError:
            return False


def udp_error(lab: Lab, client: str, server: str, port: int, version: int) -> str:
    """The error that a connected UDP socket gets for a datagram, or for a later one: kernels ration their errors."""
    with lab[client].udp(0, lab[client].address(version=version), timeout=1) as sending:
        sending.connect((lab[server].address(version=version), port))
        for _ in range(int(PATIENCE)):
            try:
                sending.send(b"?")
                sending.recv(10)
            except TimeoutError:
                continue
            except OSError as error:
                return errno.errorcode[error.errno or 0]
    return "none"


def ping(lab: Lab, client: str, server: str, version: int, wait: float = 20) -> bool:
    command = ["ping", "-c", "1", "-W", str(wait), lab[server].address(version=version)]
    return lab[client].run(command).returncode == 0


@pytest.fixture(params=[4, 6])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_accept_lets_all_in(lab: Lab, version: int) -> None:
    assert tcp(lab, "stranger", "accepting", 999, version) == "connected"
    assert udp(lab, "stranger", "accepting", 999, version)
    assert ping(lab, "stranger", "accepting", version)


def test_drop_answers_with_silence(lab: Lab, version: int) -> None:
    assert is_silent(lab, "stranger", "dropping", 999, version)
    assert not udp(lab, "stranger", "dropping", 999, version, SILENCE)
    assert not ping(lab, "stranger", "dropping", version, SILENCE)


def test_reject_resets_tcp_at_once_and_says_prohibited_to_the_rest(lab: Lab, version: int) -> None:
    assert tcp(lab, "stranger", "rejecting", 999, version) == "ECONNREFUSED"
    assert not udp(lab, "stranger", "rejecting", 999, version, SILENCE)
    assert udp_error(lab, "stranger", "rejecting", 999, version) == errno.errorcode[PROHIBITED[version]]


@pytest.mark.parametrize("server", ["dropping", "rejecting"])
def test_an_allowed_tcp_port_is_open_to_anyone(lab: Lab, server: str, version: int) -> None:
    assert tcp(lab, "stranger", server, 1000, version) == "connected"


def test_an_allowed_udp_port_is_open_for_udp_only(lab: Lab, version: int) -> None:
    assert udp(lab, "stranger", "dropping", 1001, version)
    assert is_silent(lab, "stranger", "dropping", 1001, version)


def test_an_exception_with_a_source_holds_for_that_source_only(lab: Lab, version: int) -> None:
    assert tcp(lab, "friend", "dropping", 1002, version) == "connected"
    assert is_silent(lab, "stranger", "dropping", 1002, version)


def test_icmp_is_allowed_to_whom_the_exception_names(lab: Lab, version: int) -> None:
    assert ping(lab, "friend", "dropping", version)
    assert not ping(lab, "stranger", "dropping", version, SILENCE)


def test_a_policy_holds_for_what_comes_from_outside_only(lab: Lab, version: int) -> None:
    inside = lab["dropping"].address("inside", version)
    with lab["dropping"].listen(999), lab["other"].connect((inside, 999)) as client:
        assert client.getpeername()[0] == inside


def test_a_node_behind_its_firewall_may_connect_out_and_gets_answers(lab: Lab, version: int) -> None:
    assert tcp(lab, "dropping", "friend", 1500, version) == "connected"
    assert ping(lab, "rejecting", "friend", version)


def test_a_node_may_talk_to_itself_whatever_its_policy(lab: Lab) -> None:
    with lab["rejecting"].listen(999), lab["rejecting"].connect(("127.0.0.1", 999)):
        pass
    assert tcp(lab, "rejecting", "rejecting", 999, 6) == "connected"


def test_a_router_passes_an_allowed_port_to_the_named_node_only(lab: Lab, version: int) -> None:
    assert tcp(lab, "stranger", "target", 2000, version) == "connected"
    assert is_silent(lab, "stranger", "other", 2000, version)
    assert is_silent(lab, "stranger", "target", 2001, version)
    assert udp(lab, "stranger", "target", 2001, version)
    assert not udp(lab, "stranger", "target", 2000, version, SILENCE)


def test_a_router_passes_icmp_to_the_named_node_only(lab: Lab, version: int) -> None:
    assert ping(lab, "stranger", "target", version)
    assert not ping(lab, "stranger", "other", version, SILENCE)


def test_a_router_passes_a_named_source_only(lab: Lab, version: int) -> None:
    assert tcp(lab, "friend", "target", 2002, version) == "connected"
    assert is_silent(lab, "stranger", "target", 2002, version)


def test_an_exception_for_an_address_is_none_for_the_nodes_other_addresses(lab: Lab) -> None:
    assert tcp(lab, "stranger", "target", 2003, 4) == "connected"
    assert is_silent(lab, "stranger", "target", 2003, 6)


def test_a_router_lets_the_inside_out_and_answers_back_in(lab: Lab, version: int) -> None:
    assert tcp(lab, "target", "stranger", 2500, version) == "connected"
    assert udp(lab, "other", "stranger", 2500, version)


def test_forward_reject_refuses_while_input_stays_open(up: Callable[..., Lab], version: int) -> None:
    lab = up(
        {
            "networks": {
                "outside": {"prefixes": ["198.51.100.0/24", "2001:db8:1::/64"]},
                "inside": {"prefixes": ["192.168.1.0/24", "2001:db8:10::/64"]},
            },
            "nodes": {
                "client": {"links": {"outside": "auto"}},
                "router": {
                    "role": "router",
                    "links": {"outside": "auto", "inside": "auto"},
                    "firewall": {"forward": "reject"},
                },
                "server": {"links": {"inside": "auto"}},
            },
        }
    )
    assert tcp(lab, "client", "server", 80, version) == "ECONNREFUSED"
    assert tcp(lab, "server", "client", 80, version) == "ECONNREFUSED"
    assert tcp(lab, "client", "router", 80, version) == "connected"


def test_a_node_without_firewall_has_no_ruleset(lab: Lab) -> None:
    assert lab["friend"].run(["nft", "list", "ruleset"]).stdout == ""
    assert "chain input" in lab["dropping"].run(["nft", "list", "ruleset"]).stdout
