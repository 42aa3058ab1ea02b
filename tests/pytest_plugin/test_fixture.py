"""The fixture `lab`: which topology, how long it lives, what is said when there is none."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from lab.realise.asking import wait_until

pytestmark = [pytest.mark.essential, pytest.mark.single_id]


def test_a_test_gets_the_lab_that_it_is_marked_with(project: Any) -> None:
    project.write(
        "test_it.py",
        f"""
import pytest

@pytest.mark.topology("{project.word}")
def test_nodes(lab):
    assert lab["a"].run(["hostname"]).stdout == "a\\n"
    assert "web is here" in lab["b"].log("web")
    assert lab.name.startswith("{project.word}-")
""",
    )
    ran = project.run()
    assert (ran.code, ran.counts()["passed"]) == (0, 1), ran.output
    assert f"lab: 1 tests on {project.word}; evidence of failures:" in ran.output
    assert project.labs_up() == []
    assert ran.pages() == []


def test_a_class_a_module_and_a_path_can_be_marked(project: Any) -> None:
    project.write(
        "deep/test_it.py",
        f"""
import pytest

pytestmark = pytest.mark.topology("near/pair.yaml")

def test_of_module(lab):
    assert lab.name.startswith("{project.word}-pair")

@pytest.mark.topology("{project.word}")
class TestIt:
    def test_of_class(self, lab):
        assert not lab.name.startswith("{project.word}-pair")

    @pytest.mark.topology("{project.folder}/deep/near/pair.yaml")
    def test_nearest_marker_wins(self, lab):
        assert lab.name.startswith("{project.word}-pair")
""".replace("near/pair.yaml", f"near/{project.word}-pair.yaml"),
    )
    topology = (project.folder / "topologies" / f"{project.word}.yaml").read_text()
    project.write(f"deep/near/{project.word}-pair.yaml", topology)
    ran = project.run()
    assert (ran.code, ran.counts()["passed"]) == (0, 3), ran.output


def test_the_folder_of_topologies_can_be_elsewhere(project: Any) -> None:
    topology = (project.folder / "topologies" / f"{project.word}.yaml").read_text()
    project.write(f"nets/{project.word}-other.yaml", topology)
    project.write("pytest.ini", "[pytest]\nlab_topologies = nets\n")
    marker = f'@pytest.mark.topology("{project.word}-other")'
    project.write("test_it.py", f"import pytest\n{marker}\ndef test_it(lab): pass\n")
    assert project.run().code == 0


@pytest.mark.parametrize(
    ("scope", "labs"), [("function", 6), ("class", 4), ("module", 2), ("package", 1), ("session", 1)]
)
def test_a_lab_lives_for_its_scope(project: Any, scope: str, labs: int) -> None:
    """Two modules, each with a class of two tests and a test beside it, which falls back to its module."""
    text = f"""
import pytest
from pathlib import Path

pytestmark = pytest.mark.topology("{project.word}", scope="{scope}")
seen = Path("{project.folder}/seen")

class TestIt:
    def test_one(self, lab): seen.open("a").write(lab.name + "\\n")
    def test_two(self, lab): seen.open("a").write(lab.name + "\\n")

def test_beside(lab): seen.open("a").write(lab.name + "\\n")
"""
    for module in ("test_a.py", "test_b.py"):
        project.write(f"package/{module}", text)
    project.write("package/__init__.py", "")
    ran = project.run()
    assert ran.code == 0, ran.output
    names = (project.folder / "seen").read_text().split()
    assert len(names) == 6
    assert len(set(names)) == labs
    assert project.labs_up() == []


def test_a_lab_ends_with_its_scope_and_not_with_the_run(project: Any) -> None:
    text = f"""
import pytest
from lab.realise import registry

pytestmark = pytest.mark.topology("{project.word}", scope="module")

def test_only_one_is_up(lab):
    assert [name for name in registry.names() if name.startswith("{project.word}-")] == [lab.name]
"""
    project.write("test_a.py", text)
    project.write("test_b.py", text)
    ran = project.run()
    assert (ran.code, ran.counts()["passed"]) == (0, 2), ran.output


def test_services_can_be_left_out(project: Any) -> None:
    project.write(
        "test_it.py",
        f"""
import pytest
pytestmark = pytest.mark.topology("{project.word}", scope="module", services=False)
def test_without(lab): assert lab.services() == []
@pytest.mark.topology("{project.word}", scope="module")
def test_with(lab): assert len(lab.services()) == 1
""",
    )
    assert project.run().counts() == {"passed": 2}


def test_the_lab_is_still_up_while_other_fixtures_end(project: Any) -> None:
    project.write(
        "test_it.py",
        f"""
import pytest
pytestmark = pytest.mark.topology("{project.word}")

@pytest.fixture
def server(lab):
    with lab["a"].listen() as server:
        yield server
    assert lab["a"].run(["true"]).returncode == 0

