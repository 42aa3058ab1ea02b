"""Packets of a test are kept if it fails, and only then."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

BODY = "lab['a'].run(['ping', '-c1', '-W20', 'b'], check=True)"


def write_tests(project: Any, marks: str, *bodies: str) -> None:
    tests = "".join(f"def test_{number}(lab):\n    {BODY}\n    {body}\n" for number, body in enumerate(bodies))
    mark = f'pytest.mark.topology("{project.word}", scope="module", services=False{marks})'
    project.write("test_it.py", f"import pytest\npytestmark = {mark}\n{tests}")


def pings(file: Path) -> list[str]:
    words = ["tshark", "-r", str(file), "-Y", "icmp.type == 8", "-T", "fields", "-e", "frame.interface_name"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize(
    ("marks", "options", "interfaces"),
    [
        (', capture=["b:lan"]', [], ["b:lan"]),
        (", capture=True", [], ["a:lan", "b:lan"]),
        ("", ["--lab-capture"], ["a:lan", "b:lan"]),
        (', capture=["a"]', ["--lab-capture"], ["a:lan"]),
    ],
)
def test_those_of_a_failed_test_are_beside_its_page(
    project: Any, marks: str, options: list[str], interfaces: list[str]
) -> None:
    """Of that test alone, though the lab is that of three."""
    write_tests(project, marks, "pass", "assert False", "pass")
    ran = project.run(*options)
    assert ran.counts() == {"failed": 1, "passed": 2}
    (page,) = ran.pages()
    assert f"Packets at {', '.join(interfaces)}: [packets.pcapng](packets.pcapng)\n" in page.read_text()
    assert [file.parent.name for file in page.parents[1].rglob("*.pcapng")] == ["test_it.py--test_1"]
    assert pings(page.parent / "packets.pcapng") == interfaces


def test_without_a_wish_there_are_none(project: Any) -> None:
    write_tests(project, ", capture=False", "assert False")
    (page,) = project.run().pages()
    assert "pcapng" not in page.read_text()
    assert list(page.parents[1].rglob("*.pcapng")) == []


def test_what_cannot_be_captured_fails_the_test_and_says_why(project: Any) -> None:
    write_tests(project, ", capture=['c']", "pass")
    ran = project.run()
    assert ran.counts() == {"error": 1}
    assert "no packets can be captured: nothing is called 'c' in lab" in ran.output


def test_a_capture_of_the_tests_own_can_run_beside(project: Any) -> None:
    write_tests(project, ", capture=True", "with lab.capture('a:lan'): pass\n    assert False")
    (page,) = project.run().pages()
    assert pings(page.parent / "packets.pcapng") == ["a:lan", "b:lan"]
