"""The topologies that plans are made of here: every shipped one, small ones, and those of the language's own tests."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
SHIPPED = sorted((HERE.parents[1] / "topologies").glob("*.yaml"))
SMALL = sorted((HERE / "golden").glob("*.yaml"))
VALID = sorted((HERE.parent / "topology" / "valid").glob("*.yaml"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`golden_file`: those that have a golden plan; `file`: all."""
    if "golden_file" in metafunc.fixturenames:
        metafunc.parametrize("golden_file", SHIPPED + SMALL, ids=lambda file: file.stem)
    if "file" in metafunc.fixturenames:
        files = SHIPPED + SMALL + VALID
        metafunc.parametrize("file", files, ids=lambda file: f"{file.parent.name}-{file.stem}")


@pytest.fixture(scope="session")
def shipped() -> list[Path]:
    return SHIPPED


@pytest.fixture(scope="session")
def small() -> list[Path]:
    return SMALL


@pytest.fixture(scope="session")
def valid() -> list[Path]:
    return VALID
