"""natbox as a program: signals, timers, privileges, errors, and what happens without it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest

from lab import wait_until
from lab.realise.lab import Lab
from tests.nat.conftest import CONFIG, EAST, OUTSIDE, SOCKET, NatBox, Translate

NET_ADMIN = 1 << 12  # capabilities(7)
NOBODY = "65534"
FULL_CONE = f"""
#   alice -- router (full cone, which only natbox is) -- internet -- east
networks: {{internet: {{prefixes: [198.51.100.0/24]}}, home: {{prefixes: [192.168.1.0/24]}}}}
nodes:
  east: {{links: {{internet: {EAST}}}}}
  router: {{role: router, links: {{internet: {OUTSIDE}, home: auto}}, nat: {{outside: internet, preset: full_cone}}}}
  alice: {{links: {{home: auto}}}}
"""
# Asks, and then reads no further.
STANDING_READER = """
import socket, sys
with socket.socket(socket.AF_UNIX) as asked:
    asked.connect(sys.argv[1])
    asked.recv(1)
    print("asked", flush=True)
    input()
"""

pytestmark = pytest.mark.essential


def ask_server(lab: Lab) -> None:
    with lab["east"].udp(7000) as server, lab["alice"].udp(4000) as client:
        client.sendto(b"?", (EAST, 7000))
        assert server.recvfrom(100) == (b"?", (OUTSIDE, 4000))


def test_a_mapping_ends_by_its_timer(lab: Lab, natbox: Translate) -> None:
    with natbox(timers={"udp": 10}) as nat:
        ask_server(lab)
        assert nat.mappings("udp") == {"192.168.1.10:4000": f"{OUTSIDE}:4000"}
        wait_until(lambda: not nat.mappings("udp"), 30, "the end of the mapping")


def test_hangup_forgets_mappings_and_nothing_else(lab: Lab, natbox: Translate) -> None:
    forward = {"protocol": "tcp", "port": 443, "to": "192.168.1.10"}
    with natbox(forwards=[forward]) as nat:
        ask_server(lab)
        assert nat.mappings("udp")
        nat.process.send_signal(signal.SIGHUP)
        wait_until(lambda: not nat.mappings("udp"), 30, "forgetting")
        assert [mapping["outside"] for mapping in nat.table()["mappings"]] == [f"{OUTSIDE}:443"]
        ask_server(lab)


def test_it_keeps_one_capability_and_is_nobody(lab: Lab, natbox: Translate) -> None:
    with natbox(tcp_unsolicited="reset") as nat:
        lines = lab["router"].read(f"/proc/{nat.process.pid}/status").decode().splitlines()
        status = {key: value.split() for key, value in (line.split(":", 1) for line in lines if ":" in line)}
        for kind in ("CapEff", "CapPrm"):
            assert int(status[kind][0], 16) == NET_ADMIN
        for kind in ("CapInh", "CapAmb", "CapBnd"):
            assert int(status[kind][0], 16) == 0
        assert status["NoNewPrivs"] == ["1"]
        ids = lab["router"].read(f"/proc/{nat.process.pid}/uid_map").decode().split()
        if ids[-1] != "1":
            assert set(status["Uid"]) == {NOBODY}
            assert set(status["Gid"]) == {NOBODY}


def test_a_second_one_on_the_same_queues_is_refused(lab: Lab, natbox: Translate) -> None:
    with natbox():
        second = lab["router"].run(["natbox", "run", CONFIG])
        assert second.returncode == 3
        assert "packet queue 0" in second.stderr
        ask_server(lab)


def test_without_it_nothing_passes(lab: Lab, natbox: Translate) -> None:
    with natbox():
        ask_server(lab)
    with lab["east"].udp(7000, timeout=0.2) as server, lab["alice"].udp(4000) as client:
        client.sendto(b"?", (EAST, 7000))
        with pytest.raises(TimeoutError):
            server.recvfrom(100)


def test_it_starts_again_where_it_was_killed(lab: Lab, natbox: Translate) -> None:
    """Its socket is still in the way then, and its queues are free."""
    with natbox() as nat:
        nat.process.kill()
        assert nat.process.wait(30) == -signal.SIGKILL
        with lab["router"].start(["natbox", "run", CONFIG, SOCKET], stdout=subprocess.PIPE) as again:
            assert again.stdout is not None
            assert again.stdout.readline() == "natbox: ready\n"
            ask_server(lab)
            assert nat.mappings("udp")


def test_a_lab_that_needs_it_finds_it_beside_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    file = tmp_path / "cone.yaml"
    file.write_text(FULL_CONE)
    with Lab.up(file, name=f"cone-{os.getpid()}") as lab:
        assert [(service["service"], service["state"]) for service in lab.services()] == [("nat", "ready")]
        with lab["east"].udp(7000) as server, lab["alice"].udp(4000) as client:
            client.sendto(b"?", (EAST, 7000))
            assert server.recvfrom(100) == (b"?", (OUTSIDE, 4000))


@pytest.mark.parametrize(
    ("command", "config", "status", "said"),
    [
        ("check", {"mapping": "cone"}, 2, "unknown variant `cone`"),
        ("rules", {"outside": {"interface": "internet", "addresses": []}}, 2, "outside.addresses: an empty list"),
        ("run", {"outside": {"interface": "nowhere", "addresses": [OUTSIDE]}}, 2, 'no interface "nowhere"'),
        ("check", {}, 0, ""),
    ],
)
def test_wrong_configurations(lab: Lab, command: str, config: dict[str, object], status: int, said: str) -> None:
    whole = {"outside": {"interface": "internet", "addresses": [OUTSIDE]}} | config
    lab["router"].run(["tee", "/run/wrong.json"], input=json.dumps(whole), check=True)
    done = lab["router"].run(["natbox", command, "/run/wrong.json"])
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr


def test_a_question_that_nobody_answers(lab: Lab) -> None:
    asked = lab["router"].run(["natbox", "table", "/run/nobody.sock"])
    assert asked.returncode == 1
    assert "/run/nobody.sock" in asked.stderr


def test_who_asks_for_the_table_and_does_not_read_it_holds_nobody_up(lab: Lab, natbox: Translate) -> None:
    with natbox(filtering="endpoint_independent") as nat:
        with lab["alice"].udp(4000) as client:
            for first in range(10_000, 14_000, 500):  # more at once would not find room in the packet queue
                for port in range(first, first + 500):
                    client.sendto(b"?", (EAST, port))
                most = first + 500 - 10_000
                wait_until(partial(has_sessions, nat, most * 19 // 20), 30, "natbox has read them")
        assert has_sessions(nat, 3500)  # longer than a socket's buffer
        with contextlib.ExitStack() as readers:
            for _ in range(6):
                argv = ["python3", "-c", STANDING_READER, SOCKET]
                reader = readers.enter_context(lab["router"].start(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
                assert reader.stdout is not None
                assert reader.stdout.readline() == "asked\n"
                ask_server(lab)
            assert nat.table()["mappings"]  # and others have their answers


def has_sessions(nat: NatBox, count: int) -> bool:
    """Whether the first mapping, if there is one yet, has so many."""
    return any(len(mapping["sessions"]) >= count for mapping in nat.table()["mappings"][:1])
