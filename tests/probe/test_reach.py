"""Reachability of a real lab, each outcome asserted against what the topology and its rulesets say.

outside --- wan 198.51.100.0/24 (no IPv6 but on a path of its own) --- router (NAT, drops) --- lan --- inside
   |                                                                     |
rejecting, dropping (firewalls of their own)                            six (IPv6 only, by a cable to outside)
"""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lab.errors import RealiseError, UsageError
from lab.probe.outcome import Attempt, Outcome, most_telling
from lab.probe.reach import Answer, Reachability, reach
from lab.realise import registry
from lab.realise.lab import Lab

RESPONDER = """\
import socket
sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
sock.bind(("::", 53))
print("ready", flush=True)
while True:
    query, client = sock.recvfrom(512)
    print(len(query), query[12:26], flush=True)
    sock.sendto(query[:2] + b"\\x84\\x05" + query[4:], client)
"""
LIAR = RESPONDER.replace("query[:2]", "bytes([query[0] ^ 255, query[1]])")  # its answers are to other questions
SINK = """\
import socket
sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
sock.bind(("::", 5000))
print("ready", flush=True)
while True:
    datagram, client = sock.recvfrom(512)
    if b"echo" in datagram or REPLY:
        sock.sendto(datagram, client)
"""
WEB = {"run": "python3 -m http.server --bind :: 80", "ready": {"tcp": 80}}


def python(script: str, *ports: str) -> dict[str, Any]:
    return {"run": ["python3", "-uc", script], "ready": {"log": "^ready"}, "ports": list(ports)}


