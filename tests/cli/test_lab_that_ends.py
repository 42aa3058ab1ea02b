"""Commands whose lab ends while they run: they say so, and nothing that they had begun to measure is believed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

TOPOLOGY = """
#   client --- lan --- router (NAT) --- wan --- server
networks: {lan: {prefixes: [192.0.2.0/24]}, wan: {prefixes: [198.51.100.0/24]}}
nodes:
  client: {links: {lan: auto}}
  router: {role: router, links: {wan: auto, lan: auto}, nat: {outside: wan}}
  server: {links: {wan: auto}, sysctls: {net.ipv4.icmp_echo_ignore_all: 1}}
"""


@pytest.mark.parametrize("words", [("reach", "--timeout", "60"), ("nat", "--patience", "60s")], ids=["reach", "nat"])
def test_what_measures_says_that_the_lab_has_ended(lab: Any, up: Callable[..., str], words: tuple[str, ...]) -> None:
    name = up(TOPOLOGY)
    with lab.start(*words, "--lab", name) as process:
        assert "/" in process.stderr.readline()  # after a second: it measures
        lab("down", name, code=0)
        said, complaints = process.communicate(timeout=50)  # it would wait for longer
    assert (process.returncode, said) == (1, "")
    assert complaints.endswith("lab: error: the lab has ended\n")
