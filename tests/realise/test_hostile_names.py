"""Who takes a lab's name, or loses its connection: commands answer in time, and `down` ends what it is asked to end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.errors import LabError
from lab.realise import registry
from lab.realise.asking import wait_until
from lab.realise.lab import Lab

ROOT = Path(__file__).resolve().parents[2]
TOPOLOGY = "nodes: {a: {services: {sleeper: {run: sleep 1000}}}}"
IN_TIME = {"ps": 30.0, "ps --json": 30.0}  # seconds, where names are met that nobody answers for
IN_TIME_FOR_ONE = 40.0  # the same for a command that asks for just such a name

# Runs in a network namespace of its own, which has abstract names of its own too (unix(7)): no other test is disturbed.
WITNESS = """
import json, subprocess, sys, time
from pathlib import Path
from lab.errors import LabError
from lab.realise.lab import Lab

python, file, evil, own = sys.argv[1:]
squatter = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c", evil]
found = {}
with Lab.up(Path(file), name=own), subprocess.Popen(squatter, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as taken:
    assert taken.stdout.readline() == b"taken\\n"
    for words in (["ps"], ["ps", "--json"], ["exec", "--lab", own, "a", "--", "hostname"], ["down", "evil-0"]):
        began = time.monotonic()
        command = [python, "-m", "lab.cli.main", *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
            said, code = done.stdout + done.stderr, done.returncode
        except subprocess.TimeoutExpired:
            said, code = "it hung", None
        found[" ".join(words[:2])] = [time.monotonic() - began, code, said]
    began = time.monotonic()
    try:
        Lab("evil-0")
        said = "it was believed"
    except (LabError, OSError) as error:
        said = str(error)
    found["Lab"] = [time.monotonic() - began, 0, said]
    taken.kill()
print(json.dumps(found))
"""
# Takes names of root's labs, listens with no room, and fills what room there is, so that a connection waits for ever;
# or, without listening, has a name that nobody answers for; or lets in and says nothing.
SQUATTERS = {
    "full": """
import socket, sys
held = []
for number in range(3):
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    door.bind(f"\\0homelab-lab/0/evil-{number}")
    door.listen(0)
    held.append(door)
    try:
        while True:
            client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            held.append(client)
            client.setblocking(False)
            client.connect(f"\\0homelab-lab/0/evil-{number}")
    except BlockingIOError:
        pass
print("taken", flush=True)
sys.stdin.read()
""",
    "silent": """
import socket, sys
held = []
for number in range(3):
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    door.bind(f"\\0homelab-lab/0/evil-{number}")
    door.listen(100)
    held.append(door)
print("taken", flush=True)
sys.stdin.read()
""",
    "bound": """
import socket, sys
held = []
for number in range(3):
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    door.bind(f"\\0homelab-lab/0/evil-{number}")
    held.append(door)
print("taken", flush=True)
sys.stdin.read()
""",
    "newline": """
import socket, sys
held = []
for name in ("evil-0", "evil\\n-1", "evil-\\x1b[31m2", "evil-\\xff".encode("latin-1"), "evil-0/x", ""):
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    prefix = "\\0homelab-lab/0/"
    door.bind(prefix.encode() + name if isinstance(name, bytes) else prefix + name)
    door.listen(1)
    held.append(door)
print("taken", flush=True)
sys.stdin.read()
""",
}


@pytest.mark.root
@pytest.mark.parametrize("kind", SQUATTERS)
def test_another_user_who_takes_names_holds_up_no_command(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / "t.yaml").write_text(TOPOLOGY)
    words = [sys.executable, "-c", WITNESS, sys.executable, str(tmp_path / "t.yaml"), SQUATTERS[kind], name]
    done = subprocess.run(
        ["unshare", "--net", *words], cwd=ROOT, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[Any]] = json.loads(done.stdout)
    late = {what: each[0] for what, each in found.items() if each[0] > IN_TIME.get(what, IN_TIME_FOR_ONE)}
    assert late == {}
    assert {what: said for what, (_, _, said) in found.items() if "Traceback" in said} == {}
    for listing in ("ps", "ps --json"):
        _, code, said = found[listing]
        assert code == 0, said
        assert name in said
        assert "\x1b[31m" not in said
    assert found["exec --lab"][1:] == [0, "a\n"]
    assert found["down evil-0"][1] not in (0, None)
    assert found["Lab"][2] != "it was believed"


BROKEN: dict[str, Callable[[Lab], object]] = {
    "a bad packet": lambda lab: lab._channel.send(b"garbage"),
    "an empty packet": lambda lab: lab._channel.send(b""),
    "a shut socket": lambda lab: lab._channel.shutdown(2),
}


@pytest.mark.essential
@pytest.mark.single_id
@pytest.mark.parametrize("kernel", ["new", "old"])
@pytest.mark.parametrize("way", BROKEN)
def test_down_ends_a_lab_though_the_handles_connection_broke(
    up: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch, way: str, kernel: str
) -> None:
    if kernel == "old":  # before Linux 6.5
        monkeypatch.setattr(registry, "SO_PEERPIDFD", 32767)  # an option that no kernel knows
    lab = up(TOPOLOGY)
    supervisor = registry.supervisor_of(lab._channel)
    BROKEN[way](lab)
    lab.down()
    try:
        assert lab.name not in registry.names()
        assert not lives(supervisor)
    finally:
        end_for_sure(lab.name)


@pytest.mark.essential
@pytest.mark.single_id
def test_leaving_a_with_block_ends_a_lab_though_its_connection_broke(up: Callable[..., Lab]) -> None:
    name = up(TOPOLOGY).name
    with Lab(name) as lab:
        lab._channel.send(b"garbage")
        wait_until(lambda: is_broken(lab), 30, "the supervisor hung up")
    try:
        assert name not in registry.names()
    finally:
        end_for_sure(name)


def is_broken(lab: Lab) -> bool:
    try:
        lab.services()
    except (OSError, LabError):
        return True
    return False


def lives(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def end_for_sure(name: str) -> None:
    if name in registry.names():
        Lab(name).down()


@pytest.mark.essential
@pytest.mark.single_id
def test_down_of_a_lab_that_ended_does_not_end_its_successor(up: Callable[..., Lab]) -> None:
    """Its name may belong to another lab by then."""
    first = up(TOPOLOGY)
    other = Lab(first.name)
    other.down()
    options: dict[str, Any] = {"name": first.name}
    second = up(TOPOLOGY, **options)
    first.down()
    assert first._channel.fileno() == -1, "an open socket would be a warning in some other test"
    assert second.services()[0]["state"] == "ready"
