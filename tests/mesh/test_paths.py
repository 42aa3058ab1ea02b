"""What members say becomes ways: views put together, agreement, nebula's host map and WireGuard's dump read."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from lab.errors import ProbeError
from lab.mesh import nebula, wireguard
from lab.mesh.paths import Pair, View, Way, gathered
from lab.mesh.underlay import Underlay

MESH: dict[str, Any] = {
    "name": "net",
    "driver": "nebula",
    "port": 4242,
    "members": [
        {"node": node, "address": f"10.9.0.{number}/24"} for number, node in enumerate(("vps", "nas", "pi", "phone"), 1)
    ],
}
LINKS = {
    "vps": [("internet", "198.51.100.10/24")],
    "nas": [("home", "192.168.1.10/24")],
    "pi": [("home", "192.168.1.11/24")],
    "phone": [("internet", "198.51.100.90/24")],
    "router": [("internet", "198.51.100.1/24"), ("home", "192.168.1.1/24")],
}
FACTS: dict[str, Any] = {
    "networks": [{"name": "internet", "internet": True}, {"name": "home", "internet": False}],
    "nodes": [
        {"name": name, "interfaces": [{"network": network, "addresses": [address]} for network, address in links]}
        for name, links in LINKS.items()
    ],
}


def entry(number: int, remote: str | None, relays: tuple[str, ...] = ()) -> dict[str, Any]:
    """A peer of nebula's host map."""
    at = None if remote is None else {"ip": remote, "port": 4242}
    return {"vpnIp": f"10.9.0.{number}", "currentRemote": at, "currentRelaysToMe": list(relays)}


def views_of(*entries: dict[str, Any], node: str = "nas", log: str = "") -> dict[str, View]:
    said = nebula.views({node: json.dumps(entries)}, lambda _: log, MESH, Underlay(FACTS))[node]
    assert isinstance(said, dict)
    return said


def test_an_address_on_a_network_of_both_is_lan_any_other_direct() -> None:
    said = views_of(entry(3, "192.168.1.11"), entry(4, "198.51.100.90"))
    assert (said["pi"].way, said["pi"].endpoint, said["pi"].owner) == (Way.LAN, "192.168.1.11:4242", "pi")
    assert said["phone"].way is Way.DIRECT


def test_two_on_the_internet_share_no_lan() -> None:
    assert views_of(entry(4, "198.51.100.90"), node="vps")["phone"].way is Way.DIRECT


def test_the_address_of_a_nat_is_its_routers() -> None:
    said = views_of(entry(2, "198.51.100.1"), node="phone")
    assert (said["nas"].way, said["nas"].owner) == (Way.DIRECT, "router")


def test_an_address_that_no_node_has_is_stale_and_nothing_to_agree_on() -> None:
    away = views_of(entry(4, "192.168.1.77"))["phone"]
    assert (away.owner, away.is_stale) == (None, True)
    assert not views_of(entry(4, "198.51.100.90"))["phone"].is_stale
    assert not views_of(entry(4, None, ("10.9.0.1",)))["phone"].is_stale
    assert not views_of(entry(4, None))["phone"].is_stale
    back = View("phone", "nas", Way.DIRECT, "198.51.100.1:4242", "router")
    for pair in (Pair("nas", "phone", (away, back)), Pair("phone", "nas", (back, away))):
        assert (pair.agrees, pair.way, pair.differs) == (False, None, False)


def test_an_address_that_a_router_translates_to_is_its_own() -> None:
    """RFC 6296: no interface has it."""
    prefixes = {"inside": "fd00:1::/64", "outside": "2001:db8:7::/64"}
    router = {"name": "router", "interfaces": [], "nat": {"ipv6_prefix": prefixes}}
    underlay = Underlay({"networks": [], "nodes": [router, {"name": "nas", "interfaces": [], "nat": None}]})
    assert underlay.owner("2001:db8:7::5") == "router"
    assert underlay.owner("2001:db8:8::5") is None
    assert underlay.owner("198.51.100.1") is None


def test_without_an_address_the_relays_are_the_way() -> None:
    said = views_of(entry(4, None, ("10.9.0.1",)))
    assert (said["phone"].way, said["phone"].relays) == (Way.RELAYED, ("vps",))
    assert views_of(entry(4, None))["phone"].way is Way.NONE


def test_an_address_goes_before_relays_that_are_left() -> None:
    assert views_of(entry(4, "198.51.100.90", ("10.9.0.1",)))["phone"].way is Way.DIRECT


