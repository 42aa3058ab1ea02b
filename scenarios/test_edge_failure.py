"""A star has a middle: what happens to a homelab when an edge goes, and when what stands behind it goes.

phone -- internet -- vps-a, vps-b   <==ssh -R==   nas -- home-router(NAT) -- isp(NAT) -- internet
                     (edgeproxy)    <==mesh==>    (edgeproxy)
"""

from __future__ import annotations

import signal
import subprocess
from typing import Any

import pytest

from lab import Lab, wait_until
from scenarios.access_lines import at_an_edge, joined

pytestmark = pytest.mark.topology("homelab_ssh")

FROM_HERE = "https://here.nas.example.net/"
PATIENCE = 60.0  # seconds
CUT_OFF = 35  # curl: no TLS, for the connection ended


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
        lab[online].run(["ping", "-c", "1", "-W", "20", lab["stranger"].address()], check=True)


def test_a_tunnel_that_died_is_built_again(lab: Lab) -> None:
    before = _service(lab, "nas", "to-vps-a")
    lab.signal_service("nas", "to-vps-a", signal.SIGKILL)
    wait_until(
        lambda: _service(lab, "nas", "to-vps-a")["restarts"] > before["restarts"], PATIENCE, "it is started again"
    )
    wait_until(lambda: _service(lab, "nas", "to-vps-a")["state"] == "ready", PATIENCE, "the tunnel is ready again")
    resolve = f"here.nas.example.net:443:{lab['vps-a'].address()}"
    answer = lab["phone"].run(["curl", "-sS", "--resolve", resolve, FROM_HERE], check=True)
    assert answer.stdout.startswith("nas served")


@pytest.mark.topology("homelab")
@pytest.mark.parametrize("what", ["vps-a", "vps-a/edge"])
def test_one_edgeproxy_serves_when_the_other_is_gone(lab: Lab, what: str) -> None:
    """Its machine without power, or its program alone: clients take the other address of the name."""
    with lab.fault.kill(what):
        for number in range(4):  # whichever address is first
            asked = ["curl", "-sS", "--connect-timeout", "12", f"https://try-{number}.nas.example.net/"]
            answer = lab["phone"].run(asked, check=True)
            assert answer.stdout.split()[-1] == lab["cafe"].address("internet")
            assert joined(lab, "nas", server_name=f"try-{number}.nas.example.net").edge["original_dst"] == _at(
                lab, "vps-b"
            )


@pytest.mark.topology("homelab")
def test_a_connection_through_the_other_edge_goes_on(lab: Lab) -> None:
    words = ["ssh", "-p", "2222", "vps-b.example.net", "cat"]
    with lab["phone"].start(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as session:
        assert session.stdin is not None
        assert session.stdout is not None
        for word in ("before\n", "after\n"):
            session.stdin.write(word)
            session.stdin.flush()
            assert session.stdout.readline() == word
            if word == "before\n":
                lab.fault.kill("vps-a")


@pytest.mark.topology("homelab")
def test_a_service_that_is_gone_is_refused_at_once_and_its_neighbours_on_the_port_are_served(lab: Lab) -> None:
    edge = lab["vps-a"].address()
    with lab.fault.kill("nas/web"):
        asked = ["curl", "-sS", "--resolve", f"gone.nas.example.net:443:{edge}"]
        refused = lab["phone"].run([*asked, "https://gone.nas.example.net/"])
        assert refused.returncode == CUT_OFF
        found = joined(lab, "nas", server_name="gone.nas.example.net")
        assert (found.home["close"], found.home["rule"]) == ("backend_refused", "tls")
        assert lab["phone"].run(["ssh", "-p", "2222", "vps-a.example.net", "hostname"], check=True).stdout == "nas\n"
    assert lab["phone"].run(["curl", "-sS", FROM_HERE], check=True).stdout.startswith("nas served")


@pytest.mark.topology("homelab")
@pytest.mark.parametrize(
    ("what", "reasons"),
    [("nas/home", {"backend_refused"}), ("nas", {"backend_timeout", "backend_unreachable"})],
)
def test_a_home_host_that_is_gone_is_refused_with_its_reason_and_the_others_are_served(
    lab: Lab, what: str, reasons: set[str]
) -> None:
    with lab.fault.kill(what):
        assert (
            lab["phone"].run(["curl", "-sS", "--max-time", "20", "https://gone.nas.example.net/"]).returncode == CUT_OFF
        )
        assert at_an_edge(lab, server_name="gone.nas.example.net")["close"] in reasons
        assert lab["phone"].run(["curl", "-sS", "https://x.pi.example.net/"], check=True).stdout.startswith("pi served")
    wait_until(
        lambda: lab["phone"].run(["curl", "-sS", "--max-time", "5", FROM_HERE]).returncode == 0, 60, "nas is back"
    )


def _at(lab: Lab, edge: str) -> str:
    return f"{lab[edge].address('internet')}:443"


def _stop_web_of(lab: Lab, edge: str) -> None:
    lab.signal_service(edge, "edge", signal.SIGTERM)
    wait_until(lambda: _service(lab, edge, "edge")["state"] == "ended", PATIENCE, f"the web of {edge} has ended")


def _service(lab: Lab, node: str, name: str) -> dict[str, Any]:
    (found,) = [s for s in lab.services() if (s["node"], s["service"]) == (node, name)]
    return found
