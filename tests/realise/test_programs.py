"""Programs run in a node: streams, exit codes, folders, ends."""

from __future__ import annotations

import contextlib
import hashlib
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.errors import RealiseError, UsageError
from lab.realise.asking import wait_until
from lab.realise.identity import Ids, ids_of_this_user
from lab.realise.lab import Lab

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

TOPOLOGY = """
networks: {lan: {prefixes: [192.0.2.0/24]}}
nodes: {nas: {links: {lan: auto}}, pi: {links: {lan: auto}}}
"""
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def lab(module_up: Callable[..., Lab]) -> Lab:
    return module_up(TOPOLOGY)


def lives(lab: Lab, pid: int) -> bool:
    """Whether a process of the lab runs, seen from another node: they share their process ids."""
    return lab["pi"].run(["sh", "-c", f"kill -0 {pid}"]).returncode == 0


def test_output_errors_and_exit_code_come_back_apart(lab: Lab) -> None:
    done = lab["nas"].run(["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)


def test_a_program_killed_by_a_signal_has_its_number_as_a_negative_exit_code(lab: Lab) -> None:
    assert lab["nas"].run(["sh", "-c", "kill -TERM $$"]).returncode == -signal.SIGTERM


def test_check_raises_for_a_program_that_failed_only(lab: Lab) -> None:
    lab["nas"].run(["true"], check=True)
    with pytest.raises(subprocess.CalledProcessError, match="exit status 3") as caught:
        lab["nas"].run(["sh", "-c", "echo why >&2; exit 3"], check=True)
    assert caught.value.__notes__ == ["nas: its standard error ends with:\nwhy"]
    assert caught.value.stderr == "why\n"


def test_a_megabyte_passes_through_its_pipes_unchanged(lab: Lab) -> None:
    text = "".join(f"line {number}\n" for number in range(100_000))
    assert len(text) > 1_000_000
    assert lab["nas"].run(["cat"], input=text).stdout == text
    said = lab["nas"].run(["sha256sum"], input=text).stdout
    assert said.split()[0] == hashlib.sha256(text.encode()).hexdigest()


def test_a_program_need_not_read_its_input(lab: Lab) -> None:
    assert lab["nas"].run(["true"], input="x" * 1_000_000).returncode == 0


def test_without_input_there_is_nothing_to_read(lab: Lab) -> None:
    assert lab["nas"].run(["cat"], timeout=30).stdout == ""


def test_output_that_is_no_utf8_is_kept_readable(lab: Lab) -> None:
    assert lab["nas"].run(["printf", r"a\377b"]).stdout == "a�b"


def test_errors_can_go_where_output_goes(lab: Lab) -> None:
    command = ["sh", "-c", "echo out; echo err >&2"]
    with lab["nas"].start(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        assert process.stdout.read() == "out\nerr\n"
        assert process.wait(30) == 0


def test_output_can_go_into_a_file_of_the_test(lab: Lab, tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as file, lab["nas"].start(["hostname"], stdout=file) as process:
        assert process.wait(30) == 0
    assert (tmp_path / "out").read_text() == "nas\n"


def test_the_working_directory_is_the_one_asked_for(lab: Lab) -> None:
    assert lab["nas"].run(["pwd"], cwd="/etc").stdout == "/etc\n"


def test_variables_are_added_to_the_nodes_own(lab: Lab) -> None:
    said = lab["nas"].run(["sh", "-c", "echo $COLOUR $USER $LANG"], env={"COLOUR": "green"}).stdout
    assert said == "green root C.UTF-8\n"


def test_a_program_ends_with_its_deadline_and_the_error_holds_what_it_said(lab: Lab) -> None:
    with pytest.raises(TimeoutError, match=r"did not end within 5 s; it said: .*so far") as caught:
        lab["nas"].run(["sh", "-c", "echo so far; exec sleep 1000"], timeout=5)
    pid = int(str(caught.value).split()[1])
    wait_until(lambda: not lives(lab, pid), 30, "it is gone")


def test_waiting_with_a_deadline_leaves_the_program_alone(lab: Lab) -> None:
    with lab["nas"].start(["sleep", "1000"]) as process:
        with pytest.raises(TimeoutError):
            process.wait(0.05)
        assert lives(lab, process.pid)


def test_a_signal_reaches_the_program_and_what_it_started(lab: Lab) -> None:
    command = ["sh", "-c", "sleep 1000 & echo $!; wait"]
    with lab["nas"].start(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.terminate()
        assert process.wait(30) == -signal.SIGTERM
    wait_until(lambda: not lives(lab, child), 30, "the child is gone")


def test_a_program_ends_with_the_object_that_started_it(lab: Lab) -> None:
    process = lab["nas"].start(["sleep", "1000"])
    assert lives(lab, process.pid)
    process.close()
    wait_until(lambda: not lives(lab, process.pid), 30, "it is gone")


def test_a_program_ends_with_the_client_that_started_it_even_if_that_is_killed(lab: Lab) -> None:
    client = (
        "import sys; from lab.realise.lab import Lab\n"
        f"process = Lab({lab.name!r})['nas'].start(['sleep', '1000'])\n"
        "print(process.pid, flush=True); sys.stdin.read()"
    )
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", client], cwd=ROOT, text=True, **streams) as process:  # type: ignore[call-overload]
        pid = int(process.stdout.readline())
        assert lives(lab, pid)
        process.kill()
    wait_until(lambda: not lives(lab, pid), 30, "it is gone")


def test_programs_run_side_by_side(lab: Lab) -> None:
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(lab["nas"].start(["sleep", "0.2"])) for _ in range(20)]
        assert len({process.pid for process in processes}) == 20
        assert [process.wait(30) for process in processes] == [0] * 20


def test_programs_can_be_run_by_many_threads(lab: Lab) -> None:
    said: list[str] = []
    command = ["sh", "-c", "hostname; hostname"]
    threads = [
        threading.Thread(target=lambda n=node: said.append(lab[n].run(command).stdout)) for node in ["nas", "pi"] * 8
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(said) == ["nas\nnas\n"] * 8 + ["pi\npi\n"] * 8


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["no-such-program"], "nas: cannot run 'no-such-program': no such program in /"),
        (["/etc/passwd"], "nas: cannot run '/etc/passwd': Permission denied"),
        (["/no/such"], "nas: cannot run '/no/such': No such file or directory"),
    ],
)
def test_a_program_that_cannot_be_started_is_named(lab: Lab, argv: list[str], message: str) -> None:
    with pytest.raises(RealiseError, match=message):
        lab["nas"].run(argv)


def test_a_user_that_does_not_exist_is_named(lab: Lab) -> None:
    with pytest.raises(RealiseError, match="user 'nosuchuser' does not exist on this host"):
        lab["nas"].run(["true"], user="nosuchuser")


def test_a_file_that_does_not_exist_is_the_kernels_error(lab: Lab) -> None:
    with pytest.raises(FileNotFoundError):
        lab["nas"].read("/no/such/file")


def test_a_request_that_makes_no_sense_leaves_the_lab_running(lab: Lab) -> None:
    for nonsense in ({"ask": "dance"}, {}, {"ask": "socket"}, {"ask": "socket", "node": 7}):
        with pytest.raises(UsageError):
            lab.ask(nonsense)
    assert lab["nas"].run(["true"]).returncode == 0


def test_no_descriptor_of_the_supervisor_leaks_into_a_program(lab: Lab) -> None:
    assert lab["nas"].run(["ls", "/proc/self/fd"]).stdout.split() == ["0", "1", "2", "3"]  # 3 is ls's own


def test_a_program_gets_the_limit_of_open_files_that_its_lab_was_started_with(up: Callable[..., Lab]) -> None:
    """The supervisor raises its own to hold many nodes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 200 + max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())  # this process needs some itself
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        lab = up(TOPOLOGY)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert limit not in (soft, hard)
    assert lab["nas"].run(["sh", "-c", "ulimit -n"]).stdout == f"{limit}\n"


def test_a_program_ignores_and_blocks_no_signal(lab: Lab) -> None:
    status = lab["nas"].run(["cat", "/proc/self/status"]).stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    of_the_c_library = 1 << 31 | 1 << 32  # signals 32 and 33, which no program may change (signal(7))
    assert int(fields["SigIgn"], 16) & ~of_the_c_library == 0
    assert int(fields["SigBlk"], 16) & ~of_the_c_library == 0


def test_ended_programs_leave_no_zombies(lab: Lab) -> None:
    for _ in range(5):
        lab["nas"].run(["sh", "-c", "(sleep 0.01 &) ; true"])
    wait_until(lambda: " Z" not in lab["nas"].run(["ps", "-eo", "pid,stat"]).stdout, 30, "no process is a zombie")


@pytest.fixture
def other_user() -> str:
    if ids_of_this_user() is Ids.ONE:
        pytest.skip("this user has a single id to give")
    return "nobody"


def test_a_program_can_run_as_another_user(lab: Lab, other_user: str) -> None:
    said = lab["nas"].run(["sh", "-c", "id -un; id -Gn; echo $USER"], user=other_user).stdout.split()
    assert said == ["nobody", "nogroup", "nobody"]
    assert lab["nas"].run(["sh", "-c", "echo x > /run/x"], user=other_user).returncode != 0