def test_since_is_the_last_change_that_the_log_tells() -> None:
    changes: list[dict[str, Any]] = [
        {"msg": "Handshake message sent", "handshake": {"stage": 1}, "time": "2026-01-01T00:00:09Z"},
        {"msg": "Handshake message received", "handshake": {"stage": 2}, "time": "2026-01-01T00:00:10Z"},
        {"msg": "Host roamed to new udp ip/port.", "time": "2026-01-01T00:00:20.5Z"},
        {"msg": "Attempt to relay through hosts", "time": "2026-01-01T00:00:30Z"},
    ]
    log = "\n".join(["no json", *(json.dumps({**each, "vpnIp": "10.9.0.4"}) for each in changes)])
    assert views_of(entry(4, "198.51.100.90"), log=log)["phone"].since == 1767225620.5
    assert views_of(entry(3, "192.168.1.11"), log=log)["pi"].since is None


@pytest.mark.parametrize("answer", ["", "help", "[{}]", '{"a": 1}'])
def test_an_answer_that_is_no_host_map_is_not_a_no(answer: str) -> None:
    said = nebula.views({"nas": answer}, lambda _: "", MESH, Underlay(FACTS))["nas"]
    assert isinstance(said, str)
    assert said.startswith("no host map")


def test_both_views_make_a_pair() -> None:
    views = {node: dict[str, View]() for node in ("vps", "nas", "pi", "phone")}
    views["nas"]["pi"] = View("nas", "pi", Way.LAN, since=5.0)
    views["pi"]["nas"] = View("pi", "nas", Way.LAN, since=7.0)
    views["nas"]["phone"] = View("nas", "phone", Way.RELAYED, relays=("vps",))
    paths = gathered("lab", MESH, {**views, "vps": "connection refused"})
    assert len(paths.pairs) == 6
    assert (paths.between("pi", "nas").way, paths.between("pi", "nas").since) == (Way.LAN, 7.0)
    apart = paths.between("phone", "nas")
    assert (apart.agrees, apart.way, apart.ways) == (False, None, (Way.NONE, Way.RELAYED))
    assert paths.between("pi", "phone").way is Way.NONE
    assert paths.silent == (("vps", "connection refused"),)
    assert not paths.between("vps", "nas").agrees
    with pytest.raises(KeyError, match="router"):
        paths.between("router", "nas")


def dump(own: str, *peers: tuple[str, str, str, float]) -> str:
    """As `wg show NAME dump` prints it: key, endpoint, allowed prefixes, age of the handshake."""
    lines = [f"private\t{own}\t51820\toff"]
    lines += [
        f"{key}\t(none)\t{endpoint}\t{allowed}\t{int(time.time() - age) if age >= 0 else 0}\t0\t0\toff"
        for key, endpoint, allowed, age in peers
    ]
    return "\n".join(lines) + "\n"


def test_wireguard_sends_to_the_longest_allowed_prefix() -> None:
    answers: dict[str, str | ProbeError] = {
        "vps": dump("V", ("N", "198.51.100.1:1024", "10.9.0.2/32", 10), ("H", "(none)", "10.9.0.4/32", -1)),
        "nas": dump(
            "N", ("V", "198.51.100.10:51820", "10.9.0.0/24", 10), ("P", "192.168.1.11:51820", "10.9.0.3/32", 9)
        ),
        "pi": dump(
            "P", ("V", "198.51.100.10:51820", "10.9.0.0/24", 999), ("N", "192.168.1.10:51820", "10.9.0.2/32", 9)
        ),
        "phone": ProbeError("no such device"),
    }
    paths = gathered("lab", MESH, wireguard.views(dict(answers), lambda _: "", MESH, Underlay(FACTS)))
    assert paths.between("nas", "vps").way is Way.DIRECT
    assert paths.between("nas", "pi").way is Way.LAN
    there, back = paths.between("nas", "phone").views
    assert there is not None
    assert (there.way, there.relays, back) == (Way.RELAYED, ("vps",), None)
    assert paths.between("vps", "nas").views[0] == View("vps", "nas", Way.DIRECT, "198.51.100.1:1024", "router")
    # A handshake that is too old, or never was, is no way.
    assert paths.between("pi", "vps").ways == (Way.NONE, Way.NONE)
    assert paths.silent == (("phone", "no such device"),)
