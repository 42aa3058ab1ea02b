"""The pytest plugin: marker `topology`, fixture `lab`, evidence of tests that failed. It only calls the other parts.

It is loaded by every pytest run of an environment that has the lab installed, so it imports nothing of weight.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab.errors import LabError

if TYPE_CHECKING:
    from lab.capture.recording import Recording
    from lab.realise.lab import Lab

_MARKER = (
    'topology(name_or_path, *, scope="function", services=True, capture=False): the fixture `lab` is this topology, '
    "made real. A name stands for NAME.yaml in the folder `lab_topologies`; a path is absolute or relative to the "
    "test's file. "
    "scope: function, class, module, package or session. services=False: nodes and links alone. "
    'capture: packets to keep if the test fails, as ["nas:home", "isp"]; True: those of every interface.'
)
_KINDS: dict[str, tuple[type[pytest.Collector], ...]] = {
    # As for fixtures: where there is no class, its module; where there is no package, the session.
    "class": (pytest.Class, pytest.Module),
    "module": (pytest.Module,),
    "package": (pytest.Package,),
    "session": (),
}
_SCOPES = ("function", *_KINDS)
_LONGEST_NAME = 32  # of a lab (lab.topology.names.LAB)


@dataclass(frozen=True)
class _Wanted:
    """What a marker asks for, and so which tests of one scope share a lab."""

    name_or_path: str | os.PathLike[str]
    scope: str = "function"
    services: bool = True
    capture: tuple[str, ...] | None = None  # targets, none of them: all; None: nothing

    @classmethod
    def of(cls, mark: pytest.Mark) -> _Wanted | str:
        """What a marker asks for, or what is wrong with it."""
        unknown = sorted(mark.kwargs.keys() - {"name_or_path", "scope", "services", "capture"})
        if unknown:
            return f"no keyword {unknown[0]!r}"
        given: dict[str, Any] = {**dict(zip(["name_or_path"], mark.args, strict=False)), **mark.kwargs}
        if len(mark.args) > 1 or not isinstance(given.get("name_or_path"), str | os.PathLike):
            return f"{mark.args} where one name or path belongs"
        if given.get("scope", "function") not in _SCOPES:
            return f"scope {given['scope']!r}, which is none of {', '.join(_SCOPES)}"
        if not isinstance(given.get("services", True), bool):
            return f"services={given['services']!r} instead of True or False"
        capture = given.pop("capture", False)
        if not isinstance(capture, bool) and not (
            isinstance(capture, list | tuple) and capture and all(isinstance(word, str) for word in capture)
        ):
            return f"capture={capture!r} instead of True, False or a list of interfaces, nodes and networks"
        targets = tuple(capture) if not isinstance(capture, bool) else () if capture else None
        return cls(**given, capture=targets)

    @classmethod
    def checked(cls, item: pytest.Item) -> _Wanted:
        """What the nearest marker of a test asks for; the test fails if that is nothing sensible."""
        mark = item.get_closest_marker("topology")
        if mark is None:
            pytest.fail(
                f'{item.nodeid} asks for `lab` without saying which: mark it with @pytest.mark.topology("NAME"), '
                f'or its module with pytestmark = pytest.mark.topology("NAME")',
                pytrace=False,
            )
        wanted = cls.of(mark)
        if isinstance(wanted, str):
            pytest.fail(f"{item.nodeid}: marker `topology` with {wanted}. It is {_MARKER}", pytrace=False)
        return wanted


@dataclass(eq=False)
class _Raised:
    """A lab of some scope, or why there is none: every test of that scope gets the same."""

    name: str
    file: Path
    lab: Lab | None = None
    failure: str = ""
    kept: bool = False

    def end(self) -> None:
        if self.lab is None:
            return
        if self.kept:
            self.lab.hold(hold=False)
            self.lab.close()
        else:
            self.lab.down()


_RAISED = pytest.StashKey[dict[tuple[Path, bool], _Raised]]()  # of a node of the collection tree
_USED = pytest.StashKey[_Raised]()  # of a test
_RECORDING: pytest.StashKey[Recording] = pytest.StashKey()  # of a test
_RUN = pytest.StashKey[str]()  # of the configuration
_NUMBERS = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("lab", "homelab lab")
    group.addoption("--lab-keep", action="store_true", help="leave the labs of failed tests up and say how to get in")
    group.addoption(
        "--lab-capture",
        action="store_true",
        help="keep the packets of failed tests: those of every interface of the lab",
    )
    parser.addini("lab_topologies", "folder of topologies that tests name, from rootdir", default="topologies")
    parser.addini("lab_reports", "folder for evidence of failed tests, from rootdir", default="reports")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARKER)
    started = f"{datetime.now(tz=UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}"
    config.stash[_RUN] = getattr(config, "workerinput", {}).get("lab_run", started)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Every worker of pytest-xdist writes into the folder of one run."""
    node.workerinput["lab_run"] = node.config.stash[_RUN]


def pytest_report_collectionfinish(config: pytest.Config, items: list[pytest.Item]) -> list[str]:
    marks = [mark for item in items if (mark := item.get_closest_marker("topology"))]
    if not marks:
        return []
    names = sorted({Path(str(mark.args[0])).stem for mark in marks if mark.args})
    return [f"lab: {len(marks)} tests on {', '.join(names)}; evidence of failures: {_evidence_folder(config)}"]


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Lab:
    """The realised lab (`lab.realise.lab.Lab`) of the nearest `topology` marker."""
    raised = _raised_for(request.node)
    request.node.stash[_USED] = raised
    if raised.lab is None:
        pytest.fail(raised.failure, pytrace=False)
    _capture(request, raised.lab)
    return raised.lab


