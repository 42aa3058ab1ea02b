"""Write what shows why a test on a lab failed: per node what the kernel knows, the logs, the topology, the plan."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.certify.certify import certify_nat
from lab.certify.page import to_markdown as certificates_page
from lab.errors import LabError
from lab.plan.build import build
from lab.plan.render import to_text
from lab.report.index_page import NodeLine, Page, ServiceLine, to_markdown
from lab.report.node_evidence import QUESTIONS, answer
from lab.topology.load import load_topology

if TYPE_CHECKING:
    from lab.realise.lab import Lab
    from lab.realise.node import Node

LONGEST_FILE = 4 * 1024 * 1024  # bytes; of a longer one the end is kept
_TIME_FOR_ALL = 30.0  # seconds; nodes that are not asked by then are named
_PATIENCE = 0.5  # seconds that idle mappings are waited for: no test waits long for its evidence
_AT_ONCE = 8  # nodes
_LONGEST_FOLDER_NAME = 120
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.]*(?:(?:/|::)[A-Za-z0-9_][A-Za-z0-9_.]*)*")  # no "-": it stands for "/"


def write_evidence(lab: Lab, folder: Path, *, title: str = "", failure: str = "", notes: Sequence[str] = ()) -> Path:
    """Ask every node of a running lab and write the answers below `folder`; returns the page to read first.

    Args:
        lab: whose state it is.
        folder: made if it does not exist; files of an earlier writing are replaced.
        title: what failed, the test's name say.
        failure: its text, a traceback say.
        notes: lines of Markdown for the page, on files beside it say.

    Raises:
        OSError: the folder cannot be written. What cannot be learnt from the lab is noted, not raised.
    """
    writing = _Writing(folder, time.monotonic() + _TIME_FOR_ALL)
    writing.write("failure.txt", failure)
    files = [("the whole failure", "failure.txt"), *_written_plan(writing, Path(lab.facts["file"]), lab.name)]
    troubles, states = _states(lab)
    if not troubles:  # a lab that has ended cannot be asked
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            nodes = tuple(pool.map(writing.write_node, lab.nodes.values()))
        troubles += [f"{node.name} was not asked: {_TIME_FOR_ALL:g} s had passed" for node in nodes if not node.files]
        services = tuple(_service(writing, lab, state) for state in states)
        files += _certificates(writing, lab)  # last, for its probes leave traces in what was asked before
    else:
        nodes, services = (), ()
    page = Page(title, failure, lab.name, (*troubles, *notes), services, nodes, tuple(files))
    return writing.write("index.md", to_markdown(page))


def write_failure(folder: Path, title: str, failure: str, file: Path) -> Path:
    """The same for a lab that did not come up: the error's text, the topology file and its plan.

    Raises:
        OSError: the folder cannot be written.
    """
    writing = _Writing(folder, time.monotonic() + _TIME_FOR_ALL)
    writing.write("failure.txt", failure)
    files = (("the whole failure", "failure.txt"), *_written_plan(writing, file, None))
    page = Page(title, failure, file.stem, ("The lab did not come up.",), (), (), files)
    return writing.write("index.md", to_markdown(page))


def folder_name(title: str) -> str:
    """A folder's name for a test's: readable, safe, and its own even where two titles look alike."""
    if len(title) <= _LONGEST_FOLDER_NAME and _PLAIN.fullmatch(title):
        return title.replace("::", "--").replace("/", "-")
    digest = hashlib.sha256(title.encode(errors="replace")).hexdigest()[:8]
    name = re.sub("[^A-Za-z0-9._-]+", "-", title)[: _LONGEST_FOLDER_NAME - 9].strip("-.")
    return f"{name or 'test'}-{digest}"


@dataclass(frozen=True, slots=True)
class _Writing:
    """A folder being filled, until a deadline."""

    folder: Path
    deadline: float

    def write(self, path: str, text: str) -> Path:
        """Write one file, cut to its end if it is too long."""
        raw = text.encode(errors="replace")
        if len(raw) > LONGEST_FILE:
            raw = b"... %d bytes before were left out\n" % (len(raw) - LONGEST_FILE) + raw[-LONGEST_FILE:]
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(raw)
        return target

    def write_node(self, node: Node) -> NodeLine:
        """Ask one node; past the deadline it is left out."""
        addresses = ", ".join(str(ip_interface(address).ip) for address in node.addresses())
        files = []
        for question in QUESTIONS:
            if time.monotonic() > self.deadline:
                break
            path = f"nodes/{node.name}/{question.file}"
            self.write(path, answer(node, question))
            files.append((question.about, path))
        return NodeLine(node.name, addresses, tuple(files))


def _written_plan(writing: _Writing, file: Path, name: str | None) -> list[tuple[str, str]]:
    """The topology file and the plan made from it, as far as they can be had."""
    try:
        writing.write("topology.yaml", file.read_text(errors="replace"))
    except OSError as error:
        writing.write("topology.yaml", f"# {file} could not be read: {error.strerror}\n")
    try:
        plan = to_text(build(load_topology(file, name)))
    except LabError as error:
        plan = f"There is no plan:\n{error}\n"
    writing.write("plan.txt", plan)
    return [("the topology", "topology.yaml"), ("the plan: every step that made it", "plan.txt")]


def _certificates(writing: _Writing, lab: Lab) -> list[tuple[str, str]]:
    """What the NAT of each router does, measured now."""
    if time.monotonic() > writing.deadline or not any(node["nat"] for node in lab.facts["nodes"]):
        return []
    try:
        with ThreadPoolExecutor(1) as pool:  # an event loop of its own, whatever runs in this thread
            found = pool.submit(certify_nat, lab, patience=_PATIENCE).result()
    except (LabError, OSError) as error:
        writing.write("nat.md", f"# NAT was not measured\n\n{error}\n")
    else:
        writing.write("nat.md", certificates_page(found))
        writing.write("nat.json", json.dumps([each.plain() for each in found], indent=2))
        return [("what NAT does, measured", "nat.md"), ("the same as JSON", "nat.json")]
    return [("what NAT does, measured", "nat.md")]


def _states(lab: Lab) -> tuple[list[str], list[dict[str, Any]]]:
    try:
        return [], lab.services()
    except (LabError, OSError) as error:
        return [f"The lab could not be asked: {error}"], []


def _service(writing: _Writing, lab: Lab, state: dict[str, Any]) -> ServiceLine:
    node, service = state["node"], state["service"]
    path = f"nodes/{node}/{service}.log"
    try:
        log = lab.log(node, service)
    except (LabError, OSError) as error:
        log = f"(not known: {error})\n"
    writing.write(path, log)
    return ServiceLine(f"{node}/{service}", state["state"], state["exit_code"], state["restarts"], path)
