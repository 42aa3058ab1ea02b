"""Flows of one client's socket, in one worker, do not wait for each other: behind a slow way, or a silent resolver."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dns.message
import dns.rdatatype
import dns.rrset
import pytest

from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from lab.realise.node import Node
from tests.proxy.conftest import Start
from tests.proxy.running import DEADLINE, running_in
from tests.proxy.udp_bench import Address, drops, flows, heard, met, silent, udp, wait_drops
from tests.realise.conftest import Up

TOPOLOGY = """
networks:
  outside: {prefixes: [192.0.2.0/24]}
  inside: {prefixes: [10.0.0.0/24]}
nodes:
  client: {links: {outside: [192.0.2.7]}}
  home: {links: {outside: [192.0.2.1], inside: [10.0.0.1]}}
  service: {links: {inside: [10.0.0.9]}}
"""
TEXT = """
workers = 1
[listener.in]
udp = ["AT:8443", "AT:8444"]
[[rule]]
ports = [8443]
to = "slow"
[[rule]]
to = "prompt"
[backend.slow]
targets = ["SLOW:9001"]
[backend.prompt]
targets = ["PROMPT:9002"]
[timeouts]
udp_idle = "1h"
udp_one_way = "1h"
"""
ECHOES = 30


@pytest.fixture(scope="module")
def lab(module_up: Up) -> Lab:
    return module_up(TOPOLOGY)


def is_prompt(client: socket.socket, at: str, backend: socket.socket) -> None:
    """Each datagram of the flow is there and back before the next one is sent."""
    for number in range(ECHOES):
        client.sendto(b"%d?" % number, (at, 8444))
        asked, sender = heard(backend)
        assert asked == b"%d?" % number
        backend.sendto(b"%d!" % number, sender)
        assert heard(client) == (b"%d!" % number, (at, 8444))


@contextmanager
def narrow(node: Node, device: str) -> Iterator[None]:
    """A device that passes on 10 kbit/s, and keeps all else waiting: one datagram of a kilobyte is almost a second."""
    rate = ["rate", "10kbit", "burst", "2000", "limit", "100mb"]
    made = node.run(["tc", "qdisc", "replace", "dev", device, "root", "tbf", *rate])
    if "qdisc kind is unknown" in made.stderr:
        pytest.skip("the kernel has no sch_tbf")
    assert made.returncode == 0, made.stderr
    try:
        yield
    finally:
        node.run(["tc", "qdisc", "delete", "dev", device, "root"], check=True)


def test_a_flooded_flow_with_a_slow_way_loses_its_own_datagrams_and_holds_up_no_other(lab: Lab, folder: Path) -> None:
    text = TEXT.replace("AT:", "192.0.2.1:").replace("SLOW", "10.0.0.9").replace("PROMPT", "127.0.0.1")
    with ExitStack() as stack:
        proxy = stack.enter_context(running_in(lab["home"], text, "127.0.0.1", folder))
        slow = stack.enter_context(lab["service"].udp(9001, "10.0.0.9", timeout=DEADLINE))
        prompt = stack.enter_context(lab["home"].udp(9002, "127.0.0.1", timeout=DEADLINE))
        client = stack.enter_context(lab["client"].udp(0, "192.0.2.7", timeout=DEADLINE))
        is_prompt(client, "192.0.2.1", prompt)
        client.sendto(b"first", ("192.0.2.1", 8443))
        assert heard(slow)[0] == b"first"
        before = ECHOES + 1
        with narrow(lab["home"], "inside"):
            received = 0
            for sent in range(20, 1000, 20):
                for _ in range(20):  # no more than a socket of the proxy's takes at once
                    client.sendto(bytes(1000), ("192.0.2.1", 8443))
                wait_until(lambda goal=before + sent: met(proxy) == goal, DEADLINE, "all are met")  # type: ignore[misc]
                if drops(proxy):
                    break
            is_prompt(client, "192.0.2.1", prompt)
            for _ in range(20):
                client.sendto(bytes(1000), ("192.0.2.1", 8443))
            wait_until(lambda: met(proxy) == before + sent + 20 + ECHOES, DEADLINE, "all are met")
            is_prompt(client, "192.0.2.1", prompt)
            lost = drops(proxy)
            assert set(lost) == {"send_buffer"}
            while not silent(slow):
                received += len(heard(slow)[0]) == 1000
            assert received < sent + 20 - lost["send_buffer"], "there are still some that wait"
        # What waited has gone with the queue.
        client.sendto(b"last", ("192.0.2.1", 8443))
        while (datagram := heard(slow)[0]) != b"last":
            assert len(datagram) == 1000
        assert flows(proxy) == 2
        assert drops(proxy) == lost


class Resolver:
    """A name server that says nothing of one name until it is told to."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self.unanswered: list[tuple[dns.message.Message, Address]] = []

    def serve(self) -> None:
        """Answers until something comes that is empty."""
        while (said := heard(self._end))[0]:
            datagram, sender = said
            question = dns.message.from_wire(datagram)
            if "slow" in str(question.question[0].name).lower():
                self.unanswered.append((question, sender))
            else:
                self._answer(question, sender)

    def _answer(self, question: dns.message.Message, to: Address) -> None:
        answer = dns.message.make_response(question, recursion_available=True)
        (asked,) = question.question
        if asked.rdtype == dns.rdatatype.A:
            answer.answer.append(dns.rrset.from_text(asked.name, 60, "IN", "A", self._end.getsockname()[0]))
        self._end.sendto(answer.to_wire(), to)

    def answer(self) -> None:
        for question, to in self.unanswered:
            self._answer(question, to)


@contextmanager
def resolving(address: str) -> Iterator[Resolver]:
    with udp(address, 5353) as end:
        end.settimeout(None)
        resolver = Resolver(end)
        thread = threading.Thread(target=resolver.serve)
        thread.start()
        try:
            yield resolver
        finally:
            end.sendto(b"", end.getsockname())
            thread.join()


def test_a_flow_whose_name_no_resolver_answers_for_holds_up_no_other(start: Start) -> None:
    text = TEXT.replace("AT:", "HERE:").replace("SLOW", "slow.test").replace("PROMPT", "prompt.test")
    text += '[resolver]\nservers = ["HERE:5353"]\ntimeout = "60s"\n[targets]\nallow = ["HERE/32"]\n'
    proxy = start(text)
    with ExitStack() as stack:
        resolver = stack.enter_context(resolving(proxy.here))
        slow, prompt = (stack.enter_context(udp(proxy.here, port)) for port in (9001, 9002))
        client = stack.enter_context(udp(proxy.here))
        client.sendto(b"first", (proxy.here, 8443))
        wait_until(lambda: resolver.unanswered, DEADLINE, "it is asked for the name")
        for _ in range(20):
            client.sendto(bytes(1000), (proxy.here, 8443))
        wait_drops(proxy, {"held_too_many": 5})
        is_prompt(client, proxy.here, prompt)
        assert silent(slow)
        resolver.answer()
        assert [heard(slow)[0] for _ in range(16)] == [b"first", *[bytes(1000)] * 15], "as many as 16 KiB"
