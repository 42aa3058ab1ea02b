"""What a failed test leaves behind, and labs that stay up on request."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lab.realise.lab import Lab

pytestmark = [pytest.mark.essential, pytest.mark.single_id]


def failing(project: Any, body: str = "assert lab is None, 'the reason'") -> None:
    project.write(
        "test_it.py", f'import pytest\n@pytest.mark.topology("{project.word}")\ndef test_it(lab):\n    {body}\n'
    )


def test_a_failed_test_says_where_its_evidence_is(project: Any) -> None:
    failing(project)
    ran = project.run()
    assert ran.counts() == {"failed": 1}
    (page,) = ran.pages()
    assert f"evidence: {page}" in ran.output
    assert f"lab: evidence of what failed: {page.parent.parent}" in ran.output
    assert page.parent.name == "test_it.py--test_it"
    assert re.fullmatch(r"\d{8}T\d{6}Z-\d+", page.parent.parent.name)
    assert "# test_it.py::test_it\n" in page.read_text()
    assert "the reason" in page.read_text()
    assert "web is here" in (page.parent / "nodes/b/web.log").read_text()
    assert project.labs_up() == []


def test_the_folder_for_evidence_can_be_elsewhere(project: Any) -> None:
    project.write("pytest.ini", "[pytest]\nlab_reports = out/evidence\n")
    failing(project)
    project.run()
    assert len(list((project.folder / "out/evidence").glob("*/test_it.py--test_it/index.md"))) == 1
    assert not (project.folder / "reports").exists()


def test_a_test_that_passes_or_is_expected_to_fail_leaves_nothing(project: Any) -> None:
    failing(project, "pass")
    assert project.run().pages() == []
    failing(project, "pytest.xfail('known')")
    assert project.run().pages() == []
    failing(project, "pytest.skip('not here')")
    assert project.run().pages() == []


def test_parameters_that_look_alike_have_folders_of_their_own(project: Any) -> None:
    project.write(
        "test_it.py",
        f"""
import pytest
@pytest.mark.topology("{project.word}", scope="module", services=False)
@pytest.mark.parametrize("address", ["a/b", "a:b", "a b"])
def test_it(lab, address): assert False
""",
    )
    assert len(project.run().pages()) == 3


def test_a_fixture_that_fails_after_the_lab_leaves_evidence_too(project: Any) -> None:
    project.write(
        "test_it.py",
        f"""
import pytest
pytestmark = pytest.mark.topology("{project.word}")
@pytest.fixture
def server(lab): raise RuntimeError("no server")
def test_it(server): pass
""",
    )
    ran = project.run()
    assert ran.counts() == {"error": 1}
    assert "no server" in ran.pages()[0].read_text()


def test_a_lab_that_died_is_said_to_be_gone(project: Any) -> None:
    failing(project, "import os, signal; os.kill(lab_pid(lab), 9); assert False")
    text = (project.folder / "test_it.py").read_text()
    helper = (
        "\ndef lab_pid(lab):\n    from lab.realise import registry\n    return registry.supervisor_of(lab._channel)\n"
    )
    project.write("test_it.py", text + helper)
    ran = project.run()
    assert ran.counts() == {"failed": 1}, ran.output
    assert "The lab could not be asked" in ran.pages()[0].read_text()


def test_a_failed_tests_lab_can_be_kept(project: Any) -> None:
    failing(project)
    ran = project.run("--lab-keep")
    (name,) = project.labs_up()
    with Lab(name) as kept:
        assert f"kept: lab shell --lab {name} NODE; to end it: lab down {name}" in ran.output
        assert kept["a"].run(["hostname"]).stdout == "a\n"
    assert project.labs_up() == []


def test_the_lab_of_a_passed_test_is_not_kept(project: Any) -> None:
    failing(project, "pass")
    assert project.run("--lab-keep").code == 0
    assert project.labs_up() == []


def test_a_lab_whose_services_failed_can_be_kept(project: Any) -> None:
    topology = Path(project.folder / "topologies" / f"{project.word}.yaml")
    topology.write_text(topology.read_text().replace("log: here", "tcp: 80, timeout: 5s"))
    failing(project, "pass")
    ran = project.run("--lab-keep")
    (name,) = project.labs_up()
    with Lab(name) as kept:
        assert ran.counts() == {"error": 1}
        assert f"lab shell --lab {name} NODE" in ran.output
        assert kept["b"].log("web") == "web is here\n"


def test_a_folder_that_cannot_be_written_is_said_and_changes_no_verdict(project: Any) -> None:
    project.write("reports", "a file is in the way")
    failing(project)
    ran = project.run()
    assert ran.counts() == {"failed": 1}
    assert "evidence could not be written: " in ran.output
