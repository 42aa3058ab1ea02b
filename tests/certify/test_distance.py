"""A NAT at the end of a long and lossy link is certified as it is: the probes wait, repeat, and count what got lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lab.certify.certify import certify_nat
from lab.realise.lab import Lab

pytestmark = pytest.mark.alone

TOPOLOGY = """
networks:
  internet: {prefixes: [198.51.100.0/24]}
  home: {prefixes: [192.168.1.0/24]}
  den: {prefixes: [192.168.2.0/24]}
nodes:
  lossy:
    role: router
    links: {internet: {delay: 20ms, jitter: 5ms, loss: 3%}, home: auto}
    nat: {outside: internet, sessions: 100}
  far:
    role: router
    links: {internet: {delay: 150ms}, den: auto}
    nat: {outside: internet, preset: rfc}
"""


def test_distance_and_loss_change_no_verdict(module_up: Callable[..., Lab]) -> None:
    lossy, far = certify_nat(module_up(TOPOLOGY), patience=0.5)
    assert [(row.topic, row.measured) for row in (*lossy.rows, *far.rows) if row.verdict == "differs"] == []
    assert lossy.row("sessions of one host").measured == "100"
    assert far.row("hairpin").measured == "external_source"
    assert far.row("filtering").measured == "endpoint_independent"
    assert (lossy.failures, far.failures) == ((), ())
