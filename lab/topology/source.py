"""YAML text -> plain values that remember where they stood; strict where YAML guesses, bounded where it explodes.

Scalars follow the YAML 1.2 core schema without its floats: only truth values and canonical decimals are not text.
So `no`, `on`, 010, 52:54:00:12:34:56, 1.10 and 2026-01-01 are text, and a fault where text does not belong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yaml import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    YAMLError,
)
from yaml.cyaml import CParser  # type: ignore[attr-defined]  # not in the stubs

from lab.topology.faults import Fault, Wrong, did_you_mean, shown
from lab.topology.text_file import read_text

MOST_VALUES = 200_000  # after expansion of aliases
MOST_DEPTH = 32
MERGE = "<<"  # YAML 1.1 merge key, the usual way to vary a mapping

Key = str | int
_INTEGER = re.compile(r"(?:0|-?[1-9][0-9]{0,17})\Z")
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULLS = {"", "~", "null", "Null", "NULL"}


class Tree:
    """Where a value stands, and where the values in it do. Lines and columns count from 1."""

    __slots__ = ("children", "column", "keys", "line", "size")

    def __init__(self, line: int, column: int) -> None:
        self.line = line
        self.column = column
        self.keys: dict[str, tuple[int, int]] = {}
        self.children: dict[Key, Tree] = {}
        self.size = 1  # values in it, itself included


@dataclass(frozen=True, slots=True)
class Source:
    """A file that was read: its value and the places in it."""

    file: Path
    data: Any
    tree: Tree


@dataclass(frozen=True, slots=True)
class At:
    """A place in a source, by path; a path that goes deeper than the file means the last place that exists."""

    source: Source
    path: tuple[Key, ...] = ()

    def __truediv__(self, key: Key) -> At:
        return At(self.source, (*self.path, key))

    def fault(
        self, found: str, allowed: str = "", *, near: tuple[str, Any] | None = None, of_key: bool = False
    ) -> Fault:
        """A fault here: at the value, or at its key if `of_key`; `near` is a name and the names it might have been."""
        line, column, depth = self._stand(of_key=of_key)
        text = found + (f"; {allowed}" if allowed else "") + (did_you_mean(*near) if near else "")
        return Fault(self.source.file, line, column, spelled(self.path[:depth]), text)

    def where(self, *, of_key: bool = False) -> str:
        """file:line:column of this place."""
        line, column, _ = self._stand(of_key=of_key)
        return f"{self.source.file}:{line}:{column}"

    def _stand(self, *, of_key: bool) -> tuple[int, int, int]:
        """Line, column, and how many segments of the path exist."""
        tree, key, depth = self.source.tree, (1, 1), 0
        for segment in self.path:
            child = tree.children.get(segment)
            if child is None:
                break
            key = tree.keys.get(str(segment), (child.line, child.column))
            tree = child
            depth += 1
        line, column = key if of_key else (tree.line, tree.column)
        return line, column, depth


def spelled(path: tuple[Key, ...]) -> str:
    """A path as people write it: nodes.nas.routes[0].via."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{_one_line(key)}" for key in path)
    return text.removeprefix(".") or "file"


def read_source(file: Path, faults: list[Fault]) -> Source | None:
    """The file's value, or None and its faults; faults that leave the rest readable still give the value."""
    try:
        text = read_text(
            file,
            allowed="a topology is a YAML file",
            if_larger="up to 1 MiB; `include:` divides a topology, `count:` repeats a node",
        )
    except Wrong as wrong:
        faults.append(Fault(file, 1, 1, "file", str(wrong)))
        return None
    return parse(file, text, faults)


def parse(file: Path, text: str, faults: list[Fault]) -> Source | None:
    """As `read_source`, for text at hand."""
    try:
        builder = _Builder(file, faults)
        data, tree = builder.document(CParser(text))
    except _Unreadable as unreadable:
        faults.append(unreadable.fault)
        return None
    except YAMLError as error:
        faults.append(_syntax_fault(file, text, error))
        return None
    except UnicodeEncodeError as error:
        faults.append(Fault(file, *_line_column(text, error.start), "file", "a character that is not text; UTF-8 text"))
        return None
    if not isinstance(data, dict):
        found = "an empty file" if data is None else shown(data)
        allowed = "at the top a topology is a mapping with `networks:` and `nodes:`"
        faults.append(Fault(file, tree.line, tree.column, "file", f"{found}; {allowed}"))
        return None
    return Source(file, data, tree)


