"""A laptop leaves home for the café and comes back: its address in the mesh stays, the way changes with the place.

nas, laptop -- home-router(NAT) -- internet (vps-a, vps-b) -- cafe(NAT) -- phone
"""

from __future__ import annotations

import pytest

from lab import Lab, Way, wait_until
from scenarios.mesh_traffic import ARRIVING, MANY, received, talk, talk_until

pytestmark = [pytest.mark.topology("mesh"), pytest.mark.essential]

PATIENCE = 90.0  # seconds; nebula needs three to find a tunnel dead, and some to find the new way


def test_the_way_changes_with_the_place_and_the_address_stays(lab: Lab) -> None:
    address = lab["laptop"].address("tailnet")
    talk_until(lab, "laptop", "nas", Way.LAN)

    lab.move("laptop", "cafe-lan")
    wait_until_it_answers(lab)
    pair = talk_until(lab, "laptop", "nas", Way.DIRECT)
    assert [view.owner for view in pair.views if view] == ["home-router", "cafe"]
    talk_until(lab, "laptop", "phone", Way.LAN)  # a neighbour that nobody told it of
    before = received(lab, "home-router", "internet")
    talk(lab, "laptop", "nas", MANY)
    assert received(lab, "home-router", "internet") - before >= ARRIVING * MANY

    lab.move("laptop", "home")
    wait_until_it_answers(lab)
    talk_until(lab, "laptop", "nas", Way.LAN)
    before = received(lab, "home-router", "internet")
    talk(lab, "laptop", "nas", MANY)
    assert received(lab, "home-router", "internet") - before < MANY / 2  # members report to the lighthouses
    assert lab["laptop"].address("tailnet") == address


def wait_until_it_answers(lab: Lab) -> None:
    question = ["ping", "-c", "1", "-W", "1", "nas.tailnet"]
    wait_until(lambda: lab["laptop"].run(question).returncode == 0, PATIENCE, "nas answers where the laptop is")
