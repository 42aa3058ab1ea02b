"""The commands that the pages and the help show are right word for word, with topologies/homelab.yaml up."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.realise.lab import Lab
from tests.cli.conftest import LabCommand, own_name

FOLDER = Path(__file__).resolve().parents[2]
EXAMPLE = re.compile(r"^ +(?:\$ )?(lab (?:link|fault|move|mesh|capture)\b[^#\n]*)", re.MULTILINE)
WORDS = ("link", "fault", "move", "mesh", "capture")
PAGES = [FOLDER / "README.md", *sorted((FOLDER / "docs").glob("*.md"))]


def shown() -> list[str]:
    helps = [LabCommand()(word, "--help", code=0).stdout.rpartition("example:")[2] for word in WORDS]
    return [
        example.strip() for text in [*(page.read_text() for page in PAGES), *helps] for example in EXAMPLE.findall(text)
    ]


@pytest.fixture(scope="module")
def homelab() -> Iterator[Lab]:
    name = own_name()
    LabCommand()("up", "-q", "--name", name, FOLDER / "topologies" / "homelab.yaml", code=0)
    lab = Lab(name)
    yield lab
    lab.close()
    LabCommand()("down", name, code=0)


@pytest.mark.essential
def test_examples_do_what_they_are_shown_to_do(homelab: Lab, tmp_path: Path) -> None:
    examples = dict.fromkeys(shown())
    assert {example.split()[1] for example in examples} == set(WORDS)
    failed = {}
    for example in examples:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", runnable(example, homelab)],
            cwd=tmp_path,
            env=LabCommand().environment(
                HOMELAB_LAB=homelab.name,
                PATH=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            ),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if done.returncode != 0:
            failed[example] = done.stderr
        if not example.startswith("lab move"):
            homelab.heal()
    assert failed == {}


def runnable(example: str, homelab: Lab) -> str:
    """A capture that is to last until Ctrl-C, or for long, ends at once; a fault to heal has the number that it has."""
    if example == "lab fault heal 2":
        homelab.fault.kill("nas/web")
        return f"lab fault heal {homelab.fault.in_force()[0]['number']}"
    if example.startswith("lab capture"):
        return re.sub(r"^lab capture", "lab capture --for 100ms", re.sub(r" --(?:for|count) \S+", "", example))
    return example
