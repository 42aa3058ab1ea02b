"""Every step says itself: all that a person must know of it is in its text, on one line but for rulesets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args

import pytest

from lab.plan.build import build
from lab.plan.render import to_text
from lab.plan.step import CreateSshKeys, LoadRuleset, Plan, ShareFile, SshServer, StartService, Step
from lab.topology.load import load_topology

GOLDEN = Path(__file__).parent / "golden"

# What a step's text leaves to `lab plan --json`: numbers that only the kernel reads, and the texts of files.
UNSAID = {
    *("index", "switch_index", "port_index", "a.index", "b.index"),
    *("text", "files.text"),
    *("changes_user", "servers.names"),
}
KINDS = get_args(Step)


def corpus() -> list[Step]:
    files = sorted(GOLDEN.glob("*.yaml"))
    return [step for file in files for step in build(load_topology(file)).steps]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_step_tells_all_that_distinguishes_it(kind: type[Step]) -> None:
    steps = [step for step in corpus() if type(step) is kind]
    assert steps, "no golden topology has such a step"
    for step in steps:
        told = step.describe()
        for path, other in changed(step):
            if path in UNSAID and not (kind is LoadRuleset and path == "text"):
                continue
            assert other.describe() != told, f"{path} is not told: {told}"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_step_is_one_line_but_for_rulesets(kind: type[Step]) -> None:
    for step in corpus():
        if type(step) is kind:
            assert ("\n" in step.describe()) == (kind is LoadRuleset)


def changed(value: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """The value with each of its fields changed in turn, those of its parts too, and the field's path."""
    for field in fields(value):
        path, content = f"{before}{field.name}", getattr(value, field.name)
        if is_dataclass(content):
            for inner, other in changed(content, f"{path}."):
                yield inner, replace(value, **{field.name: other})
        elif isinstance(content, tuple) and content and is_dataclass(content[0]):
            for inner, other in changed(content[0], f"{path}."):
                yield inner, replace(value, **{field.name: (other, *content[1:])})
        elif field.name == "files":
            yield path, replace(value, files=(*content, ("another", "text")))
        elif field.name in ("environment", "sysctls"):
            yield path, replace(value, **{field.name: (*content, ("OTHER", "value"))})
        elif is_told(value, field.name):
            yield path, replace(value, **{field.name: another(content)})


def is_told(value: Any, name: str) -> bool:
    """Of a `Ready` only what its kind uses matters, and a service that is ready at once has no time limit."""
    used = {"port": ("kind", "node", "protocol", "port", "address"), "log": ("kind", "pattern"), "command": ("argv",)}
    if type(value).__name__ == "Ready":
        return name in used.get(value.kind, ())
    return not (isinstance(value, StartService) and name == "ready_timeout" and value.ready.kind == "started")


def another(content: Any) -> Any:
    match content:
        case bool():
            return not content
        case int() | float():
            return content + 1
        case str():
            return f"{content}x"
        case tuple():
            return ("other", *content)


def test_commands_are_quoted_as_a_shell_takes_them() -> None:
    (step,) = (step for step in corpus() if isinstance(step, StartService) and step.service == "web")
    assert "GREETING='hello services' LEVEL=3 sh -c 'exec python3 -m http.server 8080'" in step.describe()


def test_a_command_of_several_lines_is_told_on_one() -> None:
    (step,) = (step for step in corpus() if isinstance(step, StartService) and step.service == "watch")
    told = replace(step, argv=("sh", "-c", "echo one\necho two")).describe()
    assert "sh -c 'echo one\\necho two';" in told
    assert "\n" not in told


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        (("a",), "a"),
        (("a", "b", "c", "d"), "a, b, c, d"),
        (("a", "b", "c", "d", "e"), "a, b, c and 2 more"),
        (tuple(f"n{i}" for i in range(1000)), "n0, n1, n2 and 997 more"),
    ],
)
def test_many_nodes_are_counted(nodes: tuple[str, ...], said: str) -> None:
    assert ShareFile(nodes, "/etc/hosts", "x\n").describe() == f"write /etc/hosts of {said}: 1 line"


def test_a_server_without_clients_says_so() -> None:
    assert CreateSshKeys((SshServer("a", ("a",), ()),)).describe() == "create ssh keys: a lets in nobody"


def test_steps_are_numbered_from_one_and_aligned() -> None:
    step = ShareFile(("a",), "/etc/hosts", "")
    lines = to_text(Plan("x", (step,) * 10)).splitlines()
    assert lines[0] == "lab x: 10 steps"
    assert [line[:4] for line in lines[1:]] == [f"{number:>2}  " for number in range(1, 11)]
    assert to_text(Plan("x", ())) == "lab x: 0 steps\n"
