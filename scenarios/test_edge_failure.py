"""A star has a middle: what happens to a homelab behind `ssh -R` when an edge goes.

phone -- internet -- vps-a, vps-b   <==ssh -R==   nas -- home-router(NAT) -- isp(NAT) -- internet
"""

from __future__ import annotations

import signal
from typing import Any

import pytest

from lab import Lab, wait_until

pytestmark = pytest.mark.topology("homelab_ssh")

FROM_HERE = "https://here.nas.example.net/"


def test_the_other_edge_serves_when_one_is_gone(lab: Lab) -> None:
    _stop_web_of(lab, "vps-a")
    with pytest.raises(ConnectionRefusedError):
        lab["phone"].connect((lab["vps-a"].address(), 443))
    answer = lab["phone"].run(["curl", "-sS", FROM_HERE], check=True)
    assert answer.stdout.startswith("nas served")


def test_without_any_edge_home_and_phone_are_online_and_apart(lab: Lab) -> None:
    for edge in ("vps-a", "vps-b"):
        _stop_web_of(lab, edge)
    assert lab["phone"].run(["curl", "-sS", FROM_HERE]).returncode != 0
    for online in ("phone", "nas"):
        lab[online].run(["ping", "-c", "1", "-W", "2", lab["stranger"].address()], check=True)


def test_a_tunnel_that_died_is_built_again(lab: Lab) -> None:
    before = _service(lab, "nas", "to-vps-a")
    lab.signal_service("nas", "to-vps-a", signal.SIGKILL)
    wait_until(lambda: _service(lab, "nas", "to-vps-a")["restarts"] > before["restarts"], 5, "it is started again")
    wait_until(lambda: _service(lab, "nas", "to-vps-a")["state"] == "ready", 10, "the tunnel is ready again")
    resolve = f"here.nas.example.net:443:{lab['vps-a'].address()}"
    answer = lab["phone"].run(["curl", "-sS", "--resolve", resolve, FROM_HERE], check=True)
    assert answer.stdout.startswith("nas served")


def _stop_web_of(lab: Lab, edge: str) -> None:
    lab.signal_service(edge, "edge", signal.SIGTERM)
    wait_until(lambda: _service(lab, edge, "edge")["state"] == "ended", 5, f"the web of {edge} has ended")


def _service(lab: Lab, node: str, name: str) -> dict[str, Any]:
    (found,) = [s for s in lab.services() if (s["node"], s["service"]) == (node, name)]
    return found