def _capture(request: pytest.FixtureRequest, lab: Lab) -> None:
    """Record for this test, if that is wanted, until it has ended."""
    item = request.node
    targets = _Wanted.checked(item).capture
    if targets is None and request.config.getoption("--lab-capture"):
        targets = ()
    if targets is None:
        return
    try:
        item.stash[_RECORDING] = lab.capture(*targets)
    except (LabError, OSError) as error:
        pytest.fail(f"{item.nodeid}: no packets can be captured: {error}", pytrace=False)
    request.addfinalizer(item.stash[_RECORDING].close)


def _raised_for(item: pytest.Item) -> _Raised:
    """The lab that this test shares with those of its scope, brought up for the first of them."""
    wanted = _Wanted.checked(item)
    file = _find(wanted.name_or_path, item)
    owner = _owner(item, wanted.scope)
    raised = owner.stash.setdefault(_RAISED, {})
    key = (file, wanted.services)
    if key not in raised:
        raised[key] = _bring_up(file, wanted, item.config)
        owner.addfinalizer(lambda: raised.pop(key).end())
    return raised[key]


def _find(name_or_path: str | os.PathLike[str], item: pytest.Item) -> Path:
    folder = item.config.rootpath / str(item.config.getini("lab_topologies"))
    named = folder / f"{os.fspath(name_or_path)}.yaml"
    near = item.path.parent / name_or_path  # an absolute path stays itself
    for candidate in (named, near):
        if candidate.is_file():
            return candidate
    known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml"))) or "none"
    pytest.fail(
        f"no topology {os.fspath(name_or_path)!r}: neither {named} nor {near} is a file; topologies there: {known}",
        pytrace=False,
    )


def _owner(item: pytest.Item, scope: str) -> pytest.Item | pytest.Collector:
    if scope == "function":
        return item
    found = (item.getparent(kind) for kind in _KINDS[scope])
    return next((node for node in found if node is not None), item.session)


def _bring_up(file: Path, wanted: _Wanted, config: pytest.Config) -> _Raised:
    from lab.realise.lab import Lab

    raised = _Raised(_lab_name(file), file)
    keep = bool(config.getoption("--lab-keep"))
    try:
        raised.lab = Lab.up(file, name=raised.name, services=wanted.services, keep_failed=keep)
        raised.lab.hold()  # a run that is killed leaves nothing
    except LabError as error:
        raised.failure = str(error)
    return raised


def _lab_name(file: Path) -> str:
    """A name that no other lab of this machine has: labs of many runs and workers live side by side."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    unique = "-".join(filter(None, (re.sub("[^a-z0-9]", "", worker), str(os.getpid()), str(next(_NUMBERS)))))
    stem = re.sub("[^a-z0-9]+", "-", file.stem.lower())[: _LONGEST_NAME - len(unique) - 1].strip("-")
    return f"{stem or 'lab'}-{unique}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    raised = item.stash.get(_USED, None)
    if report.failed and raised is not None and call.when != "teardown":
        report.sections.append(("lab", "\n".join(_explain(item, raised, report.longreprtext))))
    return report


def _explain(item: pytest.Item, raised: _Raised, failure: str) -> Iterator[str]:
    """Keep what shows why the test failed, and say where it is."""
    from lab.report.evidence import folder_name, write_evidence, write_failure

    folder = _evidence_folder(item.config) / folder_name(item.nodeid)
    try:
        if raised.lab is None:
            write_failure(folder, item.nodeid, raised.failure, raised.file)
        else:
            packets = _packets(item, folder)
            write_evidence(raised.lab, folder, title=item.nodeid, failure=failure, notes=packets)
        yield f"evidence: {folder / 'index.md'}"
    except OSError as error:
        yield f"evidence could not be written: {error}"
    if item.config.getoption("--lab-keep") and _is_up(raised.name):
        raised.kept = True
        yield f"kept: lab shell --lab {raised.name} NODE; to end it: lab down {raised.name}"


def _packets(item: pytest.Item, folder: Path) -> list[str]:
    """Keep what was captured for a test, beside its evidence; what the page says of it."""
    recording = item.stash.get(_RECORDING, None)
    if recording is None:
        return []
    try:
        recording.stop()
        folder.mkdir(parents=True, exist_ok=True)
        recording.save(folder / "packets.pcapng")
    except (LabError, OSError) as error:
        return [f"The packets were not kept: {error}"]
    lost = f"; {recording.dropped} were lost for want of room" if recording.dropped else ""
    return [f"Packets at {', '.join(recording.interfaces)}: [packets.pcapng](packets.pcapng){lost}"]


def _is_up(name: str) -> bool:
    from lab.realise.registry import names

    return name in names()


def _evidence_folder(config: pytest.Config) -> Path:
    return config.rootpath / str(config.getini("lab_reports")) / config.stash[_RUN]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    folder = _evidence_folder(config)
    if folder.is_dir():
        terminalreporter.write_line(f"lab: evidence of what failed: {folder}")
    for report in (*terminalreporter.getreports("failed"), *terminalreporter.getreports("error")):
        for title, text in report.sections:
            kept = [line for line in text.splitlines() if title == "lab" and line.startswith("kept: ")]
            for line in kept:
                terminalreporter.write_line(f"lab: {report.nodeid}: {line}")
