"""The rules of the source tree that no linter knows: direction of imports, size, names, docstrings, no sleeping.

Each rule is a function from a tree to its faults, so the rules are tested too: on small bad trees.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# From left to right: a package imports only what stands to its left; those of one row do not import each other.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "syscalls"}),
    frozenset({"topology"}),
    frozenset({"plan", "draw", "host", "capture"}),
    frozenset({"realise"}),
    frozenset({"probe", "mesh", "certify", "conform"}),
    frozenset({"report"}),
    frozenset({"cli", "pytest_plugin"}),
    frozenset({"demo", "__main__"}),
)
FORBIDDEN_NAMES = frozenset({"utils", "util", "helpers", "helper", "common", "misc", "manager", "base"})
LINE_LIMIT = 400
# Files over the limit, each with its reason. This list may only shrink.
LONG_FILES: dict[str, str] = {}
# Files that may call time.sleep, each with its reason: waiting is for a state, with a deadline.
SLEEPERS: dict[str, str] = {
    "lab/conform/asking.py": "pieces of a stream lie apart in time, or TCP joins them",
    "lab/realise/asking.py": "the one place that waits for a state, with a deadline; others call it",
    "tests/kill/kill_points.py": "a kill falls at a random moment, and that moment is a sleep",
    "tests/kill/network_namespaces.py": "the kernel does not tell when it is through with a namespace",
}

Rule = Callable[[Path], list[str]]


@pytest.mark.parametrize(
    "folder", [name for name in ("lab", "tests", "scenarios", "benchmarks") if (ROOT / name).is_dir()]
)
def test_there_is_something_to_check(folder: str) -> None:
    assert list(sources(ROOT, folder)), f"no Python file in {folder}/, so the rules would pass for nothing"


def test_the_layers_name_what_exists() -> None:
    known = {name for layer in LAYERS for name in layer}
    found = {path.stem for path in (ROOT / "lab").iterdir() if is_module(path)} - {"__init__"}
    assert found, "lab/ holds no module"
    assert found <= known, f"give {sorted(found - known)} a place in LAYERS"


def test_imports_point_to_the_left() -> None:
    assert wrong_imports(ROOT) == []


def test_scenarios_use_public_names_only() -> None:
    assert private_imports_of_scenarios(ROOT) == []


def test_files_are_short() -> None:
    assert long_files(ROOT, LONG_FILES) == []


def test_names_say_what_a_file_is_for() -> None:
    assert empty_names(ROOT) == []


def test_modules_begin_with_a_docstring() -> None:
    assert modules_without_docstring(ROOT) == []


def test_nothing_sleeps_to_wait() -> None:
    assert sleeps(ROOT, SLEEPERS) == []


def wrong_imports(root: Path) -> list[str]:
    """An import of `lab.X` by `lab.Y` where X does not stand to the left of Y."""
    place = {name: index for index, layer in enumerate(LAYERS) for name in layer}
    faults = []
    for path in sources(root, "lab"):
        importer = first_part(root, path)
        if importer == "__init__":  # the public names of `lab` come from everywhere
            continue
        for line, module in lab_imports(root, path):
            imported = module.split(".")[1] if "." in module else ""
            if imported == importer:
                continue
            if not imported:
                faults.append(f"{path.relative_to(root)}:{line}: imports `lab` itself; import the module that is meant")
            elif place.get(imported, len(LAYERS)) >= place.get(importer, -1):
                faults.append(f"{path.relative_to(root)}:{line}: {importer} must not import {module}")
    return faults


def private_imports_of_scenarios(root: Path) -> list[str]:
    """An import in `scenarios/` of anything of the lab but `lab` and `lab.errors`."""
    return [
        f"{path.relative_to(root)}:{line}: a scenario imports only `lab` and `lab.errors`, not {module}"
        for path in sources(root, "scenarios")
        for line, module in lab_imports(root, path)
        if module != "lab" and module.split(".")[:2] != ["lab", "errors"]
    ]


def long_files(root: Path, exempt: dict[str, str]) -> list[str]:
    """A file over the limit that is not exempt, and an exemption that is not needed."""
    lengths = {str(path.relative_to(root)): len(path.read_text().splitlines()) for path in written_files(root)}
    long = {name for name, lines in lengths.items() if lines > LINE_LIMIT}
    faults = [f"{name}: {lengths[name]} lines, {LINE_LIMIT} are allowed" for name in sorted(long - exempt.keys())]
    return faults + [f"{name}: need not be exempt from the line limit" for name in sorted(exempt.keys() - long)]


def empty_names(root: Path) -> list[str]:
    """A file or folder called after nothing in particular, alone or as a part (`net_utils.py`)."""
    paths = {part for path in written_files(root) for part in (path, *path.parents) if part.is_relative_to(root)}
    return [
        f"{path.relative_to(root)}: the name does not say what it is for"
        for path in sorted(paths - {root})
        if FORBIDDEN_NAMES & set(path.stem.lower().split("_"))
    ]


def modules_without_docstring(root: Path) -> list[str]:
    """A module of the lab that does not say why it exists in its first line."""
    return [
        f"{path.relative_to(root)}: begins without a docstring"
        for path in sources(root, "lab")
        if not (ast.get_docstring(tree(path)) or "").strip()
    ]


def sleeps(root: Path, exempt: dict[str, str]) -> list[str]:
    """A use of `time.sleep` or `asyncio.sleep(n)`; `asyncio.sleep(0)` only gives way."""
    faults = []
    for folder in ("lab", "tests", "scenarios"):
        for path in sources(root, folder):
            name = str(path.relative_to(root))
            lines = [] if name in exempt else sleeping_lines(path)
            faults += [f"{name}:{line}: sleeps; wait for a state with a deadline" for line in lines]
    return faults


def sleeping_lines(path: Path) -> list[int]:
    lines = []
    for node in ast.walk(tree(path)):
        match node:
            case ast.Attribute(value=ast.Name(id="time"), attr="sleep"):
                lines.append(node.lineno)
            case ast.ImportFrom(module="time" | "asyncio", names=names) if any(name.name == "sleep" for name in names):
                lines.append(node.lineno)
            case ast.Call(func=ast.Attribute(value=ast.Name(id="asyncio"), attr="sleep"), args=[ast.Constant(value=0)]):
                pass
            case ast.Call(func=ast.Attribute(value=ast.Name(id="asyncio"), attr="sleep")):
                lines.append(node.lineno)
    return lines


def lab_imports(root: Path, path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of every import of the lab in a file, those inside functions too."""
    package = path.relative_to(root).with_suffix("").parts[:-1]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            near = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*near, *([node.module] if node.module else [])])
            # `from lab import topology` names a module, `from lab import Lab` a public name: told apart by the tree
            found = [submodule if (submodule := f"{module}.{a.name}") in modules(root) else module for a in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in dict.fromkeys(found) if name.split(".")[0] == "lab")


