"""Golden pairs: a file and all it means, a faulty file and exactly its faults.

LAB_WRITE_GOLDEN=1 writes the texts anew; then read them, as they are what the tests hold to be right.
"""

from __future__ import annotations

import os
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path

import pytest

from lab.errors import TopologyError
from lab.topology.load import load_topology

HERE = Path(__file__).parent
VALID = sorted((HERE / "valid").glob("*.yaml"))
INVALID = sorted((HERE / "invalid").glob("*.yaml"))


def test_there_are_golden_files() -> None:
    assert len(VALID) >= 8
    assert len(INVALID) >= 15


def test_every_golden_text_has_its_file() -> None:
    texts = [*(HERE / "valid").glob("*.txt"), *(HERE / "invalid").glob("*.txt")]
    assert texts
    assert [text for text in texts if not text.with_name(text.name.split(".")[0] + ".yaml").exists()] == []


@pytest.mark.parametrize("file", VALID, ids=lambda file: file.stem)
def test_a_valid_file_means_what_its_golden_text_says(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    text = "\n".join(_lines(load_topology(Path(file.name)))) + "\n"
    assert text == _golden(file.with_suffix(".model.txt"), text)


@pytest.mark.parametrize("file", INVALID, ids=lambda file: file.stem)
def test_an_invalid_file_has_the_faults_of_its_golden_text(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    with pytest.raises(TopologyError) as raised:
        load_topology(Path(file.name))
    text = f"{raised.value}\n"
    assert text == _golden(file.with_suffix(".faults.txt"), text)


def _golden(path: Path, text: str) -> str:
    if os.environ.get("LAB_WRITE_GOLDEN"):
        path.write_text(text)
    return path.read_text()


def _lines(value: object, indent: int = 0) -> list[str]:
    """A value of the model, one field a line, short ones on one line."""
    pad = "  " * indent
    if not is_dataclass(value):
        return [pad + _short(value)]
    lines: list[str] = []
    for field in fields(value):
        content = getattr(value, field.name)
        if isinstance(content, str) and "\n" in content:
            lines += [f"{pad}{field.name}:", *(f"{pad}  | {line}" for line in content.splitlines())]
        elif isinstance(content, tuple) and any(is_dataclass(each) for each in content):
            lines.append(f"{pad}{field.name}:")
            for each in content:
                first, *rest = _lines(each, indent + 2)
                lines += [f"{pad}  - {first.strip()}", *rest]
        elif is_dataclass(content):
            lines.append(f"{pad}{field.name}: {type(content).__name__}")
            lines += _lines(content, indent + 1)
        else:
            lines.append(f"{pad}{field.name}: {_short(content)}")
    return lines


def _short(value: object) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(_short(each) for each in value) + ")"
    if isinstance(value, Enum):
        return str(value.value)
    return repr(value) if value is None or isinstance(value, str) else str(value)
