"""Ask all members of a running mesh at once, each by its own program, and put their answers together."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING, Any

from lab.errors import LabError, ProbeError, UsageError
from lab.mesh import nebula, wireguard
from lab.mesh.paths import MeshPaths, gathered
from lab.mesh.underlay import Underlay

if TYPE_CHECKING:
    from lab.mesh.paths import Answers
    from lab.realise.lab import Lab
    from lab.realise.running import Process

_PROGRAMS = {"nebula": nebula, "wireguard": wireguard}

TIMEOUT = 15.0  # seconds for each member to answer


def mesh_paths(lab: Lab, name: str | None = None) -> MeshPaths:
    """The way between each two members of a mesh, as both ends say; `name` if the lab has several.

    Raises:
        UsageError: the lab has no such mesh, or several and none was named.
    """
    facts = lab.ask({"ask": "inspect"})[0]
    mesh = chosen(facts, name)
    program = _PROGRAMS[mesh["driver"]]
    answers = _answers(lab, [member["node"] for member in mesh["members"]], program.question(mesh))
    views = program.views(answers, lambda node: lab.log(node, mesh["name"]), mesh, Underlay(facts))
    return gathered(facts["name"], mesh, views)


def chosen(facts: dict[str, Any], name: str | None) -> dict[str, Any]:
    """The facts of a mesh.

    Raises:
        UsageError: no such mesh, or several and none was named.
    """
    meshes: list[dict[str, Any]] = facts["meshes"]
    known = ", ".join(mesh["name"] for mesh in meshes) or "none"
    if name is None and len(meshes) == 1:
        return meshes[0]
    if name is None:
        remedy = "name one of them" if meshes else "`mesh:` in a topology makes one"
        raise UsageError(f"lab {facts['name']} has {len(meshes)} meshes, not one: {known}; {remedy}")
    for mesh in meshes:
        if mesh["name"] == name:
            return mesh
    raise UsageError(f"no mesh {name!r} in lab {facts['name']}; it has {known}")


def _answers(lab: Lab, nodes: list[str], question: list[str]) -> Answers:
    """All are asked at once; one that fails or hangs is an answer too."""
    asked: dict[str, Process | LabError] = {}
    answers: Answers = {}
    with contextlib.ExitStack() as stack:
        for node in nodes:
            try:
                process = lab[node].start(question, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                asked[node] = stack.enter_context(process)
            except LabError as error:
                asked[node] = error
        for node, started in asked.items():
            answers[node] = started if isinstance(started, LabError) else _answer(started)
    return answers


def _answer(process: Process) -> str | LabError:
    try:
        said, complaint = process.communicate(None, TIMEOUT)
        code = process.wait(TIMEOUT)
    except (TimeoutError, LabError) as error:
        return ProbeError(str(error))
    return ProbeError(complaint.strip() or f"ended with status {code}") if code else said
