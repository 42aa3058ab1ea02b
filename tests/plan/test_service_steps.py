"""Services in a plan: every key of the language arrives in its step, with the keys and certificates it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.plan.build import build
from lab.plan.step import Certificate, CreateCertificates, CreateSshKeys, Plan, Ready, SshServer, StartService
from lab.topology.load import load_topology

Planned = Callable[[str], Plan]
PLAIN = StartService(
    node="n",
    service="s",
    argv=("sleep", "60"),
    files=(),
    user="",
    environment=(),
    restart="never",
    after=(),
    ready=Ready("started"),
    ready_timeout=10.0,
    changes_user=False,
)


@pytest.fixture
def plan_of(tmp_path: Path) -> Planned:
    def planned(text: str) -> Plan:
        (tmp_path / "t.yaml").write_text(text)
        return build(load_topology(tmp_path / "t.yaml"))

    return planned


@pytest.mark.parametrize(
    ("keys", "changed"),
    [
        ("", {}),
        ("user: nobody", {"user": "nobody"}),
        ("env: {A: 1, B: two words}", {"environment": (("A", "1"), ("B", "two words"))}),
        ("restart: always", {"restart": "always"}),
        ("restart: on-failure", {"restart": "on-failure"}),
        ("after: [t]", {"after": ("n/t",)}),
        ("files: {a/b: {text: hello}}", {"files": (("a/b", "hello"),)}),
        ("ready: {tcp: 80}", {"ready": Ready("port", "n", "tcp", 80)}),
        ("ready: {udp: 53, node: m}", {"ready": Ready("port", "m", "udp", 53)}),
        ('ready: {tcp: "127.0.0.1:80"}', {"ready": Ready("port", "n", "tcp", 80, "127.0.0.1")}),
        ("ready: {log: ^up$}", {"ready": Ready("log", pattern="^up$")}),
        ("ready: {run: test -e x}", {"ready": Ready("command", argv=("test", "-e", "x"))}),
        ("ready: {log: up, timeout: 500ms}", {"ready": Ready("log", pattern="up"), "ready_timeout": 0.5}),
    ],
)
def test_every_key_arrives_in_the_step(plan_of: Planned, keys: str, changed: dict[str, Any]) -> None:
    plan = plan_of(f"nodes: {{n: {{services: {{t: {{run: 'true'}}, s: {{run: sleep 60, {keys}}}}}}}, m: {{}}}}")
    (step,) = (step for step in plan.steps if isinstance(step, StartService) and step.service == "s")
    assert step == replace(PLAIN, **changed)


def test_programs_that_change_user_say_so(plan_of: Planned) -> None:
    plan = plan_of("nodes: {n: {services: {ssh: {use: sshd}, s: {run: sleep 60}}}}")
    steps = {step.service: step.changes_user for step in plan.steps if isinstance(step, StartService)}
    assert steps == {"ssh": True, "s": False}


def test_an_ssh_server_is_known_by_all_its_names_and_has_its_clients(plan_of: Planned) -> None:
    plan = plan_of(
        "networks: {lan: {prefixes: [192.0.2.0/24, '2001:db8::/64']}}\n"
        "nodes: {n: {links: {lan: auto}, services: {ssh: {use: sshd, authorized: [m, n]}}}, m: {links: {lan: auto}}}"
    )
    (keys,) = (step for step in plan.steps if isinstance(step, CreateSshKeys))
    assert keys.servers == (SshServer("n", ("n", "192.0.2.1", "2001:db8::1"), ("m", "n")),)


def test_a_certificate_is_made_for_who_asks(plan_of: Planned) -> None:
    plan = plan_of(
        "nodes: {n: {services: {s: {run: sleep 60, tls: [a.example.net, 192.0.2.1]}, plain: {run: sleep 60}}}}"
    )
    (step,) = (step for step in plan.steps if isinstance(step, CreateCertificates))
    assert step.certificates == (Certificate("n", "s", ("a.example.net", "192.0.2.1")),)


def test_where_nobody_needs_keys_none_are_made(plan_of: Planned) -> None:
    steps = plan_of("nodes: {n: {services: {s: {run: sleep 60}}}}").steps
    assert not [step for step in steps if isinstance(step, CreateSshKeys | CreateCertificates)]
