"""Where programs are looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.host import programs


def program(path: Path, mode: int = 0o755) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return str(path)


def test_the_path_comes_first_in_its_order(tmp_path: Path) -> None:
    first = program(tmp_path / "a" / "sh")
    program(tmp_path / "b" / "sh")
    assert programs.find("sh", f"{tmp_path}/a:{tmp_path}/b:/bin") == first


def test_the_path_of_this_process_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = program(tmp_path / "lab-test-program")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert programs.find("lab-test-program") == expected


def test_system_folders_are_searched_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert programs.SYSTEM_FOLDERS == ("/usr/local/sbin", "/usr/sbin", "/sbin")
    expected = program(tmp_path / "sbin" / "lab-test-program")
    monkeypatch.setattr(programs, "SYSTEM_FOLDERS", (str(tmp_path / "sbin"),))
    assert programs.find("lab-test-program", "/nowhere") == expected


def test_what_cannot_be_run_is_passed_over(tmp_path: Path) -> None:
    program(tmp_path / "a" / "lab-test-program", mode=0o644)
    (tmp_path / "b" / "lab-test-program").mkdir(parents=True)
    expected = program(tmp_path / "c" / "lab-test-program")
    assert programs.find("lab-test-program", ":".join(f"{tmp_path}/{folder}" for folder in "abc")) == expected


def test_relative_folders_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "lab-test-program")
    monkeypatch.chdir(tmp_path)
    assert programs.find("lab-test-program", ":.:") is None


def test_absent_program() -> None:
    assert programs.find("lab-test-program") is None
