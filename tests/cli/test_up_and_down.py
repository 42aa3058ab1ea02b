"""`lab up`, `ps`, `inspect`, `down`: a lab's life as a user sees it, and that nothing of it is left."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.errors import ExitCode
from lab.realise import registry

PAIR = """\
networks:
  lan: {prefixes: [192.0.2.0/24, "2001:db8:1::/64"]}
nodes:
  server:
    links: {lan: auto}
    services: {web: {run: python3 -m http.server 80, ready: {tcp: 80}}}
  client: {links: {lan: auto}}
"""

SLOW = """\
nodes:
  a:
    services:
      never: {run: sleep 600, ready: {tcp: 80, timeout: 300s}}
"""

FAILING = """\
nodes:
  a:
    services:
      bad: {run: [sh, -c, "echo these are my last words; exit 3"], ready: {tcp: 80}}
"""


@pytest.mark.essential
@pytest.mark.single_id
def test_a_lab_comes_up_shows_itself_and_goes(lab: Any, name: str, tmp_path: Path) -> None:
    file = written(tmp_path, PAIR)
    result = lab("up", "--name", name, file, code=0)
    assert result.stdout.splitlines()[:4] == [
        "NODE    ROLE  ADDRESSES                      SERVICES",
        "server  host  192.0.2.1/24 2001:db8:1::1/64  web",
        "client  host  192.0.2.2/24 2001:db8:1::2/64  -",
        "",
    ]
    assert re.search(rf"^{name} is ready in \d+ ms$", result.stdout, re.MULTILINE)
    assert f"lab down {name}" in result.stdout
    ended = lab("down", name, code=0).stdout
    assert re.fullmatch(rf"{name} ended in \d+ ms\n", ended)
    assert name not in registry.names()


@pytest.mark.essential
def test_up_as_json_has_the_documented_keys(lab: Any, name: str, tmp_path: Path) -> None:
    file = written(tmp_path, PAIR)
    found = json.loads(lab("up", "--json", "--name", name, file, code=0).stdout)
    try:
        assert found.keys() == {
            "name", "file", "ready_ms", "supervisor", "networks", "nodes", "meshes", "states", "started",
            "link_troubles",
        }  # fmt: skip
        assert (found["name"], found["file"]) == (name, str(file))
        assert 0 < found["ready_ms"] < 60_000
        assert abs(found["started"] - time.time()) < 60
        assert [(state["node"], state["service"], state["state"]) for state in found["states"]] == [
            ("server", "web", "ready")
        ]
        assert is_alive(found["supervisor"])
    finally:
        lab("down", name)


def test_quiet_says_nothing(lab: Any, name: str, tmp_path: Path) -> None:
    result = lab("up", "-q", "--name", name, written(tmp_path, PAIR), code=0)
    lab("down", name, code=0)
    assert (result.stdout, result.stderr) == ("", "")


def test_without_services_none_runs(lab: Any, up: Any) -> None:
    name = up(PAIR, "--no-services")
    node = json.loads(lab("inspect", "--json", "--lab", name, "server", code=0).stdout)
    assert node["states"] == []
    assert [service["name"] for service in node["services"]] == ["web"]
    assert "web(off)" in lab("inspect", "--lab", name, code=0).stdout


@pytest.mark.essential
def test_two_labs_of_one_name_are_refused(lab: Any, up: Any, tmp_path: Path) -> None:
    name = up(PAIR)
    result = lab("up", "--name", name, written(tmp_path, PAIR), code=ExitCode.WRONG_INPUT)
    # On a busy machine it tells first how far it has come.
    assert result.stderr.splitlines()[-1].startswith(f"lab: error: a lab named {name!r} is already up")
    lab("exec", "--lab", name, "client", "--", "true", code=0)


def test_a_faulty_file_brings_nothing_up(lab: Any, name: str, tmp_path: Path) -> None:
    file = written(tmp_path, "nodes: {a: {rol: host}}\n")
    result = lab("up", "--name", name, file, code=ExitCode.WRONG_INPUT)
    assert f"{file}:1:13: nodes.a.rol" in result.stderr
    assert name not in registry.names()


@pytest.mark.essential
def test_a_service_that_fails_is_named_with_its_last_words_and_nothing_is_left(
    lab: Any, name: str, tmp_path: Path
) -> None:
    result = lab("up", "--name", name, written(tmp_path, FAILING), code=ExitCode.FAILED)
    assert "service a/bad ended with exit code 3 before it was ready" in result.stderr
    assert "these are my last words" in result.stderr
    assert result.stdout == ""
    assert name not in registry.names()


def test_keep_leaves_the_failed_lab_to_look_at(lab: Any, name: str, tmp_path: Path) -> None:
    lab("up", "--keep", "--name", name, written(tmp_path, FAILING), code=ExitCode.FAILED)
    try:
        assert lab("logs", "--lab", name, "a", code=0).stdout == "these are my last words\n"
        states = json.loads(lab("inspect", "--json", "--lab", name, "a", code=0).stdout)["states"]
        assert [(state["state"], state["exit_code"]) for state in states] == [("failed", 3)]

        def is_shown() -> bool:
            found = status(lab, name)  # what is not known in time is None
            return (found["state"], found["services_ready"], found["services"]) == ("degraded", 0, 1)

        wait_for(is_shown)
    finally:
        lab("down", name, code=0)


@pytest.mark.essential
def test_ctrl_c_in_the_middle_of_up_leaves_nothing(lab: Any, name: str, tmp_path: Path) -> None:
    process = lab.start("up", "--name", name, written(tmp_path, SLOW), start_new_session=True)
    wait_for(lambda: status(lab, name).get("services") == 1)
    supervisor = supervisor_of(lab, name)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, "")
    assert errors.splitlines()[-1] == "interrupted; nothing of it is left"
    assert name not in registry.names()
    assert not is_alive(supervisor)


@pytest.mark.root
def test_an_interrupted_up_leaves_no_process_namespace_or_name(lab: Any, tmp_path: Path) -> None:
    """Counted in PID and network namespaces of its own, where no other test's labs are."""
    witness = [sys.executable, Path(__file__).with_name("interrupted_up.py")]
    inner = [*witness, *lab.argv("up", "-q", written(tmp_path, SLOW))]
    argv = ["unshare", "--fork", "--pid", "--mount-proc", "--net", *inner]
    result = subprocess.run(argv, env=lab.environment(), capture_output=True, text=True, timeout=120, check=False)
    assert result.stdout, result.stderr
    found = json.loads(result.stdout)
    assert found["code"] == 130, result
    assert found["before"] == found["after"] == {"processes": 1, "networks": 1, "doors": 0, "services": 0}
    assert found["meanwhile"]["networks"] == 3  # ours, the fabric, the node
    assert found["meanwhile"]["doors"] > 0


