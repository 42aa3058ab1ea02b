"""Files that are no topology at all: refused with a clear fault, in bounded time, never with a traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab.errors import TopologyError
from lab.topology.faults import Fault
from lab.topology.load import load_topology
from lab.topology.source import MOST_DEPTH, MOST_VALUES, parse
from lab.topology.text_file import MOST_BYTES


def fault_of(path: Path) -> str:
    with pytest.raises(TopologyError) as raised:
        load_topology(path)
    return str(raised.value).removeprefix(str(path))


def written(folder: Path, content: bytes | str) -> Path:
    path = folder / "t.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_missing_file(tmp_path: Path) -> None:
    assert fault_of(tmp_path / "none.yaml") == ":1:1: file: no such file; a topology is a YAML file"


def test_directory(tmp_path: Path) -> None:
    assert fault_of(tmp_path) == ":1:1: file: a directory; a topology is a YAML file"


def test_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "a device, pipe or socket" in fault_of(tmp_path / "pipe")
    assert "a device, pipe or socket" in fault_of(Path("/dev/zero"))


def test_loop_of_symbolic_links(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert "cannot be read" in fault_of(tmp_path / "loop")


def test_path_that_no_file_can_have(tmp_path: Path) -> None:
    assert "cannot be read" in fault_of(tmp_path / ("x" * 5000))
    assert "cannot be read" in fault_of(tmp_path / "a\0b")
    path = written(tmp_path, 'include: ["' + "x" * 5000 + '", "a\\0b"]\n')
    assert fault_of(path)


@pytest.mark.essential
@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(tmp_path: Path) -> None:
    path = written(tmp_path, "nodes: {n: {}}")
    path.chmod(0)
    assert "cannot be read (Permission denied)" in fault_of(path)


def test_empty_file(tmp_path: Path) -> None:
    for content in ("", "# only a comment\n", "---\n...\n", "~"):
        assert "an empty file" in fault_of(written(tmp_path, content))


def test_large_file(tmp_path: Path) -> None:
    assert "larger than 1 MiB" in fault_of(written(tmp_path, b"#" * (MOST_BYTES + 1)))
    path = written(tmp_path, b"nodes: {n: {}}\n" + b"#" * (MOST_BYTES - 15))
    assert load_topology(path).nodes[0].name == "n"


def test_binary_and_other_encodings(tmp_path: Path) -> None:
    assert "a binary file" in fault_of(written(tmp_path, b"\x7fELF\0\0"))
    assert "a binary file" in fault_of(written(tmp_path, "nodes: {}".encode("utf-16")))
    assert "byte 7 is not UTF-8" in fault_of(written(tmp_path, b"nodes: \xff"))
    assert ":1:8: file: not YAML" in fault_of(written(tmp_path, b"nodes: \x07"))


def test_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    assert load_topology(written(tmp_path, b"\xef\xbb\xbfnodes: {n: {}}\n")).name == "t"


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_deep_nesting(tmp_path: Path, opening: str) -> None:
    path = written(tmp_path, "nodes: \n  " + opening * 100_000)
    assert f"nested more than {MOST_DEPTH} deep" in fault_of(path) or "as a key" in fault_of(path)


def test_aliases_that_explode(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert f"more than {MOST_VALUES} values" in fault_of(written(tmp_path, "\n".join(lines)))


def test_merges_that_explode(tmp_path: Path) -> None:
    lines = ["a0: &a0 {x: {}}"]
    lines += [f"a{n}: &a{n} {{<<: *a{n - 1}, l{n}: *a{n - 1}, r{n}: *a{n - 1}}}" for n in range(1, 40)]
    assert f"more than {MOST_VALUES} values" in fault_of(written(tmp_path, "\n".join(lines)))


def test_alias_into_itself(tmp_path: Path) -> None:
    assert "the alias *a" in fault_of(written(tmp_path, "nodes: &a {b: *a}"))


def test_merge_keeps_own_keys_and_the_place_of_borrowed_ones() -> None:
    faults: list[Fault] = []
    source = parse(Path("t.yaml"), "base: &b {x: 1, y: 2}\nother: {<<: *b, y: 3}\n", faults)
    assert source is not None
    assert faults == []
    assert source.data["other"] == {"x": 1, "y": 3}
    assert (source.tree.children["other"].children["x"].line, source.tree.children["other"].children["y"].line) == (
        1,
        2,
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("y", "y"),
        ("True", True),
        ("false", False),
        ("010", "010"),
        ("0", 0),
        ("-12", -12),
        ("+12", "+12"),
        ("0x1f", "0x1f"),
        ("1_000", "1_000"),
        ("52:54:00", "52:54:00"),
        ("1.10", "1.10"),
        ("1e3", "1e3"),
        (".inf", ".inf"),
        ("2026-01-01", "2026-01-01"),
        ("'1'", "1"),
        ("'true'", "true"),
        ("''", ""),
    ],
)
def test_scalars_are_what_they_look_like(text: str, value: object) -> None:
    faults: list[Fault] = []
    source = parse(Path("t.yaml"), f"k: {text}\n{text}: k\n", faults)
    assert source is not None
    assert faults == []
    assert source.data["k"] == value
    assert type(source.data["k"]) is type(value)
    assert all(isinstance(key, str) for key in source.data)
