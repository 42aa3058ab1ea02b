"""What programs of a node do to the lab's files, memory and process 1 does not end the lab."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lab.errors import LabError
from lab.realise.asking import wait_until
from lab.realise.lab import Lab

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

LOGS = "/run/lab/log"
# Says something and crashes, again and again, once a certain file is there.
CRASHING = "echo a line of the log; while [ ! -e /tmp/end ]; do sleep 0.01; done; exit 1"
# Floods its log once a file named `go` is there; its log is cut when it is too long (lab.realise.service_files).
FLOODING = "while [ ! -e go ]; do sleep 0.01; done; yes 'a line of the flood' | head -c 20000000; exec sleep 1000"
TOPOLOGY: dict[str, Any] = {
    "networks": {"lan": {"prefixes": ["192.0.2.0/24"]}},
    "nodes": {
        "a": {
            "links": {"lan": "auto"},
            "services": {
                "crashing": {"run": ["sh", "-c", CRASHING], "restart": "always"},
                "steady": {"run": "sleep 1000"},
            },
        },
        "b": {"links": {"lan": "auto"}, "services": {"flooding": {"run": ["sh", "-c", FLOODING]}}},
    },
}
ENOUGH_LIVES = 3


@pytest.fixture
def lab(up: Callable[..., Lab]) -> Iterator[Lab]:
    found = up(TOPOLOGY)
    yield found
    assert state(found, "steady")["state"] == "ready"
    assert found["b"].run(["hostname"]).stdout == "b\n"


def state(lab: Lab, service: str) -> dict[str, Any]:
    (found,) = [each for each in lab.services() if each["service"] == service]
    return found


def shell(lab: Lab, script: str, node: str = "a") -> None:
    lab[node].run(["sh", "-euc", script], check=True)


def let_it_crash(lab: Lab) -> None:
    """Let the service end until it was started again some times, or was given up."""
    shell(lab, "touch /tmp/end")
    wait_until(lambda: has_had_its_lives(lab), 60, "the service ended and was started again some times")


def has_had_its_lives(lab: Lab) -> bool:
    now = state(lab, "crashing")
    return bool(now["restarts"] >= ENOUGH_LIVES or now["state"] in ("failed", "ended"))


def let_the_logs_be_cut(lab: Lab) -> None:
    """Wait until the supervisor has looked at the sizes of all logs."""
    shell(lab, "touch /run/lab/services/flooding/go", "b")
    wait_until(lambda: "older lines were cut" in lab["b"].log("flooding")[:200], 60, "a log that is too long was cut")


SPOILT = {
    "the folder is gone": f"rm -rf {LOGS}",
    "the folder is a file": f"rm -rf {LOGS}; touch {LOGS}",
    "the folder is a loop": f"rm -rf {LOGS}; ln -s log {LOGS}",
    "the log is gone": f"rm {LOGS}/crashing.log",
    "the log is a folder": f"rm {LOGS}/crashing.log; mkdir {LOGS}/crashing.log",
    "the log is a pipe": f"rm {LOGS}/crashing.log; mkfifo {LOGS}/crashing.log",
    "the log is a loop": f"ln -sf crashing.log {LOGS}/crashing.log",
    "the log is a device": f"ln -sf /dev/zero {LOGS}/crashing.log",
    "the state folder is gone": "rm -rf /run/lab",
    "the service's folder is a loop": "rm -rf /run/lab/services; ln -s services /run/lab/services",
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_node_may_spoil_its_logs(lab: Lab, spoil: str) -> None:
    shell(lab, f"touch /tmp/end; {spoil}")
    let_the_logs_be_cut(lab)
    wait_until(lambda: has_had_its_lives(lab), 60, "the service ended and was started again some times")
    # Opening a pipe that nobody writes to would hold up everyone.
    with suppress(LabError, OSError):
        lab.open_log("a", "crashing").close()


@pytest.mark.parametrize("length", [10, 17 * 1024 * 1024], ids=["short", "long enough to be cut"])
def test_a_log_that_is_a_link_to_a_file_of_the_host_is_not_followed(lab: Lab, tmp_path: Path, length: int) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious\n" + b"." * length)
    before = precious.stat()
    shell(lab, f"ln -sf {precious} {LOGS}/crashing.log")
    let_the_logs_be_cut(lab)
    let_it_crash(lab)
    after = precious.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert precious.read_bytes() == b"precious\n" + b"." * length
    with suppress(LabError, OSError):
        assert "precious" not in lab.log("a", "crashing")


def test_a_folder_of_logs_that_is_a_link_to_one_of_the_host_is_not_followed(lab: Lab, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    kept = precious / "steady.log"
    kept.write_bytes(b"precious\n" + b"." * (17 * 1024 * 1024))
    shell(lab, f"rm -rf {LOGS}; ln -s {precious} {LOGS}")
    let_the_logs_be_cut(lab)
    let_it_crash(lab)
    assert list(precious.iterdir()) == [kept]
    assert kept.stat().st_size == 9 + 17 * 1024 * 1024
    for service in ("steady", "crashing"):
        with suppress(LabError, OSError):
            assert "precious" not in lab.log("a", service)


# What is left to the flood, so that its log gets long enough to be cut while nothing is free.
LEFT = 18 * 1024 * 1024
FILL = f"free=$(df -B1 --output=avail /tmp | tail -n 1); fallocate -l $((free - {LEFT})) /tmp/full"
# Takes whatever gets free, such as what the cutting of a log frees before it writes the rest back.
GREED = "trap '' XFSZ; while :; do cat /dev/zero >> /tmp/greed 2>/dev/null; done"


@pytest.fixture
def full(lab: Lab) -> Iterator[Lab]:
    """A lab whose memory file system is full and stays so."""
    free = int(lab["b"].run(["df", "-B1", "--output=avail", "/tmp"], check=True).stdout.split()[-1])
    available = int(re.findall(r"MemAvailable: *(\d+)", Path("/proc/meminfo").read_text())[0]) * 1024
    if available < 2 * free:
        pytest.skip(f"filling the lab's memory file system takes {free >> 20} MiB, of {available >> 20} MiB available")
    shell(lab, FILL, "b")
    try:
        yield lab
    finally:
        with suppress(LabError, OSError):
            lab["b"].run(["sh", "-c", "rm -f /tmp/full /tmp/greed"])


def nothing_fits(lab: Lab) -> bool:
    return lab["a"].run(["sh", "-c", "head -c 100000 /dev/zero > /tmp/more"]).returncode != 0


def test_a_full_memory_file_system_does_not_end_the_lab(full: Lab) -> None:
    shell(full, "touch /run/lab/services/flooding/go", "b")
    with full["b"].start(["sh", "-c", GREED]):
        wait_until(lambda: nothing_fits(full), 60, "the memory file system is full")
        let_it_crash(full)
        for _ in range(20):
            assert state(full, "steady")["state"] == "ready"
        wait_until(lambda: nothing_fits(full), 60, "what had got free is taken again")
    shell(full, "rm -f /tmp/full /tmp/greed", "b")
    wait_until(lambda: not nothing_fits(full), 30, "there is room again")
    assert full["a"].run(["cat"], input="x" * 1_000_000).stdout == "x" * 1_000_000


def test_signals_from_a_node_do_not_end_process_one(lab: Lab) -> None:
    """The kernel spares process 1 what it has no handler for (pid_namespaces(7))."""
    for number in range(1, signal.NSIG):
        lab["a"].run(["/bin/kill", f"-{number}", "1"])
        assert lab.services()
    assert lab["a"].run(["/bin/kill", "-TERM", "1"]).returncode == 0


def test_a_node_that_kills_all_it_can_does_not_end_the_lab(up: Callable[..., Lab]) -> None:
    lab = up(TOPOLOGY)
    with suppress(OSError, LabError):
        lab["a"].run(["sh", "-c", "kill -KILL -1"])
    wait_until(lambda: state(lab, "steady")["state"] in ("ended", "failed"), 30, "its services were ended too")
    wait_until(lambda: state(lab, "crashing")["state"] == "ready", 30, "what restarts has been started again")
    assert lab["b"].run(["hostname"]).stdout == "b\n"