def test_it(server): pass
""",
    )
    assert project.run().counts() == {"passed": 1}


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("", "asks for `lab` without saying which: mark it with @pytest.mark.topology"),
        ("@pytest.mark.topology('no-such')", "no topology 'no-such': neither "),
        (
            "@pytest.mark.topology()",
            "marker `topology` with () where one name or path belongs. It is topology(name_or_path",
        ),
        ("@pytest.mark.topology(7)", "marker `topology` with (7,) where one name or path belongs"),
        ("@pytest.mark.topology('x', 'module')", "with ('x', 'module') where one name or path belongs"),
        ("@pytest.mark.topology('x', scop='module')", "with no keyword 'scop'. It is topology("),
        ("@pytest.mark.topology('x', scope='modul')", "scope 'modul', which is none of function, class, module"),
        ("@pytest.mark.topology('x', services='no')", "services='no' instead of True or False"),
        ("@pytest.mark.topology('x', capture='nas')", "capture='nas' instead of True, False or a list"),
        ("@pytest.mark.topology('x', capture=[])", "capture=[] instead of True, False or a list"),
        ("@pytest.mark.topology('x', capture=[1])", "capture=[1] instead of True, False or a list"),
    ],
)
def test_a_wrong_use_says_what_is_allowed_without_a_traceback(project: Any, marker: str, message: str) -> None:
    project.write("test_it.py", f"import pytest\n{marker}\ndef test_it(lab): pass\n")
    ran = project.run()
    assert (ran.code, ran.counts()["error"]) == (1, 1), ran.output
    assert message in ran.output
    assert "Traceback" not in ran.output
    assert "pytest_plugin.py" not in ran.output


def test_an_unknown_name_comes_with_the_known_ones(project: Any) -> None:
    project.write("test_it.py", 'import pytest\n@pytest.mark.topology("x")\ndef test_it(lab): pass\n')
    assert f"topologies there: {project.word}" in project.run().output


def test_a_lab_that_does_not_come_up_is_its_tests_error_in_its_own_words(project: Any) -> None:
    """Of a wider scope it is tried once, and every test of the scope gets the same error."""
    project.write(
        f"topologies/{project.word}.yaml",
        """
networks: {lan: {prefixes: [192.0.2.0/24]}}
nodes: {a: {links: {lan: auto}, services: {web: {run: "sh -c 'echo cannot serve; exit 3'", ready: {tcp: 80}}}}}
""",
    )
    tests = "def test_one(lab): pass\ndef test_two(lab): pass\n"
    project.write(
        "test_it.py", f'import pytest\npytestmark = pytest.mark.topology("{project.word}", scope="module")\n{tests}'
    )
    ran = project.run()
    assert ran.counts() == {"error": 2}, ran.output
    assert ran.output.count("service a/web ended with exit code 3 before it was ready") >= 2
    assert "    cannot serve" in ran.output
    assert "launch.py" not in ran.output
    assert len(ran.pages()) == 2
    assert "cannot serve" in ran.pages()[0].read_text()


def test_a_faulty_topology_is_its_tests_error_with_file_and_line(project: Any) -> None:
    project.write(f"topologies/{project.word}.yaml", "nodes: {a: {links: {lam: auto}}}\nnetworks: {}\n")
    project.write("test_it.py", f'import pytest\n@pytest.mark.topology("{project.word}")\ndef test_it(lab): pass\n')
    ran = project.run()
    assert ran.counts() == {"error": 1}
    assert f"topologies/{project.word}.yaml:1:" in ran.output
    assert "load.py" not in ran.output


def test_the_marker_is_registered_and_documented(project: Any) -> None:
    said = project.run("--markers").output
    assert (
        '@pytest.mark.topology(name_or_path, *, scope="function", services=True, capture=False): the fixture `lab`'
        in said
    )
    assert "--lab-keep" in project.run("--help").output


def test_workers_of_xdist_have_labs_of_their_own_and_one_folder_for_evidence(project: Any) -> None:
    """Eight labs at once, on one machine, with the same addresses."""
    project.write(
        "test_it.py",
        f"""
import pytest
from pathlib import Path

@pytest.mark.topology("{project.word}")
@pytest.mark.parametrize("number", range(8))
def test_it(lab, number):
    (Path("{project.folder}") / f"seen{{number}}").write_text(lab.name)
    with lab["b"].udp(5000) as server, lab["a"].udp() as client:
        client.sendto(b"%d" % number, (lab["b"].address(), 5000))
        assert server.recv(10) == b"%d" % number
    assert number < 6
""",
    )
    ran = project.run("-n", "4")
    assert ran.counts() == {"failed": 2, "passed": 6}, ran.output
    names = {path.read_text() for path in project.folder.glob("seen*")}
    assert len(names) == 8
    assert all(len(name) <= 32 and "-gw" in name for name in names)
    assert len(ran.pages()) == 2
    assert len(list((project.folder / "reports").iterdir())) == 1
    assert project.labs_up() == []


@pytest.mark.parametrize("stem", ["a-name-that-is-much-longer-than-a-lab-may-be-called", "Grüße_an.alle", "---"])
def test_any_file_name_makes_a_lab_name(project: Any, stem: str) -> None:
    topology = (project.folder / "topologies" / f"{project.word}.yaml").read_text()
    project.write(f"topologies/{stem}.yaml", topology)
    project.write(
        "test_it.py", f'import pytest\n@pytest.mark.topology("{stem}", services=False)\ndef test_it(lab): pass\n'
    )
    ran = project.run()
    assert ran.code == 0, ran.output


def test_an_interrupted_run_leaves_no_lab(project: Any) -> None:
    project.write(
        "test_it.py",
        f"""
import os, pytest, signal
@pytest.mark.topology("{project.word}", scope="session")
def test_it(lab): os.kill(os.getpid(), signal.SIGINT)
""",
    )
    ran = project.run()
    assert ran.code == 2
    assert "KeyboardInterrupt" in ran.output
    assert project.labs_up() == []


def test_a_run_that_is_killed_leaves_no_lab(project: Any) -> None:
    project.write(
        "test_it.py",
        f"""
import os, pytest, signal
@pytest.mark.topology("{project.word}", scope="session")
def test_it(lab): os.kill(os.getpid(), signal.SIGKILL)
""",
    )
    assert project.run().code == -signal.SIGKILL
    wait_until(lambda: not project.labs_up(), 60, "the lab is gone")