def modules(root: Path) -> set[str]:
    """Dotted names of the lab's own modules and packages directly below `lab`."""
    return {f"lab.{path.stem}" for path in (root / "lab").iterdir() if is_module(path)}


def first_part(root: Path, path: Path) -> str:
    """The layer a file of the lab belongs to: `plan` for lab/plan/build.py."""
    return path.relative_to(root / "lab").with_suffix("").parts[0]


def is_module(path: Path) -> bool:
    return path.suffix == ".py" or (path.is_dir() and any(path.glob("*.py")))


def sources(root: Path, folder: str) -> Iterator[Path]:
    return iter(sorted((root / folder).rglob("*.py")))


def written_files(root: Path) -> list[Path]:
    """The source files that people write: Python, Rust, shell."""
    folders = ("lab", "tests", "scenarios", "benchmarks", "wire", "proxy", "dns", "auth", "backup", "setup")
    suffixes = {".py", ".rs", ".sh"}
    found = [path for name in folders for path in sorted((root / name).rglob("*")) if path.suffix in suffixes]
    return [path for path in found if "__pycache__" not in path.parts and "target" not in path.parts]


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


# The rules themselves, on trees that break exactly one of them.

BAD_TREES: list[tuple[Rule, str, str, str]] = [
    (wrong_imports, "lab/plan/build.py", '"""Plan."""\nfrom lab.realise import executor\n', "plan must not import"),
    (wrong_imports, "lab/plan/build.py", '"""Plan."""\nfrom lab import realise\n', "plan must not import lab.realise"),
    (
        wrong_imports,
        "lab/plan/build.py",
        '"""Plan."""\nfrom ..realise import run\n',
        "plan must not import lab.realise",
    ),
    (wrong_imports, "lab/plan/a.py", '"""A."""\ndef f():\n    import lab.report.write\n', "a.py:3: plan must not"),
    (wrong_imports, "lab/errors.py", '"""Errors."""\nimport lab.plan\n', "errors must not import lab.plan"),
    (wrong_imports, "lab/unplaced/a.py", '"""A."""\nimport lab.errors\n', "unplaced must not import"),
    (wrong_imports, "lab/plan/a.py", '"""A."""\nimport lab\n', "imports `lab` itself"),
    (private_imports_of_scenarios, "scenarios/test_a.py", "from lab.plan.step import Step\n", "not lab.plan.step"),
    (lambda root: long_files(root, {}), "wire/src/a.rs", "//\n" * 401, "401 lines"),
    (lambda root: long_files(root, {"lab/a.py": "why"}), "lab/a.py", "#\n" * 400, "need not be exempt"),
    (empty_names, "lab/plan/utils.py", '"""X."""\n', "lab/plan/utils.py: the name"),
    (empty_names, "wire/src/net_helpers.rs", "//! X.\n", "net_helpers.rs: the name"),
    (empty_names, "lab/common/a.py", '"""X."""\n', "lab/common: the name"),
    (modules_without_docstring, "lab/plan/a.py", "import os\n", "without a docstring"),
    (lambda root: sleeps(root, {}), "lab/plan/a.py", '"""X."""\nimport time\ntime.sleep(1)\n', "a.py:3: sleeps"),
    (lambda root: sleeps(root, {}), "tests/test_a.py", "from time import sleep\n", "test_a.py:1: sleeps"),
    (lambda root: sleeps(root, {}), "scenarios/a.py", "import asyncio\nasyncio.sleep(0.1)\n", "a.py:2: sleeps"),
]

