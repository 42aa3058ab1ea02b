"""A mesh whose members are at home, in a café, and cut off: the LAN where there is one, with and without an internet.

nas, pi, laptop -- home-router(NAT) -- internet (vps-a, vps-b) -- cafe(NAT) -- phone
"""

from __future__ import annotations

import signal
from functools import partial

import pytest

from lab import Lab, Way, mesh_paths, wait_until
from scenarios.mesh_traffic import MANY, received, talk, talk_until

pytestmark = [pytest.mark.topology("mesh", scope="module"), pytest.mark.essential, pytest.mark.single_id]


def test_a_way_is_made_when_it_is_needed(lab: Lab) -> None:
    assert mesh_paths(lab).between("laptop", "phone").way is Way.NONE
    for edge in ("vps-a", "vps-b"):  # which each member reports to; one of them is enough for it to be ready
        wait_until(partial(has_way, lab, "laptop", edge, Way.DIRECT), 60, f"the laptop has reported to {edge}")
    lab["laptop"].run(["ping", "-c", "1", "-w", "30", "phone.tailnet"], check=True)
    wait_until(partial(has_way, lab, "laptop", "phone", Way.DIRECT, Way.RELAYED), 60, "both ends know a way")


def has_way(lab: Lab, first: str, second: str, *ways: Way) -> bool:
    return mesh_paths(lab).between(first, second).way in ways


def test_at_home_the_lan_is_the_way(lab: Lab) -> None:
    pair = talk_until(lab, "nas", "pi", Way.LAN)
    assert [view.endpoint for view in pair.views if view] == ["192.168.1.11:4442", "192.168.1.10:4342"]
    before = received(lab, "home-router", "home")
    talk(lab, "nas", "pi", MANY)
    assert received(lab, "home-router", "home") - before < MANY / 2


@pytest.mark.parametrize("member", ["nas", "pi", "laptop"])
def test_from_a_cafe_the_way_is_direct_through_both_nats(lab: Lab, member: str) -> None:
    """To each of those who share one NAT."""
    pair = talk_until(lab, "phone", member, Way.DIRECT)
    assert [view.owner for view in pair.views if view] == ["home-router", "cafe"]
    before = received(lab, "vps-a", "internet") + received(lab, "vps-b", "internet")
    talk(lab, "phone", member, MANY)
    assert received(lab, "vps-a", "internet") + received(lab, "vps-b", "internet") - before < MANY / 2


def test_since_is_the_time_of_the_present_way(lab: Lab) -> None:
    since = talk_until(lab, "nas", "pi", Way.LAN).since
    assert since is not None
    assert lab.facts["started"] < since
    lab.signal_service("pi", "tailnet", signal.SIGKILL)  # it is started again, and must be found anew
    wait_until(lambda: (talk_until(lab, "nas", "pi", Way.LAN).since or 0) > since, 90, "the way is a new one")


def test_a_home_that_gets_another_address_is_found_again(lab: Lab) -> None:
    """What a provider does at night: the router has a new address, and every flow through it is gone."""
    talk_until(lab, "phone", "nas", Way.DIRECT)
    before = lab["home-router"].address("internet")
    with lab.fault.change_address("home-router"):
        answers = ["ping", "-c", "1", "-W", "1", "nas.tailnet"]
        wait_until(lambda: lab["phone"].run(answers).returncode == 0, 60, "nas answers from its new address")
        there, _ = talk_until(lab, "phone", "nas", Way.DIRECT).views
        assert there is not None
        assert there.endpoint is not None
        assert there.owner == "home-router"
        assert not there.endpoint.startswith(f"{before}:")


def test_neighbours_find_each_other_with_the_internet_cut(lab: Lab) -> None:
    """A cold start: both begin anew while no lighthouse can be reached."""
    with lab.fault.kill("home-router"):
        for node in ("nas", "laptop"):
            begin_anew(lab, node)
        is_there = ["ping", "-c", "1", "-W", "1", "laptop.tailnet"]
        wait_until(lambda: lab["nas"].run(is_there).returncode == 0, 60, "nas and laptop find each other")
        wait_until(partial(has_way, lab, "nas", "laptop", Way.LAN), 60, "both ends use their LAN")
        paths = mesh_paths(lab)
        assert paths.between("nas", "vps-a").views[0].way is Way.NONE  # type: ignore[union-attr]
    wait_until(lambda: mesh_paths(lab).between("nas", "vps-a").way is Way.DIRECT, 90, "the lighthouse is found again")


def begin_anew(lab: Lab, node: str) -> None:
    """Kill a member's program and wait until it is started again."""
    before = restarts(lab, node)
    lab.signal_service(node, "tailnet", signal.SIGKILL)
    wait_until(lambda: restarts(lab, node) > before, 60, f"nebula of {node} is started again")


def restarts(lab: Lab, node: str) -> int:
    (state,) = (state for state in lab.services() if (state["node"], state["service"]) == (node, "tailnet"))
    count: int = state["restarts"]
    return count
