"""The examination as a whole: quick, traceless, never an exception, and each finding fit for a table."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.errors import ExitCode, HostError
from lab.host import Feature, Finding, Status, examine, refusal, required

ROOT = Path(__file__).resolve().parents[2]
IN_TIME = 60.0  # seconds that an examination may take in which something hangs, for an hour if it is let
SLEEP = f"sleep 3600.{os.getpid()}"  # told from those of other test runs
LEAVES = """
import json, os
from lab.host import examine
def traces():
    return {
        "processes": sorted(name for name in os.listdir("/proc") if name.isdigit()),
        "mounts": open("/proc/self/mountinfo").read(),
        "links": [line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line],
        "descriptors": sorted(os.listdir("/proc/self/fd")),
    }
traces()
before = traces()
examine()
print(json.dumps([before, traces()]))
"""
REPEATS = """
import time
from lab.host import Status, examine
ended, deadline = 0, time.monotonic() + 240
while ended < 10 and time.monotonic() < deadline:  # a network namespace is freed some time after its last process
    ended += not any("No space left" in each.found for each in examine())
print(ended)
"""

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="prepares the host as root")


@pytest.mark.essential
@pytest.mark.single_id
def test_this_host_brings_up_a_homelab(healthy: Any) -> None:
    assert required(healthy.values()) == []


@pytest.mark.essential
@pytest.mark.single_id
def test_each_finding_fits_a_line_and_says_how_to_mend_it(healthy: Any) -> None:
    assert len(healthy) > 20
    for each in healthy.values():
        assert "\n" not in each.found + each.mend
        assert each.found
        assert each.features
        assert bool(each.mend) == (each.status in (Status.LIMITED, Status.MISSING)), each


@pytest.mark.essential
@pytest.mark.single_id
@pytest.mark.alone  # it measures time
def test_it_takes_less_than_one_and_a_half_seconds(healthy: Any) -> None:
    """One of ten, for a busy machine."""
    seconds = [healthy.seconds]
    while len(seconds) < 10 and min(seconds) >= 1.5:
        began = time.monotonic()
        examine()
        seconds.append(time.monotonic() - began)
    assert min(seconds) < 1.5, seconds


@pytest.mark.alone  # it measures time
def test_the_package_is_imported_fast() -> None:
    program = "import time; t = time.process_time(); import lab.host; print((time.process_time() - t) * 1000)"
    times = [
        float(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout) for _ in range(5)
    ]
    assert min(times) < 60  # any of the heavy packages takes more


@pytest.mark.essential
@pytest.mark.single_id
def test_nothing_is_left_behind() -> None:
    """In namespaces of its own, so that nobody else's traces are counted."""
    enter = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--mount-proc"]
    before, after = json.loads(run_in(enter, LEAVES))
    assert before["links"] == ["lo"]
    assert before["processes"] == ["1"]
    assert before["mounts"]
    assert after == before


@pytest.mark.essential
@pytest.mark.single_id
def test_each_namespace_is_given_back() -> None:
    """Under a limit of 40 network namespaces, 10 examinations of 13 each come to their end."""
    limited = "for kind in net mnt pid uts ipc; do echo 40 > /proc/sys/user/max_${kind}_namespaces; done"
    enter = ["unshare", "--user", "--map-root-user", "sh", "-euc", f'{limited}; exec "$@"', "sh"]
    assert json.loads(run_in(enter, REPEATS)) == 10


@root_only
def test_a_program_that_hangs_is_a_finding(host: Any, tmp_path: Path) -> None:
    write_program(tmp_path / "nginx", f"exec {SLEEP}")
    examined = host.examine(before=f"env PATH={tmp_path}:$PATH")
    stream = examined["nginx stream module"]
    assert stream.status is Status.MISSING
    assert "did not end within" in stream.found
    assert examined.seconds < IN_TIME
    wait_for(lambda: not sleeping())


@root_only
def test_a_trial_that_gives_no_answer_at_all_is_a_finding(host: Any, tmp_path: Path) -> None:
    write_program(tmp_path / "nft", f"kill -STOP $PPID; {SLEEP} & {SLEEP} & wait; wait")
    write_program(tmp_path / "nginx", f"kill -STOP $PPID; {SLEEP} & wait")
    examined = host.examine(before=f"env PATH={tmp_path}:$PATH")
    assert examined["nginx stream module"].status is Status.MISSING
    assert "no answer in time" in examined["nginx stream module"].found
    assert examined["nftables"].status is Status.MISSING
    assert examined.seconds < IN_TIME
    wait_for(lambda: not sleeping())


@root_only
def test_a_killed_examination_leaves_no_program(tmp_path: Path) -> None:
    write_program(tmp_path / "nginx", f"kill -STOP $PPID; exec {SLEEP}")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", "from lab.host import examine; examine()"], env=environment
    ) as process:
        wait_for(sleeping)
        process.kill()
    wait_for(lambda: not sleeping())


@root_only
def test_a_trial_that_dies_is_a_finding(host: Any, tmp_path: Path) -> None:
    write_program(tmp_path / "nginx", "kill -KILL $PPID")
    stream = host.examine(before=f"env PATH={tmp_path}:$PATH")["nginx stream module"]
    assert stream.status is Status.MISSING
    assert f"signal {int(signal.SIGKILL)}" in stream.found


def a_finding(status: Status, *, main_job: bool, feature: Feature = Feature.NAT) -> Finding:
    return Finding("nftables", (feature,), status, "not there", "sudo apt-get install nftables", main_job)


def test_only_what_is_missing_and_required_stops_the_main_job() -> None:
    stops = a_finding(Status.MISSING, main_job=True)
    others = [a_finding(status, main_job=True) for status in Status if status is not Status.MISSING]
    assert required([stops, *others, a_finding(Status.MISSING, main_job=False)]) == [stops]


def test_a_lab_is_stopped_by_what_its_own_features_need() -> None:
    tap = a_finding(Status.MISSING, main_job=False, feature=Feature.IMPAIRMENT)
    assert required([tap], {Feature.IMPAIRMENT, Feature.LABS}) == [tap]
    assert required([a_finding(Status.MISSING, main_job=True)], {Feature.LABS}) == []


def test_the_refusal_says_what_is_missing_and_how_to_mend_it() -> None:
    error = refusal([a_finding(Status.MISSING, main_job=True)])
    assert isinstance(error, HostError)
    assert error.exit_code is ExitCode.HOST_NOT_ABLE
    assert "nftables: not there" in str(error)
    assert "sudo apt-get install nftables" in str(error)


def sleeping() -> bool:
    """Whether a program of this test run still sleeps."""
    return SLEEP in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline


def write_program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def run_in(enter: list[str], program: str) -> str:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [*enter, sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
