"""`lab capture` as a user types it; what it writes is read by tshark."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.realise.asking import wait_until
from lab.realise.lab import Lab

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

TOPOLOGY = """
#   a --- lan --- b
networks: {lan: {prefixes: [192.0.2.0/24]}}
nodes: {a: {links: {lan: 192.0.2.1}}, b: {links: {lan: 192.0.2.2}}}
"""


@pytest.fixture(scope="module")
def name(module_up: Callable[..., str]) -> str:
    return module_up(TOPOLOGY)


@pytest.fixture(scope="module")
def labelled(name: str) -> Iterator[Lab]:
    made = Lab(name)
    yield made
    made.close()


def ping(labelled: Lab, times: int = 1) -> None:
    """One after the other, each answered."""
    once = "ping -c1 -W20 192.0.2.2 || exit 1"
    labelled["a"].run(["sh", "-c", f"for i in $(seq {times}); do {once}; done"], check=True, timeout=60)


def types(file: Path) -> list[str]:
    """The interface and ICMP type of each packet."""
    words = ["tshark", "-r", str(file), "-T", "fields", "-e", "frame.interface_name", "-e", "icmp.type", "-Y", "icmp"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.replace("\t", " ").splitlines()


def begun(file: Path) -> None:
    wait_until(lambda: file.exists() and file.stat().st_size, 30, "the capture runs")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_with_a_whole_file_and_a_table(
    lab: Any, name: str, labelled: Lab, tmp_path: Path, number: signal.Signals
) -> None:
    file = tmp_path / "a.pcapng"
    with lab.start("capture", "--lab", name, "lan", "-w", file, "--filter", "icmp") as process:
        begun(file)
        ping(labelled)
        process.send_signal(number)
        said, complaints = process.communicate(timeout=60)
    assert (process.returncode, complaints) == (0, "")
    assert said == ("INTERFACE  PACKETS  BYTES  DROPPED\na:lan      2        196    0\nb:lan      2        196    0\n")
    assert types(file) == ["a:lan 8", "b:lan 8", "b:lan 0", "a:lan 0"]


def test_it_ends_after_so_many_packets(lab: Any, name: str, labelled: Lab, tmp_path: Path) -> None:
    file = tmp_path / "a.pcapng"
    words = ["capture", "--lab", name, "a:lan", "-w", file, "--filter", "icmp", "--count", "3", "--json"]
    with lab.start(*words) as process:
        begun(file)
        ping(labelled, 4)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert types(file) == ["a:lan 8", "a:lan 0", "a:lan 8"]
    told = json.loads(said)
    assert told.pop("seconds") > 0
    interfaces = told.pop("interfaces")
    expected = {"lab": name, "file": str(file), "ending": "count reached", "packets": 3, "bytes": 3 * 98, "dropped": 0}
    assert told == expected
    assert [(each["name"], each["packets"], each["bytes"], each["dropped"]) for each in interfaces] == [
        ("a:lan", 3, 3 * 98, 0)
    ]
    assert interfaces[0]["received"] >= 3


def test_it_ends_after_a_time(lab: Any, name: str, tmp_path: Path) -> None:
    said = lab("capture", "--lab", name, "-w", tmp_path / "a", "--for", "300ms", "--json", code=0).stdout
    told = json.loads(said)
    assert told["ending"] == "time over"
    assert 0.3 <= told["seconds"] < 60
    assert [each["name"] for each in told["interfaces"]] == ["a:lan", "b:lan"]


def test_a_pipe_is_fed_while_packets_come(lab: Any, name: str, labelled: Lab) -> None:
    """tshark prints a line for each packet at once; when it ends, so does the capture."""
    with (
        labelled["a"].start(["ping", "-i0.05", "192.0.2.2"]),
        lab.start("capture", "--lab", name, "a", "-w", "-", "--filter", "icmp", text=False) as process,
        subprocess.Popen(
            ["tshark", "-l", "-n", "-r", "-"], stdin=process.stdout, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as shark,
    ):
        process.stdout.close()
        assert shark.stdout is not None
        assert "192.0.2.1 → 192.0.2.2" in shark.stdout.readline().decode()
        shark.kill()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""


def test_with_a_pipe_the_summary_is_a_complaint(lab: Any, name: str) -> None:
    process = lab.start("capture", "--lab", name, "a", "-w", "-", "--for", "10ms", text=False)
    said, complaints = process.communicate(timeout=60)
    assert said[:4] == b"\x0a\x0d\x0d\x0a"
    assert complaints.startswith(b"INTERFACE")


def test_on_a_terminal_it_shows_how_far_it_is_and_wipes_that(
    lab: Any, name: str, labelled: Lab, tmp_path: Path
) -> None:
    terminal, far = pty.openpty()
    file = tmp_path / "a.pcapng"
    with lab.start("capture", "--lab", name, "a", "-w", file, stderr=far) as process:
        os.close(far)
        begun(file)
        shown = b""
        ping(labelled)
        while not re.search(rb"Ctrl-C ends it: [1-9][0-9]* packets, [0-9]+ bytes", shown):
            shown += os.read(terminal, 1000)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    with contextlib.suppress(OSError):  # EIO tells that all has been read (pty(7))
        while block := os.read(terminal, 1 << 16):
            shown += block
    os.close(terminal)
    assert shown.endswith(b"\r\033[K")


def test_when_the_lab_ends_so_does_the_capture(lab: Any, up: Callable[..., str], tmp_path: Path) -> None:
    own = up(TOPOLOGY)
    file = tmp_path / "a.pcapng"
    with (
        lab.start("capture", "--lab", own, "-w", file) as process,
        lab.start("capture", "--lab", own, "-w", tmp_path / "b", "--count", "100000") as counting,
    ):
        begun(file)
        begun(tmp_path / "b")
        lab("down", own, code=0)
        _, complaints = process.communicate(timeout=60)
        _, more = counting.communicate(timeout=60)
    assert (process.returncode, complaints) == (0, "lab: note: the interfaces are gone; the lab has ended?\n")
    assert (counting.returncode, more) == (1, "lab: error: the interfaces are gone; the lab has ended?\n")
    types(file)


def test_an_interface_that_goes_down_first_and_then_away_is_gone(
    lab: Any, name: str, labelled: Lab, tmp_path: Path
) -> None:
    def link(words: str) -> None:
        labelled["a"].run(["ip", "link", *words.split()], check=True)

    link("add t0 type veth peer name t1")
    link("set t0 up")
    with lab.start("capture", "--lab", name, "a:t0", "-w", tmp_path / "a") as process:
        begun(tmp_path / "a")
        link("set t0 down")
        link("set t0 up")
        link("set t0 down")
        link("delete t0")
        _, complaints = process.communicate(timeout=60)
    assert (process.returncode, complaints) == (0, "lab: note: the interfaces are gone; the lab has ended?\n")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["b:lam", "-w", "a"], "b has no interface 'lam'; did you mean 'lan'"),
        (["lna", "-w", "a"], "nothing is called 'lna' in lab .*; did you mean 'lan'"),
        (["a", "-w", "no/a"], "no/a: there is no folder no; make it"),
        (["a", "-w", "."], "Is a directory; name a file"),
        (["a", "-w", "a", "--filter", "tcp prt 1"], "filter 'tcp prt 1': can't parse filter"),
        (["a", "-w", "a", "--for", "10"], "--for: '10'; a duration with its unit"),
        (["a", "-w", "a", "--count", "0"], "--count: '0' is not a whole number above 0"),
        (["a", "-w", "a", "--snaplen", "-1"], "--snaplen"),
        (["a"], "-w"),
        (["a", "-w", "-", "--json"], "--json and -w - both want the standard output"),
    ],
)
def test_wrong_words_are_told_and_nothing_is_written(
    lab: Any, name: str, tmp_path: Path, words: list[str], text: str
) -> None:
    done = lab("capture", "--lab", name, *words, code=2, cwd=tmp_path, env={"PYTHONPATH": str(Path.cwd())})
    assert re.search(text, done.stderr), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_capture_is_not_shown_on_a_terminal(lab: Any, name: str) -> None:
    terminal, far = pty.openpty()
    done = lab("capture", "--lab", name, "a", "-w", "-", code=2, stdout=far)
    os.close(far)
    os.close(terminal)
    assert "add `| tshark -r -`, or name a file" in done.stderr


def test_a_file_that_exists_is_not_emptied_for_a_wrong_filter(lab: Any, name: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("dear")
    lab("capture", "--lab", name, "a", "-w", tmp_path / "a", "--filter", "tcp prt", code=2)
    assert (tmp_path / "a").read_text() == "dear"


def test_a_full_disk_is_told_and_leaves_whole_packets(lab: Any, name: str, labelled: Lab, tmp_path: Path) -> None:
    file = tmp_path / "a.pcapng"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    with lab.start("capture", "--lab", name, "a", "-w", file, preexec_fn=limit) as process:
        begun(file)
        ping(labelled, 100)
        _, complaints = process.communicate(timeout=60)
    assert process.returncode == 1
    assert complaints == f"lab: error: File too large; what came before is in the file, whole: {file}\n"
    assert len(types(file)) > 10
    done = lab("capture", "--lab", name, "a", "-w", "/dev/full", code=1)
    mend = "free some space, or keep less with --filter or --snaplen"
    assert done.stderr == f"lab: error: No space left on device; {mend}: /dev/full\n"


def test_snaplen_cuts_packets(lab: Any, name: str, labelled: Lab, tmp_path: Path) -> None:
    file = tmp_path / "a.pcapng"
    words = ["capture", "--lab", name, "a", "-w", file, "--filter", "icmp", "--count", "2", "--snaplen", "50"]
    with lab.start(*words) as process:
        begun(file)
        ping(labelled)
        process.communicate(timeout=60)
    shown = ["tshark", "-r", str(file), "-T", "fields", "-e", "frame.cap_len", "-e", "frame.len"]
    assert subprocess.run(shown, capture_output=True, text=True, check=True).stdout == "50\t98\n" * 2


def test_help_ends_with_an_example(lab: Any) -> None:
    said = lab("capture", "--help", code=0).stdout
    assert "lab capture nas:home vps-a -w door.pcapng" in said
    assert "| tshark -r -" in said