class _Unreadable(Exception):  # noqa: N818  # as Wrong
    """What stands here makes the rest of the file unreadable."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


class _Open:
    """A mapping or list whose end has not come."""

    __slots__ = ("anchor", "data", "key", "tree")

    def __init__(self, tree: Tree, data: Any, anchor: str | None) -> None:
        self.tree = tree
        self.data = data
        self.anchor = anchor
        self.key: str | None = None  # of a mapping, while its value is awaited


class _Builder:
    """Events of one document -> value and tree, without recursion."""

    def __init__(self, file: Path, faults: list[Fault]) -> None:
        self.file = file
        self.faults = faults
        self.anchors: dict[str, tuple[Any, Tree]] = {}
        self.stack: list[_Open] = []
        self.result: tuple[Any, Tree] = (None, Tree(1, 1))
        self.values = 0

    def document(self, parser: CParser) -> tuple[Any, Tree]:
        documents = 0
        while (event := parser.get_event()) is not None:
            if isinstance(event, ScalarEvent):
                self._scalar(event)
            elif isinstance(event, MappingStartEvent):
                self._begin(event, {})
            elif isinstance(event, SequenceStartEvent):
                self._begin(event, [])
            elif isinstance(event, MappingEndEvent | SequenceEndEvent):
                self._end()
            elif isinstance(event, AliasEvent):
                self._alias(event)
            elif isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _Unreadable(self._fault(event, "a second document", "one document in a file"))
        return self.result

    def _scalar(self, event: Any) -> None:
        tree = self._tree(event)
        text: str = event.value
        parent = self.stack[-1] if self.stack else None
        if parent is not None and parent.key is None and type(parent.data) is dict:
            self._take_key(event, parent, text)
            return
        value: Any = text
        if event.tag is not None:
            self.faults.append(self._fault(event, f"the tag {event.tag}", "plain values without tags"))
        elif event.implicit[0]:
            value = _plain(text)
        if value is None and parent is not None:
            allowed = "a value, or leave the key out" if parent.key is not None else "a value"
            self.faults.append(self._fault(event, "nothing", allowed))
        self._place(value, tree, event.anchor)

    def _take_key(self, event: Any, parent: _Open, key: str) -> None:
        parent.key = key
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if key in parent.tree.keys:
            first = "{}:{}".format(*parent.tree.keys[key])
            self.faults.append(self._fault(event, f"the key '{key}' again, first at {first}", "each key once"))
        parent.tree.keys[key] = (line, column)

    def _begin(self, event: Any, data: Any) -> None:
        self._needs_no_key(event, "a mapping or list as a key")
        if event.tag is not None:
            self.faults.append(self._fault(event, f"the tag {event.tag}", "plain values without tags"))
        if len(self.stack) >= MOST_DEPTH:
            raise _Unreadable(self._fault(event, f"nested more than {MOST_DEPTH} deep", "flatter values"))
        self.stack.append(_Open(self._tree(event), data, event.anchor))

    def _end(self) -> None:
        ended = self.stack.pop()
        if type(ended.data) is dict and MERGE in ended.data:
            self._merge(ended)
        self._place(ended.data, ended.tree, ended.anchor)

    def _merge(self, ended: _Open) -> None:
        """`<<: *other` stands for the other mapping's keys; those that the mapping has itself win."""
        merged = ended.data[MERGE]
        tree = ended.tree.children[MERGE]
        if not isinstance(merged, dict):
            line, column = ended.tree.keys[MERGE]
            self.faults.append(Fault(self.file, line, column, MERGE, f"a merge of {shown(merged)}; a mapping"))
            merged = {}
        own = dict(ended.data)
        ended.data.clear()
        for key, value in own.items():
            if key != MERGE:
                ended.data[key] = value
                continue
            for other, borrowed in merged.items():
                if other not in own and other in tree.children:
                    ended.data[other] = borrowed
                    ended.tree.keys[other] = tree.keys[other]
                    ended.tree.children[other] = tree.children[other]
        del ended.tree.keys[MERGE], ended.tree.children[MERGE]

    def _alias(self, event: Any) -> None:
        self._needs_no_key(event, "an alias as a key")
        if event.anchor not in self.anchors:
            raise _Unreadable(
                self._fault(event, f"the alias *{event.anchor}", f"an alias after the end of &{event.anchor}")
            )
        value, tree = self.anchors[event.anchor]
        self.values += tree.size
        self._bound(event)
        self._place(value, tree, None)

    def _needs_no_key(self, event: Any, found: str) -> None:
        if self.stack and type(self.stack[-1].data) is dict and self.stack[-1].key is None:
            raise _Unreadable(self._fault(event, found, "a name as a key"))

    def _place(self, value: Any, tree: Tree, anchor: str | None) -> None:
        if anchor is not None:
            self.anchors[anchor] = (value, tree)
        if not self.stack:
            self.result = (value, tree)
            return
        parent = self.stack[-1]
        parent.tree.size += tree.size
        if parent.key is not None:
            if value is not None:
                parent.data[parent.key] = value
            parent.tree.children[parent.key] = tree
            parent.key = None
        elif value is not None:
            parent.tree.children[len(parent.data)] = tree
            parent.data.append(value)

    def _tree(self, event: Any) -> Tree:
        self.values += 1
        self._bound(event)
        mark = event.start_mark
        return Tree(mark.line + 1, mark.column + 1)

    def _bound(self, event: Any) -> None:
        if self.values > MOST_VALUES:
            raise _Unreadable(self._fault(event, f"more than {MOST_VALUES} values", "fewer values and aliases"))

    def _fault(self, event: Any, found: str, allowed: str) -> Fault:
        path = tuple(
            len(o.data) if o.key is None else o.key for o in self.stack if o.key is not None or type(o.data) is list
        )
        return Fault(
            self.file, event.start_mark.line + 1, event.start_mark.column + 1, spelled(path), f"{found}; {allowed}"
        )


def _plain(text: str) -> str | int | bool | None:
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.match(text):
        return int(text)
    return text


def _syntax_fault(file: Path, text: str, error: YAMLError) -> Fault:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
    context = getattr(error, "context", None)
    if mark is not None:
        line, column = mark.line + 1, mark.column + 1
    else:
        line, column = _line_column(text, _first_unprintable(text))
    here = "".join(text.splitlines()[line - 1 : line])[column - 1 : column]  # nothing at the end of the text
    if "cannot start any token" in problem and here == "\t":
        problem = "a tab; spaces indent YAML"
    if problem == "found unexpected ':'" or (problem == "did not find expected node content" and here == ":"):
        problem += "; quote the text"
    return Fault(
        file, line, column, "file", f"not YAML: {_one_line(problem)}" + (f" ({_one_line(context)})" if context else "")
    )


def _first_unprintable(text: str) -> int:
    match = re.search("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text)
    return match.start() if match else 0


def _line_column(text: str, offset: int) -> tuple[int, int]:
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


def _one_line(text: str) -> str:
    return text if text.isprintable() else repr(text)[1:-1]
