"""`lab exec`: exit codes, signals, streams, environment, folder, user."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.errors import ExitCode

PAIR = """\
networks:
  lan: {prefixes: [192.0.2.0/24]}
nodes:
  a: {links: {lan: 192.0.2.10}}
  b: {links: {lan: auto}}
"""
SIGNALLED_EXEC = Path(__file__).with_name("signalled_exec.py")


@pytest.fixture(scope="module")
def running(module_up: Any) -> str:
    name: str = module_up(PAIR)
    return name


@pytest.mark.essential
@pytest.mark.single_id
def test_a_command_runs_in_the_node(lab: Any, running: str) -> None:
    assert lab("exec", "--lab", running, "a", "--", "hostname", code=0).stdout == "a\n"
    addresses = lab("exec", "--lab", running, "a", "--", "ip", "-br", "-4", "address", code=0).stdout
    assert "192.0.2.10/24" in addresses


def test_the_dashes_may_be_left_out(lab: Any, running: str) -> None:
    assert lab("exec", "--lab", running, "a", "sh", "-c", "echo $0", "--lab", code=0).stdout == "--lab\n"


def test_dashes_after_the_first_belong_to_the_command(lab: Any, running: str) -> None:
    assert lab("exec", "--lab", running, "a", "--", "echo", "--", "-n", code=0).stdout == "-- -n\n"


@pytest.mark.essential
@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_the_exit_code_is_that_of_the_command(lab: Any, running: str, code: int) -> None:
    lab("exec", "--lab", running, "a", "--", "sh", "-c", f"exit {code}", code=code)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_command_ended_by_a_signal_gives_128_and_its_number(lab: Any, running: str, number: int) -> None:
    lab("exec", "--lab", running, "a", "--", "sh", "-c", f"ulimit -c 0; kill -{number} $$", code=128 + number)


@pytest.mark.parametrize("program", ["no-such-program", "/etc/passwd", "/"])
def test_what_cannot_be_started_gives_127_and_is_named(lab: Any, running: str, program: str) -> None:
    result = lab("exec", "--lab", running, "a", "--", program, code=127)
    assert result.stderr.startswith(f"lab: error: a: cannot run {program!r}: ")


def test_a_missing_node_is_wrong_input(lab: Any, running: str) -> None:
    result = lab("exec", "--lab", running, "c", "--", "true", code=ExitCode.WRONG_INPUT)
    assert result.stderr.startswith("lab: error: no node 'c' in this lab; it has a, b")


@pytest.mark.essential
def test_a_megabyte_passes_through_unchanged(lab: Any, running: str) -> None:
    sent = random.Random(1).randbytes(1 << 20)
    argv = lab.argv("exec", "--lab", running, "a", "--", "sha256sum")
    result = subprocess.run(argv, input=sent, capture_output=True, timeout=60, check=True)
    assert result.stdout.split()[0].decode() == hashlib.sha256(sent).hexdigest()
    echoed = subprocess.run(
        lab.argv("exec", "--lab", running, "a", "--", "cat"), input=sent, capture_output=True, check=True
    )
    assert echoed.stdout == sent


def test_output_and_errors_stay_apart(lab: Any, running: str) -> None:
    result = lab("exec", "--lab", running, "a", "--", "sh", "-c", "echo out; echo err >&2", code=0)
    assert (result.stdout, result.stderr) == ("out\n", "err\n")


def test_standard_streams_may_be_closed(lab: Any, running: str) -> None:
    argv = lab.argv("exec", "--lab", running, "a", "--", "sh", "-c", "cat; echo hidden; exit 5")
    result = subprocess.run(["sh", "-c", '"$@" <&- >&-', "sh", *argv], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (5, "", "")


def test_a_reader_that_has_enough_ends_the_command(lab: Any, running: str) -> None:
    argv = lab.argv("exec", "--lab", running, "a", "--", "yes")
    script = '"$@" | head -n 1; echo ${PIPESTATUS[0]}'
    result = subprocess.run(
        ["bash", "-c", script, "bash", *argv], capture_output=True, text=True, timeout=60, check=True
    )
    # Whether SIGPIPE ends it depends on what this process's parent made of that signal; yes(1) fails otherwise.
    assert result.stdout.splitlines()[0] == "y"
    assert result.stdout.splitlines()[1] in ("141", "1")


def test_environment_and_folder(lab: Any, running: str) -> None:
    words = ["exec", "--lab", running, "--env", "A=b c", "--env", "EMPTY=", "a", "--"]
    script = 'echo "$A|${EMPTY-unset}|${SECRET-unset}|${TERM-unset}"'
    result = lab(*words, "sh", "-c", script, env={"SECRET": "ours", "TERM": "vt100"}, code=0)
    assert result.stdout == "b c||unset|unset\n"
    home = Path("/usr/share")
    assert lab(*words, "pwd", cwd=home, code=0).stdout == f"{home}\n"


def test_a_folder_that_the_node_has_not_is_no_obstacle(lab: Any, running: str, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    process = lab.start("exec", "--lab", running, "a", "--", "pwd", cwd=hidden, stdin=subprocess.PIPE)
    hidden.rmdir()
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert Path(output.strip()).is_absolute()


@pytest.mark.root
def test_another_user(lab: Any, running: str) -> None:
    assert lab("exec", "--lab", running, "--user", "nobody", "a", "--", "id", "-un", code=0).stdout == "nobody\n"
    assert "user 'nosuch'" in lab("exec", "--lab", running, "--user", "nosuch", "a", "--", "id", code=127).stderr


@pytest.mark.essential
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 42), (signal.SIGTERM, 43), (signal.SIGUSR1, 44)])
def test_signals_reach_the_command(lab: Any, running: str, number: int, code: int) -> None:
    script = "import signal,sys\n" + "".join(
        f"signal.signal({n}, lambda *_: sys.exit({c}))\n" for n, c in ((2, 42), (15, 43), (10, 44))
    )
    process = lab.start("exec", "--lab", running, "a", "--", "python3", "-uc", script + "print('set'); signal.pause()")
    assert process.stdout.readline() == "set\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (code, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_an_exec_that_has_only_just_started_its_command_reaches_it(
    lab: Any, running: str, number: int
) -> None:
    command = ["sh", "-c", "trap 'exit 42' INT TERM USR1; echo set; while :; do sleep 0.01; done"]
    argv = [sys.executable, str(SIGNALLED_EXEC), str(int(number)), "--lab", running, "a", "--", *command]
    done = subprocess.run(argv, env=lab.environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 42, done.stderr


def test_ctrl_c_ends_a_command_that_does_not_care(lab: Any, running: str) -> None:
    process = lab.start("exec", "--lab", running, "a", "--", "sh", "-c", "echo set; exec sleep 60")
    assert process.stdout.readline() == "set\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")


@pytest.mark.essential
def test_a_killed_exec_takes_its_command_along(lab: Any, running: str) -> None:
    process = lab.start("exec", "--lab", running, "a", "--", "sh", "-c", "echo $$; exec sleep 60")
    pid = process.stdout.readline().strip()
    process.kill()
    process.communicate(timeout=60)
    gone = f"for i in $(seq 600); do kill -0 {pid} 2>/dev/null || exit 0; sleep 0.05; done; exit 1"
    lab("exec", "--lab", running, "b", "--", "sh", "-c", gone, code=0)


def test_a_lab_that_ends_ends_the_command(lab: Any, up: Any) -> None:
    name = up(PAIR)
    process = lab.start("exec", "--lab", name, "a", "--", "sh", "-c", "echo set; exec sleep 60")
    assert process.stdout.readline() == "set\n"
    lab("down", name, code=0)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (
        ExitCode.FAILED,
        "lab: error: the lab has ended, and the command with it\n",
    )


def test_a_shell_reads_commands_from_a_pipe(lab: Any, running: str) -> None:
    assert lab("shell", "--lab", running, "b", input="hostname; exit 3\n", code=3).stdout == "b\n"
