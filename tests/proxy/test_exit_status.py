"""Exit status: 0 done, 1 it failed while running, 2 the words or the file are wrong, 3 the host is not able."""

from __future__ import annotations

import os
import subprocess
from itertools import takewhile
from pathlib import Path

import pytest

from tests.proxy.ends import listening
from tests.proxy.running import DEADLINE, edgeproxy, own_address

CONFIG = """
[listener.in]
tcp = ["HERE:8000"]
[[rule]]
to = "out"
[backend.out]
targets = ["127.0.0.1:9000"]
"""
MANAGED = CONFIG + 'source = "client"\n[transparent]\nmanage_rules = true\n'
WITHOUT_NET_ADMIN = ("setpriv", "--bounding-set=-net_admin") if os.geteuid() == 0 else ()
COMMANDS = ("run", "check", "schema", "explain", "doctor", "rules", "top", "connections", "deny", "undeny", "denied")


def ask(*words: str, before: tuple[str, ...] = ()) -> tuple[int, str]:
    """Its status and its stderr; what failed says why."""
    command = [*before, edgeproxy(), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert (done.returncode == 0) == (done.stderr == "") or "note:" in done.stderr, done.stderr
    return done.returncode, done.stderr


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "c.toml"
    path.write_text(CONFIG.replace("HERE", own_address()))
    return path


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_0_and_has_an_example_and_unknown_words_are_2(name: str) -> None:
    shown = subprocess.run([edgeproxy(), name, "--help"], capture_output=True, text=True, timeout=DEADLINE, check=True)
    assert f"example: edgeproxy {name}" in shown.stdout
    status, said = ask(name, "--no-such-word")
    assert status == 2
    assert said


def test_what_needs_no_running_proxy_is_0(config: Path) -> None:
    for words in (["check"], ["explain", "--port", "8000"], ["rules"], ["doctor"]):
        assert ask(*words, "-c", str(config))[0] == 0
    assert ask("schema")[0] == 0


@pytest.mark.parametrize("name", ["run", "check", "explain", "rules", "doctor"])
def test_a_file_that_is_wrong_or_not_there_is_2(config: Path, name: str) -> None:
    config.write_text("nonsense")
    for path in (config, config.with_name("none.toml")):
        status, said = ask(name, "-c", str(path), *(["--port", "1"] if name == "explain" else []))
        assert (status, str(path) in said) == (2, True), said


@pytest.mark.parametrize("name", ["top", "connections", "denied", "undeny", "deny"])
def test_nobody_at_the_admin_socket_is_1(tmp_path: Path, name: str) -> None:
    words = {"undeny": ["192.0.2.1"], "deny": ["192.0.2.1", "--for", "1h"]}.get(name, [])
    status, said = ask(name, *words, "--socket", str(tmp_path / "none"))
    assert (status, "is edgeproxy running" in said) == (1, True), said


def test_an_endpoint_that_is_taken_is_1(config: Path) -> None:
    here = config.read_text().split('"')[1].removesuffix(":8000")
    with listening(here, 8000):
        status, said = ask("run", "-c", str(config))
    assert (status, "another program listens there" in said) == (1, True), said


def test_a_start_tells_what_is_hardly_meant(config: Path) -> None:
    """As `check` does, which the shipped unit does not run at a start."""
    here = config.read_text().split('"')[1]
    config.write_text(config.read_text() + '[operation]\nmetrics = "0.0.0.0:9464"\n')
    with listening(here.partition(":")[0], 8000):  # it ends at once
        _, said = ask("run", "-c", str(config))
    assert f"edgeproxy: note: {config}:9: operation.metrics: " in said


@pytest.mark.parametrize("key", ["tcp", "metrics", "descriptors", "manage_rules"])
def test_a_start_that_fails_leaves_no_admin_socket(config: Path, key: str) -> None:
    """Whoever asks there would take it for a proxy that does not answer."""
    here, other = own_address(), own_address()
    socket = config.with_name("admin")
    operation = f'[operation]\nadmin_socket = "{socket}"\n'
    whole = (MANAGED if key == "manage_rules" else CONFIG).replace("HERE", here) + operation
    config.write_text(whole + (f'metrics = "{other}:8000"\n' if key == "metrics" else ""))
    before = {"descriptors": ("prlimit", "--nofile=24:24"), "manage_rules": WITHOUT_NET_ADMIN}.get(key, ())
    with listening(here if key == "tcp" else other, 8000):
        status, said = ask("run", "-c", str(config), before=before)
    assert status in {1, 3}, said
    assert not socket.exists()


def test_too_few_descriptors_end_a_start_with_the_limit_that_mends_it_and_no_worker_is_left_out(config: Path) -> None:
    config.write_text(
        "workers = 2\n" + config.read_text().replace("[[rule]]", f'udp = ["{own_address()}:8000"]\n[[rule]]')
    )
    said: dict[int, list[str]] = {}
    for limit in range(8, 200):
        command = ["prlimit", f"--nofile={limit}:{limit}", edgeproxy(), "run", "-c", str(config)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
            assert running.stderr
            lines = list(takewhile(lambda line: line != "edgeproxy: ready\n", running.stderr))
            running.terminate()
            is_ready = running.wait(DEADLINE) == 0
            said[limit] = [line for line in lines + running.stderr.readlines() if "note:" not in line]
            if is_ready:
                break
            assert running.returncode in {1, 3}, said
            assert any("LimitNOFILE" in line for line in said[limit]), said
    assert is_ready, said
    # Each worker has what it needs: the others' clients wait for nobody.
    assert [line for line in said[limit] if "a worker" in line] == [], said
    assert any("a worker cannot begin" in line for lines in said.values() for line in lines), said


def test_rules_that_cannot_be_installed_are_3(config: Path) -> None:
    config.write_text(MANAGED.replace("HERE", own_address()))
    status, said = ask("run", "-c", str(config), before=WITHOUT_NET_ADMIN)
    assert (status, "transparent.manage_rules" in said) == (3, True), said
    if os.geteuid() == 0:  # else it may be that there is no nft either
        assert "AmbientCapabilities=CAP_NET_ADMIN" in said