GOOD_TREE = {
    "lab/__init__.py": '"""Public names."""\nfrom lab.realise.run import run\n',
    "lab/errors.py": '"""Errors."""\n',
    "lab/topology/model.py": '"""Model."""\nfrom lab.errors import LabError\n',
    "lab/plan/build.py": '"""Plan."""\nfrom lab.topology.model import Node\nfrom .step import Step\n',
    "lab/plan/step.py": '"""Steps."""\n',
    "lab/realise/run.py": '"""Run."""\nimport asyncio\nfrom lab.plan import build\nawaited = asyncio.sleep(0)\n',
    "scenarios/test_a.py": "from lab import run\nfrom lab.errors import LabError\n",
}


@pytest.mark.parametrize(("rule", "name", "text", "fault"), BAD_TREES, ids=[f"{b[1]}: {b[3]}" for b in BAD_TREES])
def test_a_bad_tree_is_refused(tmp_path: Path, rule: Rule, name: str, text: str, fault: str) -> None:
    for good, content in GOOD_TREE.items():
        write(tmp_path / good, content)
    write(tmp_path / name, text)
    faults = rule(tmp_path)
    assert len(faults) == 1, faults
    assert fault in faults[0]


@pytest.mark.parametrize("rule", [bad[0] for bad in BAD_TREES if "exempt" not in bad[3]])
def test_a_good_tree_passes(tmp_path: Path, rule: Rule) -> None:
    for name, content in GOOD_TREE.items():
        write(tmp_path / name, content)
    assert rule(tmp_path) == []


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