@pytest.mark.essential
def test_the_lab_outlives_the_terminal_that_it_was_started_from(lab: Any, name: str, tmp_path: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(lab.argv()[0], lab.argv("up", "--name", name, written(tmp_path, PAIR)), lab.environment())
    shown = read_until(terminal, b"is ready in")
    os.close(terminal)  # the kernel sends SIGHUP to the session
    os.waitpid(pid, 0)
    try:
        assert f"{name} is ready in".encode() in shown
        assert not is_alive(pid)
        lab("exec", "--lab", name, "client", "--", "true", code=0)
    finally:
        lab("down", name, code=0)


def test_progress_is_a_live_line_on_a_terminal_and_gone_at_the_end(lab: Any, name: str, tmp_path: Path) -> None:
    told = "while [ ! -e /tmp/go ]; do sleep 0.01; done; exec python3 -m http.server 80"
    slow = PAIR.replace("python3 -m http.server 80", f"[sh, -c, {json.dumps(told)}]")
    file = written(tmp_path, slow.replace("{tcp: 80}", "{tcp: 80, timeout: 60s}"))
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(lab.argv()[0], lab.argv("up", "--name", name, file), lab.environment(TERM="xterm"))
    waiting = b"services 0/1, waiting for server/web"
    try:
        shown = read_until(terminal, waiting)
        lab("exec", "--lab", name, "server", "--", "touch", "/tmp/go", code=0)
        shown += read_until(terminal, None)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(terminal)  # not before, for that is the end of whoever is there (SIGHUP)
    lab("down", name)
    assert code == 0
    assert waiting in shown
    before_table = shown.decode().partition("NODE")[0]
    assert re.search(r"\r\x1b\[K[^\n]*$", before_table), before_table[-80:]


def test_without_a_terminal_only_a_long_wait_shows_progress(lab: Any, name: str, tmp_path: Path) -> None:
    process = lab.start("up", "--name", name, written(tmp_path, SLOW))
    # On a busy machine a line or two of earlier phases come first.
    lines = [process.stderr.readline()]
    while "services 0/1" not in lines[-1] and len(lines) < 10:
        lines.append(process.stderr.readline())
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert re.fullmatch(r" +\d+\.\d s  services 0/1, waiting for a/never\n", lines[-1]), lines
    assert all(float(line.split()[0]) >= 1 for line in lines)


@pytest.mark.essential
def test_ps_lists_labs_and_does_not_wait_for_one_that_is_silent(lab: Any, up: Any) -> None:
    ready, silent = up(PAIR), up(PAIR)
    supervisor = supervisor_of(lab, silent)
    os.kill(supervisor, signal.SIGSTOP)
    try:
        deadline = time.monotonic() + 60
        while True:  # each time it ends, though nobody answers for the silent one
            found = {each["name"]: each for each in json.loads(lab("ps", "--json", code=0).stdout)}
            if found[ready]["state"] == "ready":  # on a busy machine that one may be late, too
                break
            assert time.monotonic() < deadline, found[ready]
    finally:
        os.kill(supervisor, signal.SIGCONT)
    assert found[ready].keys() == {
        "name", "state", "nodes", "services_ready", "services", "started", "supervisor", "file"
    }  # fmt: skip
    assert (found[ready]["state"], found[ready]["services_ready"], found[ready]["nodes"]) == ("ready", 1, 2)
    assert (found[silent]["state"], found[silent]["nodes"]) == ("starting", None)
    assert found[silent]["supervisor"] == supervisor


def test_ps_shows_a_lab_that_is_being_built(lab: Any, name: str, tmp_path: Path) -> None:
    with lab.start("up", "--name", name, written(tmp_path, SLOW)) as process:
        wait_for(lambda: status(lab, name).get("state") == "starting")
        process.send_signal(signal.SIGINT)


def test_ps_shows_a_long_path_whole_in_a_pipe_and_without_its_middle_on_a_terminal(
    lab: Any, name: str, tmp_path: Path
) -> None:
    folder = tmp_path / ("long" * 50)
    folder.mkdir()
    file = written(folder, "nodes: {a: {}}\n")
    lab("up", "-q", "--name", name, file, code=0)
    try:
        wait_for(lambda: status(lab, name).get("state") == "ready")
        lines = [line for line in lab("ps", code=0, env={"COLUMNS": "80"}).stdout.splitlines() if name in line]
        assert [line.endswith(f"  {file}") for line in lines] == [True]
        pid, terminal = pty.fork()
        if pid == 0:
            os.execve(lab.argv()[0], lab.argv("ps"), lab.environment(COLUMNS="160", NO_COLOR="1"))
        shown = read_until(terminal, None).decode().splitlines()
        os.close(terminal)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        lines = [line for line in shown if line.startswith(name)]
        assert [(len(line), "…" in line, line.endswith(".yaml")) for line in lines] == [(160, True, True)]
    finally:
        lab("down", name, code=0)


def test_inspect_shows_addresses_and_services(lab: Any, up: Any) -> None:
    name = up(PAIR)
    text = lab("inspect", "--lab", name, "server", code=0).stdout
    assert re.search(r"^lan +lan +02:\S+ +192\.0\.2\.1/24 2001:db8:1::1/64$", text, re.MULTILINE)
    assert re.search(r"^server/web +ready +tcp/80 +\d+ +0 +-$", text, re.MULTILINE)
    found = json.loads(lab("inspect", "--json", "--lab", name, "server", code=0).stdout)
    assert found.keys() == {"name", "role", "interfaces", "services", "forwards", "nat", "states"}
    near = lab("inspect", "--lab", name, "sever", code=ExitCode.WRONG_INPUT).stderr
    assert "no node 'sever'" in near
    assert "did you mean 'server'?" in near


def test_down_of_a_name_that_is_not_up_names_the_nearest(lab: Any, up: Any) -> None:
    name = up(PAIR, "--no-services")
    errors = lab("down", f"{name}x", code=ExitCode.WRONG_INPUT).stderr
    assert errors.startswith(f"lab: error: no lab named '{name}x' is up; did you mean '{name}'? running: ")
    assert "did you mean" not in lab("down", "zzz", code=ExitCode.WRONG_INPUT).stderr


def test_a_name_that_no_lab_may_have_is_the_fault_of_the_option(lab: Any, tmp_path: Path) -> None:
    file = written(tmp_path, PAIR)
    errors = lab("up", "--name", "Bad Name", file, code=ExitCode.WRONG_INPUT).stderr
    assert errors.startswith("lab: error: --name 'Bad Name'; a lab's name is ")
    assert str(file) not in errors


def test_down_ends_several(lab: Any, up: Any) -> None:
    names = [up(PAIR, "--no-services"), up(PAIR, "--no-services")]
    lines = lab("down", *names, code=0).stdout.splitlines()
    assert [line.split()[0] for line in lines] == names
    assert not set(names) & set(registry.names())


def test_down_ends_a_lab_that_does_not_answer(lab: Any, up: Any) -> None:
    name = up(PAIR)
    os.kill(supervisor_of(lab, name), signal.SIGSTOP)
    lab("down", name, code=0)
    assert name not in registry.names()


@pytest.mark.essential
def test_a_running_lab_is_drawn_from_its_file(lab: Any, up: Any, tmp_path: Path) -> None:
    name = up(PAIR)
    assert lab("graph", "--lab", name, code=0).stdout.startswith("<svg ")
    lab("graph", "--lab", name, "-o", tmp_path / "a.mmd", code=0)
    assert (tmp_path / "a.mmd").read_text() == lab("graph", "--lab", name, "--mermaid", code=0).stdout
    assert (tmp_path / "a.mmd").read_text().startswith("flowchart")
    lab("graph", "--lab", name, "-o", tmp_path / "a.svg", code=0)
    assert (tmp_path / "a.svg").read_text().startswith("<svg ")


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and whose parent has not looked yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def written(folder: Path, text: str) -> Path:
    file = folder / "topology.yaml"
    file.write_text(text)
    return file


def status(lab: Any, name: str) -> dict[str, Any]:
    """The lab's entry in `lab ps`, empty if there is none."""
    found: list[dict[str, Any]] = json.loads(lab("ps", "--json", code=0).stdout)
    return next((each for each in found if each["name"] == name), {})


def supervisor_of(lab: Any, name: str) -> int:
    """As `lab ps` tells it, which on a busy machine it does not at once."""
    wait_for(lambda: status(lab, name).get("supervisor") is not None)
    return int(status(lab, name)["supervisor"] or supervisor_of(lab, name))


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"


def read_until(terminal: int, wanted: bytes | None, seconds: float = 60) -> bytes:
    """What a terminal shows until the wanted bytes, or to its end."""
    shown = b""
    deadline = time.monotonic() + seconds
    while wanted is None or wanted not in shown:
        assert select.select([terminal], [], [], max(0, deadline - time.monotonic()))[0], shown
        try:
            block = os.read(terminal, 4096)
        except OSError:
            break
        if not block:
            break
        shown += block
    return shown


def test_ids_of_processes_are_told_to_be_those_within_the_lab(lab: Any, up: Callable[..., str]) -> None:
    """On the host that number is another process's; who reads it here must not send that one a signal."""
    name = up({"nodes": {"a": {"services": {"idle": {"run": "sleep infinity"}}}}})
    assert "PID IN LAB" in lab("inspect", "a", "--lab", name, code=0).stdout
    assert "pid in the lab" in lab("up", "--help", code=0).stdout