TOPOLOGY: dict[str, Any] = {
    "networks": {
        "wan": {"prefixes": ["198.51.100.0/24"], "internet": True},
        "lan": {"prefixes": ["192.168.1.0/24"]},
        "cable": {"prefixes": ["2001:db8:6::/64"], "point_to_point": True},
    },
    "nodes": {
        "router": {"role": "router", "links": {"wan": "198.51.100.1", "lan": "192.168.1.1"}, "nat": {"outside": "wan"}},
        "outside": {
            "links": {"wan": "198.51.100.10", "cable": "auto"},
            "services": {
                "web": WEB,
                "dns": python(RESPONDER, "udp/53"),
                "echo": python(SINK.replace("REPLY", "True"), "udp/5000"),
                "off": {"run": "sleep 1000", "ports": ["tcp/81", "udp/81"]},
            },
        },
        "inside": {
            "links": {"lan": "192.168.1.10"},
            "services": {"web": WEB, "sink": python(SINK.replace("REPLY", "False"), "udp/5000")},
        },
        "six": {"links": {"cable": "auto"}, "services": {"web": WEB, "dns": python(LIAR, "udp/53")}},
        "rejecting": {"links": {"wan": "198.51.100.20"}, "services": {"web": WEB}, "firewall": {"input": "reject"}},
        "dropping": {
            "links": {"wan": "198.51.100.30"},
            "services": {"web": WEB},
            "firewall": {"input": "drop", "allow": [{"icmp": True}]},
        },
    },
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("reach")
    with Lab.up(written(folder, TOPOLOGY), name=f"reach-{worker_id}-{folder.stat().st_ino}") as lab:
        yield lab


@pytest.fixture(scope="module")
def measured(lab: Lab) -> Reachability:
    return reach(lab, timeout=5.0)


CASES = [
    # from, to, service, protocol and port, version, outcome
    ("inside", "outside", "web", "tcp/80", 4, Outcome.REACHED),  # through the NAT
    ("router", "outside", "web", "tcp/80", 4, Outcome.REACHED),
    ("outside", "inside", "web", "tcp/80", 4, Outcome.UNREACHABLE),  # no route to a private address
    ("outside", "outside", "web", "tcp/80", 4, Outcome.REACHED),  # itself
    ("inside", "outside", "off", "tcp/81", 4, Outcome.REFUSED),
    ("inside", "outside", "off", "udp/81", 4, Outcome.REFUSED),
    ("six", "outside", "web", "tcp/80", 6, Outcome.REACHED),  # IPv6 only
    ("six", "outside", "off", "tcp/81", 6, Outcome.REFUSED),
    ("six", "outside", "off", "udp/81", 6, Outcome.REFUSED),
    ("six", "outside", "web", "tcp/80", 4, Outcome.UNREACHABLE),
    ("six", "inside", "web", "tcp/80", 6, Outcome.NOT_ASKED),  # it has no IPv6 address
    ("inside", "six", "web", "tcp/80", 6, Outcome.UNREACHABLE),
    ("inside", "six", "web", "tcp/80", 4, Outcome.NOT_ASKED),
    ("outside", "rejecting", "web", "tcp/80", 4, Outcome.REFUSED),
    ("inside", "rejecting", "web", "tcp/80", 4, Outcome.REFUSED),
    ("rejecting", "rejecting", "web", "tcp/80", 4, Outcome.REACHED),
    ("outside", "dropping", "web", "tcp/80", 4, Outcome.FILTERED),
    ("inside", "dropping", "web", "tcp/80", 4, Outcome.FILTERED),
    ("dropping", "dropping", "web", "tcp/80", 4, Outcome.REACHED),
    ("inside", "outside", "dns", "udp/53", 4, Outcome.REACHED),
    ("six", "outside", "dns", "udp/53", 6, Outcome.REACHED),
    ("outside", "six", "dns", "udp/53", 6, Outcome.FILTERED),  # answers, but not to our question
    ("inside", "outside", "echo", "udp/5000", 4, Outcome.REACHED),
    ("router", "inside", "sink", "udp/5000", 4, Outcome.NO_ANSWER),
    ("outside", "inside", "sink", "udp/5000", 4, Outcome.UNREACHABLE),
    ("outside", "dropping", "", "icmp", 4, Outcome.REACHED),
    ("outside", "rejecting", "", "icmp", 4, Outcome.UNREACHABLE),
    ("outside", "router", "", "icmp", 4, Outcome.FILTERED),  # NAT drops what comes from its outside
    ("inside", "router", "", "icmp", 4, Outcome.REACHED),
    ("inside", "outside", "", "icmp", 4, Outcome.REACHED),
    ("six", "outside", "", "icmp", 6, Outcome.REACHED),
    ("outside", "six", "", "icmp", 6, Outcome.REACHED),
    ("six", "inside", "", "icmp", 4, Outcome.UNREACHABLE),
]


@pytest.mark.essential
@pytest.mark.parametrize(("source", "node", "service", "port", "version", "expected"), CASES)
def test_each_outcome_is_what_the_topology_says(
    measured: Reachability, source: str, node: str, service: str, port: str, version: int, expected: Outcome
) -> None:
    answer = found(measured, source, node, service, port, version)
    assert answer.outcome is expected, answer


def test_the_cases_cover_every_outcome() -> None:
    assert {case[5] for case in CASES} == set(Outcome)


def test_the_matrix_is_whole(measured: Reachability, lab: Lab) -> None:
    ports = sum(len(service["ports"]) for node in lab.facts["nodes"] for service in node["services"])
    nodes = len(lab.nodes)
    assert (ports, nodes) == (11, 6)
    assert len(measured.answers) == 2 * (nodes * ports + nodes * (nodes - 1))
    assert measured.sources == tuple(lab.nodes)


def test_what_was_reached_has_a_time_and_an_address(measured: Reachability) -> None:
    answer = found(measured, "inside", "outside", "web", "tcp/80", 4)
    assert answer.best is not None
    assert answer.best.address == "198.51.100.10"
    assert answer.best.milliseconds is not None
    assert 0 < answer.best.milliseconds < 60_000


def test_what_was_not_asked_has_no_attempt(measured: Reachability) -> None:
    answer = found(measured, "inside", "six", "web", "tcp/80", 4)
    assert (answer.attempts, answer.best) == ((), None)


def test_the_dns_question_is_a_real_one(lab: Lab, measured: Reachability) -> None:
    assert measured.answers
    assert (
        lab["outside"].log("dns").splitlines()[1]
        == f"30 {bytes([7]) + b'version' + bytes([4]) + b'bind' + bytes([0])!r}"
    )


def test_only_the_named_sources_ask(lab: Lab) -> None:
    only = reach(lab, timeout=0.2, sources=["six", "inside"])
    assert only.sources == ("six", "inside")
    assert {answer.question.source for answer in only.answers} == {"six", "inside"}
    with pytest.raises(UsageError, match="no node 'seven'"):
        reach(lab, sources=["seven"])


def test_silence_lasts_as_long_as_was_asked_for(lab: Lab) -> None:
    import time

    for timeout in (0.2, 0.7):
        began = time.monotonic()
        reach(lab, timeout=timeout, sources=["outside"])
        assert timeout <= time.monotonic() - began < timeout + 60


def test_few_descriptors_only_make_it_slower(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from lab.probe import reach as module

    monkeypatch.setattr(module, "_most_at_once", lambda: 3)
    few = reach(lab, timeout=5.0, sources=["six"])
    assert found(few, "six", "outside", "web", "tcp/80", 6).outcome is Outcome.REACHED


def test_no_socket_is_left_open(lab: Lab) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    reach(lab, timeout=0.2, sources=["outside"])
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 0


def kill(lab: Lab) -> None:
    os.kill(registry.supervisor_of(lab._channel), signal.SIGKILL)


@pytest.mark.essential
@pytest.mark.single_id
@pytest.mark.parametrize("end", [Lab.down, kill])
def test_the_end_of_the_lab_is_not_taken_for_silence(
    end: Callable[[Lab], None], tmp_path: Path, worker_id: str
) -> None:
    """It ends when all is asked and only silence is left to wait for."""
    lan = {"lan": "auto"}
    nodes = {"silent": {"links": lan, "firewall": {"input": "drop"}}, "a": {"links": lan}, "b": {"links": lan}}
    file = written(tmp_path, {"networks": {"lan": {"prefixes": ["192.0.2.0/24"]}}, "nodes": nodes})
    name = f"reach-{worker_id}-{tmp_path.stat().st_ino}"
    with Lab.up(file, name=name) as other, closing(Lab(name)) as lab:
        before = len(list(Path("/proc/self/fd").iterdir()))
        told: list[tuple[int, int]] = []

        def progress(done: int, total: int) -> None:
            told.append((done, total))
            if done == 1:
                end(other)

        with pytest.raises(RealiseError, match="the lab has ended"):
            reach(lab, timeout=60, sources=["a"], progress=progress)
        assert told == [(1, 2)]
        assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_what_cannot_be_asked_is_never_a_no() -> None:
    asked = Attempt.failed("192.0.2.1", 22)  # EINVAL says nothing of the target
    assert asked.outcome is Outcome.NOT_ASKED
    assert asked.detail == "Invalid argument"


def test_reached_by_any_address_is_reached() -> None:
    attempts = tuple(Attempt(str(number), outcome, None, "") for number, outcome in enumerate(reversed(Outcome)))
    best = most_telling(attempts)
    assert best is not None
    assert best.outcome is Outcome.REACHED
    assert most_telling(()) is None


def found(measured: Reachability, source: str, node: str, service: str, port: str, version: int) -> Answer:
    protocol, _, number = port.partition("/")
    (answer,) = (
        answer
        for answer in measured.answers
        if (answer.question.source, answer.question.version) == (source, version)
        and (answer.question.target.node, answer.question.target.service) == (node, service)
        and (answer.question.target.protocol, answer.question.target.port) == (protocol, int(number or 0) or None)
    )
    return answer


def written(folder: Path, topology: dict[str, Any]) -> Path:
    file = folder / "topology.yaml"
    file.write_text(json.dumps(topology))
    return file
